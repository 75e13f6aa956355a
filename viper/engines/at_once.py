"""Requests to a server, several at once: a program that is told to stop does not wait for their answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def at_once(
    work: Callable[[T], R], items: Sequence[T], width: int, *, stop: Callable[[], None] = lambda: None
) -> list[R]:
    """What `work` makes of each item, in their order, `width` of them at a time, each in a thread.

    The first error is raised when the items that were begun are done; no further one is begun. An exception that comes
    from elsewhere, as SIGTERM's `SystemExit` does, waits for nothing: a server may take ten minutes for an answer, and
    the threads end with the process (which those of `ThreadPoolExecutor` keep alive).

    Args:
        stop: called when nothing more is to be begun, while what was begun still runs.
    """
    futures = [Future[R]() for _ in items]
    left = deque(zip(futures, items, strict=True))

    def run() -> None:
        while left:
            try:
                future, item = left.popleft()
            except IndexError:  # another thread took it
                return
            try:
                future.set_result(work(item))
            except BaseException as error:
                left.clear()  # before anybody is told: nothing may be begun between the two
                future.set_exception(error)

    threads = [Thread(target=run, daemon=True, name=f"at-once-{n}") for n in range(min(width, len(items)))]
    try:
        for thread in threads:  # within the block: a signal that comes between two of them ends it as well
            thread.start()
        while not _ended(futures):
            pass
    finally:
        left.clear()
        stop()
    for thread in threads:
        thread.join()
    failed = [f for f in futures if f.done() and f.exception() is not None]
    return [f.result() for f in (failed or futures)]


def _ended(futures: Sequence[Future[R]]) -> bool:
    """Whether all are done or one has failed; waits a second for it.

    No longer: a signal that comes just before the interpreter sleeps in a lock does not wake it.
    """
    done, others = wait(futures, timeout=1, return_when=FIRST_EXCEPTION)
    return not others or any(future.exception() is not None for future in done)
