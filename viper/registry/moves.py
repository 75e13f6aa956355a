"""A person moves a registry alias, and the move is recorded on the version it moves to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from viper.errors import InputError
from viper.lineage import PARENT_VERSION
from viper.registry.models import ModelVersion

#: Tag of a version for each move of an alias to it: `viper.alias_move.<time or request>`.
ALIAS_MOVE = "viper.alias_move"
_NOTE = r"\S+ \S+: version (None|\d+) to \d+"

#: Which version: a number, the newest, or the one that the present one was made from.
Choice = int | Literal["newest", "parent"]


class Versions(Protocol):
    """The part of `viper.registry.Registry` that moves need."""

    def get(self, model: str, version: int) -> ModelVersion: ...
    def versions(self, model: str) -> list[ModelVersion]: ...
    def get_alias(self, model: str, alias: str) -> int | None: ...
    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None: ...
    def promote(self, model: str, alias: str, version: int, expected: int | None) -> None: ...


@dataclass(frozen=True)
class Move:
    """A move that was made; `before` equals `version` when there was nothing to do."""

    model: str
    alias: str
    before: int | None
    version: int

    def __str__(self) -> str:
        target = f"{self.model}@{self.alias}"
        if self.before == self.version:
            return f"{target}: is at version {self.version} already"
        return f"{target}: version {self.before} → version {self.version}"


def move_alias(
    registry: Versions,
    target: tuple[str, str],
    choice: Choice,
    why: str,
    *,
    request: str = "",
    now: datetime | None = None,
) -> Move:
    """Records the move on the version, then moves the alias if it is still where it was.

    Args:
        target: model and alias.
        why: who does it and for what reason.
        request: identifies the wish. Doing the same request again finishes it and never moves the alias twice, also
            where `choice` depends on where the alias is.

    Raises `AliasMovedError`, `MissingError`, `InputError`.
    """
    model, alias = target
    if request and (begun := _begun(registry, model, request)):
        before, version = begun
    else:
        before = registry.get_alias(model, alias)
        version = _version(registry, target, before, choice)
        registry.get(model, version)
        if before == version:
            return Move(model, alias, before, version)
        moment = now or datetime.now(UTC)
        note = f"{moment.isoformat(timespec='seconds')} {alias}: version {before} to {version}, {why}".rstrip(": ")
        registry.set_tags(model, version, {f"{ALIAS_MOVE}.{request or f'{moment:%Y%m%dT%H%M%SZ}'}": note})
    registry.promote(model, alias, version, expected=before)
    return Move(model, alias, before, version)


def _begun(registry: Versions, model: str, request: str) -> tuple[int | None, int] | None:
    """From where to where an earlier attempt of this request moves; None when it recorded nothing."""
    for version in registry.versions(model):
        note = re.match(_NOTE, version.tags.get(f"{ALIAS_MOVE}.{request}", ""))
        if note is not None:
            return None if note[1] == "None" else int(note[1]), version.version
    return None


def _version(registry: Versions, target: tuple[str, str], before: int | None, choice: Choice) -> int:
    model, alias = target
    if isinstance(choice, int):
        return choice
    if choice == "newest":
        versions = [v.version for v in registry.versions(model)]
        if versions:
            return max(versions)
        raise InputError(f"the registered model {model} has no version", fix="run an iteration first")
    parent = None if before is None else registry.get(model, before).tags.get(PARENT_VERSION)
    if parent is None:
        at = (
            f"the alias {alias} does not exist"
            if before is None
            else f"version {before} names no version that it was made from"
        )
        raise InputError(at, where=f"models:/{model}@{alias}", fix="name the version to go back to")
    return int(parent)
