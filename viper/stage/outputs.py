"""The shape of what manifests say beside their parts (`outputs`): the one door between a stored file and its readers.

The plan, the status, the report and later stages read `outputs` by name. A manifest may come from another version, a
person or a disk that failed: what passes `manifest_shape` has the types and bounds that they rely on. Names that nobody
here knows are kept and not looked at, so that a newer manifest can be read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from viper.spec.base import first_problem
from viper.stage.manifest import Manifest

#: Largest count of anything, and largest other number, that a manifest may hold.
MOST, LARGEST = 10**12, 1e15

Count = Annotated[int, Field(ge=0, le=MOST)]
Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Text = Annotated[str, Field(max_length=65_536)]


class _Stored(BaseModel):
    """Known names have their type; a number in quotes is no number."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class _Model(_Stored):
    uri: Annotated[str, Field(min_length=1, max_length=4096)]
    digest: Annotated[str, Field(min_length=1, max_length=512)]


class _Questions(_Stored):
    uri: Text
    digest: Text
    n: Count


class _Score(_Stored):
    accuracy: Number
    n: Count = 0
    correct: Count = 0
    low: Number = 0.0
    high: Number = 1.0


class _Comparison(_Stored):
    n: Count
    difference: Number
    low: Number
    high: Number
    wins: Count
    losses: Count
    p_two_sided: Number
    p_worse: Number
    p_better: Number


class _BenchmarkScore(_Stored):
    score: Number
    low: Number = 0.0
    high: Number = 1.0
    n: Count = 0
    domains: dict[str, _Score] = Field(default_factory=dict)
    truncated: Count = 0
    unanswered: Count = 0


class _McNemar(_Stored):
    wins: Count
    losses: Count
    p_two_sided: Number


class _BenchmarkComparison(_Stored):
    difference: Number
    low: Number
    high: Number
    p_worse: Number
    p_better: Number
    mcnemar: _McNemar | None = None


class _Benchmark(_Stored):
    n: Count
    version: Text = ""
    judge: Text = ""


class _Benchmarks(_Stored):
    tasks: dict[str, _Benchmark] = Field(default_factory=dict)
    scores: dict[str, dict[str, _BenchmarkScore]] = Field(default_factory=dict)
    comparisons: dict[str, dict[str, _BenchmarkComparison]] = Field(default_factory=dict)
    max_tokens: Count = 0


class _Outputs(_Stored):
    decision: Text | None = None
    reason: Text | None = None
    alias: Text | None = None
    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    previous_version: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    model: _Model | None = None
    steps: Count | None = None
    best_step: Count | None = None
    curves: Text | None = None
    rollouts: Text | None = None
    samples: dict[str, Count] | None = None
    first_reward: Number | None = None
    last_reward: Number | None = None
    first_held_out_reward: Number | None = None
    last_held_out_reward: Number | None = None
    final: Text | None = None
    checkpoints: dict[str, Text] | None = None
    questions: _Questions | None = None
    scores: dict[str, dict[str, _Score]] | None = None
    comparisons: dict[str, dict[str, _Comparison]] | None = None
    benchmarks: _Benchmarks | None = None
    images: Count | list[Text] | None = None
    maps: list[Text] | None = None
    image_share: dict[str, Number] | None = None


def manifest_shape(manifest: Manifest) -> str:
    """What is wrong with the types or sizes of what a manifest says, with its path; empty when nothing is."""
    for path, number in _numbers(manifest):
        if not 0 <= number <= MOST:
            return f"{path} is out of bounds (0 … {MOST:.0e})"
    return outputs_shape(manifest.outputs)


def outputs_shape(outputs: Mapping[str, Any]) -> str:
    """The same of `outputs` alone."""
    try:
        _Outputs.model_validate(dict(outputs))
    except ValidationError as error:
        return f"outputs.{first_problem(error)}"
    except RecursionError:
        return "outputs is nested too deeply"
    return ""


def _numbers(manifest: Manifest) -> Iterator[tuple[str, float]]:
    yield "accepted", manifest.accepted
    yield "seconds", manifest.seconds
    for name, counts in (("rejected", manifest.rejected), ("counters", manifest.counters)):
        for key, number in counts.items():
            yield f"{name}.{key[:100]}", number
    for part in manifest.parts:
        yield f"parts.{part.index}.rows", part.rows
        yield f"parts.{part.index}.accepted", part.accepted
