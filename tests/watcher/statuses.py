"""Whether what the operator's statuses said was so: iterations, their stages, loops. Pure.

Every rule is a generator of faults; `RULES` are all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from watcher.timeline import EARLY, LATE, Object, Span, Track, untold, untrue
from watcher.truth import Stage, World, ended, moment

FINISHED = ("Promoted", "Registered", "Held", "Failed")
#: A stage that has one of these changes no more, unless a person asks.
OVER = ("Succeeded", "Held", "Failed")
#: Seconds by which times in a status may differ from those of Jobs, and between two looks at progress.
CLOSE, LOOKS = 2.0, 6.0


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
    return Claim(found["state"], found.get("reason") or "", found.get("message") or "", found.get("job") or "")


def names(world: World, iteration: str) -> list[str]:
    """All stages that a status of this iteration ever named."""
    spans = world.iterations[iteration].spans(world.end)
    return list(dict.fromkeys(n for s in spans for n in stages_of(status_of(s.value))))


# ---- stages ----------------------------------------------------------------------------------------------------------


def support(said: Claim, stage: Stage, body: Object | None) -> bool:
    """Whether a stage and its iteration are as is said."""
    return said.state in SUPPORTS and SUPPORTS[said.state](said, stage, body)


def _running(said: Claim, stage: Stage, _: Object | None) -> bool:
    if told := re.match(r"(\d+) failed attempt", said.message):
        failed = stage.jobs.get(said.job, {}).get("status", {}).get("failed", 0)
        return stage.open(said.job) and failed == int(told[1])
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


def patience(said: Claim) -> float:
    """Seconds that a pod may need until it is as is said: a Job that is there counts as running."""
    return LATE if said.state == "Running" else EARLY


def stage_is_as_said(world: World) -> Iterator[Fault]:
    """The state of every stage in every status: its Job, its pods and its manifest are so."""
    for name, bodies in list(world.iterations.items()):
        for stage in names(world, name):
            fact = world.stages[name, stage].beside(bodies)
            for shown in bodies.map(lambda b, s=stage: claim(status_of(b), s)).spans(world.end):  # type: ignore[misc]
                said: Claim | None = shown.value
                if said is None:
                    continue
                at = untrue(shown, fact, lambda v, s=said: support(s, v[0], v[1]), end=world.end, early=patience(said))
                if at is not None:
                    yield Fault("stage is as said", at, f"{name}: {stage} {_words(said)}")


def work_is_said(world: World) -> Iterator[Fault]:
    """A Job at work is its stage's, and the stage runs; one that is complete is a stage that is done."""
    for (name, stage), track in list(world.stages.items()):
        shown = world.iterations[name].map(lambda b, s=stage: claim(status_of(b), s))  # type: ignore[misc]
        for so in track.map(lambda s: tuple(s.working)).spans(world.end):
            for job in so.value:
                at = untold(
                    so, shown, lambda c, j=job: c is not None and (c.state, c.job) == ("Running", j), end=world.end
                )
                if at is not None:
                    yield Fault("work is said", at, f"{name}: Job {job} works and {stage} is not said to run")
        done = track.map(lambda s: s.manifest is not None and any(ended(j) == "Complete" for j in s.jobs.values()))
        for so in done.spans(world.end):
            at = untold(so, shown, lambda c: c is not None and c.state in ("Succeeded", "Held"), end=world.end)
            if so.value and at is not None:
                yield Fault("work is said", at, f"{name}: {stage} is done, and nobody says so")


def trouble_is_said(world: World) -> Iterator[Fault]:
    """What keeps the pods of a Job from running is the reason of its stage; the operator looks after ten seconds."""
    for (name, stage), track in list(world.stages.items()):
        shown = world.iterations[name].map(lambda b, s=stage: claim(status_of(b), s))  # type: ignore[misc]
        troubled = track.map(lambda s: {j: frozenset(s.troubles(j)) for j in s.jobs if s.open(j) and s.troubles(j)})
        for so in troubled.spans(world.end):
            for job, words in so.value.items():
                at = untold(
                    so, shown, lambda c, w=words: c is not None and c.reason in w, end=world.end, late=LATE + 10
                )
                if at is not None:
                    yield Fault("trouble is said", at, f"{name}: {job}: {', '.join(sorted(words))}, not said")


