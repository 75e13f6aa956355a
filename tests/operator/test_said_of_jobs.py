"""What is said of a Job: what was seen last, of that very Job, as long as it is so."""

from __future__ import annotations

from typing import Any

import pytest
from kube_objects import NOW, START, job

from viper.spec.status import StageStatus
from viper_operator.observed import Problem
from viper_operator.status import failures_of
from viper_operator.troubles import Attempts, alike, at_rest, last_word, of_this, remembered, suspended, working
from viper_operator.views import JobView

UID = "uid-it-ingest-images-0-1"
PULL, NODE = (
    Problem("ImagePullBackOff", "pod p: no such image"),
    Problem("Unschedulable", "pod p waits for a node: 0/3"),
)
STARTS = Problem("Starting", "")


def before(state: Any, reason: str = "", message: str = "", **fields: Any) -> StageStatus:
    """What a status says of the stage now, of its Job of this time unless told otherwise."""
    known = {"name": "ingest-images", "job": "it-ingest-images", "started_at": START, **fields}
    return StageStatus(state=state, reason=reason or state, message=message, **known)


PULLS = before("Pending", "ImagePullBackOff", PULL.message)
FAILED = "1 failed attempt: OOMKilled: too little"
ONCE = {"message": FAILED, "failures": 1}
#: What the Job is like, what is said now, what was seen of pods, and what is said then: state, reason, message.
WORKING: dict[str, tuple[JobView, StageStatus | None, dict[str, Any], tuple[str, str, str]]] = {
    # ---- without any trouble ----
    "just made": (job(), None, {}, ("Pending", "Starting", "")),
    "its pod is there": (job(active=1), None, {}, ("Pending", "Starting", "")),
    "its pod is ready": (job(active=1, ready=1), None, {}, ("Running", "Running", "")),
    "one of its pods is ready": (job(active=3, ready=1, shards=3), None, {}, ("Running", "Running", "")),
    "it runs, and nobody has looked why its pod is not ready": (
        job(active=1),
        before("Running"),
        {},
        ("Running", "Running", ""),
    ),
    "its pod was replaced": (job(active=1), before("Running"), {UID: STARTS}, ("Pending", "Starting", "")),
    "its pods are gone": (job(), before("Running"), {}, ("Pending", "Starting", "")),
    "its pod runs and is not ready": (
        job(active=1),
        before("Pending", "Starting"),
        {UID: None},
        ("Running",) * 2 + ("",),
    ),
    "its pod has ended and is not counted": (
        job(uncountedTerminatedPods={"succeeded": ["u"]}),
        before("Running"),
        {},
        ("Running", "Running", ""),
    ),
    "its pod has ended": (job(succeeded=1), PULLS, {UID: PULL}, ("Running", "Running", "")),
    "it is about to fail": (
        job(failed=1, conditions=[{"type": "FailureTarget", "status": "True"}]),
        before("Running", **ONCE),
        {},
        ("Running", "Running", FAILED),
    ),
    # ---- troubles ----
    "an image is not there": (job(active=1), None, {UID: PULL}, ("Pending", PULL.reason, PULL.message)),
    "of one pod of three": (
        job(active=3, ready=2, shards=3),
        None,
        {UID: PULL},
        ("Pending", PULL.reason, PULL.message),
    ),
    "nobody has looked since it was said": (job(active=1), PULLS, {}, ("Pending", PULL.reason, PULL.message)),
    "another trouble": (job(active=1), PULLS, {UID: NODE}, ("Pending", NODE.reason, NODE.message)),
    "over: somebody has looked": (job(active=1), PULLS, {UID: None}, ("Running", "Running", "")),
    "over: its pod starts": (job(active=1), PULLS, {UID: STARTS}, ("Pending", "Starting", "")),
    "over: its pod is ready": (job(active=1, ready=1), PULLS, {UID: PULL}, ("Running", "Running", "")),
    "of an earlier Job of that name": (
        job(active=1),
        before("Pending", "ImagePullBackOff", PULL.message, started_at="2025-12-31T23:00:00Z"),
        {},
        ("Pending", "Starting", ""),
    ),
    "of another Job": (
        job(active=1),
        before("Pending", "ImagePullBackOff", PULL.message, job="it-ingest-images-a2"),
        {},
        ("Pending", "Starting", ""),
    ),
    "of another Job of that name, as seen": (job(active=1), None, {"uid-other": PULL}, ("Pending", "Starting", "")),
    "our own words are no trouble of a pod": (
        job(active=1),
        before("Pending", "WaitsForModel", "iteration other trains the same model now"),
        {},
        ("Pending", "Starting", ""),
    ),
    "it was queued": (job(active=1, queue="q"), before("Pending", "Queued", "waits"), {}, ("Pending", "Starting", "")),
    "it is queued": (
        job(suspend=True, queue="q"),
        before("Running"),
        {},
        ("Pending", "Queued", "waits for quota in its Kueue queue"),
    ),
    "it was suspended": (job(active=1), before("Suspended"), {}, ("Pending", "Starting", "")),
    # ---- attempts that failed ----
    "an attempt has failed": (job(failed=1), before("Running"), {}, ("Retrying", "BackOff", "1 failed attempt")),
    "why is known": (job(failed=1), before("Running", **ONCE), {}, ("Retrying", "BackOff", FAILED)),
    "the next one starts": (
        job(active=1, failed=1),
        before("Retrying", "BackOff", **ONCE),
        {},
        ("Retrying", "BackOff", FAILED),
    ),
    "the next one runs": (
        job(active=1, ready=1, failed=1),
        before("Retrying", "BackOff", **ONCE),
        {},
        ("Running",) * 2 + (FAILED,),
    ),
    "it runs on": (job(active=1, failed=1), before("Running", **ONCE), {}, ("Running", "Running", FAILED)),
    "the second one failed": (
        job(active=1, failed=2),
        before("Running", **ONCE),
        {},
        ("Retrying", "BackOff", "2 failed attempts"),
    ),
    "the next one finds no node": (
        job(active=1, failed=1),
        before("Retrying", "BackOff", **ONCE),
        {UID: NODE},
        ("Pending", NODE.reason, NODE.message),
    ),
    "attempts of an earlier Job of that name": (
        job(failed=1),
        before("Running", **ONCE, started_at="2025-12-31T23:00:00Z"),
        {},
        ("Retrying", "BackOff", "1 failed attempt"),
    ),
    "what was said is of a pod, not of the attempt": (
        job(active=1, failed=1),
        before("Pending", PULL.reason, PULL.message, failures=1),
        {UID: STARTS},
        ("Retrying", "BackOff", "1 failed attempt"),
    ),
    "an operator that did not count said why": (
        job(active=1, failed=1),
        before("Running", message=FAILED),
        {},
        ("Running", "Running", FAILED),
    ),
    "an operator that did not count had seen none": (
        job(active=1, failed=1),
        before("Running"),
        {},
        ("Retrying", "BackOff", "1 failed attempt"),
    ),
}


