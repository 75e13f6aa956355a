"""The promotion gate: a pure decision with the sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, TypeGuard

from viper.words import plural, probability

Outcome = Literal["promoted", "held", "registered"]


@dataclass(frozen=True)
class Decision:
    """`promoted`: the alias moves. `held`: the gate or a moved alias forbids it. `registered`: policy wants no more."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Candidate:
    """What the gate knows: the final checkpoint's registered version and how it did against θ0.

    `comparison` is the overall `Comparison` of the final checkpoint against θ0 as a dictionary, None when nothing was
    asked; `before` and `after` are the two overall accuracies in 0..1. `benchmarks` is the paired comparison of the
    mean over the benchmarks with the two means (`before`, `after`), None without benchmarks; `below` names benchmarks
    under their floor, `missing` what was to be asked and has no result, in words. Figures that are no numbers are
    none. `alias_at_start` and `alias_now` are the versions behind the alias when the iteration was frozen and now
    (None: the alias does not exist). `unchanged`: every training stage kept the weights it started from, so `version`
    is θ0's.
    """

    version: int
    name: str
    comparison: Mapping[str, Any] | None
    before: float
    after: float
    alias_at_start: int | None
    alias_now: int | None
    unchanged: bool = False
    benchmarks: Mapping[str, Any] | None = None
    below: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def decide(
    policy: str, alias: str, significance: float, candidate: Candidate, unmeasured: Literal["Hold", "Promote"] = "Hold"
) -> Decision:
    """Promotes, holds or only registers.

    Args:
        policy: `Automatic`, `Manual` or `Never` (`Promotion.policy`).
        alias: the alias that would move.
        significance: `Automatic` holds when a one-sided p-value of "worse than θ0" is below this: exact McNemar over
            the questions, paired bootstrap over the mean of the benchmarks.
        candidate: the final checkpoint and the state of the alias.
        unmeasured: what `Automatic` does with new weights of which nothing, or not all that was asked for, was
            measured (`Gate.unmeasured`).
    """
    c = candidate
    figures = _figures(c)
    if policy == "Never":
        return Decision(
            "registered", f"version {c.version} is registered; policy Never leaves {alias!r} alone. {figures}"
        )
    if policy == "Manual":
        at = f"{alias!r} stays {_version(c.alias_now)} until a person moves it"
        return Decision("registered", f"version {c.version} is registered; policy Manual: {at}. {figures}")
    against = _against(c, significance, figures) or ("" if unmeasured == "Promote" else _unmeasured(c, figures))
    if against:
        return Decision("held", against)
    # Compare-and-set: an alias that already points to our version was moved by an earlier attempt of this very step.
    if c.alias_now not in (c.alias_at_start, c.version):
        return Decision(
            "held",
            f"alias moved meanwhile: {alias!r} was {_version(c.alias_at_start)} when the iteration started and is "
            f"{_version(c.alias_now)} now. {figures}",
        )
    return Decision("promoted", f"{alias!r} is version {c.version} now: {_verdict(c, significance)}. {figures}")


def _against(c: Candidate, significance: float, figures: str) -> str:
    """What was measured that speaks against the candidate; empty when nothing does."""
    if any(measured["p_worse"] < significance for measured in _measured(c)):
        return f"{c.name} is significantly worse than θ0 (one-sided p below {significance:g}): {figures}"
    if c.below:
        return f"{c.name} is below the floor of a benchmark ({', '.join(c.below)}): {figures}"
    return ""


def _unmeasured(c: Candidate, figures: str) -> str:
    """Why too little is known of it; empty when all that was asked for was measured, or nothing has to be."""
    holds = "and promotion.gate.unmeasured is Hold: a person decides"
    if c.unchanged:
        return ""
    if c.missing:
        return f"{c.name} was not measured against θ0 as asked for ({', '.join(c.missing)}), {holds}. {figures}"
    if not _measured(c):
        nothing = "evaluation.questions and evaluation.benchmarks.tasks ask nothing"
        return f"nothing was measured of {c.name} ({nothing}), {holds}"
    return ""


def is_measured(compared: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a comparison (of questions, or of the mean of the benchmarks) has figures: questions, and numbers."""
    if not isinstance(compared, Mapping):
        return False
    return bool(compared.get("n", 1)) and all(is_number(compared.get(k)) for k in ("difference", "p_worse", "p_better"))


def is_number(value: object) -> bool:
    """Whether it is a number that can be compared: NaN and infinity are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _verdict(c: Candidate, significance: float) -> str:
    if c.unchanged:
        return "training kept the weights of θ0"
    measured = _measured(c)
    if not measured:
        return "promotion.gate.unmeasured is Promote"
    better = any(m["p_better"] < significance for m in measured)
    return "significantly better than θ0" if better else "not significantly worse than θ0"


def _measured(c: Candidate) -> list[Mapping[str, Any]]:
    return [m for m in (c.comparison, c.benchmarks) if is_measured(m)]


def _version(version: int | None) -> str:
    return "unset" if version is None else f"version {version}"


def _figures(c: Candidate) -> str:
    if not _measured(c):
        return "Nothing was measured."
    questions = [_questions(c, c.comparison)] if is_measured(c.comparison) else []
    benchmarks = [_benchmarks(c.benchmarks)] if is_measured(c.benchmarks) else []
    return " ".join(questions + benchmarks)


def _benchmarks(b: Mapping[str, Any]) -> str:
    return (
        f"Mean of the benchmarks {b['before']:.1%} → {b['after']:.1%} ({100 * b['difference']:+.1f} points, "
        f"95 % interval {100 * b['low']:+.1f} to {100 * b['high']:+.1f}; "
        f"one-sided p (worse) = {probability(b['p_worse'])}, paired bootstrap)."
    )


def _questions(c: Candidate, k: Mapping[str, Any]) -> str:
    return (
        f"Accuracy {c.before:.1%} → {c.after:.1%} on {plural(k['n'], 'question')} "
        f"({100 * k['difference']:+.1f} points, 95 % interval {100 * k['low']:+.1f} to {100 * k['high']:+.1f}; "
        f"{k['wins']} won, {k['losses']} lost, one-sided p (worse) = {probability(k['p_worse'])}, "
        f"two-sided p = {probability(k['p_two_sided'])})."
    )
