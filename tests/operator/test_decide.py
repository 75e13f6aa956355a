"""From plans to Jobs, and when there is nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
from kube_objects import NOW, iteration, job

from plan.builders import done, spec
from viper.methods.stages import FREEZE, stage_graph
from viper.plan import Observed, ObservedStage, plan
from viper.spec.status import IterationStatus
from viper_operator.decide import Decision, NewJob, decide, left_over, quiet
from viper_operator.observed import Problem, current_jobs, shards_of
from viper_operator.status import Facts
from viper_operator.views import JobView


def decided(*jobs: JobView, upto: tuple[str, ...] = (), suspend: bool = False, trainer: str | None = None) -> Decision:
    """The decision when these Jobs are there and the stages in `upto` have manifests."""
    current = current_jobs(jobs, 0)
    stages: dict[str, ObservedStage] = {name: done() for name in upto}
    for name, one in current.items():
        before = stages.get(name, ObservedStage())
        stages[name] = ObservedStage(shards_of(one, [], retries=2, now=NOW), before.done)
    made = plan(spec(retries=2, backoff_seconds=0), Observed(stages, suspend=suspend), NOW, freeze=True)
    return decide(made, current, suspended=suspend, trainer=lambda: trainer, now=NOW)


EARLIER = (FREEZE, "ingest-images", "synthesize-captions", "validate-captions")


def test_freezing_comes_first() -> None:
    assert decided() == Decision(create=(NewJob(FREEZE, 1, 0.0),))


def test_a_stage_that_works_is_left_alone() -> None:
    assert decided(job(FREEZE)) == Decision()


def test_the_next_stage_starts_once_the_manifest_is_there_whether_or_not_the_job_has_ended() -> None:
    expected = Decision(create=(NewJob("ingest-images", 1, 0.0),))
    assert decided(job(FREEZE, condition="Complete"), upto=(FREEZE,)) == expected
    assert decided(job(FREEZE, active=1), upto=(FREEZE,)) == expected


def test_success_without_a_manifest_makes_another_job_that_knows_the_time_spent() -> None:
    made = decided(job(condition="Complete", before=40), upto=(FREEZE,))
    assert made.create == (NewJob("ingest-images", 2, 100.0),)


def test_a_job_that_failed_is_not_made_again() -> None:
    assert decided(job(condition="Failed"), upto=(FREEZE,)) == Decision()


def test_suspension_stops_jobs_and_its_end_lets_them_go_on() -> None:
    running, stopped = job(active=1), job(suspend=True)
    assert decided(running, upto=(FREEZE,), suspend=True) == Decision(suspend=(running,))
    assert decided(stopped, upto=(FREEZE,), suspend=True) == Decision()
    assert decided(stopped, upto=(FREEZE,)) == Decision(resume=(stopped,))


def test_jobs_in_a_kueue_queue_are_deleted_on_suspension_and_never_unsuspended() -> None:
    admitted, waiting = job(active=1, queue="q"), job(suspend=True, queue="q")
    assert decided(admitted, upto=(FREEZE,), suspend=True) == Decision(delete=(admitted,))
    assert decided(waiting, upto=(FREEZE,), suspend=True) == Decision(delete=(waiting,))
    assert decided(waiting, upto=(FREEZE,)) == Decision()


def test_training_waits_for_another_iteration_of_the_model() -> None:
    made = decided(upto=EARLIER, trainer="other")
    assert made == Decision(blocked={"train-captions": "other"})
    assert decided(upto=EARLIER).create == (NewJob("train-captions", 1, 0.0),)


def test_a_suspended_training_waits_as_well_before_it_goes_on() -> None:
    stopped = job("train-captions", suspend=True)
    assert decided(stopped, upto=EARLIER, trainer="other") == Decision(blocked={"train-captions": "other"})


ENDED = done(decision="promoted")
ALL = {name: ENDED if name == "promote" else done() for name in (FREEZE, *(n.name for n in stage_graph(spec().recipe)))}


@pytest.mark.parametrize(
    ("jobs", "upto", "suspend", "deleted"),
    [
        ([job(suspend=True)], (FREEZE,), True, []),
        ([job(suspend=True)], (FREEZE,), False, []),  # it goes on
        ([job(suspend=True)], (FREEZE, "ingest-images"), True, ["it-ingest-images"]),
        ([job(suspend=True)], (FREEZE, "ingest-images"), False, ["it-ingest-images"]),
        ([job(suspend=True, queue="q")], (FREEZE, "ingest-images"), False, ["it-ingest-images"]),
        ([job(active=1)], (FREEZE, "ingest-images"), True, []),  # it ends by itself
        ([job(condition="Complete", suspend=True)], (FREEZE, "ingest-images"), True, []),
        # An attempt of an earlier retry, which another Job has taken over from.
        ([job(suspend=True), job(retry=1, active=1)], (FREEZE,), False, ["it-ingest-images"]),
        # The iteration has ended.
        ([job("promote", suspend=True)], tuple(ALL), True, ["it-promote"]),
        ([job("evaluate", suspend=True), job("promote", condition="Complete")], tuple(ALL), False, ["it-evaluate"]),
    ],
)
def test_a_suspended_job_that_nobody_would_ever_resume_is_deleted(
    jobs: list[JobView], upto: tuple[str, ...], suspend: bool, deleted: list[str]
) -> None:
    current = current_jobs(jobs, max(j.retry for j in jobs))
    stages = {name: ALL[name] for name in upto}
    for name, one in current.items():
        before = stages.get(name, ObservedStage())
        stages[name] = ObservedStage(shards_of(one, [], retries=2, now=NOW), before.done)
    made = plan(spec(retries=2), Observed(stages, suspend=suspend), NOW, freeze=True)
    found = decide(made, current, suspended=suspend, trainer=lambda: None, now=NOW, known=jobs)
    assert [j.name for j in found.delete] == deleted


def test_what_has_ended_keeps_no_suspended_job() -> None:
    jobs = [job(suspend=True), job("evaluate", active=1), job("promote", condition="Complete")]
    assert [j.name for j in left_over(jobs, {})] == ["it-ingest-images"]


def said(**stage: Any) -> dict[str, Any]:
    """A status that says this of the stage that its Job `it-ingest-images` carries out."""
    condition = {"type": "Succeeded", "status": "Unknown", "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    stages = [
        {"name": FREEZE, "state": "Succeeded", "job": "it-freeze"},
        {"name": "ingest-images", "state": "Running", "reason": "Running", "job": "it-ingest-images", **stage},
        {"name": "synthesize-captions", "state": "Waiting"},
    ]
    return {"observedGeneration": 1, "outcome": "Running", "conditions": [condition], "stages": stages, "retries": 0}


def is_quiet(
    status: dict[str, Any],
    *jobs: JobView,
    problems: dict[str, Problem | None] | None = None,
    trainer: str | None = None,
    rested: tuple[str, ...] = (),
    alias_news: bool = False,
    **fields: Any,
) -> bool:
    view = iteration(status=status, **fields)
    parsed = IterationStatus.model_validate(status)
    return quiet(
        view,
        parsed,
        jobs,
        Facts(view.generation, max(view.retry, parsed.retries), NOW, "", problems=problems or {}),
        trainer=lambda: trainer,
        rested=rested,
        alias_news=alias_news,
    )


#: Uid of its Job.
INGEST = "uid-it-ingest-images-0-1"
PULL = Problem("ImagePullBackOff", "no such image")
PENDING = said(state="Pending", reason="ImagePullBackOff", message="no such image")
FAILED_ONCE = said(message="1 failed attempt: OOMKilled", failures=1)
#: As an operator wrote it that did not count.
UNCOUNTED = said(message="1 failed attempt: OOMKilled")
BLOCKED = said(state="Pending", reason="WaitsForModel", message="iteration other trains the same model now", job=None)


@pytest.mark.parametrize(
    ("status", "jobs", "options", "expected"),
    [
        (said(), [job(active=1, ready=1)], {}, True),
        (said(), [job(active=1)], {}, True),
        (said(), [], {}, False),
        (said(), [job(condition="Complete")], {}, False),
        (said(), [job(condition="Failed")], {}, False),
        (said(), [job(suspend=True)], {}, False),
        (said(), [job(active=1, failed=1)], {}, False),
        (FAILED_ONCE, [job(active=1, failed=1)], {}, True),
        (FAILED_ONCE, [job(active=1, failed=2)], {}, False),
        (UNCOUNTED, [job(active=1, failed=1)], {}, False),  # the pods are asked again
        (said(), [job(active=1)], {"generation": 2}, False),
        (said(), [job(active=1)], {"retry": 1}, False),
        (said(), [job(active=1)], {"suspend": True}, False),
        (said(), [job(active=1)], {"problems": {INGEST: PULL}}, False),
        (PENDING, [job(active=1)], {"problems": {INGEST: PULL}}, True),
        (PENDING, [job(active=1)], {}, True),
        (PENDING, [job(active=1, ready=1)], {}, False),
        (PENDING, [job(active=1)], {"problems": {INGEST: None}}, False),
        (said(state="Retrying"), [job(active=1)], {}, False),
        (BLOCKED, [], {"trainer": "other"}, True),
        (BLOCKED, [], {}, False),
        ({**said(), "outcome": "Suspended"}, [job(suspend=True)], {"suspend": True, "rested": (INGEST,)}, True),
        ({**said(), "outcome": "Suspended"}, [job(suspend=True)], {"suspend": True}, False),
        (
            {**said(), "outcome": "Suspended"},
            [job(suspend=True, terminating=1)],
            {"suspend": True, "rested": (INGEST,)},
            False,
        ),
        (said(), [job(active=1, ready=1)], {"alias_news": True}, False),
        (BLOCKED, [], {"trainer": "another"}, False),
        ({**said(), "outcome": "Suspended"}, [job(active=1)], {"suspend": True}, False),
        (
            {**said(), "conditions": [{**said()["conditions"][0], "reason": "StoreUnavailable"}]},
            [job(active=1)],
            {},
            False,
        ),
        ({}, [], {}, False),
    ],
)
def test_nothing_is_read_where_the_status_says_what_jobs_show(
    status: dict[str, Any], jobs: list[JobView], options: dict[str, Any], expected: bool
) -> None:
    assert is_quiet(status, *jobs, **options) is expected
