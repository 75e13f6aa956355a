"""Whether what the operator's statuses said of stages was so: their Jobs, pods, manifests, times and progress. Pure.

Every rule is a generator of faults; `RULES` are all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from watcher.timeline import Object, Span, Track
from watcher.truth import Stage, World, ended, moment

FINISHED = ("Promoted", "Registered", "Held", "Failed")
#: A stage that has one of these changes no more, unless a person asks.
OVER = ("Succeeded", "Held", "Failed")
#: Seconds by which times in a status may differ from those of Jobs.
CLOSE = 2.0


class Fault(NamedTuple):
    """Something that was said and not so, or not said. `at`: seconds since the epoch."""

    rule: str
    at: float
    what: str


class Claim(NamedTuple):
    """What is said of a stage. `seen`: by whom it is said, for a person."""

    state: str
    reason: str = ""
    message: str = ""
    job: str = ""
    failures: int = 0


def status_of(body: Object | None) -> Object:
    """Its status, empty where there is none."""
    return {} if body is None else body.get("status") or {}


def conditions(status: Object) -> dict[str, Object]:
    """By type."""
    return {c["type"]: c for c in status.get("conditions") or ()}


def stages_of(status: Object) -> dict[str, Object]:
    """By name."""
    return {s["name"]: s for s in status.get("stages") or ()}


def claim(status: Object, stage: str) -> Claim | None:
    """What a status says of a stage."""
    found = stages_of(status).get(stage)
    if found is None:
        return None
    texts = (found.get(key) or "" for key in ("reason", "message", "job"))
    return Claim(found["state"], *texts, failures=found.get("failures") or 0)


def names(world: World, iteration: str) -> list[str]:
    """All stages that a status of this iteration ever named."""
    spans = world.iterations[iteration].spans(world.end)
    return list(dict.fromkeys(n for s in spans for n in stages_of(status_of(s.value))))


# ---- stages ----------------------------------------------------------------------------------------------------------


def support(said: Claim, stage: Stage, body: Object | None) -> bool:
    """Whether a stage and its iteration are as is said."""
    return said.state in SUPPORTS and SUPPORTS[said.state](said, stage, body)


def _running(said: Claim, stage: Stage, _: Object | None) -> bool:
    if said.failures:
        return stage.open(said.job)
    return stage.works(said.job) if said.job else bool(stage.working)


def _pending(said: Claim, stage: Stage, _: Object | None) -> bool:
    if said.reason in NOT_OF_PODS:
        return not stage.working
    if said.reason == "Queued":
        return any(j["spec"].get("suspend") for j in stage.jobs.values())
    return said.reason in stage.troubles(said.job)


def _succeeded(_: Claim, stage: Stage, __: Object | None) -> bool:
    return stage.manifest is not None and (not stage.jobs or any(ended(j) == "Complete" for j in stage.jobs.values()))


def _failed(_: Claim, stage: Stage, __: Object | None) -> bool:
    return not stage.jobs or stage.manifest is not None or any(ended(j) == "Failed" for j in stage.jobs.values())


def _retrying(_: Claim, stage: Stage, __: Object | None) -> bool:
    return any(j.get("status", {}).get("failed") or ended(j) for j in stage.jobs.values())


def _suspended(_: Claim, __: Stage, body: Object | None) -> bool:
    return bool((body or {}).get("spec", {}).get("suspend"))


#: Reasons to be pending that no pod can tell.
NOT_OF_PODS = ("", "Ready", "Starting", "WaitsForModel", "JobRefused", "NameTaken")
SUPPORTS: dict[str, Callable[[Claim, Stage, Object | None], bool]] = {
    "Waiting": lambda said, stage, body: stage.manifest is None and not any(stage.open(n) for n in stage.jobs),
    "Pending": _pending,
    "Running": _running,
    "Retrying": _retrying,
    "Suspended": _suspended,
    "Succeeded": _succeeded,
    "Held": lambda said, stage, body: stage.manifest is not None,
    "Failed": _failed,
}


def unsupported(world: World, shown: Span, said: Claim, name: str, stage: str) -> float | None:
    """The first moment at which a stage and its iteration were not as was said; None: they always were.

    A Job that is there counts as running for a while before its pod does. A manifest makes a stage done; its Job may
    take a while to end.
    """
    fact = world.stages[name, stage].beside(world.iterations[name])
    if said.state == "Succeeded":
        at = world.untrue(shown, fact, lambda v: v[0].manifest is not None, early=world.looks)
        if at is not None:
            return at
    if said.failures and said.state in ("Running", "Retrying"):  # of which one may have been the last
        at = world.untrue(shown, fact, lambda v: v[0].failures(said.job) == said.failures)
        if at is not None:
            return at
    early = world.late if said.state in ("Running", "Succeeded") else world.early
    return world.untrue(shown, fact, lambda v: support(said, v[0], v[1]), early=early)


def stage_is_as_said(world: World) -> Iterator[Fault]:
    """The state of every stage in every status: its Job, its pods and its manifest are so."""
    for name, bodies in list(world.iterations.items()):
        for stage in names(world, name):
            for shown in bodies.map(lambda b, s=stage: claim(status_of(b), s)).spans(world.end):  # type: ignore[misc]
                said: Claim | None = shown.value
                if said is not None and (at := unsupported(world, shown, said, name, stage)) is not None:
                    yield Fault("stage is as said", at, f"{name}: {stage} {_words(said)}")


def work_is_said(world: World) -> Iterator[Fault]:
    """A Job at work is its stage's, and the stage runs; one that is complete is a stage that is done."""
    for (name, stage), track in list(world.stages.items()):
        shown = world.iterations[name].map(lambda b, s=stage: claim(status_of(b), s))  # type: ignore[misc]
        for so in track.map(lambda s: tuple(s.working)).spans(world.end):
            for job in so.value:
                at = world.untold(so, shown, lambda c, j=job: c is not None and (c.state, c.job) == ("Running", j))
                if at is not None:
                    yield Fault("work is said", at, f"{name}: Job {job} works and {stage} is not said to run")
        done = track.map(lambda s: s.manifest is not None and any(ended(j) == "Complete" for j in s.jobs.values()))
        for so in done.spans(world.end):
            at = world.untold(so, shown, lambda c: c is not None and c.state in ("Succeeded", "Held"))
            if so.value and at is not None:
                yield Fault("work is said", at, f"{name}: {stage} is done, and nobody says so")


