"""Made-up evaluations with the statistics of the real one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from viper.evaluation import statistics
from viper.evaluation.benchmarks import Verdict
from viper.evaluation.summary import benchmark_comparisons, benchmark_scores
from viper.spec.benchmarks import BENCHMARKS

DOMAINS = {"coarse perception": 100, "fine-grained perception": 600, "math": 100, "logical reasoning": 100}


def evaluation(shares: Mapping[str, float], trained: Sequence[str] = ("theta1", "theta2")) -> dict[str, Any]:
    """`outputs` of an evaluation in which every model answers about `shares[model]` of the questions correctly.

    The same questions stay easy for every model: a better one answers what a worse one answers, and more; one in
    eight verdicts is luck.
    """
    verdicts: dict[str, dict[str, tuple[str, bool]]] = {}
    for name, share in shares.items():
        hardness, luck = random.Random("questions"), random.Random(f"{share:.3f}")
        verdicts[name] = {}
        for k, (domain, n) in enumerate(DOMAINS.items()):
            for i in range(n):
                hard, lucky = hardness.random(), luck.random()
                value = luck.random() if lucky < 0.125 else hard
                verdicts[name][f"{domain}-{i}"] = (domain, value < share + 0.05 * k)
    return {
        "scores": {name: statistics.scores(v) for name, v in verdicts.items()},
        "comparisons": {
            f"{after}-{before}": statistics.comparisons(verdicts[before], verdicts[after])
            for before in ("theta0", "base")
            for after in trained
            if before in verdicts and after in verdicts
        },
    }


MMSTAR_DOMAINS = ("coarse perception", "math")
ASKED = 120


def benchmarks(shares: Mapping[str, float], judge: str = "rules") -> dict[str, Any]:
    """`outputs.benchmarks` of an evaluation in which a model answers about `shares[model]` of every benchmark."""
    answered: dict[str, dict[str, dict[str, Verdict]]] = {}
    for model, share in shares.items():
        answered[model] = {task: _verdicts(task, share + 0.02 * k) for k, task in enumerate(BENCHMARKS)}
    tasks: dict[str, dict[str, Any]] = {
        t: {
            "n": ASKED,
            "digest": "d" * 64,
            "version": "0.7.3+abc",
            "dataset": BENCHMARKS[t].dataset,
            "data": "sha256:1",
        }
        for t in BENCHMARKS
    }
    tasks["hallusion_bench_image"]["judge"] = judge
    notes = {t: {"truncated": 0, "unanswered": 0} for t in BENCHMARKS}
    pairs = [(a, b) for b in ("theta0", "base") for a in ("theta1", "theta2") if {a, b} <= answered.keys()]
    return {
        "tasks": tasks,
        "max_tokens": 4096,
        "instruction": "",
        "scores": {m: benchmark_scores(a, notes) for m, a in answered.items()},
        "comparisons": {f"{a}-{b}": benchmark_comparisons(answered[b], answered[a]) for a, b in pairs},
    }


def _verdicts(task: str, share: float) -> dict[str, Verdict]:
    hardness = random.Random(task)
    found = {}
    for i in range(ASKED):
        domain = MMSTAR_DOMAINS[i % 2] if task == "mmstar" else ""
        groups, cluster = ((), "") if "hallusion" not in task else ((f"q:{i // 2}", f"f:{i // 4}"), str(i // 4))
        found[f"{task}/{i}"] = Verdict(hardness.random() < share, "A", domain, groups=groups, cluster=cluster)
    return found
