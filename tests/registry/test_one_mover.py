"""An alias is moved by one at a time: no move is lost between comparison and set, wherever the movers run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.registry import MemoryRegistry, SavedRegistry
from servers.running import MlflowServer
from viper.errors import LockedError, StoreError
from viper.registry import LOCKS, AliasMovedError, Registry, moves
from viper.registry.moves import move_alias, set_alias
from viper.store import DirectoryStore, ObjectStore, open_store
from viper.store.lock import HOLD_S, Clock, Lock

MOVERS = 4
TARGET = ("m", "generator")


class Meeting:
    """A registry of MLflow whose movers, having compared, wait for each other before they set.

    `sets`: where the alias was set to, in order. Where they cannot meet because one is alone, they give up waiting.
    """

    def __init__(self, uri: str, patience_s: float) -> None:
        self.uri, self.sets = uri, []
        self._all_compared, self._patience_s = threading.Barrier(MOVERS), patience_s

    def mover(self) -> Registry:
        """The registry as one of the movers has it."""
        registry = Registry(self.uri)
        call = registry.connection.call

        def meeting(method: str, *arguments: Any, **options: Any) -> Any:
            if method != "set_registered_model_alias":
                return call(method, *arguments, **options)
            with suppress(threading.BrokenBarrierError):
                self._all_compared.wait(self._patience_s)
            done = call(method, *arguments, **options)
            self.sets.append(int(arguments[2]))
            return done

        registry.connection.call = meeting  # type: ignore[method-assign]
        return registry


def race(move: Callable[[int], None], versions: list[int]) -> list[int]:
    """The versions whose movers were told that the alias is theirs now."""

    def told(version: int) -> int | None:
        try:
            move(version)
        except AliasMovedError:
            return None
        return version

    with ThreadPoolExecutor(MOVERS) as pool:
        return [version for version in pool.map(told, versions) if version is not None]


def versions_of(registry: Registry, model: str, **tags: str) -> list[int]:
    made = [registry.register(model, f"s3://b/{n}", f"sha256:{n}", tags=tags) for n in range(MOVERS + 1)]
    registry.promote(model, "generator", made[0], expected=None)
    return made


@pytest.mark.server
def test_with_the_comparison_alone_every_mover_sets_the_alias(mlflow_server: MlflowServer) -> None:
    """What the lock is for: this is how moves were lost."""
    first, *others = versions_of(Registry(mlflow_server.url), "compared")
    meeting = Meeting(mlflow_server.url, 60)
    race(lambda version: meeting.mover().promote("compared", "generator", version, first), others)
    assert sorted(meeting.sets) == others


@pytest.mark.server
def test_with_the_lock_one_of_them_does_and_the_others_are_told(
    mlflow_server: MlflowServer, store: ObjectStore
) -> None:
    store.put("iterations/it/iteration.json", b"{}")
    model = f"locked-{store.uri.partition(':')[0]}"
    registry = Registry(mlflow_server.url)
    first, *others = versions_of(registry, model)
    meeting = Meeting(mlflow_server.url, 0.5)

    def move(version: int) -> None:
        mine = open_store(store.uri)
        set_alias(meeting.mover(), (model, "generator"), version, first, store=mine, who="a mover")

    won = race(move, others)
    assert won == meeting.sets == [registry.get_alias(model, "generator")]


@pytest.mark.server
def test_movers_of_two_stores_meet_where_the_oldest_version_says(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    stores = [DirectoryStore(tmp_path / name) for name in ("one", "two")]
    for one in stores:
        one.put("iterations/it/iteration.json", b"{}")
    registry = Registry(mlflow_server.url)
    first, *others = versions_of(registry, "two-stores", **{LOCKS: stores[1].uri})
    registry.register("two-stores", "s3://b/0", "sha256:0", tags={LOCKS: stores[0].uri})
    assert registry.get("two-stores", first).tags[LOCKS] == stores[1].uri, "it never changes"
    meeting = Meeting(mlflow_server.url, 0.5)

    def move(version: int) -> None:
        mine = stores[version % 2]
        set_alias(meeting.mover(), ("two-stores", "generator"), version, first, store=mine, who="a mover")

    assert race(move, others) == meeting.sets == [registry.get_alias("two-stores", "generator")]
    assert not list(stores[0].list("locks/"))
    assert list(stores[1].list("locks/"))


@pytest.fixture
def memory() -> MemoryRegistry:
    made = MemoryRegistry()
    for number in (1, 2, 3):
        made.register("m", f"file:///{number}", f"sha256:{number}")
    made.promote(*TARGET, 1, expected=None)
    return made


def locks_in(folder: Path) -> list[str]:
    return [info.key for info in DirectoryStore(folder).list("locks/")] if folder.exists() else []


@dataclass(frozen=True)
class Case:
    """`named`: what the oldest version says; `own`: the mover's store; `where` the lock is then; `said`: in the log."""

    named: str = ""
    own: str = ""
    where: str = ""
    said: str = ""


