"""Statuses and Events: what a person reads, and when nothing is written."""

from __future__ import annotations

from typing import Any

import pytest
from kube_objects import NOW, START, job

from fakes import world
from plan.builders import done, spec
from viper.methods.stages import FREEZE, stage_graph
from viper.plan import Done, Observed, ObservedStage, plan
from viper.spec.status import IterationStatus
from viper.stage.progress import ProgressRecord
from viper_operator.aliases import AliasSeen, Begun, claim
from viper_operator.events import Event, events
from viper_operator.observed import Problem, current_jobs, shards_of
from viper_operator.status import Facts, explained, iteration_status, noticeable, with_progress
from viper_operator.troubles import Attempts
from viper_operator.views import JobView

ORDER = (FREEZE, *(n.name for n in stage_graph(spec().recipe)))
EMPTY = IterationStatus()
#: Uid of its Job.
INGEST = "uid-it-ingest-images-0-1"
PULL = Problem("ImagePullBackOff", "pod p: no such image")


def status(
    *jobs: JobView,
    upto: str = "",
    stages: dict[str, ObservedStage] | None = None,
    previous: IterationStatus = EMPTY,
    suspend: bool = False,
    aliases: tuple[int, int] | None = None,
    **facts: Any,
) -> IterationStatus:
    """The status when these Jobs are there and the stages up to `upto` have manifests."""
    ready = ORDER[: ORDER.index(upto) + 1] if upto else ()
    found = {name: done(decision="promoted" if name == "promote" else "", version=2) for name in ready} | (stages or {})
    current = current_jobs(jobs, 0)
    for name, one in current.items():
        before = found.get(name, ObservedStage())
        found[name] = ObservedStage(shards_of(one, [], retries=2, now=NOW), before.done, before.problem)
    made = plan(spec(retries=2), Observed(found, suspend=suspend), NOW, freeze=True)
    given = {"generation": 1, "retries": 0, "now": NOW, "store": "s3://viper/iterations/it", "jobs": current}
    if aliases is not None:
        given["alias"] = claim(Begun(aliases[1], NOW - 9), AliasSeen(aliases[0], NOW), NOW)
    return iteration_status(made, Facts(**{**given, **facts}), previous)


def of(found: IterationStatus, stage: str) -> Any:
    return next(s for s in found.stages if s.name == stage)


def condition(found: IterationStatus, kind: str = "Succeeded") -> Any:
    return next(c for c in found.conditions if c.type == kind)


@pytest.mark.parametrize(
    ("one", "facts", "state", "reason", "message"),
    [
        (job(active=1, ready=1), {}, "Running", "Running", ""),
        (job(active=1), {}, "Pending", "Starting", ""),
        (job(active=1), {"problems": {INGEST: PULL}}, "Pending", "ImagePullBackOff", PULL.message),
        (job(active=1, ready=1), {"problems": {INGEST: PULL}}, "Running", "Running", ""),
        (job(active=1, failed=1), {}, "Retrying", "BackOff", "1 failed attempt"),
        (job(active=1, ready=1, failed=1), {}, "Running", "Running", "1 failed attempt"),
        (
            job(active=1, ready=1, failed=2),
            {"attempts": {INGEST: Attempts(2, "OOMKilled")}},
            "Running",
            "Running",
            "2 failed attempts: OOMKilled",
        ),
        (job(suspend=True, queue="q"), {}, "Pending", "Queued", "waits for quota in its Kueue queue"),
        (job(condition="Complete"), {}, "Retrying", "BackOff", "attempt 1 failed, the program exited with status 0"),
    ],
)
def test_what_is_said_of_a_stage_with_a_job(
    one: JobView, facts: dict[str, Any], state: str, reason: str, message: str
) -> None:
    stage = of(status(one, upto=FREEZE, **facts), "ingest-images")
    assert (stage.state, stage.reason) == (state, reason)
    assert stage.message.startswith(message)
    assert bool(stage.message) is bool(message)
    assert stage.failures == (one.failures or None)


def test_how_many_attempts_failed_stays_once_the_job_is_gone() -> None:
    first = status(job(active=1, ready=1, failed=2), upto=FREEZE, attempts={INGEST: Attempts(2, "OOMKilled")})
    assert of(status(upto="ingest-images", previous=first), "ingest-images").failures == 2
    assert of(first, FREEZE).failures is None
    assert "failures" not in of(first, FREEZE).dump()


