"""One holder at a time, whoever is killed, late, or has a clock of his own."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from viper import retries
from viper.errors import LockedError, StoreError
from viper.store import DirectoryStore, ObjectInfo, ObjectStore
from viper.store.lock import HOLD_S, SKEW_S, Clock, Holder, Process, locked

NAME = "m@generator"
PREFIX = "locks/m@generator/"


class Later(Clock):
    """Pauses take no time but move the clock on; `at_pause` is what others do meanwhile."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.start = self.time = now
        self.at_pause: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def passed(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds
        self.at_pause()

    @property
    def waited(self) -> float:
        return self.time - self.start


class Never(Later):
    """Nobody waits here."""

    def pause(self, seconds: float) -> None:
        raise AssertionError("waits")


def held(store: ObjectStore, number: int = 1, **said: Any) -> None:
    """What one leaves who was killed on another machine."""
    holder = Holder("somebody", **{"taken": 1_000_000.0, "expires": 1_000_000.0 + HOLD_S, **said})
    store.put(f"{PREFIX}{number:09}.json", holder.to_json())


def keys(store: ObjectStore) -> list[str]:
    return [info.key for info in store.list("locks/")]


def test_of_eight_threads_one_is_inside_at_a_time(store: ObjectStore) -> None:
    inside, entered = threading.Lock(), 0

    def enter(_: int) -> None:
        nonlocal entered
        with locked(store, NAME, "a thread"):
            assert inside.acquire(blocking=False), "two at a time"
            entered += 1
            inside.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(24)))
    assert entered == 24
    assert keys(store) == [f"{PREFIX}{24:09}.json"]


RACER = """
import os, sys
from viper.store import open_store
from viper.store.lock import locked
store, count = open_store(sys.argv[1]), sys.argv[2]
for _ in range(4):
    with locked(store, "m@generator", "a process"):
        with open(count, "r+") as file:
            number = int(file.read() or 0)
            os.sched_yield()
            file.seek(0)
            file.write(str(number + 1))
"""


