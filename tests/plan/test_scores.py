"""The score in the status: the benchmarks' mean where they were asked, else the questions' accuracy."""

from __future__ import annotations

from typing import Any

import pytest

from viper.methods.stages import EVALUATE
from viper.plan.types import Done
from viper.stage import Manifest


def done(**outputs: Any) -> Done:
    return Done.of(Manifest(stage=EVALUATE, iteration="it", identity="x", outputs={"final": "theta2", **outputs}))


def by_model(key: str, **values: float) -> dict[str, Any]:
    return {model: {"overall": {key: value}} for model, value in values.items()}


def test_the_accuracy_and_its_gain() -> None:
    found = done(scores=by_model("accuracy", theta0=0.719, theta2=0.803))
    assert found.score == "80.3 % (+8.4)"
    assert found.headline == "accuracy theta0 71.9%, theta2 80.3%"


def test_the_mean_of_the_benchmarks_comes_first() -> None:
    benchmarks = {"scores": by_model("score", theta0=0.644, theta2=0.66)}
    found = done(scores=by_model("accuracy", theta0=0.1, theta2=0.2), benchmarks=benchmarks)
    assert found.score == "66.0 % (+1.6)"
    assert found.headline == "benchmarks theta0 64.4%, theta2 66.0%"
    assert done(scores={}, benchmarks=benchmarks).score == "66.0 % (+1.6)"


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        {"scores": {}},
        {"scores": {"theta2": "?"}},
        {"scores": {}, "benchmarks": {}},
        {"scores": {}, "benchmarks": 1},
    ],
)
def test_without_a_score_there_is_none(outputs: dict[str, Any]) -> None:
    assert done(**outputs).score == ""
