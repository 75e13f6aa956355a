"""Keys to work on: each once at a time, the latest wish wins, failures wait longer each time.

After client-go's `util/workqueue`, on one event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from viper.retries import RECONCILE, Policy

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class WorkQueue(Generic[Key]):
    """Runs `work(key)` for every key added, never twice at a time for the same key.

    A key that is added while it is worked on is worked on once more afterwards. `work` returns the seconds after which
    it wants to be called again, or None. When it raises, it is called again after the waits of `patience`;
    `failed` is told.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        *,
        failed: Callable[[Key, Exception, float], None] = lambda key, error, delay: None,
        patience: Policy = RECONCILE,
    ) -> None:
        self._work, self._failed, self._patience = work, failed, patience
        self._urgent: OrderedDict[Key, None] = OrderedDict()
        self._ready: OrderedDict[Key, None] = OrderedDict()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._later: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self._number = 0

    def __len__(self) -> int:
        """Keys that are ready or being worked on."""
        return len(self._urgent) + len(self._ready) + len(self._active)

    @property
    def urgent(self) -> int:
        """Urgent keys that nobody works on yet."""
        return len(self._urgent)

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """As soon as possible; `urgent`: before all that are not."""
        self._due.pop(key, None)
        if key in self._active:
            self._again.add(key)
        elif urgent:
            self._ready.pop(key, None)
            self._urgent[key] = None
            self._wake.set()
        elif key not in self._ready and key not in self._urgent:
            self._ready[key] = None
            self._wake.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """After a while; the earliest of several wishes counts."""
        now = asyncio.get_running_loop().time()
        due = now + max(seconds, 0.0)
        if key in self._ready or key in self._urgent or self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        self._number += 1
        heapq.heappush(self._later, (due, self._number, key))
        self._wake.set()

    async def run(self, workers: int) -> None:
        """Works until it is cancelled."""
        slots = asyncio.Semaphore(workers)
        async with asyncio.TaskGroup() as tasks:
            while True:
                await slots.acquire()
                key = await self._next()
                self._active.add(key)
                tasks.create_task(self._one(key, slots))

    async def idle(self) -> None:
        """Returns once nothing is ready and nothing is being worked on."""
        async with self._changed:
            await self._changed.wait_for(lambda: not len(self))

    async def _next(self) -> Key:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            while self._later and self._later[0][0] <= loop.time():
                due, _, key = heapq.heappop(self._later)
                if self._due.get(key) == due:
                    self.add(key)
            if self._urgent:
                return self._urgent.popitem(last=False)[0]
            if self._ready:
                return self._ready.popitem(last=False)[0]
            timeout = self._later[0][0] - loop.time() if self._later else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _one(self, key: Key, slots: asyncio.Semaphore) -> None:
        delay: float | None = None
        try:
            delay = await self._work(key)
            self._failures.pop(key, None)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = self._patience.wait(failures)
            try:
                self._failed(key, error, delay)
            except Exception:  # whoever is told must not end the work on all other keys
                log.exception("%r failed, and so did telling of it", key)
        finally:
            self._active.discard(key)
            slots.release()
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif delay is not None:
            self.add_after(key, delay)
        async with self._changed:
            self._changed.notify_all()
