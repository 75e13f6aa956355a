"""Which iteration of a loop comes next."""

from __future__ import annotations

from typing import Any

import pytest

from plan.builders import spec
from viper.plan import LoopObserved, plan_loop
from viper.spec import LoopSpec, Promotion
from viper.spec.iteration import Budget


def loop(policy: Any = "Automatic", iterations: int = 3) -> LoopSpec:
    template = spec().model_copy(update={"promotion": Promotion(policy=policy)})
    return LoopSpec(iterations=iterations, template=template)


PROMOTED, RUNNING = LoopObserved("promoted"), LoopObserved("running")
REGISTERED = LoopObserved("registered", version=2, alias_version=1)


@pytest.mark.parametrize(
    ("policy", "seen", "number", "reason"),
    [
        ("Automatic", [], 1, "Running"),
        ("Automatic", [RUNNING], 1, "Running"),
        ("Automatic", [LoopObserved("suspended")], 1, "Running"),
        ("Automatic", [PROMOTED], 2, "Running"),
        ("Automatic", [PROMOTED, RUNNING], 2, "Running"),
        ("Automatic", [PROMOTED, PROMOTED, PROMOTED], None, "AllIterationsDone"),
        ("Automatic", [PROMOTED, LoopObserved("held")], None, "IterationHeld"),
        ("Automatic", [LoopObserved("held", version=2, alias_version=2)], 2, "Running"),
        ("Automatic", [LoopObserved("held", version=2, alias_version=1)], None, "IterationHeld"),
        # Promoted by hand; its successor has moved the alias since.
        ("Automatic", [LoopObserved("held", version=2, alias_version=3), PROMOTED], 3, "Running"),
        ("Automatic", [LoopObserved("held", version=2, alias_version=2), RUNNING], 2, "Running"),
        ("Manual", [REGISTERED, REGISTERED], None, "WaitingForPromotion"),
        ("Automatic", [RUNNING, PROMOTED], 1, "Running"),  # tried again by a person
        ("Automatic", [PROMOTED, LoopObserved("failed")], None, "IterationFailed"),
        ("Manual", [REGISTERED], None, "WaitingForPromotion"),
        ("Manual", [LoopObserved("registered", version=2, alias_version=2)], 2, "Running"),
        ("Never", [REGISTERED], 2, "Running"),
        ("Never", [REGISTERED] * 3, None, "AllIterationsDone"),
    ],
)
def test_the_next_iteration(policy: str, seen: list[LoopObserved], number: int | None, reason: str) -> None:
    decided = plan_loop(loop(policy), seen)
    assert (decided.next, decided.condition.reason) == (number, reason)


@pytest.mark.parametrize(
    ("hours", "seen", "used", "number", "reason"),
    [
        (2.0, [PROMOTED], 7199.0, 2, "Running"),
        (2.0, [PROMOTED], 7200.0, None, "BudgetUsed"),
        (2.0, [PROMOTED, RUNNING], 9000.0, 2, "Running"),
        (2.0, [PROMOTED] * 3, 9000.0, None, "AllIterationsDone"),
        (None, [PROMOTED], 1e9, 2, "Running"),
    ],
)
def test_no_further_iteration_starts_once_the_budget_is_used(
    hours: float | None, seen: list[LoopObserved], used: float, number: int | None, reason: str
) -> None:
    one = loop().model_copy(update={"budget": Budget(gpu_hours=hours)})
    decided = plan_loop(one, seen, used)
    assert (decided.next, decided.condition.reason) == (number, reason)


@pytest.mark.parametrize(
    ("hours", "used", "number", "reason"),
    [
        (12.0, [4.0, 4.0], 3, "Running"),
        (11.9, [4.0, 4.0], None, "BudgetTooSmall"),
        (8.0, [4.0, 4.0], None, "BudgetUsed"),
        (11.0, [5.0, 1.0], 3, "Running"),
        (11.0, [0.0, 6.0], None, "BudgetTooSmall"),
        (11.0, [0.0, 0.0], 3, "Running"),
        (1.0, [], 1, "Running"),
        (None, [4.0, 4.0], 3, "Running"),
    ],
)
def test_no_iteration_starts_that_the_budget_cannot_finish(
    hours: float | None, used: list[float], number: int | None, reason: str
) -> None:
    one = loop().model_copy(update={"budget": Budget(gpu_hours=hours)})
    seen = [LoopObserved("promoted", gpu_seconds=h * 3600) for h in used]
    decided = plan_loop(one, seen, sum(used) * 3600)
    assert (decided.next, decided.condition.reason) == (number, reason)


def test_a_budget_that_is_too_small_names_one_that_is_enough() -> None:
    seen = [LoopObserved("promoted", gpu_seconds=h * 3600) for h in (4.04, 4.0)]
    one = loop().model_copy(update={"budget": Budget(gpu_hours=9.0)})
    message = plan_loop(one, seen, 8.04 * 3600).condition.message
    assert message == (
        "8.0 of 9 GPU-hours are used after 2 of 3 iterations, and an iteration takes about 4.0: "
        "spec.budget.gpuHours of 12.1 is enough for one more"
    )
    raised = loop().model_copy(update={"budget": Budget(gpu_hours=12.1)})
    assert plan_loop(raised, seen, 8.04 * 3600).next == 3


def test_an_iteration_that_runs_is_finished_whatever_the_budget() -> None:
    seen = [LoopObserved("promoted", gpu_seconds=14400), LoopObserved("running", gpu_seconds=9000)]
    one = loop().model_copy(update={"budget": Budget(gpu_hours=5.0)})
    assert plan_loop(one, seen, 23400).next == 2


def test_a_longer_loop_goes_on_where_a_shorter_one_ended() -> None:
    assert plan_loop(loop(iterations=2), [PROMOTED, PROMOTED]).next is None
    assert plan_loop(loop(iterations=4), [PROMOTED, PROMOTED]).next == 3


def test_the_message_of_a_stopped_loop_is_that_of_its_iteration() -> None:
    decided = plan_loop(loop(), [LoopObserved("held", "validate-captions: 0 accepted")])
    assert decided.condition.message == "iteration 1 is held: validate-captions: 0 accepted"
