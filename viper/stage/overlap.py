"""Work beside the device's: the next input is read and the last output stored while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a background thread while the one before is in use. Errors come in their place."""
    end = object()
    with ThreadPoolExecutor(1, "ahead") as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # `end` never gets here


class Behind:
    """Does pieces of work one after the other in a background thread; `with` waits until all are done.

    At most `waiting` pieces wait, then the caller does. An error of one piece is raised by a later call or at the end.
    """

    def __init__(self, waiting: int = 2) -> None:
        self._thread = ThreadPoolExecutor(1, "behind")
        self._waiting, self._pieces = waiting, list[Future[object]]()

    def __call__(self, piece: Callable[[], object]) -> None:
        self._finish(self._waiting)
        self._pieces.append(self._thread.submit(piece))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish(0)
        finally:
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _finish(self, left: int) -> None:
        while self._pieces and (len(self._pieces) > left or self._pieces[0].done()):
            self._pieces.pop(0).result()
