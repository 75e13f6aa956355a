"""Which iteration of a `ViperLoop` is next, or why there is none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viper.plan.types import Condition, Outcome
from viper.words import plural

if TYPE_CHECKING:
    from viper.spec import LoopSpec


@dataclass(frozen=True)
class LoopObserved:
    """One iteration of a loop. `version` is what its promote stage registered, `alias_version` what the alias points
    at now; None where unknown or none. `gpu_seconds`: what its Jobs have used."""

    outcome: Outcome
    message: str = ""
    version: int | None = None
    alias_version: int | None = None
    gpu_seconds: float = 0.0

    @property
    def promoted(self) -> bool:
        """By its own promote stage, or by a person since."""
        by_hand = self.version is not None and self.version == self.alias_version
        return self.outcome == "promoted" or (self.outcome in ("registered", "held") and by_hand)


@dataclass(frozen=True)
class LoopPlan:
    """`next`: number (from 1) of the iteration to start or go on with; None when the loop has stopped."""

    next: int | None
    condition: Condition


#: Why a loop goes no further after an iteration, and what to say of it.
STOPS: Mapping[Outcome, tuple[str, str]] = {
    "registered": ("WaitingForPromotion", "waits for a person to promote it"),
    "held": ("IterationHeld", "is held"),
    "failed": ("IterationFailed", "failed"),
}


def plan_loop(spec: LoopSpec, iterations: Sequence[LoopObserved], gpu_seconds: float = 0.0) -> LoopPlan:
    """The next iteration is the first that is not promoted yet, unless the one before stopped the loop. That the alias
    has left the version of one that has a successor does not take the loop back.

    With policy `Never` the alias does not move, so that iterations only need to be finished. `gpu_seconds` is what all
    of them have used: no further one starts beyond the budget, nor when less is left of it than an iteration takes.
    """
    for number, seen in enumerate(iterations[: spec.iterations], start=1):
        if seen.outcome in ("running", "suspended"):
            return _go_on(number, spec.iterations)
        if seen.promoted or (seen.outcome == "registered" and spec.template.promotion.policy == "Never"):
            continue
        if number < len(iterations):  # the next one was made when this one's version was promoted, by hand
            continue
        reason, what = STOPS[seen.outcome]
        return _stop(reason, f"iteration {number} {what}", seen)
    finished = len(iterations[: spec.iterations])
    if finished < spec.iterations:
        short = _short_of_budget(spec, finished, gpu_seconds, expected_gpu_seconds(iterations[:finished]))
        return _go_on(finished + 1, spec.iterations) if short is None else LoopPlan(None, short)
    return LoopPlan(
        None, Condition("Succeeded", "True", "AllIterationsDone", f"{finished} of {plural(finished, 'iteration')} done")
    )


def expected_gpu_seconds(finished: Sequence[LoopObserved]) -> float:
    """What the next iteration is expected to use: the mean of the finished ones; 0 when none has used a GPU."""
    used = [seen.gpu_seconds for seen in finished if seen.gpu_seconds > 0]
    return sum(used) / len(used) if used else 0.0


def _short_of_budget(spec: LoopSpec, finished: int, used: float, expected: float) -> Condition | None:
    """Why the budget does not allow a further iteration; None when it does."""
    budget = spec.budget.gpu_hours
    if budget is None:
        return None
    so_far = (
        f"{used / 3600:.1f} of {budget:g} GPU-hours are used after {finished} of {plural(spec.iterations, 'iteration')}"
    )
    if used >= budget * 3600:
        return Condition("Succeeded", "False", "BudgetUsed", so_far)
    if used + expected > budget * 3600:
        needed = math.ceil((used + expected) / 360) / 10
        left = (
            f"an iteration takes about {expected / 3600:.1f}: spec.budget.gpuHours of {needed:g} is enough for one more"
        )
        return Condition("Succeeded", "False", "BudgetTooSmall", f"{so_far}, and {left}")
    return None


def _go_on(number: int, of: int) -> LoopPlan:
    return LoopPlan(number, Condition("Succeeded", "Unknown", "Running", f"iteration {number} of {of}"))


def _stop(reason: str, what: str, seen: LoopObserved) -> LoopPlan:
    message = f"{what}: {seen.message}" if seen.message else what
    return LoopPlan(None, Condition("Succeeded", "False", reason, message))
