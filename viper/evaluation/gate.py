"""The promotion gate: a pure decision with the sentence that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

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
    under their floor. `alias_at_start` and `alias_now` are the
    versions behind the alias when the iteration was frozen and now (None: the alias does not exist). `unchanged`: every
    training stage kept the weights it started from, so `version` is θ0's.
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


def decide(policy: str, alias: str, significance: float, candidate: Candidate) -> Decision:
    """Promotes, holds or only registers.

    Args:
        policy: `Automatic`, `Manual` or `Never` (`Promotion.policy`).
        alias: the alias that would move.
        significance: `Automatic` holds when a one-sided p-value of "worse than θ0" is below this: exact McNemar over
            the questions, paired bootstrap over the mean of the benchmarks.
        candidate: the final checkpoint and the state of the alias.
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
    if any(measured["p_worse"] < significance for measured in _measured(c)):
        return Decision(
            "held", f"{c.name} is significantly worse than θ0 (one-sided p below {significance:g}): {figures}"
        )
    if c.below:
        return Decision("held", f"{c.name} is below the floor of a benchmark ({', '.join(c.below)}): {figures}")
    # Compare-and-set: an alias that already points to our version was moved by an earlier attempt of this very step.
    if c.alias_now not in (c.alias_at_start, c.version):
        return Decision(
            "held",
            f"alias moved meanwhile: {alias!r} was {_version(c.alias_at_start)} when the iteration started and is "
            f"{_version(c.alias_now)} now. {figures}",
        )
    return Decision("promoted", f"{alias!r} is version {c.version} now: {_verdict(c, significance)}. {figures}")


def _verdict(c: Candidate, significance: float) -> str:
    if c.unchanged:
        return "training kept the weights of θ0"
    measured = _measured(c)
    if not measured:
        return "nothing speaks against it"
    better = any(m["p_better"] < significance for m in measured)
    return "significantly better than θ0" if better else "not significantly worse than θ0"


def _measured(c: Candidate) -> list[Mapping[str, Any]]:
    return [m for m in (c.comparison, c.benchmarks) if m is not None]


def _version(version: int | None) -> str:
    return "unset" if version is None else f"version {version}"


def _figures(c: Candidate) -> str:
    if not _measured(c):
        return "No questions were asked, so nothing was measured."
    return " ".join([*([_questions(c, c.comparison)] if c.comparison else []), *_benchmarks(c.benchmarks)])


def _benchmarks(b: Mapping[str, Any] | None) -> list[str]:
    if b is None:
        return []
    return [
        f"Mean of the benchmarks {b['before']:.1%} → {b['after']:.1%} ({100 * b['difference']:+.1f} points, "
        f"95 % interval {100 * b['low']:+.1f} to {100 * b['high']:+.1f}; "
        f"one-sided p of worse {b['p_worse']:.3g}, paired bootstrap)."
    ]


def _questions(c: Candidate, k: Mapping[str, Any]) -> str:
    return (
        f"Accuracy {c.before:.1%} → {c.after:.1%} on {k['n']} questions "
        f"({100 * k['difference']:+.1f} points, 95 % interval {100 * k['low']:+.1f} to {100 * k['high']:+.1f}; "
        f"{k['wins']} won, {k['losses']} lost, one-sided p of worse {k['p_worse']:.3g}, "
        f"two-sided p {k['p_two_sided']:.3g})."
    )
