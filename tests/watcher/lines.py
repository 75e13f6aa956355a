"""Whether what `kubectl viper logs LOOP -f` printed was so, and tells the run to whoever reads nothing else. Pure.

Lines on the error output are the command's own: each is understood. The others are those of stage programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

from watcher.statuses import FINISHED, Claim, Fault, Step, passed, status_of, steps, unsupported
from watcher.timeline import Span, Track
from watcher.truth import World
from watcher.words import loop_state


def logs_tell_the_run(world: World) -> Iterator[Fault]:
    """Read alone, the lines tell every stage of every iteration when it is at work: its name, what it does and how far.

    Counts of a phase do not go back, and where nothing is at work for long, a line says what is waited for.
    """
    if not world.followed:
        return
    text = [(at, line) for at, _, line in world.lines]
    for name in world.iterations:
        if not any(name in line for _, line in text):
            yield Fault("logs tell the run", world.end, f"no line names {name}")
    for (name, stage), track in list(world.stages.items()):
        works = [s for s in track.map(lambda s: bool(s.working)).spans(world.end) if s.value]
        if not works:
            continue
        begins, ends = works[0].start, works[-1].end
        within = [line for at, line in text if begins - world.early <= at <= ends + world.late]
        if not any(stage in line for line in within):
            yield Fault("logs tell the run", begins, f"no line names {stage} of {name} while it works")
        progress = [s.value for s in track.map(lambda s: s.progress).spans(world.end) if s.value]
        totals = {p["phase"]: p["total"] for p in progress if p.get("phase")}
        for phase, total in totals.items():
            spoken = [line for line in within if re.search(rf"\b{re.escape(phase)}\b", line)]
            if not spoken:
                yield Fault("logs tell the run", begins, f"no line says that {stage} of {name} is in {phase}")
            elif total and not any(re.search(rf"\b{total}\b", line) for line in spoken):
                yield Fault("logs tell the run", begins, f"no line says how many {phase} of {stage} of {name} has")
    yield from _waits_told(world)
    yield from _counts_go_on(world)
    quiet = [(a, b) for (a, _), (b, _) in pairwise(text) if b - a > QUIET]
    for before, after in quiet:
        yield Fault("logs tell the run", before, f"nothing is said for {after - before:.0f} s")
    if world.loops and text and not any(_ends(line) for _, line in text[-5:]):
        yield Fault("logs tell the run", text[-1][0], f"ends with “{text[-1][1]}”, which is no end")


def _waits_told(world: World) -> Iterator[Fault]:
    works: Track[int] = Track(0)
    for track in world.stages.values():
        works = works.beside(track.map(lambda s: len(s.working))).map(sum)
    for idle in works.spans(world.end):
        told = [
            line
            for at, _, line in world.lines
            if idle.start <= at <= min(idle.start + world.late + world.looks, idle.end)
        ]
        long = idle.end - idle.start
        silent = not idle.value and idle.start > 0 and idle.end < world.end and long > world.late + world.looks
        if silent and not any("wait" in line for line in told):
            yield Fault("logs tell the run", idle.start, f"nothing works for {long:.0f} s, not told")


def _counts_go_on(world: World) -> Iterator[Fault]:
    where, known = "", dict[tuple[str, str, str], int]()
    for at, _, line in world.lines:
        where = line if "==> " in line else where
        count = COUNT.search(line)
        if "begins" in line:
            known = {}
        elif count is not None:
            key, done = (where, count["phase"], count["total"]), int(count["done"])
            if done < known.get(key, 0):
                yield Fault("logs tell the run", at, f"“{line}” after {known[key]}/{count['total']}")
            known[key] = done


#: Seconds after which a person wonders: a stage says every half minute how far it is.
QUIET = 45.0


def lines_are_so(world: World) -> Iterator[Fault]:
    """The times of lines are those at which they come, and counts those of a stage that is at work."""
    stages = [steps(world, name, stage) for name, stage in world.stages]
    for at, stream, line in world.lines:
        if (stamp := STAMP.search(line)) is not None:
            day = datetime.fromtimestamp(at, UTC)
            said = day.replace(hour=int(stamp[1]), minute=int(stamp[2]), second=int(stamp[3]), microsecond=0)
            if abs((day - said + timedelta(hours=12)) % timedelta(days=1) - timedelta(hours=12)) > timedelta(
                seconds=world.late
            ):
                yield Fault("lines are so", at, f"“{line}” comes {(day - said).total_seconds():.0f} s late")
        if stream == "err":
            yield from (
                Fault("lines are so", at, f"“{line}”: {wrong}") for wrong in _note(world, at, STAMP.sub("", line))
            )
        if (count := COUNT.search(line)) is not None:
            counted = (count["phase"], int(count["done"]), int(count["total"]))
            so = partial(_counted, said=counted)
            if all(world.untrue(Span(at, at, None), s, so, early=world.looks) is not None for s in stages):
                yield Fault("lines are so", at, f"“{line}”: no program says so")


def _counted(step: Step, said: tuple[str, int, int]) -> bool:
    return step.works and passed(step, said)


#: The time in front of a line of a stage's log, and a count in it: `caption (1 of 3) 96/320`.
STAMP = re.compile(r"(?<!\S)(\d\d):(\d\d):(\d\d)Z  ")
COUNT = re.compile(r"(?P<phase>[a-z][a-z-]*)(?: \(\d+ of \d+\))? (?P<done>\d+)/(?P<total>\d+)(?= \(|,|$)")


def _ends(line: str) -> bool:
    return any(word.lower() in line.lower() for word in (*FINISHED, "iterations done", "succeeded"))


# ---- the command's own lines -----------------------------------------------------------------------------------------


def lines_name_their_stage(world: World) -> Iterator[Fault]:
    """While several stages are at work, every line of a stage program says whose it is."""
    works: Track[frozenset[str]] = Track(frozenset())
    for (_, stage), track in world.stages.items():
        one = track.map(lambda s, n=stage: frozenset([n] if s.working else ()))  # type: ignore[misc]
        works = works.beside(one).map(lambda both: both[0] | both[1])
    for span in works.spans(world.end):
        for at, stream, line in world.lines if len(span.value) > 1 else ():
            within = span.start + world.looks < at < span.end and stream == "out"
            if within and STAMP.search(line) and not any(stage in line for stage in span.value):
                yield Fault("lines name their stage", at, f"“{line}”: of {' or '.join(sorted(span.value))}?")


def _note(world: World, at: float, text: str) -> Iterator[str]:
    """What is wrong with a line of the command's own."""
    for pattern, judged in NOTES.items():
        if (found := re.match(pattern, text)) is not None:
            if not judged(world, Span(at, at, None), found):
                yield "it is not so"
            return
    yield "nobody can tell whether this is so"


