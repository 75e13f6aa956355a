"""Which iteration of a `ViperLoop` is next, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from viper.plan.types import Condition, Outcome

if TYPE_CHECKING:
    from viper.spec import LoopSpec


@dataclass(frozen=True)
class LoopObserved:
    """One iteration of a loop. `version` is what its promote stage registered, `alias_version` what the alias points
    at now; None where unknown or none."""

    outcome: Outcome
    message: str = ""
    version: int | None = None
    alias_version: int | None = None

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
    """The next iteration is the first that is not promoted yet, unless the one before stopped the loop.

    With policy `Never` the alias does not move, so that iterations only need to be finished. `gpu_seconds` is what all
    of them have used; beyond the budget no further one starts.
    """
    for number, seen in enumerate(iterations[: spec.iterations], start=1):
        if seen.outcome in ("running", "suspended"):
            return _go_on(number, spec.iterations)
        if seen.promoted or (seen.outcome == "registered" and spec.template.promotion.policy == "Never"):
            continue
        reason, what = STOPS[seen.outcome]
        return _stop(reason, f"iteration {number} {what}", seen)
    finished = len(iterations[: spec.iterations])
    if finished < spec.iterations:
        budget = spec.budget.gpu_hours
        if budget is not None and gpu_seconds >= budget * 3600:
            used = f"{gpu_seconds / 3600:.1f} of {budget:g} GPU-hours are used after {finished} of {spec.iterations}"
            return LoopPlan(None, Condition("Succeeded", "False", "BudgetUsed", f"{used} iterations"))
        return _go_on(finished + 1, spec.iterations)
    return LoopPlan(
        None, Condition("Succeeded", "True", "AllIterationsDone", f"{finished} of {finished} iterations done")
    )


def _go_on(number: int, of: int) -> LoopPlan:
    return LoopPlan(number, Condition("Succeeded", "Unknown", "Running", f"iteration {number} of {of}"))


def _stop(reason: str, what: str, seen: LoopObserved) -> LoopPlan:
    message = f"{what}: {seen.message}" if seen.message else what
    return LoopPlan(None, Condition("Succeeded", "False", reason, message))
