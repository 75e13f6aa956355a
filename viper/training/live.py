"""Curves while training runs: sent from a thread of their own, so that MLflow can neither stop nor slow a step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from viper.errors import RegistryError, ViperError

#: A run whose rows nobody took for this long is stopped.
UNTRACKED_SECONDS = 3600.0
CurveRow = Mapping[str, float]
Send = Callable[[Sequence[CurveRow]], object]


class LiveCurves:
    """Buffers rows and sends them every `interval` seconds; rows that cannot be sent wait for the next time.

    What is still unsent at the end is not lost: the record (`viper.iteration.recording`) sends the complete curve, and
    points that are there are not recorded twice.

    Args:
        send: records rows; its `ViperError`s mean "try again later".
    """

    def __init__(self, send: Send, interval: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._send, self._interval, self._clock = send, interval, clock
        self._since: float | None = None  # when MLflow took rows last, while some wait or are on their way
        self._rows: list[CurveRow] = []
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveCurves:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def log(self, row: CurveRow) -> None:
        """Takes a row; never waits, never raises."""
        with self._lock:
            if self._since is None:
                self._since = self._clock()
            self._rows.append(dict(row))
        # Started with the first row, when everything a training step imports has been imported: the thread's import of
        # MLflow then meets no half-imported module.
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="live-curves", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Raises `RegistryError` when rows have waited for `UNTRACKED_SECONDS`: nobody sees what this costs."""
        with self._lock:
            since = self._since
        if since is not None and self._clock() - since > UNTRACKED_SECONDS:
            raise RegistryError(
                f"MLflow has taken nothing for {UNTRACKED_SECONDS:.0f} s",
                where="tracking",
                fix="make MLflow reachable and run the stage again; training goes on from its last checkpoint",
            )

    def flush(self) -> bool:
        """Sends what is buffered; False when it has to wait."""
        with self._lock:
            rows, self._rows = self._rows, []
        if not rows:
            return True
        try:
            self._send(rows)
        except ViperError:
            with self._lock:
                self._rows = [*rows, *self._rows]
            return False
        with self._lock:
            self._since = self._clock() if self._rows else None
        return True

    def close(self, timeout: float = 10.0) -> None:
        """Sends the rest once; gives up after `timeout` seconds."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            self.flush()
        self.flush()