def done_stays_done(world: World) -> Iterator[Fault]:
    """A stage that is over stays as it is, an iteration that has ended too; nothing of one that has ended goes on."""
    for name, bodies in list(world.iterations.items()):
        before: Object = {}
        for shown in bodies.spans(world.end):
            status = status_of(shown.value)
            old, new = stages_of(before), stages_of(status)
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
            jobs = {n: j for s in world.stages[name, stage].spans(world.end) for n, j in s.value.jobs.items()}
            seen = bodies.map(lambda b, s=stage: stages_of(status_of(b)).get(s))  # type: ignore[misc]
            for shown in seen.spans(world.end):
                yield from _times(f"{name}: {stage}", shown, jobs)
        yield from _transitions(name, bodies, world.end)
    for name, bodies in list(world.loops.items()):
        yield from _transitions(name, bodies, world.end)


def _times(what: str, shown: Span, jobs: dict[str, Object]) -> Iterator[Fault]:
    said = shown.value or {}
    job = jobs.get(said.get("job") or "")
    if job is None:
        return
    created = moment(job["metadata"]["creationTimestamp"])
    begun = job.get("status", {}).get("startTime")
    if (started := said.get("startedAt")) is not None:
        near = [created, *([moment(begun)] if begun else [])]
        if min(abs(moment(started) - t) for t in near) > CLOSE:
            yield Fault("times are the Jobs'", shown.start, f"{what} startedAt {started}, its Job {created:.0f}")
    ends = [c["lastTransitionTime"] for c in job.get("status", {}).get("conditions", ()) if c["status"] == "True"]
    finished = said.get("finishedAt")
    if finished is not None and ends and min(abs(moment(finished) - moment(t)) for t in ends) > LATE:
        yield Fault("times are the Jobs'", shown.start, f"{what} finishedAt {finished}, its Job {ends}")


def _transitions(name: str, bodies: Track[Any], end: float) -> Iterator[Fault]:
    before: dict[str, Object] = {}
    for shown in bodies.spans(end):
        now = conditions(status_of(shown.value))
        for kind, c in now.items():
            old, since = before.get(kind), moment(c["lastTransitionTime"])
            if old is not None and old["status"] == c["status"]:
                wrong = old["lastTransitionTime"] != c["lastTransitionTime"]
            else:
                wrong = not shown.start - LATE <= since <= shown.start + EARLY
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
                at = untrue(
                    shown,
                    world.stages[name, stage],
                    lambda s, x=(done, total): not s.working or _counts(s.progress) == x,
                    end=world.end,
                    early=LOOKS,
                )
                if at is not None:
                    yield Fault("progress is the program's", at, f"{what} is not what the program says")


def _items(said: Object | None) -> tuple[Any, ...] | None:
    items = (said or {}).get("items")
    if said is None or said["state"] != "Running" or not items:
        return None
    return said.get("job"), items.get("phase", ""), items["done"], items["total"]


def _counts(progress: Object | None) -> tuple[int, int] | None:
    return None if progress is None else (progress["done"], progress["total"])


# ---- the iteration as a whole ----------------------------------------------------------------------------------------


def nothing_contradicts(world: World) -> Iterator[Fault]:
    """Summary, outcome, other conditions, stage, progress and stages of one status fit each other."""
    for name, bodies in list(world.iterations.items()):
        for shown in bodies.spans(world.end):
            if status := status_of(shown.value):
                yield from (Fault("nothing contradicts", shown.start, f"{name}: {w}") for w in contradictions(status))