def _begun(world: World, once: Span, found: re.Match[str]) -> bool:
    fact = world.stages[found["name"], found["stage"]].map(lambda s: found["pod"] in s.pods)
    return world.untrue(once, fact, bool) is None


def _state(state: str) -> Callable[[World, Span, re.Match[str]], bool]:
    def judged(world: World, once: Span, found: re.Match[str]) -> bool:
        return unsupported(world, once, Claim(state), found["name"], found["stage"]) is None

    return judged


def _waits(world: World, once: Span, found: re.Match[str]) -> bool:
    fact = world.stages[found["name"], found["stage"]].map(lambda s: not s.working)
    return world.untrue(once, fact, bool) is None


def _unseen(world: World, once: Span, found: re.Match[str]) -> bool:
    return world.untrue(once, world.iterations[found["name"]], lambda b: not status_of(b).get("stages")) is None


def _next(world: World, once: Span, found: re.Match[str]) -> bool:
    name, number = found["name"], int(found["number"])
    fact = world.iterations[f"{name}-{number}"].beside(world.loops[name])
    return world.untrue(once, fact, lambda v: v[0] is None and v[1] and number <= v[1]["spec"]["iterations"]) is None


def _outcome(world: World, once: Span, found: re.Match[str]) -> bool:
    fact = world.iterations[found["name"]].map(lambda b: status_of(b).get("outcome") or "Unseen")
    return world.untrue(once, fact, lambda o: o == found["state"]) is None


def _loop(world: World, once: Span, found: re.Match[str]) -> bool:
    fact = world.loops[found["name"]].map(loop_state)
    return world.untrue(once, fact, lambda s: s == found["state"]) is None


def _theta0(world: World, once: Span, found: re.Match[str]) -> bool:
    fact = world.iterations[found["name"]].map(lambda b: (status_of(b).get("generator") or {}).get("version"))
    return world.untrue(once, fact, lambda v: v == int(found["version"])) is None


def _counts(world: World, once: Span, found: re.Match[str]) -> bool:
    return True  # by their counts


#: What a line says, and how it is judged.
NOTES: dict[str, Callable[[World, Span, re.Match[str]], bool]] = {
    r"==> (?P<stage>\S+) of (?P<name>\S+), pod (?P<pod>\S+)$": _begun,
    r"loop (?P<name>\S+) ends: (?P<state>[A-Za-z]+)": _loop,
    r"loop (?P<name>\S+): (?P<state>[A-Za-z]+), iteration ": _loop,
    r"waiting for iteration (?P<number>\d+) of loop (?P<name>\S+) to begin": _next,
    r"waiting for (?P<name>\S+): no operator": _unseen,
    r"waiting for the first stage of (?P<name>\S+?)(?:,|$)": _unseen,
    r"waiting for (?P<stage>\S+) of (?P<name>[^\s:]+)(?::|,|$)": _waits,
    r"(?P<name>\S+) ends: (?P<state>[A-Z][a-z]+)": _outcome,
    r"(?P<name>\S+): θ0 is .*version (?P<version>\d+)$": _theta0,
    r"(?P<name>\S+): (?P<state>[A-Z][a-z]+)": _outcome,
    r"(?P<name>\S+) (?P<stage>\S+) is done(?: after|:|$)": _state("Succeeded"),
    r"(?P<name>\S+) (?P<stage>\S+) is tried again": _state("Retrying"),
    r"(?P<name>\S+) (?P<stage>\S+) is held": _state("Held"),
    r"(?P<name>\S+) (?P<stage>\S+) failed": _state("Failed"),
    r"(?P<name>\S+) (?P<stage>\S+): ": _counts,
}

RULES = (logs_tell_the_run, lines_are_so, lines_name_their_stage)
