"""Many callers with one item each become few batches: the scheduling of the reward service, without HTTP."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchLimits:
    """How items become batches.

    Args:
        batch: most items of a batch.
        waiting: most items that wait; what comes on top is refused.
        linger_s: seconds that an idle worker waits for company before it takes a batch that is not full. A busy one
            needs none: items gather while it works.
    """

    batch: int = 256
    waiting: int = 4096
    linger_s: float = 0.005


class QueueFullError(Exception):
    """There is no room for one more item. `retry_after_s`: whole seconds after which there may be."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Observer:
    """What a batcher tells of itself; this one listens to nothing."""

    def batch(self, items: int, queue_s: Sequence[float], work_s: float) -> None:
        """A batch is done: its size, how long each of its items waited, how long the work took."""


@dataclass
class _Waiting(Generic[Item, Result]):
    item: Item
    result: asyncio.Future[Result]
    since: float


class MicroBatcher(Generic[Item, Result]):
    """Hands items of concurrent callers to `work` in batches, one batch at a time, in a thread of its own.

    Args:
        work: one result per item, in order. What it raises is raised to every caller of the batch.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result]], limits: BatchLimits, observer: Observer | None = None
    ) -> None:
        self._work, self._limits, self._observer = work, limits, observer or Observer()
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward")
        self._item_s = 0.0
        self._closing = False
        self._busy_since: float | None = None

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """Seconds for which the batch in work has been worked on; 0 when there is none."""
        return 0.0 if self._busy_since is None else time.monotonic() - self._busy_since

    async def submit(self, item: Item) -> Result:
        """The result of one item; raises `QueueFullError` at once when too many wait, and what `work` raises."""
        if self._closing or len(self._queue) >= self._limits.waiting:
            raise QueueFullError(max(1, math.ceil(self._item_s * len(self._queue))))
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(item, result, time.monotonic()))
        self._arrived.set()
        return await result

    async def run(self) -> None:
        """Works until `close` was called and nothing waits any more."""
        loop = asyncio.get_running_loop()
        idle = True
        try:
            while True:
                if not self._queue:
                    if self._closing:
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                    idle = True
                    continue
                if idle and len(self._queue) < self._limits.batch and not self._closing:
                    await asyncio.sleep(self._limits.linger_s)
                idle = False
                batch = self._take()
                if not batch:
                    continue
                start = self._busy_since = time.monotonic()
                try:
                    results = await loop.run_in_executor(self._thread, self._work, [w.item for w in batch])
                except Exception as error:
                    for waiting in batch:
                        if not waiting.result.done():
                            waiting.result.set_exception(error)
                    continue
                finally:
                    self._busy_since = None
                took = time.monotonic() - start
                self._item_s = took / len(batch)
                for waiting, result in zip(batch, results, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(result)
                self._observer.batch(len(batch), [start - w.since for w in batch], took)
        finally:
            self._thread.shutdown(wait=False)

    def close(self) -> None:
        """Refuses what comes from now on; `run` ends when what waits is done."""
        self._closing = True
        self._arrived.set()

    def _take(self) -> list[_Waiting[Item, Result]]:
        """The items of the next batch; those whose callers have gone are dropped."""
        batch: list[_Waiting[Item, Result]] = []
        while self._queue and len(batch) < self._limits.batch:
            waiting = self._queue.popleft()
            if not waiting.result.done():
                batch.append(waiting)
        return batch