def contradictions(status: Object) -> Iterator[str]:
    """What in one status of an iteration does not fit the rest of it."""
    found, stages = conditions(status), stages_of(status)
    outcome, summary = status.get("outcome"), found.get("Succeeded")
    if summary is None:
        yield "no condition Succeeded"
        return
    wanted = {"Promoted": "True", "Registered": "True", "Held": "False", "Failed": "False"}.get(outcome, "Unknown")
    if summary["status"] != wanted:
        yield f"{outcome} and Succeeded={summary['status']}"
    for kind in ("Held", "Suspended"):
        said = found.get(kind, {}).get("status") == "True"
        if said != (outcome == kind) and not (kind == "Suspended" and outcome in FINISHED):
            yield f"{outcome} and {kind}={said}"
    if outcome in ("Promoted", "Registered") and (odd := [n for n, s in stages.items() if s["state"] != "Succeeded"]):
        yield f"{outcome}, and not done: {', '.join(odd)}"
    if outcome in FINISHED and "GeneratorCurrent" in found:
        yield f"{outcome} and GeneratorCurrent={found['GeneratorCurrent']['status']}"
    if "InternalError" in found:
        yield f"InternalError: {found['InternalError']['message']}"
    yield from _counted(status, summary["message"])


def _counted(status: Object, summary: str) -> Iterator[str]:
    """What in the texts of a status does not fit its stages."""
    stages = stages_of(status)
    done = sum(s["state"] == "Succeeded" for s in stages.values())
    for text in (summary, status.get("progress") or ""):
        for k, n in re.findall(r"(\d+)(?: of |/)(\d+) stages", text):
            if (int(k), int(n)) != (done, len(stages)):
                yield f"“{text}” and {done} of {len(stages)} stages Succeeded"
    at = stages.get(status.get("stage") or "")
    if at is None:
        if stages:
            yield f"stage {status.get('stage')} is none of its stages"
        return
    first = next((n for n, s in stages.items() if s["state"] != "Succeeded"), "")
    if first and at["state"] == "Succeeded":
        yield f"at {at['name']}, which is done, and {first} is not"
    items = at.get("items")
    shown = re.search(r"(\d+)/(\d+) (?!stages)", status.get("progress") or "")
    if items and shown and (int(shown[1]), int(shown[2])) != (items["done"], items["total"]):
        yield f"“{status['progress']}” and items {items['done']}/{items['total']}"


def alias_is_as_said(world: World) -> Iterator[Fault]:
    """GeneratorCurrent says whether the alias is where it was; an iteration that is promoted was never in danger."""
    for name, bodies in list(world.iterations.items()):
        last = next((s.value for s in reversed(list(bodies.spans(world.end))) if s.value is not None), None)
        if last is None:
            continue
        alias = world.aliases[alias_of(last)]
        promoted = status_of(last).get("outcome") == "Promoted"
        seen = bodies.map(lambda b: _current(status_of(b)))
        for shown in seen.spans(world.end):
            if shown.value is None:
                continue
            said, message, began = shown.value
            if said == "False":
                if promoted:
                    yield Fault("alias is as said", shown.start, f"{name} is promoted, and it said “{message}”")
                told = [int(n) for n in re.findall(r"(?:version|to) (\d+)", message)]
                at = untrue(shown, alias, lambda v, t=told: v in t[-1:], end=world.end)
            else:
                at = untrue(shown, alias, lambda v, b=began: b is None or v == b, end=world.end)
            if at is not None:
                yield Fault(
                    "alias is as said", at, f"{name}: GeneratorCurrent={said} “{message}”, it is {alias.at(at)}"
                )


def alias_of(body: Object) -> str:
    """`<model>@<alias>` that an iteration is about."""
    spec = body["spec"]
    return f"{spec['model']}@{spec.get('promotion', {}).get('alias', 'generator')}"


def _current(status: Object) -> tuple[str, str, int | None] | None:
    found = conditions(status).get("GeneratorCurrent")
    began = (status.get("generator") or {}).get("version")
    return None if found is None else (found["status"], found["message"], began)


