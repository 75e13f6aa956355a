"""The gate as a table of cases."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from viper.evaluation.gate import Candidate, decide
from viper.evaluation.statistics import compare

# 100 questions: 10 discordant pairs, all lost (p = 1/1024), all won, or split.
WORSE = asdict(compare([True] * 60 + [False] * 40, [True] * 50 + [False] * 50))
BETTER = asdict(compare([True] * 50 + [False] * 50, [True] * 60 + [False] * 40))
LEVEL = asdict(compare([True] * 5 + [False] * 5, [False] * 5 + [True] * 5))
EMPTY = asdict(compare([], []))
NOT_A_NUMBER = {**LEVEL, "difference": float("nan"), "p_worse": float("nan"), "p_better": float("nan")}
MEANS = {"before": 0.64, "after": 0.6, "difference": -0.04, "low": -0.06, "high": -0.02}
FELL = {**MEANS, "p_worse": 0.001, "p_better": 0.999}
ROSE = {**MEANS, "difference": 0.02, "after": 0.66, "p_worse": 0.99, "p_better": 0.01}
CANDIDATE = Candidate(version=4, name="theta2", comparison=LEVEL, before=0.5, after=0.5, alias_at_start=3, alias_now=3)


@pytest.mark.parametrize(
    ("policy", "changes", "outcome", "words"),
    [
        ("Automatic", {}, "promoted", "not significantly worse"),
        ("Automatic", {"comparison": BETTER}, "promoted", "significantly better than θ0"),
        ("Automatic", {"comparison": WORSE}, "held", "significantly worse than θ0"),
        ("Automatic", {"comparison": None}, "held", "nothing was measured of theta2"),
        ("Automatic", {"comparison": None, "alias_now": 4}, "held", "promotion.gate.unmeasured is Hold"),
        ("Automatic", {"comparison": None, "alias_now": 9}, "held", "nothing was measured of theta2"),
        ("Automatic", {"comparison": EMPTY}, "held", "nothing was measured of theta2"),
        ("Automatic", {"comparison": NOT_A_NUMBER, "benchmarks": NOT_A_NUMBER}, "held", "nothing was measured"),
        ("Automatic", {"comparison": None, "benchmarks": NOT_A_NUMBER}, "held", "nothing was measured of theta2"),
        ("Automatic", {"missing": ("no result of mmstar by theta2",)}, "held", "no result of mmstar by theta2"),
        ("Automatic", {"comparison": None, "version": 3, "unchanged": True}, "promoted", "kept the weights of θ0"),
        ("Manual", {"comparison": None}, "registered", "Nothing was measured."),
        ("Never", {"comparison": NOT_A_NUMBER}, "registered", "Nothing was measured."),
        ("Automatic", {"alias_now": 4}, "promoted", "version 4"),
        ("Automatic", {"alias_now": 9}, "held", "alias moved meanwhile"),
        ("Automatic", {"alias_now": None}, "held", "is unset now"),
        ("Automatic", {"alias_at_start": None, "alias_now": None}, "promoted", "not significantly worse"),
        ("Automatic", {"comparison": WORSE, "alias_now": 4}, "held", "significantly worse"),
        ("Automatic", {"benchmarks": FELL}, "held", "significantly worse than θ0"),
        ("Automatic", {"comparison": BETTER, "benchmarks": FELL}, "held", "significantly worse than θ0"),
        ("Automatic", {"comparison": None, "benchmarks": ROSE}, "promoted", "significantly better than θ0"),
        ("Automatic", {"benchmarks": ROSE, "below": ("mmstar 55.0 % < 60.0 %",)}, "held", "mmstar 55.0 % < 60.0 %"),
        ("Manual", {"below": ("mmstar 55.0 % < 60.0 %",)}, "registered", "until a person moves it"),
        ("Automatic", {"version": 3, "unchanged": True}, "promoted", "training kept the weights of θ0"),
        ("Manual", {}, "registered", "until a person moves it"),
        ("Manual", {"comparison": WORSE}, "registered", "0 won, 10 lost"),
        ("Never", {}, "registered", "policy Never"),
        ("Never", {"alias_now": 9}, "registered", "policy Never"),
    ],
)
def test_decisions(policy: str, changes: dict[str, object], outcome: str, words: str) -> None:
    decision = decide(policy, "generator", 0.05, replace(CANDIDATE, **changes))  # type: ignore[arg-type]
    assert decision.outcome == outcome
    assert words in decision.reason


@pytest.mark.parametrize(
    ("changes", "outcome", "words"),
    [
        ({"comparison": None}, "promoted", "promotion.gate.unmeasured is Promote. Nothing was measured."),
        ({"missing": ("no result of mmstar by theta2",)}, "promoted", "not significantly worse"),
        ({"comparison": WORSE, "missing": ("no result of mmstar by theta2",)}, "held", "significantly worse"),
        ({"comparison": None, "alias_now": 9}, "held", "alias moved meanwhile"),
    ],
)
def test_what_was_not_measured_is_promoted_where_a_setting_says_so(
    changes: dict[str, object], outcome: str, words: str
) -> None:
    candidate = replace(CANDIDATE, **changes)  # type: ignore[arg-type]
    decision = decide("Automatic", "generator", 0.05, candidate, "Promote")
    assert decision.outcome == outcome
    assert words in decision.reason


def test_the_reason_carries_the_figures() -> None:
    candidate = replace(CANDIDATE, comparison=WORSE, before=0.6, after=0.5)
    reason = decide("Automatic", "generator", 0.05, candidate).reason
    assert "60.0% → 50.0% on 100 questions (-10.0 points" in reason
    assert "one-sided p (worse) = 0.000977" in reason


def test_the_reason_carries_the_mean_of_the_benchmarks() -> None:
    reason = decide("Automatic", "generator", 0.05, replace(CANDIDATE, benchmarks=FELL)).reason
    assert "Mean of the benchmarks 64.0% → 60.0% (-4.0 points, 95 % interval -6.0 to -2.0" in reason
    assert "0.001, paired bootstrap" in reason
    assert "on 10 questions" in reason


def test_a_stricter_gate_lets_the_same_result_pass() -> None:
    candidate = replace(CANDIDATE, comparison=WORSE)
    assert decide("Automatic", "generator", 0.0009, candidate).outcome == "promoted"