def test_a_problem_that_was_said_stays_until_something_newer_is_known() -> None:
    first = status(job(active=1), upto=FREEZE, problems={INGEST: PULL})
    assert status(job(active=1), upto=FREEZE, previous=first) == first
    assert of(status(job(active=1, ready=1), upto=FREEZE, previous=first), "ingest-images").state == "Running"
    cleared = status(job(active=1), upto=FREEZE, previous=first, problems={INGEST: None})
    assert of(cleared, "ingest-images").state == "Running"


def test_the_summary_says_what_keeps_an_iteration_waiting() -> None:
    found = status(job(active=1), upto=FREEZE, problems={INGEST: PULL})
    assert condition(found).reason == "ImagePullBackOff"
    assert condition(found).message == "1 of 10 stages done: ingest-images pending (pod p: no such image)"
    assert found.progress == "1/10 stages, ingest-images ImagePullBackOff"
    blocked = status(upto="validate-captions", blocked={"train-captions": "other"})
    assert of(blocked, "train-captions").reason == "WaitsForModel"
    assert "other" in condition(blocked).message


def test_the_same_observation_gives_the_same_status_later() -> None:
    first = status(job(active=1, ready=1, gpus=1), upto=FREEZE)
    later = status(job(active=1, ready=1, gpus=1), upto=FREEZE, previous=first, now=NOW + 3600)
    assert later.dump() == first.dump()


def test_a_condition_keeps_the_time_of_its_last_transition() -> None:
    first = status(job(active=1), upto=FREEZE)
    second = status(job("synthesize-captions", active=1), upto="ingest-images", previous=first, now=NOW + 60)
    assert condition(second).message != condition(first).message
    assert condition(second).last_transition_time == condition(first).last_transition_time
    last = status(upto="promote", previous=second, now=NOW + 120)
    assert condition(last).status == "True"
    assert condition(last).last_transition_time > condition(first).last_transition_time


def test_what_a_promoted_iteration_says() -> None:
    evaluated = ObservedStage(
        done=Done(accepted=1, score="80.3 % (+8.4)", headline="accuracy theta2 80.3%", seconds=12.34)
    )
    frozen = world.frozen("it")
    found = status(upto="promote", stages={"evaluate": evaluated}, frozen=frozen)
    assert (found.outcome, found.stage, found.progress) == ("Promoted", "promote", "10/10 stages")
    assert (found.version, found.score) == (2, "80.3 % (+8.4)")
    assert (found.run, found.store) == ("r", "s3://viper/iterations/it")
    assert found.generator is not None
    assert (found.generator.model, found.generator.version) == ("m", 1)
    assert (of(found, "evaluate").headline, of(found, "evaluate").seconds) == ("accuracy theta2 80.3%", 12.3)


def test_gpu_seconds_are_those_of_the_job_and_outlive_it() -> None:
    trained = job("train-captions", condition="Complete", gpus=8, before=40)
    first = status(trained, upto="train-captions")
    assert of(first, "train-captions").gpu_seconds == 8 * 100
    assert first.gpu_seconds == 800
    assert status(upto="train-captions", previous=first).gpu_seconds == 800


def test_a_failed_stage_says_where_its_log_is() -> None:
    found = status(job(condition="Failed", reason="BackoffLimitExceeded", message="too often"), upto=FREEZE)
    assert found.outcome == "Failed"
    assert found.progress == "ingest-images: BackoffLimitExceeded"
    assert of(found, "ingest-images").message.endswith("(kubectl logs job/it-ingest-images)")
    assert of(found, "ingest-images").finished_at is not None


def test_an_alias_that_nobody_can_ask_for_now_is_what_it_was() -> None:
    moved = status(job(active=1), upto=FREEZE, aliases=(3, 1))
    assert condition(moved, "GeneratorCurrent").status == "False"
    unknown = status(job(active=1), upto=FREEZE, previous=moved)
    assert unknown.dump() == moved.dump()


def test_what_cannot_be_planned_leaves_the_stages_as_they_were() -> None:
    before = status(job(active=1), upto=FREEZE)
    facts = Facts(2, 0, NOW + 60, "")
    down = explained(before, "StoreUnavailable", "no route to host", facts)
    assert (down.outcome, down.stages) == ("Running", before.stages)
    assert (condition(down).status, condition(down).reason) == ("Unknown", "StoreUnavailable")
    broken = explained(EMPTY, "SpecInvalid", "spec.model: too short", facts, failed=True)
    assert (broken.outcome, condition(broken).status) == ("Failed", "False")


