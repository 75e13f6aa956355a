"""The seven benchmarks of the paper, as facts: where lmms-eval and the hub have them, how large they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class BenchmarkFacts:
    """A benchmark of lmms-eval.

    Args:
        title: as the paper writes it.
        dataset: `org/name` on the Hugging Face hub.
        folder: below `lmms_eval/tasks`.
        size: questions that it has, for estimates.
    """

    title: str
    dataset: str
    folder: str
    size: int


#: Task of lmms-eval, or its group → what is known of it, in the paper's order.
BENCHMARKS: Final[dict[str, BenchmarkFacts]] = {
    "mmstar": BenchmarkFacts("MMStar", "Lin-Chen/MMStar", "mmstar", 1_500),
    "realworldqa": BenchmarkFacts("RealWorldQA", "lmms-lab-encoder/RealWorldQA", "realworldqa", 765),
    "mmerealworld": BenchmarkFacts("MME-RealWorld", "yifanzhang114/MME-RealWorld-Lmms-eval", "mme_realworld", 23_609),
    "blink": BenchmarkFacts("BLINK", "BLINK-Benchmark/BLINK", "blink", 1_901),
    "mantis": BenchmarkFacts("Mantis-Eval", "TIGER-Lab/Mantis-Eval", "mantis", 217),
    "hallusion_bench_image": BenchmarkFacts(
        "HallusionBench", "lmms-lab-encoder/HallusionBench", "hallusion_bench", 951
    ),
    "crpe_relation": BenchmarkFacts("CRPE (relation)", "nv-njb/CRPE", "crpe_relation", 7_576),
}
