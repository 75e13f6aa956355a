"""What is asked of the checkpoints of an iteration, and when their answers hold a promotion."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from viper.extensions import written
from viper.spec.base import SpecModel, setting
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.forms import DATASETS, JUDGE, QUESTIONS, TEXT
from viper.spec.recipe import OURS, PAPER

#: `datasets` that come from the Hugging Face hub, and the judge that is none.
HUB, RULES = "hub", "rules"
URI_LENGTH = 1024


class Benchmark(SpecModel):
    """One benchmark."""

    limit: int | None = setting(
        None,
        unit="questions",
        ge=1,
        le=10**9,
        description="Ask about this many of its questions; those that are scored together stay together.",
    )
    floor: float | None = setting(
        None,
        source=OURS,
        ge=0,
        le=1,
        description="Automatic promotion holds when the final checkpoint's score is below this; null: no floor.",
    )


class Benchmarks(SpecModel):
    """Benchmarks of lmms-eval, asked of every checkpoint alike."""

    tasks: dict[str, Benchmark] = setting(
        dict,
        source=PAPER,
        max_length=32,
        description=f"Task of lmms-eval to its settings: {', '.join(BENCHMARKS)}. Empty: none.",
    )
    datasets: str = setting(
        "",
        max_length=URI_LENGTH,
        forms=DATASETS,
        description="Where their data sets are: a directory, file:// or s3:// prefix with a folder <org>/<name> for "
        "each, as the Hugging Face hub has it; or hub.",
    )
    judge: str = setting(
        RULES,
        source=OURS,
        forms=JUDGE,
        max_length=URI_LENGTH,
        description="Who scores hallusion_bench_image: rules, or a model behind openai:https://host/v1#model-name.",
    )
    instruction: str = setting(
        "",
        source=OURS,
        max_length=4096,
        forms=(TEXT,),
        description="Appended to every question, for every checkpoint; empty: lmms-eval's prompts as they are.",
    )

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := sorted(set(self.tasks) - set(BENCHMARKS)):
            raise ValueError(f"tasks names unknown benchmarks {unknown}; the benchmarks are {list(BENCHMARKS)}")
        if self.tasks and not self.datasets:
            raise ValueError(
                "datasets must say where the data sets of the benchmarks are; set a directory, s3:// or hub"
            )
        return self


class Evaluation(SpecModel):
    """Held-out questions and benchmarks, the same for every checkpoint of the iteration."""

    questions: str = setting(
        "",
        max_length=URI_LENGTH,
        forms=QUESTIONS,
        description=f"Question set: {written('questions')} or a JSONL file; empty: none.",
    )
    limit: int | None = setting(None, unit="questions", ge=1, le=10**9, description="Use at most this many of them.")
    benchmarks: Benchmarks = setting(Benchmarks, description="Benchmarks of lmms-eval.")
    max_tokens: int = setting(
        4096,
        unit="tokens",
        ge=1,
        le=2**24,
        description="Longest answer, reasoning included, of questions and benchmarks; the same for all checkpoints.",
    )
    batch: int = setting(256, unit="questions", ge=1, le=10**6, description="Questions per generation batch.")
    base: bool = setting(True, description="Also evaluate the first version of the lineage.")


class Gate(SpecModel):
    """When `Automatic` promotion holds."""

    significance: float = setting(
        0.05,
        source=OURS,
        gt=0,
        lt=0.5,
        description="The final checkpoint is significantly worse than θ0 when a one-sided p-value is below this: exact "
        "McNemar over the questions, paired bootstrap over the mean of the benchmarks.",
    )
    unmeasured: Literal["Hold", "Promote"] = setting(
        "Hold",
        source=OURS,
        description="What becomes of a final checkpoint of which nothing was measured (no questions, no benchmarks) or "
        "not all that was asked for (a benchmark without a result). Hold: a person moves the alias.",
    )
