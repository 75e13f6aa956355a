"""How many bytes of pixels are in the making at once, over all threads of the process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Budget:
    """A number of bytes that threads share, first come, first served; what is asked for never fails, it waits.

    More than there is at all is served as the whole, alone. A thread that holds some and asks again is served out of
    what it holds, and never waits: two threads cannot wait for each other.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._held = threading.local()

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._free

    @property
    def waiting(self) -> int:
        """Threads that wait for some."""
        return len(self._queue)

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Waits for `amount` bytes, or all there are if it is more, and holds them."""
        if getattr(self._held, "any", False):
            yield
            return
        wanted, turn = min(max(amount, 0), self.total), object()
        with self._changed:
            self._queue.append(turn)
            try:
                self._changed.wait_for(lambda: self._queue[0] is turn and self._free >= wanted)
                self._free -= wanted
            finally:
                self._queue.remove(turn)
                self._changed.notify_all()
        self._held.any = True
        try:
            yield
        finally:
            self._held.any = False
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


#: What all decoding of this process shares. A photograph of 12 megapixels takes a fifth of it.
DECODING = Budget(1 << 30)
