"""The status that a plan and its observations amount to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from viper.plan import Condition, Plan, State
from viper.plan import StageStatus as PlannedStage
from viper.spec.status import (
    MOST,
    GeneratorStatus,
    ItemsStatus,
    IterationStatus,
    StageStatus,
    StatusCondition,
)
from viper.stage.frozen import FrozenIteration
from viper.stage.progress import ProgressRecord, phase_words
from viper.words import in_brackets, joined, one_line, plural
from viper_operator.aliases import GENERATOR_CURRENT, promoting
from viper_operator.observed import Problem
from viper_operator.troubles import WAITS_FOR_MODEL, Attempts, Said, of_this, suspended, waits_for, working
from viper_operator.views import JobView

#: Reasons of our own that are looked for again.
STORE_UNAVAILABLE = "StoreUnavailable"
#: It has begun, and the store knows nothing of it.
ITERATION_MISSING = "IterationMissing"
NEWER_VERSION = "NewerVersionNeeded"
#: Reason of the summary, and a condition of its own, where something cannot be understood.
INTERNAL_ERROR = "InternalError"
#: The API server did not do what was asked of it, and is neither away nor busy.
KUBERNETES_ERROR = "KubernetesError"
#: Characters of a condition's message.
LONGEST = 8000
#: Characters of what a stage program says of itself, and of what of that stands in a column of a table.
LONGEST_PHASE, LONGEST_CELL = 200, 60
RUNNING_STATES = ("Running", "Pending", "Retrying")


@dataclass(frozen=True)
class Facts:
    """What a status is made from beside the plan.

    `blocked`: by stage, the iteration that trains the same model now. `alias`: what may be said of it now.
    By uid of the Job, `problems`: what keeps it from running; None: it was looked at and nothing does; not there: not
    looked at. `attempts`: what pods have said of those that failed. `unreadable`: what is wrong with its progress.
    """

    generation: int
    retries: int
    now: float
    store: str
    jobs: Mapping[str, JobView] = field(default_factory=dict)
    frozen: FrozenIteration | None = None
    problems: Mapping[str, Problem | None] = field(default_factory=dict)
    blocked: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, Attempts] = field(default_factory=dict)
    progress: Mapping[str, ProgressRecord] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    alias: Condition | None = None


def iteration_status(made: Plan, facts: Facts, previous: IterationStatus) -> IterationStatus:
    """The status of an iteration."""
    before = {s.name: s for s in previous.stages}
    stages = [_stage(s, facts, before.get(s.name)) for s in made.stages]
    at = _current(stages)
    frozen = facts.frozen
    decided, evaluated = made.made("decision"), made.made("scores")
    outcome = made.outcome.capitalize()
    if made.outcome == "running" and stages[0].name == "freeze" and stages[0].state in ("Waiting", "Pending"):
        outcome = "Pending"
    return IterationStatus(
        observed_generation=facts.generation,
        conditions=conditions(
            [*_spoken(made.conditions, stages), *_unreadable(stages, facts), *_alias(made, stages, facts, previous)],
            facts,
            previous.conditions,
        ),
        outcome=outcome,
        stage=at.name,
        progress=_progress(at, stages, outcome),
        generator=None
        if frozen is None
        else GeneratorStatus(
            model=frozen.generator.model,
            version=frozen.generator.version,
            uri=frozen.generator.uri,
            digest=frozen.generator.digest,
        ),
        version=None if decided is None else decided.version,
        score=evaluated.score or None if evaluated is not None else None,
        stages=stages,
        gpu_seconds=sum(s.gpu_seconds for s in stages),
        retries=facts.retries,
        run=None if frozen is None else frozen.tracking.parent_run,
        store=facts.store,
    )


def conditions(
    found: Iterable[Condition | StatusCondition], facts: Facts, previous: Sequence[StatusCondition]
) -> list[StatusCondition]:
    """Conditions with the time of their last transition."""
    before = {c.type: c for c in previous}
    result = []
    for c in found:
        old, message = before.get(c.type), one_line(c.message)
        since = old.last_transition_time if old is not None and old.status == c.status else _time(facts.now)
        result.append(
            StatusCondition(
                type=c.type,
                status=c.status,
                reason=c.reason,
                message=message if len(message) <= LONGEST else f"{message[: LONGEST - 1]}…",
                last_transition_time=since,
                observed_generation=facts.generation,
            )
        )
    return result


def explained(
    previous: IterationStatus,
    reason: str,
    message: str,
    facts: Facts,
    *,
    failed: bool = False,
    internal: Exception | None = None,
) -> IterationStatus:
    """The last status with another summary: the plan could not be made, or the spec cannot be used.

    `internal`: what was raised that nobody has foreseen; it gets a condition `InternalError` beside the summary, which
    goes as soon as the resource is understood again.
    """
    summary = Condition("Succeeded", "False" if failed else "Unknown", reason, message)
    told = ("Succeeded", INTERNAL_ERROR, *([GENERATOR_CURRENT] if failed else ()))
    others = [Condition(c.type, c.status, c.reason, c.message) for c in previous.conditions if c.type not in told]
    if internal is not None:
        others.append(Condition(INTERNAL_ERROR, "True", type(internal).__name__, message))
    return previous.model_copy(
        update={
            "observed_generation": facts.generation,
            "conditions": conditions([summary, *others], facts, previous.conditions),
            "outcome": "Failed" if failed else previous.outcome or "Pending",
            "progress": reason if failed else previous.progress or reason,
            "retries": facts.retries,
        }
    )


def _alias(
    made: Plan, stages: Sequence[StageStatus], facts: Facts, previous: IterationStatus
) -> Iterable[Condition | StatusCondition]:
    """What is said of the alias; what cannot be asked for now stays as it was said."""
    if made.finished or promoting(stages, made.making("decision")):
        return []
    if facts.alias is not None:
        return [facts.alias]
    return [c for c in previous.conditions if c.type == GENERATOR_CURRENT]


def _unreadable(stages: Sequence[StageStatus], facts: Facts) -> list[Condition]:
    """What cannot be understood and stops nothing: progress is for show."""
    found = [
        f"the progress of {s.name} cannot be read, the stage goes on: {problem}"
        for s in stages
        if s.state == "Running"
        and (job := facts.jobs.get(s.name)) is not None
        and (problem := facts.unreadable.get(job.uid, ""))
    ]
    return [Condition(INTERNAL_ERROR, "True", "ProgressUnreadable", joined(found)[:1000])] if found else []


def said_of(planned: PlannedStage, job: JobView | None, facts: Facts, before: StageStatus | None) -> Said:
    """What is said of a stage: what the plan says, and what is known of its Job beyond that."""
    state, reason, message = planned.state, planned.reason, planned.message
    if planned.name in facts.blocked:
        return Said(State.PENDING, WAITS_FOR_MODEL, waits_for(facts.blocked[planned.name]))
    if job is not None and state is State.RUNNING:
        return working(job, before, facts.problems, facts.attempts)
    if state is State.SUSPENDED:
        return suspended(job, message)
    if state is State.FAILED and job is not None and job.name not in message:
        message = f"{message} (kubectl logs job/{job.name})"
    return Said(state, reason, one_line(message))


def failures_of(job: JobView | None, before: StageStatus | None) -> int | None:
    """How many attempts have failed, as a status has it."""
    if job is None:
        return None if before is None else before.failures
    return min(job.failures, MOST) or None


def _stage(planned: PlannedStage, facts: Facts, before: StageStatus | None) -> StageStatus:
    job, done = facts.jobs.get(planned.name), planned.done
    state, reason, message = said_of(planned, job, facts, before)
    items = None
    if job is not None and (state is State.RUNNING or (state is State.PENDING and job.ready)):  # some of its pods are
        known = before.items if before is not None and of_this(before, job) else None
        record = facts.progress.get(planned.name)
        items = known if record is None else items_of(record)
    started = _time(job.created) if job is not None else before.started_at if before is not None else None
    finished = None
    if state in (State.SUCCEEDED, State.FAILED, State.HELD):
        finished = before.finished_at if before is not None else None
        if job is not None and (finished is None or started is None or finished < started):
            finished = _time(job.ended or facts.now)
    since, active = _active(job, before, ended=finished is not None)
    return StageStatus(
        name=planned.name,
        state=state.value,
        reason=reason,
        message=message,
        job=job.name if job is not None else before.job if before is not None else None,
        failures=failures_of(job, before),
        items=items,
        gpu_seconds=_gpu_seconds(job, state, facts.now, before),
        seconds=None if done is None or not done.seconds else round(done.seconds, 1),
        headline=done.headline or None if done is not None else None,
        started_at=started,
        active_since=since,
        active_seconds=active,
        finished_at=finished,
    )


def _active(job: JobView | None, before: StageStatus | None, *, ended: bool) -> tuple[datetime | None, float | None]:
    """Since when a stage has been active, and for how many seconds before that (at its end: in all)."""
    if job is None:
        return (None, None) if before is None else (None if ended else before.active_since, before.active_seconds)
    if ended and job.ended is not None:
        return None, round(job.active_seconds(job.ended))
    return (None if job.started is None or job.suspended else _time(job.started)), round(job.seconds_before)


def _gpu_seconds(job: JobView | None, state: State, now: float, before: StageStatus | None) -> float:
    known = 0.0 if before is None else before.gpu_seconds
    if job is None or not job.gpus:
        return known
    if state in (State.SUCCEEDED, State.FAILED, State.HELD, State.SUSPENDED):
        return max(round(job.gpus * job.active_seconds(now)), known)
    return known


def _current(stages: Sequence[StageStatus]) -> StageStatus:
    """The stage that a person wants to know about: the one that stopped, else the first that is not done."""
    stopped = [s for s in stages if s.state in ("Failed", "Held")]
    going = [s for s in stages if s.state not in ("Succeeded", "Waiting")]
    return (stopped or going or [s for s in stages if s.state == "Waiting"] or [stages[-1]])[0]


def _spoken(found: Sequence[Condition], stages: Sequence[StageStatus]) -> list[Condition]:
    """The summary with what is known of the stages beyond the plan."""
    first, *others = found
    going = [s for s in stages if s.state not in ("Succeeded", "Waiting")]
    if first.status == "Unknown" and going:
        done = first.message.partition(":")[0]
        texts = [f"{s.name} {s.state.lower()}{in_brackets(s.message)}" for s in going]
        at = _current(stages)
        reason = at.reason if at.state in ("Pending", "Retrying") and at.reason != "Ready" else at.state
        first = Condition(first.type, first.status, reason, f"{done}: {', '.join(texts)}")
    return [first, *others]


def _progress(at: StageStatus, stages: Sequence[StageStatus], outcome: str) -> str:
    finished = sum(s.state == "Succeeded" for s in stages)
    if outcome in ("Promoted", "Registered"):
        return f"{finished}/{plural(len(stages), 'stage')}"
    if at.state in ("Failed", "Held"):
        return f"{at.name}: {at.reason}"
    if (items := at.items) is not None and (items.total or items.phase):
        over = items.total and items.done >= items.total
        left = "" if items.eta_seconds is None or over else f"{duration(items.eta_seconds)} left"
        counts = f"{items.done}/{items.total} {at.name}" if items.total else f"{at.name} {at.state.lower()}"
        phase = phase_words(items.phase, items.step, items.steps) if items.phase not in at.name else ""
        waiting = items.waiting if len(items.waiting) <= LONGEST_CELL else f"{items.waiting[: LONGEST_CELL - 1]}…"
        return ", ".join(x for x in (counts, phase, left or waiting) if x)
    what = at.reason if at.state == "Pending" and at.reason != "Ready" else at.state.lower()
    return f"{finished}/{plural(len(stages), 'stage')}, {at.name} {what}"


def duration(seconds: float) -> str:
    """A length of time in the largest unit that fits; coarse, as estimates are."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under 1 min"
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"


