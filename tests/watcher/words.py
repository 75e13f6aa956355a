"""Whether what was told was so: Events, and what `kubectl viper status --watch` printed. Pure.

A sentence that no rule understands is a fault: nothing that is said goes unjudged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from watcher.statuses import (
    Claim,
    Fault,
    conditions,
    names,
    stages_of,
    status_of,
    support,
    unsupported,
)
from watcher.timeline import Object, Span, Track
from watcher.truth import Stage, World, ended, moment

#: Reasons of Events by which an iteration says what it is, and the outcome that this is.
OUTCOMES = ("Promoted", "Registered", "Held", "Failed", "Suspended")
#: Reasons of Events that a condition of another kind than the summary is there for: its type and status.
OWN = {"AliasMoved": ("GeneratorCurrent", "False"), "InternalError": ("InternalError", "True")}
#: How an Event begins that tells of attempts.
ATTEMPTS = re.compile(r"(\d+) failed attempt")
#: A stage's line: mark, name, state, how long.
STAGE_LINE = re.compile(
    r"^[│├└─ ]*[✔▶✘■↻‖ ] (?P<stage>[a-z-]+) +(?P<state>[A-Z][a-z]+)(?: +(?P<took>[0-9][^│]*?(?:s|min|h)))?(?:  |$)"
)
NOTE_LINE = re.compile(r"^[│ ]*! (?P<text>.*)$")
TITLE_LINE = re.compile(r"^(?:[├└]─ )?(?P<name>[a-z0-9][a-z0-9.-]*)  (?P<state>[A-Z][A-Za-z]+)(?:  |$)")


# ---- Events ----------------------------------------------------------------------------------------------------------


def events_are_so(world: World) -> Iterator[Fault]:
    """Every Event about a resource of ours tells of what has just happened, once."""
    times: Counter[tuple[str, ...]] = Counter()
    for at, body in list(world.events.values()):
        about = body["involvedObject"]
        if not about["kind"].startswith("Viper"):
            continue
        said = f"{about['name']}: {body['reason']}: {body['message']}"
        times[about["name"], about.get("uid", ""), body["reason"], body["message"]] += body.get("count", 1)
        if abs(moment(body["lastTimestamp"]) - at) > world.late:
            yield Fault("Events are so", at, f"{said} (of {body['lastTimestamp']})")
        tells = _of_loop if about["kind"] == "ViperLoop" else _of_iteration
        yield from (Fault("Events are so", at, f"{said}: {wrong}") for wrong in tells(world, at, body))
    for (name, _, reason, message), number in times.items():
        if number > 1:
            yield Fault("Events are so", world.end, f"{name}: {reason}: {message}: {number} times")


def _of_loop(world: World, at: float, body: Object) -> Iterator[str]:
    loop, told = body["involvedObject"]["name"], re.fullmatch(r"iteration (\d+) of (\d+) made: (\S+)", body["message"])
    if told is not None:
        if not _lately(world, world.iterations[told[3]].map(bool), at):
            yield "no such iteration was made"
        if told[3] != f"{loop}-{told[1]}":
            yield "is another one's number"
        return
    track = world.loops[loop].map(lambda b: _summary(status_of(b)))
    if world.untrue(Span(at, at, None), track, lambda s: s == (body["reason"], body["message"]), early=world.late):
        yield "its summary does not say so"


def _of_iteration(world: World, at: float, body: Object) -> Iterator[str]:
    name, message, reason = body["involvedObject"]["name"], body["message"], body["reason"]
    known = set(names(world, name))
    told = [m for m in re.finditer(r"(?:^|; )([a-z-]+) (?:started \(Job (\S+?)\)|done)", message) if m[1] in known]
    once = Span(at, at, None)
    for m in told:
        track = world.stages[name, m[1]]
        if m[2]:
            born = track.map(lambda s, j=m[2]: j in s.jobs)  # type: ignore[misc]
            if not _lately(world, born, at):
                yield f"Job {m[2]} was not made then"
        elif not _done_lately(world, at, name, m[1]):
            yield f"{m[1]} was not done then"
    if reason in OUTCOMES:
        track = world.iterations[name].map(lambda b: status_of(b).get("outcome"))
        if world.untrue(once, track, lambda o: o == reason, early=world.late) is not None:
            yield "that is not its outcome"
    elif body["type"] == "Warning" or reason in ("WaitsForModel", "Queued"):
        yield from _warning(world, at, body, known)
    elif not told and reason not in ("Resumed", "Retry"):
        yield "nobody can tell whether this is so"


def _warning(world: World, at: float, body: Object, known: set[str]) -> Iterator[str]:
    name, reason = body["involvedObject"]["name"], body["reason"]
    once, (stage, _, message) = Span(at, at, None), body["message"].partition(": ")
    if reason in OWN:
        kind, status = OWN[reason]
        said = world.iterations[name].map(lambda b: conditions(status_of(b)))
        if world.untrue(once, said, lambda c: c.get(kind, {}).get("status") == status) is not None:
            yield "its condition does not say so"
    elif stage in known:
        fact = world.stages[name, stage].beside(world.iterations[name])
        if attempt := ATTEMPTS.match(message):
            number = int(attempt[1])  # the Job may have failed with it

            def holds(v: tuple[Stage, Object | None]) -> bool:
                return any(v[0].failures(job) == number for job in v[0].jobs)
        else:

            def holds(v: tuple[Stage, Object | None]) -> bool:
                return any(support(Claim("Pending", reason, message, job), *v) for job in v[0].jobs or ("",))

        if world.untrue(once, fact, holds) is not None:
            yield "it is not so"
    else:
        summary = world.iterations[name].map(lambda b: _summary(status_of(b))[0])
        if world.untrue(once, summary, lambda r: r == reason) is not None:
            yield "nobody can tell whether this is so"


def _done_lately(world: World, at: float, name: str, stage: str) -> bool:
    """Whether a stage has just become done: its manifest was written, or its Job has ended after that."""
    track, done = world.stages[name, stage], Claim("Succeeded")
    new = [track.map(lambda s: s.manifest is not None), track.map(lambda s: support(done, s, None))]
    return any(_lately(world, t, at) for t in new) and unsupported(world, Span(at, at, None), done, name, stage) is None


def _lately(world: World, fact: Track[bool], at: float) -> bool:
    """Whether something became so within the last seconds (or becomes so in the next)."""
    return any(s.value and at - world.late <= s.start <= at + world.early for s in fact.spans(world.end))


def _summary(status: Object) -> tuple[str, str]:
    found = next((c for c in status.get("conditions") or () if c["type"] == "Succeeded"), {})
    return found.get("reason", ""), found.get("message", "")


# ---- kubectl viper status --------------------------------------------------------------------------------------------


def pictures_are_so(world: World) -> Iterator[Fault]:
    """Every line of every picture is so as long as the picture is the last one."""
    for picture in world.pictures:
        name = stage = ""
        for line in picture.value.splitlines():
            if title := TITLE_LINE.match(line):
                name, stage = title["name"], ""
                wrong = _title(world, picture, title)
            elif found := STAGE_LINE.match(line):
                stage = found["stage"]
                wrong = _stage_line(world, picture, name, found)
            elif note := NOTE_LINE.match(line):
                wrong = _note(world, picture, name, stage, note["text"])
            else:
                wrong = (picture.start, "nobody can tell whether this is so")
            if wrong is not None:
                yield Fault("pictures are so", wrong[0], f"{name}: “{line.strip()}”: {wrong[1]}")


def _title(world: World, picture: Span, title: re.Match[str]) -> tuple[float, str] | None:
    name, state = title["name"], title["state"]
    if name in world.iterations:
        track = world.iterations[name].map(lambda b: status_of(b).get("outcome") or "Unseen")
    elif name in world.loops:
        track = world.loops[name].map(loop_state)
    else:
        return picture.start, "there is no such thing"
    at = world.untrue(picture, track, lambda s: s == state)
    return None if at is None else (at, f"is {track.at(at)}")


def loop_state(body: Object | None) -> str:
    """A loop in one word, as commands say it."""
    found = next((c for c in status_of(body).get("conditions") or () if c["type"] == "Succeeded"), None)
    if found is None:
        return "Unseen"
    return {"True": "Succeeded", "Unknown": "Running"}.get(found["status"], found["reason"])


def _stage_line(world: World, picture: Span, name: str, found: re.Match[str]) -> tuple[float, str] | None:
    stage, said = found["stage"], Claim(found["state"])
    at = unsupported(world, picture, said, name, stage)  # why it is pending, the notes say
    if at is not None:
        return at, "it is not so"
    shown = stages_of(status_of(world.iterations[name].at(picture.start))).get(stage, {})
    if said.state == "Running" and found["took"] and shown.get("startedAt"):
        wall = picture.start - moment(shown["startedAt"])
        if abs(seconds(found["took"]) - wall) > world.late:
            return picture.start, f"its Job is {wall:.0f} s old"
    return None


def seconds(text: str) -> float:
    """`41.2 s`, `12 min 03 s`, `5 h 20 min` in seconds."""
    size = {"s": 1.0, "min": 60.0, "h": 3600.0}
    return sum(float(n) * size[u] for n, u in re.findall(r"([\d.]+) (s|min|h)", text))


def _note(world: World, picture: Span, name: str, stage: str, text: str) -> tuple[float, str] | None:
    def so(known: Stage) -> bool:
        failed = [p for p in known.pods.values() if p.get("status", {}).get("phase") == "Failed"]
        if "attempt failed" in text:
            return bool(failed) and not any(ended(j) == "Complete" for j in known.jobs.values())
        return any(word in text for job in known.jobs if known.open(job) for word in known.troubles(job))

    at = world.untrue(picture, world.stages[name, stage], so)
    return None if at is None else (at, "it is not so")


RULES = (events_are_so, pictures_are_so)
