"""From a plan to what happens to Jobs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from viper.plan import Plan, RetryAt, StartStage, State, StopStage
from viper.plan import StageStatus as PlannedStage
from viper.spec.status import IterationStatus, StageStatus
from viper_operator.status import (
    INTERNAL_ERROR,
    ITERATION_MISSING,
    KUBERNETES_ERROR,
    NEWER_VERSION,
    RUNNING_STATES,
    STORE_UNAVAILABLE,
    Facts,
    failures_of,
    said_of,
)
from viper_operator.troubles import WAITS_FOR_MODEL, at_rest
from viper_operator.views import IterationView, JobView

#: States of a stage that has no end yet.
UNSETTLED = (State.WAITING, State.PENDING, State.RUNNING, State.RETRYING, State.SUSPENDED)
#: Reasons of a summary that tells of what may be over by now.
AGAIN = frozenset({STORE_UNAVAILABLE, ITERATION_MISSING, INTERNAL_ERROR, NEWER_VERSION, KUBERNETES_ERROR})


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
    known: Iterable[JobView] = (),
) -> Decision:
    """What the actions of a plan mean for Jobs.

    Args:
        known: all Jobs of the iteration; those that are left over are deleted.
        jobs: the Job that counts, by stage.
        suspended: whether a person has suspended the iteration.
        trainer: another iteration that trains the same model now.
    """
    create: list[NewJob] = []
    resume: list[JobView] = []
    blocked: dict[str, str] = {}
    starts = {a.stage: a for a in made.actions if isinstance(a, StartStage)}
    trainings = made.making("model")
    for stage, action in starts.items():
        job = jobs.get(stage)
        if stage in trainings and (other := trainer()) is not None:
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
    gone += [j for j in left_over(known, jobs, made) if j not in gone]
    wakes = [a.at for a in made.actions if isinstance(a, RetryAt)]
    return Decision(
        create=tuple(create),
        resume=tuple(resume),
        suspend=tuple(j for j in running if j not in gone),
        delete=tuple(gone),
        blocked=blocked,
        wake_at=min(wakes, default=None),
    )


def left_over(jobs: Iterable[JobView], current: Mapping[str, JobView], made: Plan | None = None) -> list[JobView]:
    """Jobs that are suspended and that nobody would ever resume: their stage is done, or another Job is its stage's, or
    the iteration has ended (`made` None)."""
    going = () if made is None or made.finished else [s.name for s in made.stages if s.state in UNSETTLED]
    return [
        job
        for job in jobs
        if job.suspended
        and not job.finished
        and not job.deleting
        and (job.stage not in going or current.get(job.stage, job).name != job.name)
    ]


def quiet(
    iteration: IterationView,
    status: IterationStatus,
    jobs: Iterable[JobView],
    facts: Facts,
    *,
    trainer: Callable[[], str | None],
    rested: Container[str] = (),
    alias_news: bool = False,
) -> bool:
    """Whether the status says already all that Jobs, spec and registry can say, so that the store need not be asked.

    True only for an iteration that waits for its Jobs: every stage that is not done waits for others, works in a Job
    that works, or waits for its model; and for one that is suspended and whose pods had gone when it was looked at.

    Args:
        facts: what a status would be made from; what its Jobs show is compared with what is said of its stages.
        rested: uids of Jobs whose stage was looked at after their pods had gone.
        alias_news: whether more can be said of the alias.
    """
    if alias_news or status.observed_generation != facts.generation or status.retries < facts.retries:
        return False
    summary = status.conditions[0] if status.conditions else None
    if summary is None or summary.status != "Unknown" or summary.reason in AGAIN:
        return False
    by_name = {j.name: j for j in jobs}
    if iteration.suspend:
        open_ = [j for j in by_name.values() if not j.finished and not j.deleting]
        return status.outcome == "Suspended" and all(at_rest(j) and j.uid in rested for j in open_)
    unreadable = any(facts.unreadable.get(j.uid) for j in by_name.values())
    news = unreadable != any(c.type == INTERNAL_ERROR for c in status.conditions)
    if news or status.outcome not in ("Running", "Pending"):
        return False
    if not any(s.state in RUNNING_STATES for s in status.stages):
        return False
    going = [s for s in status.stages if s.state not in ("Succeeded", "Waiting")]
    return all(_is_said(s, by_name.get(s.job or ""), facts, trainer) for s in going)


def _is_said(stage: StageStatus, job: JobView | None, facts: Facts, trainer: Callable[[], str | None]) -> bool:
    """Whether a stage's entry says what would be written of it: what its Job shows, or whom it waits for."""
    if stage.state == "Pending" and stage.reason == WAITS_FOR_MODEL:
        if (other := trainer()) is None:
            return False
        facts = replace(facts, blocked={stage.name: other})
    elif job is None or not job.working:
        return False
    would = said_of(PlannedStage(stage.name, State.RUNNING), job, facts, stage)
    said = (stage.state, stage.reason, stage.message, stage.failures)
    return (*would, failures_of(job, stage)) == said
