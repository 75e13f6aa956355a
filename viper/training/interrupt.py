"""SIGINT and SIGTERM as a request: the step in hand is finished and saved, then the process leaves as asked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass
class StopRequest:
    """`signal` is the number of the signal that came, 0 before."""

    signal: int = 0

    def leave(self) -> NoReturn:
        """Raises `KeyboardInterrupt` for SIGINT, else `SystemExit` with the shell's status of the signal."""
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self.signal)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Catches the first SIGINT or SIGTERM; a second one acts as it did before. Outside the main thread: nothing."""
    stop = StopRequest()
    old: dict[int, Any] = {}

    def request(number: int, _: Any) -> None:
        stop.signal = number
        signal.signal(number, old[number])

    try:
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            try:
                old[number] = signal.signal(number, request)
            except ValueError:  # not the main thread
                break
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
