"""The run directory: where a local run keeps its store, tracking database, scratch, logs and report; and its lock.

store/                                   the object store (unless another one is given)
mlflow.db                                the tracking database (unless a server is given)
work/<iteration>/<stage>/                scratch of the stages
logs/<iteration>/<stage>-<n>.log         output of the n-th attempt
report/                                  the report
run.json                                 `RunRecord`
.lock                                    held by the `viper run` that works here
.processes                               held (shared) by every stage process
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from viper.errors import BusyError, InputError, NotFoundError, SpecError
from viper.spec.base import setting
from viper.spec.iteration import ViperIteration, ViperLoop
from viper.store import DirectoryStore, ObjectStore, relative_database, relative_uri, resolve_database, resolve_uri
from viper.store.places import expanded
from viper.stored import StoredForm, least_version


class RunRecord(StoredForm):
    """`run.json`: what was started here. What lies in the run directory is written by its path there."""

    WHAT: ClassVar[str] = "the record of a run"
    FIX: ClassVar[str] = "restore this file from a copy, or choose another --dir; what is there stays"

    store: str = setting(description="Object store URI.")
    tracking: str = setting(description="MLflow tracking URI.")
    resource: ViperIteration | ViperLoop = setting(discriminator="kind", description="The resource, defaults resolved.")


class RunDirectory:
    """Paths of a run directory and its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def processes_lock(self) -> Path:
        """File that every stage process holds a shared lock on."""
        return self.path / ".processes"

    def work(self, iteration: str, stage: str) -> Path:
        """Scratch folder of a stage."""
        return self.path / "work" / iteration / stage

    def next_log(self, iteration: str, stage: str, shard: int, shards: int) -> Path:
        """A new log file for the next attempt of a shard; raises `OSError`."""
        folder = self.path / "logs" / iteration
        folder.mkdir(parents=True, exist_ok=True)
        name = stage if shards == 1 else f"{stage}.{shard}-of-{shards}"
        number = 1
        while (log := folder / f"{name}-{number}.log").exists():
            number += 1
        log.touch()
        return log

    def record(self) -> RunRecord | None:
        """What was started here, None for a new directory; raises `InputError`, `StoreError` when it cannot be read."""
        path = self.path / "run.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise InputError(
                f"is not {RunRecord.WHAT}: {e.strerror or e}", where=str(path), fix=RunRecord.FIX
            ) from None
        stored = self._moved(RunRecord.read(data, where=str(path), error=InputError))
        place = self.path.as_uri()
        return stored.read_as(store=resolve_uri(place, stored.store), tracking=resolve_database(place, stored.tracking))

    def _moved(self, stored: RunRecord) -> RunRecord:
        """A record of 0.1.0, which named what lay in the directory by its full path, where the directory is now.

        Only of a directory that took its store and its database along, and left none where it was.
        """
        if not stored.store.startswith("file:///"):
            return stored
        old = Path(unquote(urlsplit(stored.store).path)).parent
        before = (old / "store").as_uri(), f"sqlite:///{old / 'mlflow.db'}"
        taken_along = (self.path / "store").is_dir() and (self.path / "mlflow.db").is_file()
        if (stored.store, stored.tracking) != before or old == self.path or (old / "store").exists() or not taken_along:
            return stored
        return stored.read_as(store="store", tracking="mlflow.db")

    def open(self, resource: ViperIteration | ViperLoop, store: str | None, tracking: str | None) -> RunRecord:
        """Records what is run here; the locations of an earlier run in this directory are kept.

        Raises `SpecError` when other locations than those are asked for, `StoreError` when nothing can be written.
        """
        before = self.record()
        record = RunRecord(
            **((before.model_extra or {}) if before else {}),  # what a later release wrote is not this one's to drop
            store=_absolute(store) or (before.store if before else (self.path / "store").as_uri()),
            tracking=tracking or (before.tracking if before else f"sqlite:///{self.path / 'mlflow.db'}"),
            resource=resource,
            min_version=least_version(resource),
        )
        for option, old, new in (
            ("--store", before and before.store, record.store),
            ("--tracking-uri", before and before.tracking, record.tracking),
        ):
            if old is not None and old != new:
                raise SpecError(
                    f"this run was started with {option} {old}, not {new}",
                    where=str(self.path),
                    fix=f"leave out {option} to go on with that run, or choose another --dir",
                )
        place = self.path.as_uri()
        written = record.model_copy(
            update={
                "store": relative_uri(place, record.store),
                "tracking": relative_database(place, record.tracking),
            }
        )
        DirectoryStore(self.path).put("run.json", written.to_bytes())
        return record

    def check(self, store: ObjectStore) -> None:
        """Raises `NotFoundError` when an iteration that has run here is not in the store: absence is not "new".

        A folder that is not mounted, or a directory that was moved, must neither make a run begin anew nor be reported
        as if nothing had happened.
        """
        for folder in sorted((self.path / "logs").glob("*/")):
            name = folder.name
            if not any(folder.glob("*.log")) or store.stat(f"iterations/{name}/iteration.json") is not None:
                continue
            raise NotFoundError(
                f"the iteration {name} has run in {self.path} and is not in its store",
                where=store.uri,
                fix="mount the store's volume, or move it back to this place; to begin anew, choose another --dir",
            )

    def busy(self) -> bool:
        """Whether a `viper run` works here now."""
        try:
            with (self.path / ".lock").open("rb") as file:
                # Shared, so that two that look do not see each other; released when the file is closed.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the directory for this process; raises `BusyError` when another one works in it.

        Also waits for stage processes that an interrupted run left behind: they end by themselves within moments.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as e:
            raise InputError(f"cannot be used as run directory: {e.strerror}", where=str(self.path)) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _busy(self.path, _holder(file)) from None
            file.truncate(0)
            file.write(json.dumps(_myself()))
            file.flush()
            with self.processes_lock.open("a") as processes:
                fcntl.flock(processes, fcntl.LOCK_EX)
            yield


def _absolute(store: str | None) -> str | None:
    if store is None or "://" in store:
        return store
    return expanded(store).absolute().as_uri()


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "start": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _holder(file: Any) -> dict[str, Any]:
    file.seek(0)
    try:
        holder: dict[str, Any] = json.loads(file.read())
    except ValueError:  # it holds the lock and has not written its name yet
        return {}
    return holder


def _busy(path: Path, holder: dict[str, Any]) -> BusyError:
    pid, host, start = (holder.get(k, "unknown") for k in ("pid", "host", "start"))
    return BusyError(
        f"another `viper run` works in this directory (process {pid} on {host}, since {start})",
        where=str(path),
        fix=f"wait for it, stop it with `kill {pid}` (its work stays), or choose another --dir",
    )