@pytest.mark.process
def test_of_several_processes_one_is_inside_at_a_time(store: ObjectStore, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("")
    racers = [subprocess.Popen([sys.executable, "-c", RACER, store.uri, str(count)]) for _ in range(3)]
    assert [racer.wait(120) for racer in racers] == [0, 0, 0]
    assert count.read_text() == "12"


KILLED = """
import os, signal, sys
from viper.store import open_store
from viper.store.lock import locked
with locked(open_store(sys.argv[1]), "m@generator", "one who is killed"):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.process
def test_one_who_was_killed_on_this_machine_is_not_waited_for(store: ObjectStore) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, store.uri], check=False).returncode == -9
    with locked(store, NAME, "the next", clock=Never()):
        assert keys(store)[-1] == f"{PREFIX}{2:09}.json"


def test_one_who_holds_it_in_this_process_is_waited_for(store: ObjectStore) -> None:
    first = locked(store, NAME, "the first")
    first.__enter__()
    clock = Later()
    clock.at_pause = lambda: first.__exit__(None, None, None) if clock.waited > 5 else None
    with locked(store, NAME, "the second", clock=clock):
        assert clock.waited > 5


class KilledError(BaseException):
    pass


class Dies(DirectoryStore):
    """Its user is killed at the `at`-th call: `after` the store has carried it out, or before."""

    def __init__(self, root: Path, at: int, *, after: bool) -> None:
        super().__init__(root)
        self.left, self._after = at, after

    def _call(self, work: Callable[[], Any]) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        if self.left == 0 and not self._after:
            raise KilledError
        found = work()
        if self.left == 0:
            raise KilledError
        return found

    def get(self, key: str) -> bytes:
        return self._call(lambda: super(Dies, self).get(key))  # type: ignore[no-any-return]

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._call(lambda: super(Dies, self).put(key, data, if_absent=if_absent))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return iter(self._call(lambda: list(super(Dies, self).list(prefix))))

    def delete(self, key: str) -> None:
        self._call(lambda: super(Dies, self).delete(key))


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 9))
def test_killed_at_any_call_the_next_one_goes_on_after_the_expiry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, after: bool
) -> None:
    monkeypatch.setattr(Process, "this", classmethod(lambda cls: cls()))  # as if on another machine
    store = DirectoryStore(tmp_path)
    held(store, 6, released=True)
    with suppress(KilledError), locked(Dies(tmp_path, at, after=after), NAME, "one who is killed", clock=Later()):
        pass
    clock = Later()
    for _ in range(2):
        with locked(store, NAME, "the next", clock=clock):
            pass
    assert clock.waited <= HOLD_S + 4
    assert len(keys(store)) == 1


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ({}, HOLD_S, HOLD_S + 4),
        ({"released": True}, 0, 0),
        ({"expires": 1_000_000.0 - SKEW_S - 1}, 0, 0),  # long ago by any clock
        ({"expires": 1_000_000.0 - SKEW_S / 2}, 100, HOLD_S + 4),  # perhaps not by the holder's
        ({"expires": 2_000_000.0, "taken": 1_999_000.0}, HOLD_S, HOLD_S + 4),  # its clock is days ahead
        ({"expires": float("inf")}, HOLD_S, HOLD_S + 4),
        ({"expires": float("nan")}, HOLD_S, HOLD_S + 4),
    ],
)
def test_one_of_another_machine_is_waited_for_as_long_as_the_lock_may_be_held(
    directory_store: DirectoryStore, said: dict[str, Any], least: float, most: float
) -> None:
    held(directory_store, **said)
    clock = Later()
    with locked(directory_store, NAME, "the next", clock=clock):
        assert least <= clock.waited <= most


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 50_000,
        b'{"owner": 1}',
        b'{"owner":"x","taken":"","expires":1,"released":false}',
    ]
    + [json.dumps({**json.loads(Holder("x", 1, 1).to_json()), "process": p}).encode() for p in ("x", {"pid": "x"})]
    + [b'{"owner":"x","taken":1,"expires":%s,"released":false,"process":{}}' % (b"9" * 400)],
)
def test_an_object_that_cannot_be_read_is_waited_for_and_then_left_behind(
    directory_store: DirectoryStore, data: bytes
) -> None:
    directory_store.put(f"{PREFIX}000000003.json", data)
    directory_store.put(f"{PREFIX}notes.txt", b"of a person")
    clock = Later()
    with locked(directory_store, NAME, "the next", clock=clock):
        assert HOLD_S <= clock.waited <= HOLD_S + 4
    assert keys(directory_store) == [f"{PREFIX}000000004.json", f"{PREFIX}notes.txt"]


def test_of_eight_who_find_it_expired_one_takes_each_number(store: ObjectStore) -> None:
    held(store, 7, expires=0.0)
    inside, numbers = threading.Lock(), []
    start = threading.Barrier(8)

    def enter(_: int) -> None:
        start.wait()
        with locked(store, NAME, "one of eight"):
            assert inside.acquire(blocking=False), "two at a time"
            numbers.append(keys(store)[-1])
            inside.release()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert numbers == [f"{PREFIX}{number:09}.json" for number in range(8, 16)]


class SlowCreator(DirectoryStore):
    """Something happens between its look at who holds the lock and its attempt to take it."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        if if_absent:
            happens, self.meanwhile = self.meanwhile, staticmethod(lambda: None)
            happens()
        super().put(key, data, if_absent=if_absent)


def test_one_who_counted_long_ago_does_not_hold_it_beside_another(tmp_path: Path) -> None:
    """Its number was taken, released and removed; another one holds the lock under a higher number."""
    fast, slow = DirectoryStore(tmp_path), SlowCreator(tmp_path)
    held(fast, 7, released=True)
    third = locked(fast, NAME, "the third")

    def others() -> None:
        for _ in range(2):
            with locked(fast, NAME, "another"):
                pass
        assert keys(fast) == [f"{PREFIX}{9:09}.json"]
        third.__enter__()

    slow.meanwhile = others
    clock = Later()
    clock.at_pause = lambda: third.__exit__(None, None, None) if clock.waited > 30 else None
    with locked(slow, NAME, "the slow one", clock=clock):
        assert clock.waited > 30
        assert keys(fast)[-1] == f"{PREFIX}{11:09}.json"


def test_one_who_is_late_does_not_free_the_lock_of_who_came_after(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "this", classmethod(lambda cls: cls()))
    clock = Later()
    late = locked(directory_store, NAME, "the late one", clock=clock)
    lock = late.__enter__()
    lock.check(HOLD_S - 1)
    clock.time += HOLD_S - 10
    with pytest.raises(StoreError, match="took longer than the lock is held"):
        lock.check(20)
    clock.time += SKEW_S + 20
    second = locked(directory_store, NAME, "the second", clock=clock)
    second.__enter__()
    late.__exit__(None, None, None)
    waits = Later(clock.time)
    with locked(directory_store, NAME, "the third", clock=waits):
        assert waits.waited >= HOLD_S
    second.__exit__(None, None, None)


def test_a_lock_that_others_keep_taking_is_given_up(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "STORE_LOCK", replace(retries.STORE_LOCK, waits=retries.doubling(0.05, 100.0)))
    held(directory_store)
    clock = Later()
    numbers = iter(range(2, 10_000))
    clock.at_pause = lambda: held(directory_store, next(numbers), expires=clock.time + HOLD_S)
    with pytest.raises(LockedError, match="others have held the lock for 20 minutes, now somebody") as error:
        locked(directory_store, NAME, "me", clock=clock).__enter__()
    assert directory_store.uri in error.value.where
    assert clock.waited <= (retries.STORE_LOCK.seconds or 0) + 100


def test_what_is_held_says_who_and_until_when(directory_store: DirectoryStore) -> None:
    with locked(directory_store, NAME, "iteration it-1", clock=Later()):
        said = json.loads(directory_store.get(keys(directory_store)[0]))
    assert (said["owner"], said["expires"] - said["taken"], said["released"]) == ("iteration it-1", HOLD_S, False)
    assert json.loads(directory_store.get(keys(directory_store)[0]))["released"] is True


@pytest.mark.parametrize("name", ["m@a", "a/b@c", "..", ".viper-x", "é" * 80, "x" * 400, "a\nb", "a%2Fb@c", "\ud83d"])
def test_any_name_has_a_lock_of_its_own(directory_store: DirectoryStore, name: str) -> None:
    with locked(directory_store, "a%2Fb@c-another", "x", clock=Never()), locked(directory_store, name, "y"):
        assert len({key.split("/")[1] for key in keys(directory_store)}) == 2


def test_a_store_that_fails_while_the_lock_is_given_back_changes_nothing(tmp_path: Path) -> None:
    class Breaks(DirectoryStore):
        broken = False

        def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            if self.broken:
                raise StoreError("the disk is full")
            super().put(key, data, if_absent=if_absent)

    store = Breaks(tmp_path)
    with locked(store, NAME, "x"):
        store.broken = True
