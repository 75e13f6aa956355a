"""The Events that the difference between two statuses calls for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from viper.spec.status import IterationStatus, StageStatus, StatusCondition
from viper.words import joined, one_line
from viper_operator.status import INTERNAL_ERROR, RUNNING_STATES
from viper_operator.troubles import QUEUED, WAITS_FOR_MODEL


@dataclass(frozen=True)
class Event:
    """Something that a person would want to know. `type` and `reason` as in core/v1. `once`: what it happened to, where
    it happens to that only once; told again, it is the same Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    once: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))


def events(previous: IterationStatus, new: IterationStatus) -> list[Event]:
    """At most one Normal Event with everything that went well, and one for each thing that did not."""
    normal = _outcome(previous, new)
    found: list[Event] = []
    if new.outcome != previous.outcome and new.outcome in ("Held", "Failed"):
        found.append(Event("Warning", new.outcome, _summary(new).message))
    before = {s.name: s for s in previous.stages}
    for stage in new.stages:
        old = before.get(stage.name)
        normal += _stage(old, stage)
        trouble = _trouble(stage)
        if trouble is not None and (old is None or _gist(trouble) != _gist(_trouble(old))):
            found.append(trouble)
    found += _whole(previous, new)
    moved, was = _condition(new, "GeneratorCurrent"), _condition(previous, "GeneratorCurrent")
    if moved is not None and moved.status == "False" and (was is None or was.status != "False"):
        found.append(Event("Warning", moved.reason, moved.message))
    odd, old_odd = _condition(new, INTERNAL_ERROR), _condition(previous, INTERNAL_ERROR)
    if odd is not None and (old_odd is None or old_odd.reason != odd.reason):
        found.append(Event("Warning", INTERNAL_ERROR, odd.message))
    if normal:
        # The first is the most important one: outcome, then stages in order.
        found.insert(0, Event("Normal", normal[0][0], joined(text for _, text in normal)))
    return found


def _outcome(previous: IterationStatus, new: IterationStatus) -> list[tuple[str, str]]:
    """Reason and text of what is good to know of the whole iteration."""
    found = []
    if new.retries > previous.retries:
        found.append(("Retry", f"retry {new.retries}, asked for by a person"))
    if new.outcome != previous.outcome:
        if new.outcome in ("Promoted", "Registered"):
            found.append((new.outcome, _summary(new).message))
        elif new.outcome == "Suspended":
            found.append(("Suspended", "running stages are stopped, their work stays"))
        elif previous.outcome == "Suspended":
            found.append(("Resumed", "goes on with what is there"))
    return found


def _trouble(stage: StageStatus) -> Event | None:
    """What keeps a stage from its work, or kept it: a failed attempt, or what its pods wait for."""
    if not stage.message or stage.state not in RUNNING_STATES:
        return None
    told = f"{stage.name}: {stage.message}"
    if stage.state in ("Running", "Retrying"):
        return Event("Warning", "AttemptFailed", told, once=f"{stage.job} {stage.started_at}")
    return Event("Normal" if stage.reason in (WAITS_FOR_MODEL, QUEUED) else "Warning", stage.reason, told)


def _gist(event: Event | None) -> tuple[str, str] | None:
    """What makes an Event another one: how many nodes of how many have no room does not."""
    if event is None:
        return None
    return event.reason, event.message if event.once else re.sub(r"\d+", "0", event.message)


def _whole(previous: IterationStatus, new: IterationStatus) -> Iterator[Event]:
    """What keeps the iteration as a whole from going on, beyond its stages."""
    summary = _summary(new)
    of_stages = {INTERNAL_ERROR, "Suspended", "Waiting", *(x for s in new.stages for x in (s.state, s.reason))}
    if summary.status != "Unknown" or summary.reason in of_stages:
        return
    told = Event("Warning", summary.reason, summary.message)
    before = (
        None if not previous.conditions else Event("Warning", _summary(previous).reason, _summary(previous).message)
    )
    if _gist(told) != _gist(before):
        yield told


def _stage(old: StageStatus | None, new: StageStatus) -> list[tuple[str, str]]:
    if new.state == "Succeeded" and (old is None or old.state != "Succeeded"):
        return [("StageSucceeded", f"{new.name} done" + (f": {new.headline}" if new.headline else ""))]
    if new.state in RUNNING_STATES and new.job is not None and (old is None or old.job != new.job):
        return [("StageStarted", f"{new.name} started (Job {new.job})")]
    return []


def _summary(status: IterationStatus) -> StatusCondition:
    return status.conditions[0]


def _condition(status: IterationStatus, kind: str) -> StatusCondition | None:
    return next((c for c in status.conditions if c.type == kind), None)
