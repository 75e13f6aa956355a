"""From a plan to what happens to Jobs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from viper.plan import Plan, RetryAt, StartStage, StopStage
from viper.spec.status import IterationStatus
from viper_operator.cache import trains
from viper_operator.observed import Problem
from viper_operator.status import (
    INTERNAL_ERROR,
    ITERATION_MISSING,
    NEWER_VERSION,
    STORE_UNAVAILABLE,
    WAITS_FOR_MODEL,
    failures,
)
from viper_operator.views import IterationView, JobView


@dataclass(frozen=True)
class NewJob:
    """A Job to make."""

    stage: str
    attempt: int
    seconds_before: float


@dataclass(frozen=True)
class Decision:
    """What happens to Jobs now. `blocked`: by stage, the iteration that trains the same model. `wake_at`: when the
    plan wants to be asked again, None if never."""

    create: tuple[NewJob, ...] = ()
    resume: tuple[JobView, ...] = ()
    suspend: tuple[JobView, ...] = ()
    delete: tuple[JobView, ...] = ()
    blocked: Mapping[str, str] = field(default_factory=dict)
    wake_at: float | None = None


def decide(
    made: Plan,
    jobs: Mapping[str, JobView],
    *,
    suspended: bool,
    trainer: Callable[[], str | None],
    now: float,
) -> Decision:
    """What the actions of a plan mean for Jobs.

    Args:
        jobs: the Job that counts, by stage.
        suspended: whether a person has suspended the iteration.
        trainer: another iteration that trains the same model now.
    """
    create: list[NewJob] = []
    resume: list[JobView] = []
    blocked: dict[str, str] = {}
    starts = {a.stage: a for a in made.actions if isinstance(a, StartStage)}
    for stage, action in starts.items():
        job = jobs.get(stage)
        if trains(stage) and (other := trainer()) is not None:
            blocked[stage] = other
        elif job is not None and not job.finished:
            if not job.deleting:  # else it is made again once it is gone
                resume.append(job)
        else:
            before = 0.0 if job is None else job.active_seconds(now)
            create.append(NewJob(stage, action.attempt, before))
    stopped = {a.stage: a for a in made.actions if isinstance(a, StopStage)}
    running = [jobs[s] for s in stopped if s in jobs and jobs[s].working]
    # Kueue owns `suspend` of the Jobs in its queues: there the Job goes, what it has made stays. So it does for an
    # iteration that has ended, whose Jobs nobody would ever resume.
    gone = [j for j in running if j.queued or not suspended]
    wakes = [a.at for a in made.actions if isinstance(a, RetryAt)]
    return Decision(
        create=tuple(create),
        resume=tuple(resume),
        suspend=tuple(j for j in running if j not in gone),
        delete=tuple(gone),
        blocked=blocked,
        wake_at=min(wakes, default=None),
    )


def quiet(
    iteration: IterationView,
    status: IterationStatus,
    jobs: Iterable[JobView],
    *,
    problems: Mapping[str, Problem | None],
    trainer: Callable[[], str | None],
    unreadable: Mapping[str, str] = MappingProxyType({}),
) -> bool:
    """Whether the status says already all that Jobs and spec can say, so that the store need not be asked.

    True only for an iteration that waits for its Jobs: every stage that is not done waits for others, works in a Job
    that works, or waits for its model.
    """
    if status.observed_generation != iteration.generation or status.retries < iteration.retry:
        return False
    by_name = {j.name: j for j in jobs}
    working = {j.name for j in by_name.values() if j.working}
    if iteration.suspend:
        return status.outcome == "Suspended" and not working
    summary = status.conditions[0] if status.outcome == "Running" and status.conditions else None
    news = any(unreadable.values()) != any(c.type == INTERNAL_ERROR for c in status.conditions)
    again = (STORE_UNAVAILABLE, ITERATION_MISSING, INTERNAL_ERROR, NEWER_VERSION)
    if news or summary is None or summary.status != "Unknown" or summary.reason in again:
        return False
    for stage in status.stages:
        if stage.state in ("Succeeded", "Waiting"):
            continue
        if stage.state == "Pending" and stage.reason == WAITS_FOR_MODEL:
            if trainer() is None:
                return False
            continue
        job = by_name.get(stage.job or "")
        if job is None or not job.working or not _said(stage.state, stage.reason, stage.message, job, problems):
            return False
    return any(s.state in ("Running", "Pending") for s in status.stages)


def _said(state: str, reason: str, message: str, job: JobView, problems: Mapping[str, Problem | None]) -> bool:
    """Whether a stage's entry says what its working Job shows."""
    if job.queued and job.suspended:
        return reason == "Queued"
    ready = job.active > 0 and job.ready >= job.active
    if state == "Pending":
        problem = problems.get(job.name, Problem(reason, message))
        return reason != "Queued" and not ready and problem is not None and problem.reason == reason
    if state != "Running" or (not ready and problems.get(job.name) is not None):
        return False
    return message.startswith(failures(job)) if job.failures else message == ""