def trouble_is_said(world: World) -> Iterator[Fault]:
    """What keeps the pods of a Job from running is the reason of its stage; the operator looks after ten seconds."""
    for (name, stage), track in list(world.stages.items()):
        shown = world.iterations[name].map(lambda b, s=stage: claim(status_of(b), s))  # type: ignore[misc]
        troubled = track.map(lambda s: {j: frozenset(s.troubles(j)) for j in s.jobs if s.open(j) and s.troubles(j)})
        for so in troubled.spans(world.end):
            for job, words in so.value.items():
                at = world.untold(so, shown, lambda c, w=words: c is not None and c.reason in w, more=10.0)
                if at is not None:
                    yield Fault("trouble is said", at, f"{name}: {job}: {', '.join(sorted(words))}, not said")


def done_stays_done(world: World) -> Iterator[Fault]:
    """A stage that is over stays as it is, an iteration that has ended too; nothing of one that has ended goes on."""
    for name, bodies in list(world.iterations.items()):
        before: Object = {}
        for shown in bodies.spans(world.end):
            status = status_of(shown.value)
            old, new = stages_of(before), stages_of(status)
            if not status or status.get("retries", 0) > before.get("retries", 0):  # deleted, or a person has asked
                old, before = {}, {}
            for stage, was in old.items():
                now = new.get(stage, {})
                if was["state"] in OVER and any(now.get(k) != was.get(k) for k in ("state", "headline", "job")):
                    yield Fault("done stays done", shown.start, f"{name}: {stage} was {was['state']}, is {now}")
            if before.get("outcome") in FINISHED and status.get("outcome") != before["outcome"]:
                yield Fault(
                    "done stays done", shown.start, f"{name}: {before['outcome']}, then {status.get('outcome')}"
                )
            if status.get("outcome") in FINISHED:
                for stage, now in new.items():
                    if now["state"] in ("Running", "Pending", "Retrying", "Suspended"):
                        yield Fault(
                            "done stays done", shown.start, f"{name} has ended, and {stage} is said {now['state']}"
                        )
            before = status


def times_are_the_jobs(world: World) -> Iterator[Fault]:
    """`startedAt`, `finishedAt` and transition times are when it was."""
    for name, bodies in list(world.iterations.items()):
        for stage in names(world, name):
            jobs: dict[str, list[Object]] = {}
            for known in world.stages[name, stage].spans(world.end):
                for job_name, body in known.value.jobs.items():
                    jobs.setdefault(job_name, []).append(body)
            seen = bodies.map(lambda b, s=stage: stages_of(status_of(b)).get(s))  # type: ignore[misc]
            for shown in seen.spans(world.end):
                yield from _times(world, f"{name}: {stage}", shown, jobs)
        yield from _transitions(world, name, bodies)
    for name, bodies in list(world.loops.items()):
        yield from _transitions(world, name, bodies)


def _times(world: World, what: str, shown: Span, jobs: dict[str, list[Object]]) -> Iterator[Fault]:
    said = shown.value or {}
    known = jobs.get(said.get("job") or "", ())  # one of that name may have been deleted and made again
    begins = [t for j in known for t in (j["metadata"]["creationTimestamp"], j.get("status", {}).get("startTime")) if t]
    ends = [c["lastTransitionTime"] for j in known for c in j.get("status", {}).get("conditions") or ()]
    for field, times, close in (("startedAt", begins, CLOSE), ("finishedAt", ends, world.late)):
        at = said.get(field)
        if at is not None and times and min(abs(moment(at) - moment(t)) for t in times) > close:
            yield Fault("times are the Jobs'", shown.start, f"{what} {field} {at}, its Job {times[-1]}")


