"""Whether what the operator's statuses said of iterations and loops as a whole was so, and fits together. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from watcher.statuses import FINISHED, Fault, conditions, stages_of, status_of
from watcher.timeline import Object, Span, Track
from watcher.truth import World

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
    odd = found.get("InternalError")
    if summary["reason"] == "InternalError" and odd is None:
        yield "the summary speaks of an InternalError, and there is no such condition"
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
                told = [int(n) for n in re.findall(r"to (?:version )?(\d+)", message)] or [None]  # it is gone
                at = world.untrue(shown, alias, lambda v, t=told: v in t[-1:])
            elif said == "Unknown":  # the registry does not answer
                at = None
            else:
                at = world.untrue(shown, alias, lambda v, b=began: b is None or v == b)
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
        if alias.now is None:  # nobody asked a registry
            continue
        for shown in said.spans(world.end):
            outcome, version = shown.value
            when = Span(shown.start, shown.start, None)  # later ones move it again
            if outcome == "Promoted" and world.untrue(when, alias, lambda v, x=version: v == x) is not None:
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
    newest = world.untrue(shown, state, lambda s: [n for n, *_ in s[-1:]] == ([current] if current else []))
    if newest is not None:
        yield newest, f"the current iteration is said to be {current}"
    if current != (f"{name}-{number}" if number else None):
        yield shown.start, f"iteration {number} is said to be {current}"
    version = status.get("version")
    at = world.untrue(shown, state, lambda s: version == max((v for _, o, v in s if o == "Promoted"), default=None))
    if at is not None:
        yield at, f"the version promoted last is said to be {version}"
    if (told := re.search(r"iteration (\d+) of (\d+)", summary.get("message", ""))) and (
        int(told[1]),
        int(told[2]),
    ) != (number, of):
        yield shown.start, f"“{summary['message']}”, and iteration {number} of {of}"
    good = ("Promoted", "Registered")
    if summary.get("status") == "True":
        at = world.untrue(shown, state, lambda s: len(s) == of and all(o in good for _, o, _ in s))
        if at is not None:
            yield at, "Succeeded=True, and its iterations are not done"
    elif summary.get("status") == "Unknown":
        at = world.untrue(shown, state, lambda s: len(s) < (of or 0) or any(o not in FINISHED for _, o, _ in s))
        if at is not None:
            yield at, f"Succeeded=Unknown ({summary.get('message')}), and all its iterations have ended"


def _with(pair: tuple[tuple[Any, ...], Object | None]) -> tuple[Any, ...]:
    known, body = pair
    if body is None:
        return known
    status = status_of(body)
    return (*known, (body["metadata"]["name"], status.get("outcome") or "", status.get("version")))


RULES = (nothing_contradicts, alias_is_as_said, promotion_is_the_registrys, loop_is_as_said)
