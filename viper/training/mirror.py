"""A second home for checkpoints: where the object store is remote, the newest one survives the loss of the machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from viper.errors import DamagedError, StoreError
from viper.store import ObjectStore, named_by_content
from viper.store.transfer import MANIFEST, directory_digests, download_directory, upload_directory

FOLDERS = "step-{:06d}"
_RESTORING = ".restore"
_LOGS = {"metrics.jsonl": "metrics", "rollouts.jsonl": "rollouts"}


class Mirror(Protocol):
    """Where checkpoints go besides the work directory."""

    def restore(self) -> int | None:
        """Brings the stored checkpoint into the work directory when it is ahead; returns its step if so."""
        ...

    def save(self, *, last: bool = False) -> None:
        """Stores the newest checkpoint of the work directory, unless that was done or tried already.

        `last`: the process ends after this, so that one that was tried in vain is tried again.
        """
        ...

    def clear(self) -> None:
        """Forgets the stored checkpoints: the stage is done."""
        ...


class NoMirror:
    """The store is a directory of this machine: the work directory is as safe as the store."""

    def restore(self) -> int | None:
        return None

    def save(self, *, last: bool = False) -> None:
        return None

    def clear(self) -> None:
        return None


class StoreMirror:
    """Keeps `<prefix>/checkpoints/<step>-<digest>/` like a work directory of `viper.training.local.checkpoints`.

    Called by its content, a checkpoint is whole or not there, whatever other attempts store: theirs have other places.
    (Older ones lie under `<step>/` and are read all the same.)

    `folders` is what a trainer calls its checkpoint of a step; a checkpoint counts when it has a `state.json`.
    """

    def __init__(self, store: ObjectStore, prefix: str, work_dir: Path, folders: str = FOLDERS) -> None:
        self._store, self._work_dir, self._folders = store, work_dir, folders
        self._prefix = f"{prefix}/checkpoints/"
        self._tried = self._stored = 0

    def restore(self) -> int | None:
        """See `Mirror.restore`. What is damaged is passed over. Raises `StoreError` when the store cannot be read."""
        here = _newest(self._work_dir, self._folders)
        if (self._work_dir / "result.json").is_file():
            return None
        passed: set[str] = set()
        # Looked for again each time: one that another attempt replaced while it was read is followed by a newer one.
        while (name := next((n for n in self._whole() if _step(n) > here and n not in passed), None)) is not None:
            fetched = self._work_dir / _RESTORING / name
            try:
                download_directory(self._store, f"{self._prefix}{name}", fetched)
            except DamagedError as error:
                print(f"the stored checkpoint {name} is passed over: {error}", file=sys.stderr)
                passed.add(name)
                continue
            return self._take(fetched, _step(name))
        return None

    def _take(self, fetched: Path, stored: int) -> int:
        for name in ("checkpoints", "candidates"):
            shutil.rmtree(self._work_dir / name, ignore_errors=True)
        # Checkpoints last: with them in place the work directory is complete, without them this runs again.
        for name in (*_LOGS, "candidates", "checkpoints"):
            if (fetched / name).exists():
                (fetched / name).replace(self._work_dir / name)
        shutil.rmtree(self._work_dir / _RESTORING)
        self._tried = self._stored = stored
        return stored

    def save(self, *, last: bool = False) -> None:
        """See `Mirror.save`. A store that is down costs this copy, not the training: the next one is tried again."""
        step = _newest(self._work_dir, self._folders)
        if step <= (self._stored if last else self._tried):
            return
        self._tried = step
        snapshot = self._work_dir / ".snapshot"
        shutil.rmtree(snapshot, ignore_errors=True)
        _snapshot(self._work_dir, self._folders.format(step), snapshot)
        with suppress(StoreError):
            digests = directory_digests(snapshot)
            name = named_by_content(f"{step:06d}", digests.digest.rpartition(":")[2])
            upload_directory(self._store, f"{self._prefix}{name}", snapshot, digests=digests)
            self._stored = step
            self._drop(before=step)
        shutil.rmtree(snapshot)

    def clear(self) -> None:
        """See `Mirror.clear`."""
        with suppress(StoreError):
            self._drop(before=None)

    def _whole(self) -> list[str]:
        """Names of whole checkpoints, the newest first."""
        keys = (info.key.removeprefix(self._prefix) for info in self._store.list(self._prefix))
        names = [k.split("/")[0] for k in keys if k.endswith(f"/{MANIFEST}") and k.count("/") == 1]
        return sorted((n for n in names if _step(n) > 0), key=lambda n: (_step(n), n), reverse=True)

    def _drop(self, before: int | None) -> None:
        keys = [info.key for info in self._store.list(self._prefix)]
        old = [k for k in keys if before is None or 0 < _step(k.removeprefix(self._prefix).split("/")[0]) < before]
        # The manifest first: a half-removed checkpoint must not pass for a whole one.
        for key in sorted(old, key=lambda k: not k.endswith(f"/{MANIFEST}")):
            self._store.delete(key)


def mirror_for(store: ObjectStore, prefix: str, work_dir: Path, folders: str = FOLDERS) -> Mirror:
    """A `StoreMirror` for remote stores, nothing for a directory."""
    return NoMirror() if store.uri.startswith("file:") else StoreMirror(store, prefix, work_dir, folders)


def _step(name: str) -> int:
    """The step of a stored checkpoint, `<step>` or `<step>-<digest>`; 0 of what is none."""
    found = re.fullmatch(r"(\d{6,12})(-[0-9a-f]{16})?", name)
    return 0 if found is None else int(found[1])


def _newest(work_dir: Path, folders: str) -> int:
    stem = folders.partition("{")[0]
    found = (work_dir / "checkpoints").glob(f"{stem}*")
    return max((int(p.name.removeprefix(stem)) for p in found if (p / "state.json").is_file()), default=0)


def _snapshot(work_dir: Path, newest: str, target: Path) -> None:
    """Checkpoint and candidates as hard links (the trainer replaces files, it never changes them), logs cut to size."""
    checkpoint = work_dir / "checkpoints" / newest
    folders = [checkpoint, *sorted((work_dir / "candidates").glob("[!.]*"))]
    for source in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        copy = target / source.relative_to(work_dir)
        copy.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, copy)
    state = json.loads((checkpoint / "state.json").read_text("utf-8"))
    for name, size in _LOGS.items():
        if size in state:
            with (work_dir / name).open("rb") as log:
                (target / name).write_bytes(log.read(int(state[size])))
