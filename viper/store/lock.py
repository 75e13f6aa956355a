"""A lock that is an object in a store: for moments in which one of several programs, wherever they run, may act.

Under `locks/<name>/` each taking of the lock is an object of its own, numbered: the highest number says who holds it.
Whoever finds it released, expired or its process gone creates the next number, which a store lets one of them do
(conditional create), and holds the lock if no higher number is there afterwards. The holder writes only its own object,
and removes lower ones, which nobody looks at; the highest is never removed, so that no number is given twice.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from viper import retries
from viper.errors import AlreadyExistsError, LockedError, NotFoundError, StoreError
from viper.retries import PassingError, retrying
from viper.store.base import ObjectStore, check_key
from viper.store.leaving import tidied
from viper.stored import enveloped

log = logging.getLogger(__name__)

FOLDER = "locks"
#: Seconds for which the lock is held at most; it is not renewed.
HOLD_S = 300.0
#: By how many seconds the clocks of two machines may differ. An expired lock is waited for as long again at most as it
#: may be held, by the clock of the one who waits, which needs no agreement.
SKEW_S = 600.0
_NUMBER = re.compile(r"(\d{9})\.json")
_LONGEST_NAME = 150


class Clock:
    """Time as a lock sees it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def passed(self) -> float:
        """Seconds, from anywhere, that only go forward."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


@dataclass(frozen=True)
class Process:
    """A process as others on its machine can tell it from a later one with the same number; empty where unknown."""

    boot: str = ""
    namespace: str = ""
    pid: int = 0
    started: str = ""

    @classmethod
    def this(cls) -> Process:
        """The one that runs this."""
        with suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return cls(boot, os.readlink("/proc/self/ns/pid"), os.getpid(), _started(os.getpid())[1])  # noqa: PTH115
        return cls()

    def gone(self) -> bool:
        """Whether it is known to have ended: only of those that ran where this one does."""
        here = Process.this()
        if not self.started or (self.boot, self.namespace) != (here.boot, here.namespace):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError, ValueError):  # somebody else's
            return False
        try:
            state, started = _started(self.pid)
        except OSError:
            return False
        return state in "ZX" or started != self.started


def _started(pid: int) -> tuple[str, str]:
    """State and start (ticks since boot) of a process. Raises OSError."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], fields[19]