def items_of(record: ProgressRecord) -> ItemsStatus:
    """Progress as a status has it."""
    eta = record.eta_seconds
    return ItemsStatus(
        done=record.done,
        total=record.total,
        rate=record.rate,
        eta_seconds=None if eta is None else round(eta),
        phase=one_line(record.phase)[:LONGEST_PHASE].rstrip(),
        step=min(record.step, MOST),
        steps=min(record.steps, MOST),
        waiting=one_line(record.waiting)[:LONGEST_PHASE],
    )


def with_progress(status: IterationStatus, records: Mapping[str, ProgressRecord]) -> IterationStatus:
    """The same status with newer progress of the stages that run."""
    stages = [
        s.model_copy(update={"items": items_of(records[s.name])})
        if s.name in records and (s.state == "Running" or s.items is not None)
        else s
        for s in status.stages
    ]
    update = {"stages": stages, "progress": _progress(_current(stages), stages, status.outcome or "")}
    return status.model_copy(update=update)


def noticeable(old: ItemsStatus | None, new: ProgressRecord) -> bool:
    """Whether progress is worth a write: the first of a stage or phase, a twentieth further, the end in sight, or that
    it waits, or does no more."""
    if old is None:
        return new.total > 0 or bool(new.phase)
    if _at(old) != _at(items_of(new)):
        return True
    return new.done - old.done >= max(1.0, new.total / 20) or (new.done != old.done and new.done == new.total)


def _at(progress: ItemsStatus) -> tuple[int, str, bool]:
    return progress.total, progress.phase, bool(progress.waiting)


def is_other(old: ItemsStatus | None, new: ProgressRecord) -> bool:
    """Whether progress is another than what is shown."""
    if old is None:
        return new.total > 0 or bool(new.phase)
    return old.done != new.done or _at(old) != _at(items_of(new))


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