@pytest.mark.parametrize(("one", "said", "problems", "expected"), WORKING.values(), ids=WORKING)
def test_what_is_said_of_a_job_that_has_not_ended(
    one: JobView, said: StageStatus | None, problems: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    found = working(one, said, problems, {})
    assert found == expected
    kept = before(found.state.value, found.reason, found.message, failures=failures_of(one, said))
    assert working(one, kept, problems, {}) == expected, "what was said is no reason to say something else"


def test_why_attempts_failed_is_that_of_this_job_and_of_so_many() -> None:
    one = job(failed=2)
    assert working(one, None, {}, {UID: Attempts(2, "Evicted")}).message == "2 failed attempts: Evicted"
    assert working(one, None, {}, {UID: Attempts(1, "Evicted")}).message == "2 failed attempts"
    assert working(one, None, {}, {"uid-other": Attempts(2, "Evicted")}).message == "2 failed attempts"


@pytest.mark.parametrize(
    ("one", "reason", "rests"),
    [
        (job(suspend=True, active=1), "Stopping", False),
        (job(suspend=True, terminating=1), "Stopping", False),
        (job(suspend=True), "Suspended", True),
        (None, "Suspended", False),
    ],
)
def test_a_stage_is_suspended_once_its_pods_are_gone(one: JobView | None, reason: str, rests: bool) -> None:
    assert suspended(one, "spec.suspend is true").reason == reason
    assert one is None or at_rest(one) is rests


def test_what_was_said_without_a_time_is_of_the_job_of_that_name() -> None:
    assert of_this(before("Running", started_at=None), job())
    assert not of_this(None, job())


# ---- from look to look -------------------------------------------------------------------------------------------

AGAIN = 'pod p: Back-off pulling image "x:1"'
WHY = "pod p: rpc error: code = NotFound desc = x:1: not found"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (None, None, True),
        (None, PULL, False),
        (PULL, None, False),
        (PULL, NODE, False),
        (NODE, Problem(NODE.reason, NODE.message), True),
        (NODE, Problem(NODE.reason, "pod p waits for a node: 1/3"), False),
        (Problem(PULL.reason, WHY), Problem(PULL.reason, AGAIN), True),
        (Problem(PULL.reason, AGAIN), Problem(PULL.reason, WHY), False),  # more is known
        (Problem(PULL.reason, WHY), Problem(PULL.reason, AGAIN + WHY.replace("pod p:", ": ErrImagePull:")), True),
        (Problem(PULL.reason, WHY), Problem(PULL.reason, AGAIN.replace("pod p", "pod q")), False),
        (Problem(PULL.reason, WHY), Problem(PULL.reason, "pod p: unauthorized"), False),
    ],
)
def test_the_same_trouble_is_told_once_and_another_one_again(
    old: Problem | None, new: Problem | None, same: bool
) -> None:
    assert alike(old, new) is same