@pytest.mark.parametrize(
    "case",
    [
        Case(own="own", where="own"),
        Case(named="there", own="own", where="there"),
        Case(named="own", own="own", where="own"),
        Case(named="there", where="there"),
        Case(named="gone", own="own", where="own", said="which is not to be had here: there is no such directory"),
        Case(named="gone", said="without a lock: no store is known here"),
        Case(said="without a lock: no store is known here"),
        Case(own="gone", said="there is no such directory"),
        Case(named="ftp://x", own="own", where="own", said="which is not to be had here: not a store URI"),
        Case(named="s3://a:secret@b/p", own="own", where="own", said="credentials do not belong in a URI"),
    ],
    ids=str,
)
def test_where_movers_lock(
    memory: MemoryRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    for name in ("own", "there"):
        (tmp_path / name).mkdir()
    if case.named:
        memory.set_tags("m", 2, {LOCKS: case.named if ":" in case.named else (tmp_path / case.named).as_uri()})
    store = DirectoryStore(tmp_path / case.own) if case.own else None
    with caplog.at_level(logging.WARNING):
        set_alias(memory, TARGET, 2, 1, store=store, who="me")
    assert memory.get_alias(*TARGET) == 2
    assert [name for name in ("own", "there", "gone") if locks_in(tmp_path / name)] == [n for n in [case.where] if n]
    assert not (tmp_path / "gone").exists()
    assert case.said in caplog.text
    assert bool(caplog.text) == bool(case.said)
    assert "secret" not in caplog.text


def test_one_bucket_by_two_endpoints_is_one_place(memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class Opened(Exception):  # noqa: N818
        pass

    def locked(store: ObjectStore, *_: object) -> None:
        used.append(store.uri)
        raise Opened

    monkeypatch.setattr(moves, "locked", locked)
    memory.set_tags("m", 1, {LOCKS: "s3://viper/p?endpoint=http://viper-minio:9000"})
    own = open_store("s3://viper/p/?endpoint=http://localhost:9000")
    with pytest.raises(Opened):
        set_alias(memory, TARGET, 2, 1, store=own, who="me")
    assert used == [own.uri]


def test_a_lock_that_is_not_to_be_had_moves_nothing(memory: MemoryRegistry, tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("no folder")
    with pytest.raises(StoreError):
        set_alias(memory, TARGET, 2, 1, store=DirectoryStore(tmp_path), who="me")
    assert memory.get_alias(*TARGET) == 1


def test_where_others_hold_it_too_long_nobody_goes_elsewhere(
    memory: MemoryRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object) -> None:
        raise LockedError("others have held it for 20 minutes")

    monkeypatch.setattr(moves, "locked", locked)
    memory.set_tags("m", 1, {LOCKS: tmp_path.as_uri()})
    (tmp_path / "own").mkdir()
    with pytest.raises(LockedError):
        set_alias(memory, TARGET, 2, 1, store=DirectoryStore(tmp_path / "own"), who="me")
    assert memory.get_alias(*TARGET) == 1


@pytest.mark.parametrize(("after", "moved"), [(0.0, True), (HOLD_S - moves.SET_S + 1, False), (HOLD_S, False)])
def test_who_took_too_long_to_compare_sets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float, moved: bool
) -> None:
    """A request to set may take long itself, and has to end before somebody else may hold the lock."""
    clock = Clock()
    monkeypatch.setattr(clock, "passed", lambda: after)
    monkeypatch.setattr(moves, "locked", lambda *_: _Held(Lock("there", HOLD_S, clock)))
    registry = Registry(f"sqlite:///{tmp_path}/db")
    for number in (1, 2):
        registry.register("m", f"file:///{number}", f"sha256:{number}")
    registry.promote(*TARGET, 1, expected=None)
    if moved:
        set_alias(registry, TARGET, 2, 1, store=DirectoryStore(tmp_path), who="me")
    else:
        with pytest.raises(StoreError, match="nothing was changed"):
            set_alias(registry, TARGET, 2, 1, store=DirectoryStore(tmp_path), who="me")
    assert registry.get_alias(*TARGET) == (2 if moved else 1)


class _Held:
    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> Lock:
        return self._lock

    def __exit__(self, *_: object) -> None:
        pass


KILLED = """
import os, signal, sys
from pathlib import Path
from fakes.registry import SavedRegistry
from viper.registry.moves import move_alias
from viper.store import DirectoryStore
folder, when = Path(sys.argv[1]), sys.argv[2]
class Killed(SavedRegistry):
    def promote(self, *arguments, **options):
        if when == "after":
            super().promote(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)
registry, store = Killed(folder / "registry"), DirectoryStore(folder)
move_alias(registry, ("m", "generator"), "newest", "by me", store=store, request="r")
"""


@pytest.mark.process
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_mover_who_is_killed_with_the_lock_is_followed_by_the_same_request(tmp_path: Path, when: str) -> None:
    """Before or after the alias is set."""
    registry, file = SavedRegistry(tmp_path / "registry"), tmp_path / "registry"
    for number in (1, 2):
        registry.register("m", f"file:///{number}", f"sha256:{number}")
    registry.promote(*TARGET, 1, expected=None)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", KILLED, str(tmp_path), when]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    assert SavedRegistry(file).get_alias(*TARGET) == (1 if when == "before" else 2)
    (held,) = (json.loads((tmp_path / key).read_text()) for key in locks_in(tmp_path))
    assert held["released"] is False
    again = SavedRegistry(file)
    moved = move_alias(again, TARGET, "newest", "by me", store=DirectoryStore(tmp_path), request="r")
    assert str(moved) == "m@generator: version 1 → version 2"
    assert again.get_alias(*TARGET) == 2
    assert len([t for t in again.get("m", 2).tags if t.startswith("viper.alias_move")]) == 1
    assert len(locks_in(tmp_path)) == 1


def test_aliases_are_moved_through_the_one_door() -> None:
    root = Path(__file__).parents[2]
    files = [f for folder in ("viper", "jobs", "operator") for f in (root / folder).rglob("*.py")]
    moving = {str(f.relative_to(root)) for f in files if ".promote(" in f.read_text("utf-8")}
    assert moving == {"viper/registry/moves.py"}