def promotion_is_the_registrys(world: World) -> Iterator[Fault]:
    """Promoted: the alias is at its version; θ0 is the version behind the alias when it was frozen."""
    for name, bodies in list(world.iterations.items()):
        said = bodies.map(lambda b: (status_of(b).get("outcome"), status_of(b).get("version")))
        last = next((s.value for s in reversed(list(bodies.spans(world.end))) if s.value is not None), None)
        if last is None:
            continue
        alias = world.aliases[alias_of(last)]
        for shown in said.spans(world.end):
            outcome, version = shown.value
            when = Span(shown.start, shown.start, None)  # later ones move it again
            if outcome == "Promoted" and untrue(when, alias, lambda v, x=version: v == x, end=world.end) is not None:
                yield Fault(
                    "promotion is the registry's",
                    shown.start,
                    f"{name}: Promoted, version {version}; the alias is at {alias.at(shown.start)}",
                )


# ---- loops -----------------------------------------------------------------------------------------------------------


def loop_is_as_said(world: World) -> Iterator[Fault]:
    """Its current iteration is the newest, its version the one promoted last, and it is done when all are."""
    for name, bodies in list(world.loops.items()):
        for shown in bodies.map(status_of).spans(world.end):
            if shown.value:
                yield from (Fault("loop is as said", at, f"{name}: {w}") for at, w in _loop(world, name, shown))


def _loop(world: World, name: str, shown: Span) -> Iterator[tuple[float, str]]:
    status, members = shown.value, world.members(name)
    summary = conditions(status).get("Succeeded", {})
    state: Track[tuple[tuple[str, str, int | None], ...]] = Track(())
    for member in members:
        state = state.beside(world.iterations[member]).map(_with)  # type: ignore[arg-type]
    number, of, current = status.get("iteration"), status.get("of"), status.get("current")
    # The next one is named before it is made.
    newest = untrue(shown, state, lambda s: [n for n, *_ in s[-1:]] == ([current] if current else []), end=world.end)
    if newest is not None:
        yield newest, f"the current iteration is said to be {current}"
    if current != (f"{name}-{number}" if number else None):
        yield shown.start, f"iteration {number} is said to be {current}"
    version = status.get("version")
    at = untrue(
        shown, state, lambda s: version == max((v for _, o, v in s if o == "Promoted"), default=None), end=world.end
    )
    if at is not None:
        yield at, f"the version promoted last is said to be {version}"
    if (told := re.search(r"iteration (\d+) of (\d+)", summary.get("message", ""))) and (
        int(told[1]),
        int(told[2]),
    ) != (number, of):
        yield shown.start, f"“{summary['message']}”, and iteration {number} of {of}"
    good = ("Promoted", "Registered")
    if summary.get("status") == "True":
        at = untrue(shown, state, lambda s: len(s) == of and all(o in good for _, o, _ in s), end=world.end)
        if at is not None:
            yield at, "Succeeded=True, and its iterations are not done"
    elif summary.get("status") == "Unknown":
        at = untrue(
            shown, state, lambda s: len(s) < (of or 0) or any(o not in FINISHED for _, o, _ in s), end=world.end
        )
        if at is not None:
            yield at, f"Succeeded=Unknown ({summary.get('message')}), and all its iterations have ended"


def _with(pair: tuple[tuple[Any, ...], Object | None]) -> tuple[Any, ...]:
    known, body = pair
    if body is None:
        return known
    status = status_of(body)
    return (*known, (body["metadata"]["name"], status.get("outcome") or "", status.get("version")))


def _words(said: Claim) -> str:
    return f"{said.state} ({', '.join(x for x in said[1:] if x)})"


RULES = (
    stage_is_as_said,
    work_is_said,
    trouble_is_said,
    done_stays_done,
    times_are_the_jobs,
    progress_is_the_programs,
    nothing_contradicts,
    alias_is_as_said,
    promotion_is_the_registrys,
    loop_is_as_said,
)