@dataclass(frozen=True)
class Holder:
    """What the object of a taking says. Times in seconds since the epoch by the holder's clock."""

    owner: str
    taken: float
    expires: float
    released: bool = False
    process: Process = Process()

    def to_json(self) -> bytes:
        return json.dumps(enveloped(asdict(self)), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Holder:
        """What cannot be read stands for a holder of whom nothing is known: it is waited for as long as for any."""
        try:
            content: Any = json.loads(data)
            process = content.get("process", {})
            return cls(
                owner=str(content["owner"]),
                taken=float(content["taken"]),
                expires=float(content["expires"]),
                released=content["released"] is True,
                process=Process(**{key: type(value)(process[key]) for key, value in asdict(Process()).items()}),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls("somebody (its object cannot be read)", 0.0, float("inf"))


class Lock:
    """A lock that is held."""

    def __init__(self, where: str, until: float, clock: Clock) -> None:
        self._where, self._until, self._clock = where, until, clock

    def check(self, seconds: float) -> None:
        """Raises `StoreError` unless it is held for `seconds` more: for what must end before another one may begin."""
        if self._clock.passed() + seconds > self._until:
            raise StoreError(
                "it took longer than the lock is held; nothing was changed",
                where=self._where,
                fix="run the same command again",
            )


@contextmanager
def locked(store: ObjectStore, name: str, owner: str, *, clock: Clock | None = None) -> Iterator[Lock]:
    """Holds the lock `name` of a store for the block; waits while another one does.

    One who was killed is waited for at most `HOLD_S`; not at all where it can be seen that its process has ended (same
    machine), or by a clock that is `SKEW_S` past its expiry.

    Args:
        owner: who, for others to read.

    Raises `LockedError` when others hold it for longer than `STORE_LOCK`, `StoreError` when the store is away.
    """
    taking = _Taking(store, name, owner, clock or Clock())
    lock = taking.take()
    try:
        yield lock
    finally:
        tidied(taking.release)


class _Taking:
    def __init__(self, store: ObjectStore, name: str, owner: str, clock: Clock) -> None:
        self._store, self._clock, self._owner = store, clock, owner
        self._prefix = f"{FOLDER}/{_file_name(name)}/"
        self._number = 0
        self._holder = Holder(owner, 0.0, 0.0)
        self._lower: list[str] = []
        self._seen: tuple[int, float] | None = None  # a number and since when it has been the highest

    def take(self) -> Lock:
        policy = retries.STORE_LOCK
        try:
            return retrying(policy, sleep=self._clock.pause, clock=self._clock.passed)(self._try)
        except PassingError as held:
            raise LockedError(
                f"others have held the lock for {(policy.seconds or 0) / 60:.0f} minutes{held}",
                where=f"{self._store.uri} {self._prefix}",
                fix="see what they do, then run the same command again",
            ) from None

    def _try(self) -> Lock:
        number, holder = self._highest()
        now = self._clock.passed()
        news = holder is not None and (self._seen is None or self._seen[0] != number)
        if self._seen is None or news:
            self._seen = (number, now)
        if holder is None or self._is_free(holder, now - self._seen[1]):
            if self._create(number + 1):
                return Lock(f"{self._store.uri} {self._prefix}", now + HOLD_S, self._clock)
        elif news:
            log.warning(
                "waits for the lock %s, which %s holds", self._prefix, holder.owner, extra={"viper_waits": True}
            )
        raise PassingError(f", now {holder.owner}" if holder else "")

    def release(self) -> None:
        """What fails here costs the next one time and nothing else."""
        done = Holder(self._owner, self._holder.taken, self._holder.expires, released=True)
        with suppress(StoreError):
            self._store.put(self._key(self._number), done.to_json())
            for key in self._lower:
                self._store.delete(key)

    def _is_free(self, holder: Holder, watched_s: float) -> bool:
        return (
            holder.released
            or holder.process.gone()
            or self._clock.now() > holder.expires + SKEW_S
            or watched_s > HOLD_S
        )

    def _create(self, number: int) -> bool:
        """Whether this number is ours, and still the highest."""
        key, now = self._key(number), self._clock.now()
        self._number, self._holder = number, Holder(self._owner, now, now + HOLD_S, process=Process.this())
        try:
            self._store.put(key, self._holder.to_json(), if_absent=True)
        except AlreadyExistsError:
            return False
        numbers = self._numbers()
        if numbers and max(numbers) > number:  # it was counted from a listing that others have left behind since
            self._store.delete(key)
            return False
        self._lower = [self._key(other) for other in numbers if other < number]
        return True

    def _highest(self) -> tuple[int, Holder | None]:
        """Number and holder of the latest taking; 0 and None before the first."""
        while numbers := self._numbers():
            with suppress(NotFoundError):  # it was the highest, and is behind already
                return max(numbers), Holder.from_json(self._store.get(self._key(max(numbers))))
        return 0, None

    def _numbers(self) -> list[int]:
        names = (info.key.removeprefix(self._prefix) for info in self._store.list(self._prefix))
        return [int(found[1]) for name in names if (found := _NUMBER.fullmatch(name))]

    def _key(self, number: int) -> str:
        return check_key(f"{self._prefix}{number:09}.json")


def _file_name(name: str) -> str:
    """A part of a key, as readable as it may be."""
    readable = quote(name, safe="@ ", errors="surrogatepass")
    if len(readable) <= _LONGEST_NAME and not readable.startswith("."):
        return readable
    return sha256(name.encode(errors="surrogatepass")).hexdigest()


def owner_here(what: str) -> str:
    """What is done, with process, host and time."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"{what} (process {os.getpid()} on {socket.gethostname()}, {now})"
