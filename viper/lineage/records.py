"""What a walk finds: versions, the iterations that made them, their stages, and the checkpoints that wrote the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

#: `base`: nothing came before it. `iteration`: made by an iteration whose records are known. `foreign`: registered by
#: something else, or its records are gone.
Origin = Literal["base", "iteration", "foreign"]
#: Whether a stage's manifest in the store is the one that the version was registered with.
State = Literal["as recorded", "not recorded", "differs", "missing"]


@dataclass(frozen=True)
class Checkpoint:
    """A model, by what it is called in its iteration (`θ0`, `θ1`, `base`, …). `stage`: the training stage that made
    it; None where it was there before. `version`: in the registry, None outside it."""

    name: str
    digest: str
    uri: str = ""
    model: str | None = None
    version: int | None = None
    stage: str | None = None


@dataclass(frozen=True)
class StageRecord:
    """A stage of the iteration. `author`: the checkpoint that wrote its rows or that it trained; `critic`: who wrote
    critiques or verdicts, in the role `second` (`critic`, `judge`); `made`: the checkpoint that came out. `samples`:
    rows by split."""

    name: str
    state: State
    manifest: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    parts: int = 0
    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    author: Checkpoint | None = None
    critic: Checkpoint | None = None
    second: str = ""
    made: Checkpoint | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class IterationRecord:
    """The iteration that made a version."""

    name: str
    uri: str
    identity: str
    run: str
    images: str
    generator: Checkpoint
    base: Checkpoint
    critic: Checkpoint
    judge: Checkpoint
    stages: tuple[StageRecord, ...]

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Every checkpoint that is known here, by digest; what was trained here counts before roles."""
        found = {c.digest: c for c in (self.judge, self.critic, self.base, self.generator)}
        for stage in self.stages:
            if stage.made is not None:
                found.setdefault(stage.made.digest, stage.made)
        return found


@dataclass(frozen=True)
class VersionRecord:
    """A version in the registry and where it comes from. `problems`: what is missing or does not agree."""

    model: str
    version: int
    digest: str
    uri: str
    origin: Origin
    aliases: tuple[str, ...] = ()
    run: str = ""
    decision: str = ""
    reason: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    iteration: IterationRecord | None = None
    parent: VersionRecord | None = None
    problems: tuple[str, ...] = ()

    def chain(self) -> tuple[VersionRecord, ...]:
        """This version and those that it came from, the base last."""
        found = [self]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        return tuple(found)

    def dump(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)
