"""What `kubectl viper logs -f` tells between the lines of pods."""

from __future__ import annotations

from typing import Any

import pytest
from plugin_builders import NOW, Object, condition, container, iteration, loop, pod, stage

from viper_operator.plugin.news import iteration_news, loop_news, next_iteration, standing, waits
from viper_operator.plugin.view import Iteration, Loop

TIMES = {"startedAt": "2026-11-20T10:00:00Z", "finishedAt": "2026-11-20T10:01:15Z"}
GENERATOR = {"model": "m", "version": 5, "uri": "s3://viper/models/5", "digest": "sha256:5"}


def one(outcome: str, *stages: Object, **more: Any) -> Iteration:
    return Iteration(iteration("it", outcome, *stages, **more))


RUNNING = one("Running", stage("evaluate", "Running"))


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, one("Running", stage("evaluate", "Running"), progress="3/9 evaluate"), ["it: Running, 3/9 evaluate"]),
        (None, one("Running", generator=GENERATOR), ["it: Running, θ0 is m version 5"]),
        (one("Pending"), one("Running", generator=GENERATOR), ["it: θ0 is m version 5"]),
        (RUNNING, RUNNING, []),
        (
            RUNNING,
            one("Running", stage("evaluate", "Succeeded", headline="24 steps", seconds=15.6, **TIMES)),
            ["it evaluate is done after 1 min 15 s, of which 15.6 s in the work itself: 24 steps"],
        ),
        (
            RUNNING,
            one("Running", stage("evaluate", "Running", message="1 failed attempt, the last: OOMKilled")),
            ["it evaluate: 1 failed attempt, the last: OOMKilled"],
        ),
        (
            RUNNING,
            one("Running", stage("evaluate", "Retrying", message="attempt 1 failed, no disk")),
            ["it evaluate is tried again: attempt 1 failed, no disk"],
        ),
        (
            RUNNING,
            one("Suspended", stage("evaluate", "Suspended", message="spec.suspend is true")),
            [
                "it evaluate is suspended, its work stays",
                "it is suspended; `kubectl viper resume it` goes on with it",
            ],
        ),
        (one("Suspended", stage("evaluate", "Suspended")), RUNNING, ["it goes on"]),
        (
            RUNNING,
            one(
                "Failed",
                stage("evaluate", "Failed", message="no questions"),
                conditions=[condition("Succeeded", "False", "InputError", "evaluate: no questions")],
            ),
            ["it evaluate failed: no questions", "it ends: Failed: evaluate: no questions"],
        ),
    ],
    ids=["first", "first-with-model", "model", "nothing", "done", "attempt", "again", "suspended", "on", "failed"],
)
def test_what_becomes_of_an_iteration_is_told_once(
    before: Iteration | None, now: Iteration, expected: list[str]
) -> None:
    assert iteration_news(before, now, NOW) == expected
    assert iteration_news(now, now, NOW) == []


BEGUN = pod("p", phase="Running", containerStatuses=container(running={}))
UNSCHEDULABLE = pod(
    "p", phase="Pending",
    conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}],
)  # fmt: skip
KILLED = pod(
    "p", phase="Failed", containerStatuses=container(terminated={"exitCode": 137, "reason": "OOMKilled"})
)  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "pods", "stage_", "expected"),
    [
        (RUNNING, [BEGUN], "evaluate", ""),
        (RUNNING, [], "evaluate", "waiting for evaluate of it: its pods have not started"),
        (RUNNING, [UNSCHEDULABLE], "evaluate", "waiting for evaluate of it: Unschedulable: no GPU"),
        (RUNNING, [BEGUN, UNSCHEDULABLE], "evaluate", "waiting for evaluate of it: Unschedulable: no GPU"),
        (RUNNING, [KILLED], "evaluate", "waiting for evaluate of it: attempt failed, OOMKilled"),
        (
            one("Running", stage("evaluate", "Pending", reason="WaitsForModel", message="iteration b trains it now")),
            [], "evaluate", "waiting for evaluate of it: WaitsForModel: iteration b trains it now",
        ),
        (one("Pending"), [], "", "waiting for the first stage of it"),
        (one("Suspended", stage("evaluate", "Suspended")), [], "evaluate", "waiting for it: it is suspended"),
        (
            Iteration({**RUNNING.body, "status": {}}), [], "",
            "waiting for it: no operator has looked at it yet",
        ),
    ],
    ids=["works", "no-pods", "no-node", "one-of-two", "failed", "blocked", "nothing-yet", "suspended", "unseen"],
)  # fmt: skip
def test_why_nothing_is_said(seen: Iteration, pods: list[Object], stage_: str, expected: str) -> None:
    assert waits(seen, pods, stage_) == expected


def test_a_stage_that_is_silent_is_told_by_its_status() -> None:
    items = {"done": 3, "total": 9, "rate": 0.5, "phase": "critique", "step": 3, "steps": 3}
    silent = one("Running", stage("evaluate", "Running", items=items))
    assert standing(silent) == "it evaluate: critique (3 of 3) 3/9 (0.5/s)"
    assert standing(RUNNING) == ""


def of(state: tuple[str, str, str], *iterations: Iteration, suspend: bool = False) -> Loop:
    body = loop("l", *state, iteration=len(iterations), of=3)
    body["spec"]["suspend"] = suspend
    return Loop(body, iterations)


GOES = ("Unknown", "Running", "")
DONE = one("Promoted")


@pytest.mark.parametrize(
    ("before", "now", "expected", "waiting"),
    [
        (None, of(GOES, RUNNING), ["loop l: Running, iteration 1 of 3"], ""),
        (of(GOES, RUNNING), of(GOES, DONE), [], "waiting for iteration 2 of loop l to begin"),
        (of(GOES, DONE), of(GOES, DONE, RUNNING), [], ""),
        (of(GOES, DONE, DONE, RUNNING), of(GOES, DONE, DONE, DONE), [], ""),
        (
            of(GOES, DONE), of(("Unknown", "Suspended", ""), DONE, suspend=True),
            ["loop l is suspended; `kubectl viper resume l` goes on with it"],
            "waiting for loop l: it is suspended",
        ),
        (of(("Unknown", "Suspended", ""), RUNNING, suspend=True), of(GOES, RUNNING), ["loop l goes on"], ""),
        (
            of(GOES, DONE), of(("True", "AllIterationsDone", "3 of 3 iterations done"), DONE),
            ["loop l ends: Succeeded: 3 of 3 iterations done"], "",
        ),
        (
            of(GOES, DONE), of(("False", "BudgetUsed", "2 of 2 GPU-hours are used"), DONE),
            ["loop l ends: BudgetUsed: 2 of 2 GPU-hours are used"], "",
        ),
    ],
    ids=["first", "between", "next", "last", "suspended", "on", "done", "stopped"],
)  # fmt: skip
def test_what_becomes_of_a_loop_and_what_it_waits_for(
    before: Loop | None, now: Loop, expected: list[str], waiting: str
) -> None:
    assert loop_news(before, now) == expected
    assert next_iteration(now) == waiting
