"""The brain: what happens next, as a pure function of the spec, what is observed, and the time.

Plans are level-triggered: they know nothing of what was said before, so that an executor may crash, skip or repeat any
action. Nothing here does I/O or has a clock; times are seconds since the epoch. Conditions follow the Kubernetes API
conventions (observations, not a state machine).
"""

from viper.plan.iteration import MAX_BACKOFF_SECONDS, PERMANENT_EXIT_CODES, backoff, plan
from viper.plan.loop import LoopObserved, LoopPlan, plan_loop
from viper.plan.types import (
    Action,
    Condition,
    Done,
    Exit,
    Fail,
    Hold,
    Observed,
    ObservedStage,
    Outcome,
    Plan,
    RetryAt,
    Shard,
    StageStatus,
    StartStage,
    State,
    StopStage,
    headline,
)

__all__ = [
    "MAX_BACKOFF_SECONDS",
    "PERMANENT_EXIT_CODES",
    "Action",
    "Condition",
    "Done",
    "Exit",
    "Fail",
    "Hold",
    "LoopObserved",
    "LoopPlan",
    "Observed",
    "ObservedStage",
    "Outcome",
    "Plan",
    "RetryAt",
    "Shard",
    "StageStatus",
    "StartStage",
    "State",
    "StopStage",
    "backoff",
    "headline",
    "plan",
    "plan_loop",
]