def test_progress_is_told_in_twentieths() -> None:
    def record(done_: int, total: int = 400) -> ProgressRecord:
        return ProgressRecord(phase="caption", done=done_, total=total, rate=2.0, eta_seconds=700.0, updated=NOW)

    running = status(job(active=1, ready=1), upto=FREEZE)
    shown = with_progress(running, {"ingest-images": record(100)})
    assert shown.progress == "100/400 ingest-images, caption, 12 min left"
    items = of(shown, "ingest-images").items
    assert (items.done, items.total, items.rate, items.eta_seconds) == (100, 400, 2.0, 700)
    assert noticeable(None, record(1))
    assert not noticeable(None, ProgressRecord(done=1))
    assert noticeable(items, record(100).model_copy(update={"phase": "critique"}))
    assert noticeable(items, record(100).model_copy(update={"waiting": "loading the critic"}))
    assert not noticeable(items, record(119))
    assert noticeable(items, record(120))
    assert noticeable(items, record(100, 500))
    assert noticeable(items.model_copy(update={"done": 399}), record(400))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"phase": "caption", "step": 1, "steps": 3, "total": 320, "waiting": "loading the generator"},
         "0/320 ingest-images, caption (1 of 3), loading the generator"),
        ({"phase": "caption", "total": 3,
          "waiting": f"https://host/v1/chat/completions: it answers 503: {'busy ' * 9}"},
         "0/3 ingest-images, caption, https://host/v1/chat/completions: it answers 503: busy busy…"),
        ({"phase": "critique", "step": 3, "steps": 3, "done": 5, "total": 320, "eta_seconds": 300.0},
         "5/320 ingest-images, critique (3 of 3), 5 min left"),
        ({"phase": "ingest", "done": 5, "total": 320}, "5/320 ingest-images"),
        ({"phase": "register"}, "ingest-images running, register"),
        ({"phase": "caption\n" * 200, "total": 3}, "0/3 ingest-images, " + "caption " * 24 + "caption"),
        ({"done": 5, "total": 320, "step": 2**39}, "5/320 ingest-images"),
    ],
    ids=["loading", "server", "third-phase", "named-by-the-stage", "no-items", "odd-text", "odd-number"],
)  # fmt: skip
def test_progress_says_the_phase_and_what_it_waits_for(record: dict[str, Any], expected: str) -> None:
    running = status(job(active=1, ready=1), upto=FREEZE)
    assert with_progress(running, {"ingest-images": ProgressRecord(**record)}).progress == expected


def test_a_stage_that_was_suspended_says_how_long_it_has_been_active() -> None:
    """Its Job began at 00:00:00, ended at 00:01:00, and had worked for 50 s before a suspension."""

    def active(found: IterationStatus) -> tuple[str | None, float | None]:
        stage = of(found, "ingest-images").dump()
        return stage.get("activeSince"), stage["activeSeconds"]

    assert active(status(job(active=1, ready=1), upto=FREEZE)) == (START, 0)
    assert active(status(job(suspend=True, before=50), upto=FREEZE, suspend=True)) == (None, 50)
    assert active(status(job(active=1, ready=1, before=50), upto=FREEZE)) == (START, 50)
    ended = status(job(condition="Complete", before=50), upto="ingest-images")
    assert active(ended) == (None, 110)
    assert active(status(upto="ingest-images", previous=ended)) == (None, 110)


# ---- Events ------------------------------------------------------------------------------------------------------


def test_a_transition_is_one_event() -> None:
    before = status(job(FREEZE, active=1))
    after = status(job(FREEZE, condition="Complete"), job(active=1), upto=FREEZE, previous=before)
    text = "freeze done; ingest-images started (Job it-ingest-images)"
    assert events(before, after) == [Event("Normal", "StageSucceeded", text)]
    assert events(EMPTY, before) == [Event("Normal", "StageStarted", "freeze started (Job it-freeze)")]


def test_nothing_new_is_no_event() -> None:
    found = status(job(active=1, failed=1), upto=FREEZE)
    assert events(found, found) == []


