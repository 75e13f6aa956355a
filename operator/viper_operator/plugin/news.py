"""What there is to tell of an iteration or a loop between two looks at it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from viper.cli.tree import telling
from viper.spec.status import StageStatus
from viper.words import joined, took
from viper_operator.plugin.choose import begun
from viper_operator.plugin.problems import problem
from viper_operator.plugin.view import Iteration, Loop, Object, active_seconds, origin, stage_text

#: States of a stage that are told when they begin, and what is said of them.
_SAID = {
    "Retrying": "is tried again",
    "Suspended": "is suspended, its work stays",
    "Held": "is held",
    "Failed": "failed",
}


def iteration_news(before: Iteration | None, now: Iteration, at: datetime) -> list[str]:
    """What has become of an iteration since the last look; at the first one, where it stands."""
    if before is None:
        return [_introduced(now)]
    old = {s.name: s for s in before.status.stages}
    said = [text for stage in now.status.stages if (text := _stage_news(old.get(stage.name), stage, at))]
    told = [f"{now.name} {text}" for text in said]
    if before.status.generator is None and now.status.generator is not None:
        told.insert(0, f"{now.name}: θ0 is {origin(now.status.generator)}")
    if now.state != before.state and now.state == "Suspended":
        told.append(f"{now.name} is suspended; `kubectl viper resume {now.loop or now.name}` goes on with it")
    elif before.state == "Suspended" and now.state in ("Pending", "Running"):
        told.append(f"{now.name} goes on")
    if now.finished and not before.finished:
        told.append(_ended(now))
    return told


def loop_news(before: Loop | None, now: Loop) -> list[str]:
    """What has become of a loop itself; its iterations tell theirs."""
    if before is None:
        of = f"{now.status.iteration} of {now.status.of}" if now.status.iteration and now.status.of else "0"
        return [joined([f"loop {now.name}: {now.state}, iteration {of}", now.message])]
    told = []
    if now.state != before.state and now.state == "Suspended":
        told.append(f"loop {now.name} is suspended; `kubectl viper resume {now.name}` goes on with it")
    elif before.state == "Suspended" and now.state == "Running":
        told.append(f"loop {now.name} goes on")
    if now.finished and not before.finished:
        told.append(loop_end(now))
    return told


def loop_end(loop: Loop) -> str:
    """How a loop ended."""
    return f"loop {loop.name} ends: {loop.state}" + (f": {loop.message}" if loop.message else "")


def waits(iteration: Iteration, pods: Sequence[Object], wanted: str) -> str:
    """What is waited for before a stage says more, by its pods and the status; empty while it is at work.

    Args:
        pods: those of the stage, the last attempt of each shard.
        wanted: the stage; empty where none has begun.
    """
    name, status = iteration.name, iteration.status
    if iteration.state == "Unseen":
        return f"waiting for {name}: no operator has looked at it yet"
    stage = next((s for s in status.stages if s.name == wanted), None)
    if iteration.state == "Suspended":
        return f"waiting for {name}: it is suspended"
    if stage is None:
        return f"waiting for {wanted or 'the first stage'} of {name}"
    if pods and all(begun(pod) and pod.get("status", {}).get("phase") != "Failed" for pod in pods):
        return ""
    trouble = next((text for pod in pods if (text := problem(pod))), "")
    said = joined([stage.reason if stage.reason not in ("", "Ready", "Running") else "", stage.message], ": ")
    return f"waiting for {stage.name} of {name}: {trouble or said or 'its pods have not started'}"


def standing(iteration: Iteration) -> str:
    """How far the stage is that an iteration is at; empty when nobody says."""
    status = iteration.status
    stage = next((s for s in status.stages if s.name == status.stage), None)
    return f"{iteration.name} {stage.name}: {stage_text(stage, stage.message)}" if stage and stage.items else ""


def next_iteration(loop: Loop) -> str:
    """What a loop waits for between its iterations; empty while one is at work or nothing more will happen."""
    if loop.finished or any(not i.finished for i in loop.iterations):
        return ""
    if loop.state == "Suspended":
        return f"waiting for loop {loop.name}: it is suspended"
    number = len(loop.iterations) + 1
    if number > loop.body.get("spec", {}).get("iterations", number):  # all are done; the loop is about to say so
        return ""
    return f"waiting for iteration {number} of loop {loop.name} to begin"


def _introduced(one: Iteration) -> str:
    status = one.status
    parts = [one.state, f"θ0 is {origin(status.generator)}" if status.generator else "", status.progress or ""]
    return joined([f"{one.name}: {', '.join(p for p in parts if p)}", one.message])


def _ended(one: Iteration) -> str:
    summary = next((c.message for c in one.status.conditions if c.type == "Succeeded"), "")
    return f"{one.name} ends: {one.state}" + (f": {summary}" if summary else "")


def _stage_news(old: StageStatus | None, new: StageStatus, at: datetime) -> str:
    state, was = new.state, None if old is None else old.state
    if state == "Succeeded" and was != state:
        seconds = active_seconds(new, at)
        return (
            f"{new.name} is done" + (f" after {took(seconds, new.seconds)}" if seconds else "") + _after(new.headline)
        )
    if state in _SAID and (was != state or (old is not None and old.message != new.message)):
        return f"{new.name} {_SAID[state]}" + _after(telling(state, new.message))
    if state == "Running" and new.message and (old is None or old.message != new.message):
        return f"{new.name}{_after(new.message)}"
    return ""


def _after(text: str | None) -> str:
    return f": {text}" if text else ""