@pytest.mark.parametrize(
    ("old", "suspects", "found", "expected"),
    [
        ({}, [], {}, {}),
        ({}, ["a"], {}, {"a": None}),
        ({}, ["a"], {"a": NODE}, {"a": NODE}),
        ({"a": NODE}, ["a"], {}, {"a": None}),
        ({"a": NODE}, ["a"], {"a": PULL}, {"a": PULL}),
        ({"a": NODE}, [], {}, {}),  # it works, is suspended, or is gone
        ({"a": NODE}, ["b"], {"b": PULL}, {"b": PULL}),
        ({"a": Problem(PULL.reason, WHY)}, ["a"], {"a": Problem(PULL.reason, AGAIN)}, {"a": Problem(PULL.reason, WHY)}),
    ],
)
def test_nothing_is_remembered_of_jobs_that_nobody_looked_at(
    old: dict[str, Problem | None], suspects: list[str], found: dict[str, Problem], expected: dict[str, Problem | None]
) -> None:
    assert remembered(old, suspects, found) == expected


# ---- Events ------------------------------------------------------------------------------------------------------


def event(second: int, reason: str, type_: str = "Warning", uid: str = UID, **fields: Any) -> dict[str, Any]:
    """An Event about a Job or pod, `second` seconds after it was made."""
    told = {"type": type_, "reason": reason, "message": f"about {reason}", "involvedObject": {"uid": uid}}
    return {**told, "lastTimestamp": f"2026-01-01T00:00:{second:02d}Z", **fields}


QUOTA = event(10, "FailedCreate", message='Error creating: pods "it-freeze-0-x7k2p" is forbidden: exceeded quota')
MADE = event(20, "SuccessfulCreate", "Normal")


@pytest.mark.parametrize(
    ("told", "since", "expected"),
    [
        ([], 0, None),
        ([QUOTA], 0, 'Error creating: pods "it-freeze-0-…" is forbidden: exceeded quota'),
        ([MADE], 0, None),
        ([QUOTA, MADE], 0, None),
        ([MADE, QUOTA], 0, None),
        ([MADE, {**QUOTA, "lastTimestamp": "2026-01-01T00:00:30Z"}], 0, "Error creating"),
        ([MADE, {**QUOTA, "series": {"lastObservedTime": "2026-01-01T00:00:31.5Z"}}], 0, "Error creating"),
        ([event(5, "FailedMount"), event(9, "Pulling", "Normal")], 0, None),
        (
            [event(9, "Scheduled", "Normal"), event(9, "FailedMount", metadata={"resourceVersion": "7"})],
            0,
            "about Failed",
        ),
        (
            [event(9, "FailedMount", lastTimestamp=None, eventTime="2026-01-01T00:00:09.123456Z")],
            0,
            "about FailedMount",
        ),
        # Of another object of that name; of before it was resumed.
        ([event(10, "FailedCreate", uid="uid-of-an-earlier-one")], 0, None),
        ([QUOTA], 11, None),
        ([QUOTA], 10.9, "Error creating"),
        # Whatever somebody wrote.
        ([{}, {"involvedObject": None}, {"involvedObject": {"uid": UID}, "type": "Warning"}], 0, None),
        ([event(10, "FailedCreate", lastTimestamp="soon", metadata={"resourceVersion": "x"})], 0, None),
        ([event(10, "FailedCreate", message=None)], 0, "FailedCreate"),
        ([event(10, "FailedCreate", message="x" * 9000)], 0, "xxx"),
    ],
)
def test_the_last_word_of_an_objects_own_events_counts(
    told: list[dict[str, Any]], since: float, expected: str | None
) -> None:
    found = last_word(told, UID, NOW - 100 + since)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.message.startswith(expected)
        assert len(found.message) <= 600