@pytest.mark.parametrize(
    ("after", "kind", "reason"),
    [
        (status(upto="promote"), "Normal", "Promoted"),
        (status(job(suspend=True), upto=FREEZE, suspend=True), "Normal", "Suspended"),
        (status(job(condition="Failed"), upto=FREEZE), "Warning", "Failed"),
        (status(upto=FREEZE, stages={"ingest-images": done(0)}), "Warning", "Held"),
        (status(job(active=1, failed=1), upto=FREEZE), "Warning", "AttemptFailed"),
        (status(job(active=1), upto=FREEZE, problems={INGEST: PULL}), "Warning", "ImagePullBackOff"),
        (status(job(suspend=True, queue="q"), upto=FREEZE), "Normal", "Queued"),
        (status(job(active=1), upto=FREEZE, aliases=(3, 1)), "Warning", "AliasMoved"),
        (status(job(active=1), upto=FREEZE, retries=1), "Normal", "Retry"),
    ],
)
def test_every_change_that_a_person_would_want_to_know_is_an_event(
    after: IterationStatus, kind: str, reason: str
) -> None:
    before = status(job(active=1), upto=FREEZE)
    assert (kind, reason) in [(e.type, e.reason) for e in events(before, after)]


def after(state: Any, reason: str, message: str = "", job_: str = "it-ingest-images") -> IterationStatus:
    """A status whose second stage is said to be so."""
    found = status(job(active=1, ready=1), upto=FREEZE)
    stages = list(found.stages)
    stages[1] = stages[1].model_copy(update={"state": state, "reason": reason, "message": message, "job": job_})
    return found.model_copy(update={"stages": stages})


FAILED = "1 failed attempt: OOMKilled"


@pytest.mark.parametrize(
    ("before", "then", "told"),
    [
        (after("Running", "Running"), after("Retrying", "BackOff", FAILED), ["AttemptFailed"]),
        (after("Retrying", "BackOff", FAILED), after("Running", "Running", FAILED), []),
        (after("Running", "Running", FAILED), after("Retrying", "BackOff", "2 failed attempts: E"), ["AttemptFailed"]),
        (after("Pending", "Starting"), after("Running", "Running"), []),
        (after("Running", "Running"), after("Pending", "Starting"), []),
        (after("Pending", "Starting"), after("Pending", "Unschedulable", "0/3 nodes"), ["Unschedulable"]),
        (after("Pending", "Unschedulable", "0/3 nodes"), after("Pending", "Unschedulable", "0/4 nodes"), []),
        (
            after("Pending", "Unschedulable", "no GPU"),
            after("Pending", "Unschedulable", "no memory"),
            ["Unschedulable"],
        ),
        (after("Pending", "Unschedulable", "no GPU"), after("Running", "Running"), []),
    ],
)
def test_an_event_tells_what_is_new_and_once(before: IterationStatus, then: IterationStatus, told: list[str]) -> None:
    assert [e.reason for e in events(before, then)] == told


def test_a_failed_attempt_is_one_event_whatever_came_between() -> None:
    first = events(after("Running", "Running"), after("Retrying", "BackOff", FAILED))
    again = events(after("Pending", "Unschedulable", "no GPU"), after("Running", "Running", FAILED))
    assert first == again
    assert first[0].once, "it is called the same"
    of_another = events(after("Running", "Running"), after("Retrying", "BackOff", FAILED, "it-ingest-images-a2"))
    assert of_another[-1].once != first[0].once


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("JobRefused", "freeze: the API server refuses the Job: 403 Forbidden: exceeded quota"),
        ("KubernetesError", "the API server does not do what the operator asks"),
        ("ProfileNotFound", "spec.profileRef: there is no ViperProfile a"),
        ("StoreUnavailable", "no route to host"),
        ("NewerVersionNeeded", "viper 0.9"),
    ],
)
def test_what_keeps_the_whole_from_going_on_is_an_event_once(reason: str, message: str) -> None:
    facts = Facts(1, 0, NOW, "")
    for before in (EMPTY, status(job(active=1, ready=1), upto=FREEZE)):
        stopped = explained(before, reason, message, facts)
        assert events(before, stopped)[-1] == Event("Warning", reason, message)
        assert events(stopped, stopped) == []
        assert events(stopped, before if before.conditions else stopped) == []


def test_resuming_is_an_event() -> None:
    before = status(job(suspend=True), upto=FREEZE, suspend=True)
    after = status(job(active=1), upto=FREEZE, previous=before)
    assert [e.reason for e in events(before, after)] == ["Resumed"]