def _transitions(world: World, name: str, bodies: Track[Any]) -> Iterator[Fault]:
    before: dict[str, Object] = {}
    for shown in bodies.spans(world.end):
        now = conditions(status_of(shown.value))
        for kind, c in now.items():
            old, since = before.get(kind), moment(c["lastTransitionTime"])
            if old is not None and old["status"] == c["status"]:
                wrong = old["lastTransitionTime"] != c["lastTransitionTime"]
            else:
                wrong = not shown.start - world.late <= since <= shown.start + world.early
            if wrong:
                yield Fault("times are the Jobs'", shown.start, f"{name}: {kind}={c['status']} since {since:.0f}")
        before = now


def progress_is_the_programs(world: World) -> Iterator[Fault]:
    """Items are those that the stage program has written, lately; they never go back within a phase of a Job."""
    for name, bodies in list(world.iterations.items()):
        for stage in names(world, name):
            seen = bodies.map(lambda b, s=stage: _items(stages_of(status_of(b)).get(s)))  # type: ignore[misc]
            before: tuple[Any, ...] | None = None
            for shown in seen.spans(world.end):
                if shown.value is None:
                    before = None
                    continue
                job, phase, done, total = shown.value
                what = f"{name}: {stage} {phase} {done}/{total}"
                if done > total > 0:
                    yield Fault("progress is the program's", shown.start, f"{what} is more than all")
                if before is not None and before[:2] == (job, phase) and before[3] == total and done < before[2]:
                    yield Fault("progress is the program's", shown.start, f"{what} after {before[2]}/{total}")
                before = shown.value
                at = world.untrue(
                    shown, steps(world, name, stage), partial(passed, said=shown.value[1:]), early=world.looks
                )
                if at is not None:
                    yield Fault("progress is the program's", at, f"{what} is not what the program says")


def waiting_is_the_programs(world: World) -> Iterator[Fault]:
    """What a stage waits for is what its program has written, and is said while it waits for long."""
    for (name, stage), track in list(world.stages.items()):
        said = world.iterations[name].map(lambda b, s=stage: _waiting(stages_of(status_of(b)).get(s)))  # type: ignore[misc]
        fact = track.map(lambda s: (s.progress or {}).get("waiting", "") if s.working else "")
        for shown in said.spans(world.end):
            at = world.untrue(shown, fact, lambda w, x=shown.value: w == x, early=world.looks) if shown.value else None
            lately = (
                shown.end - world.late,
                shown.start + world.looks,
            )  # it may be over between two looks at the store
            if at is not None and not any(lately[0] <= t <= lately[1] and shown.value in x for t, _, x in world.lines):
                yield Fault("waiting is the program's", at, f"{name}: {stage} is said to wait: {shown.value}")
        for so in fact.spans(world.end):
            at = world.untold(so, said, lambda w, x=so.value: w == x) if so.value else None
            if at is not None:
                yield Fault("waiting is the program's", at, f"{name}: {stage} waits, and nobody says so: {so.value}")


def _waiting(said: Object | None) -> str:
    items = (said or {}).get("items") or {}
    return items.get("waiting", "") if said is not None and said["state"] == "Running" else ""


class Step(NamedTuple):
    """What a stage program had written of its progress at two looks, one after the other; whether it was at work."""

    before: Object | None
    now: Object | None
    works: bool


def steps(world: World, name: str, stage: str) -> Track[Step]:
    """The progress of a stage from look to look."""
    track: Track[Step] = Track(Step(None, None, works=False))
    for span in world.stages[name, stage].map(lambda s: (s.progress, bool(s.working))).spans(world.end):
        progress, works = span.value
        known = track.now
        track.put(span.start, Step(known.before if progress == known.now else known.now, progress, works))
    return track


def passed(step: Step, said: tuple[str, int, int]) -> bool:
    """Whether a count may have been reached between two looks; when nobody works, nothing is claimed."""
    phase, done, total = said
    before, now = step.before or {}, step.now
    if not step.works:
        return True
    if now is None:
        return False
    if _of(before) != _of(now):  # the rest of one phase, and the beginning of another; between them, whole ones
        whole = now.get("step", 0) - before.get("step", 0) > 1
        old = _fits(before, phase, total) and done >= before["done"]
        return whole or old or (_fits(now, phase, total) and done <= now["done"])
    return _fits(now, phase, total) and before["done"] <= done <= now["done"]


def _of(progress: Object) -> tuple[Any, Any]:
    return progress.get("phase"), progress.get("total")


def _fits(progress: Object, phase: str, total: int) -> bool:
    return progress.get("total") == total and phase in ("", progress.get("phase"))


def _items(said: Object | None) -> tuple[Any, ...] | None:
    items = (said or {}).get("items")
    if said is None or said["state"] != "Running" or not items:
        return None
    return said.get("job"), items.get("phase", ""), items["done"], items["total"]


def _words(said: Claim) -> str:
    return f"{said.state} ({', '.join(str(x) for x in said[1:] if x)})"


RULES = (
    stage_is_as_said,
    work_is_said,
    trouble_is_said,
    done_stays_done,
    times_are_the_jobs,
    progress_is_the_programs,
    waiting_is_the_programs,
)
