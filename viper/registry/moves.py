"""A registry alias is moved: by one at a time, and for a person recorded on the version it moves to."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

from viper.errors import InputError, LockedError, StoreError
from viper.registry.tags import PARENT_VERSION
from viper.registry.versions import LOCKS, ModelVersion
from viper.store import DirectoryStore, ObjectStore, open_store
from viper.store.lock import Lock, locked, owner_here

log = logging.getLogger(__name__)

#: Tag of a version for each move of an alias to it: `viper.alias_move.<time or request>`.
ALIAS_MOVE = "viper.alias_move"
_NOTE = r"\S+ \S+: version (None|\d+) to \d+"

#: Seconds for which the lock has to be held when a move begins: MLflow's client gives up after six attempts of 30 s
#: each and the pauses between them (viper.registry.connection).
SET_S = 220.0

#: Which version: a number, the newest, or the one that the present one was made from.
Choice = int | Literal["newest", "parent"]


class Versions(Protocol):
    """The part of `viper.registry.Registry` that moves need."""

    def get(self, model: str, version: int) -> ModelVersion: ...
    def versions(self, model: str) -> list[ModelVersion]: ...
    def get_alias(self, model: str, alias: str) -> int | None: ...
    def set_tags(self, model: str, version: int, tags: Mapping[str, object]) -> None: ...
    def promote(
        self, model: str, alias: str, version: int, expected: int | None, *, still: Callable[[], None] = ...
    ) -> None: ...


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
    store: ObjectStore | None = None,
    request: str = "",
    now: datetime | None = None,
) -> Move:
    """Records the move on the version, then moves the alias if it is still where it was.

    Args:
        target: model and alias.
        why: who does it and for what reason.
        store: where this mover locks, see `set_alias`.
        request: identifies the wish. Doing the same request again finishes it and never moves the alias twice, also
            where `choice` depends on where the alias is.

    Raises `AliasMovedError`, `MissingError`, `InputError`, `StoreError`.
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
    set_alias(registry, target, version, before, store=store, who=why.partition(":")[0])
    return Move(model, alias, before, version)


def set_alias(
    registry: Versions,
    target: tuple[str, str],
    version: int,
    expected: int | None,
    *,
    store: ObjectStore | None,
    who: str,
) -> None:
    """Moves an alias as `Registry.promote` does, by one mover at a time: the one door for it.

    Args:
        store: this mover's own; None when it knows none. Movers meet where the oldest version says (`LOCKS`), which is
            the store of the iteration that made it; where none says so, or that store is not to be had here, in their
            own. The comparison in the registry remains the second guard: between movers who do not meet the only one.
        who: for others who wait.

    Raises `AliasMovedError`, `MissingError`, `StoreError`.
    """
    with ExitStack() as held:
        lock = _take(held, registry, target, store, who)
        if lock is None:
            registry.promote(*target, version, expected=expected)
        else:
            registry.promote(*target, version, expected=expected, still=lambda: lock.check(SET_S))


def _take(
    held: ExitStack, registry: Versions, target: tuple[str, str], store: ObjectStore | None, who: str
) -> Lock | None:
    """The lock, where movers of this alias meet; None where there is no such place."""
    name, owner = "@".join(target), owner_here(who)
    common = next((v.tags[LOCKS] for v in registry.versions(target[0]) if v.tags.get(LOCKS)), "")
    if common and (store is None or _place(common) != _place(store.uri)):
        try:
            return held.enter_context(locked(_there(open_store(common)), name, owner))
        except LockedError:
            raise
        except StoreError as error:
            where = error.where or common
            log.warning("movers of %s lock in %s, which is not to be had here: %s", name, where, error.what)
    if store is None:
        log.warning("%s is moved without a lock: no store is known here", name)
        return None
    try:
        place = _there(store)
    except StoreError as error:
        log.warning("%s is moved without a lock: %s: %s", name, store.uri, error.what)
        return None
    return held.enter_context(locked(place, name, owner))


def _there(store: ObjectStore) -> ObjectStore:
    """Raises `StoreError` for a directory that does not exist: a lock in one that is made for it keeps nobody out."""
    if isinstance(store, DirectoryStore) and not store.root.is_dir():
        raise StoreError("there is no such directory", where=str(store.root))
    return store


def _place(uri: str) -> tuple[str, str, str]:
    """Which store it is, by whatever endpoint it is reached."""
    parts = urlsplit(uri)
    return parts.scheme, parts.netloc, parts.path.rstrip("/")


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
