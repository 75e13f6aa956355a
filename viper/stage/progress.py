"""Progress of a stage: items done of a total, rate and ETA, for a person and for the operator."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import ClassVar, TextIO

from viper.spec.base import setting
from viper.stored import StoredForm
from viper.words import duration

#: Bounds of what anybody may have written: items, other numbers, and the last second of the year 9999.
MOST_ITEMS, LARGEST, LATEST = 10**12, 1e18, 253_402_300_799.0


class ProgressRecord(StoredForm):
    """`progress/<i>-of-<n>.json`."""

    WHAT: ClassVar[str] = "the progress of a stage"

    phase: str = setting("", description="What is being done now, e.g. `caption`.")
    done: int = setting(0, unit="items", ge=0, le=MOST_ITEMS, description="Items done, in this and earlier attempts.")
    total: int = setting(0, unit="items", ge=0, le=MOST_ITEMS, description="Items in all; 0 while unknown.")
    rate: float = setting(0.0, unit="items/s", ge=0, le=LARGEST, description="Mean rate of this attempt.")
    eta_seconds: float | None = setting(
        None, unit="s", ge=-LARGEST, le=LARGEST, description="Expected time left; null while unknown."
    )
    updated: float = setting(0.0, unit="s since the epoch", ge=0, le=LATEST, description="When it was written.")
    detail: dict[str, float] = setting(dict, description="Latest figures, e.g. reward.")

    def line(self) -> str:
        """One line for a terminal."""
        share = f"{self.done}/{self.total}" if self.total else str(self.done)
        eta = "" if self.eta_seconds is None else f", {duration(self.eta_seconds)} left"
        detail = "".join(f", {k} {v:.3g}" for k, v in self.detail.items())
        return f"{self.phase + ' ' if self.phase else ''}{share} ({self.rate:.3g}/s{eta}){detail}"


class Progress:
    """Counts items and reports at most once per `interval` seconds.

    Args:
        sink: receives each record (the store); its failures must not stop the work, so it should not raise.
        already: items that earlier attempts finished; they count as done but not for the rate.
    """

    def __init__(
        self,
        sink: Callable[[ProgressRecord], None] | None = None,
        *,
        label: str = "",
        interval: float = 1.0,
        terminal: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink, self._label, self._interval, self._clock = sink, label, interval, clock
        self._terminal = sys.stderr if terminal is None else terminal
        self._start, self._last = clock(), float("-inf")
        self._phase, self._done, self._total, self._already = "", 0, 0, 0
        self._detail: dict[str, float] = {}

    def begin(self, phase: str, total: int, already: int = 0) -> None:
        """Starts a phase of `total` items of which `already` were done before."""
        self._phase, self._total, self._done, self._already = phase, total, already, already
        self._start, self._last, self._detail = self._clock(), float("-inf"), {}
        self._report()

    def advance(self, items: int = 1, **detail: float) -> None:
        """Counts items as done."""
        self._done += items
        self._detail.update(detail)
        if self._clock() - self._last >= self._interval or self._done == self._total:
            self._report()

    @property
    def record(self) -> ProgressRecord:
        """Where the work stands now."""
        elapsed = self._clock() - self._start
        rate = (self._done - self._already) / elapsed if elapsed > 0 else 0.0
        eta = (self._total - self._done) / rate if rate > 0 and self._total else None
        return ProgressRecord(
            phase=self._phase,
            done=self._done,
            total=self._total,
            rate=round(rate, 3),
            eta_seconds=None if eta is None else round(eta, 1),
            updated=time.time(),
            detail={k: v for k, v in self._detail.items() if math.isfinite(v)},
        )

    def _report(self) -> None:
        self._last = self._clock()
        record = self.record
        if self._sink is not None:
            self._sink(record)
        if self._terminal.isatty():
            end = "\n" if record.done == record.total else ""
            self._terminal.write(f"\r\x1b[K{self._label} {record.line()}{end}")
            self._terminal.flush()
