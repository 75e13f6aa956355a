"""Progress of a stage: items done of a total, rate and time left, for a person and for the operator."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, TextIO

from viper.spec.base import setting
from viper.stored import StoredForm
from viper.words import duration, plural

#: Bounds of what anybody may have written: items, other numbers, and the last second of the year 9999.
MOST_ITEMS, LARGEST, LATEST = 10**12, 1e18, 253_402_300_799.0
#: Seconds between two lines of a phase in a log: one of hours stays readable.
LINE_SECONDS = 30.0
#: The same for steps of a training, each of which has figures of its own.
STEP_SECONDS = 10.0
#: What a time left is told from at least: steps of the count after the first, and the seconds that they took. The first
#: one is slower than the rest: kernels are compiled, caches are cold.
ENOUGH_STEPS, ENOUGH_SECONDS = 2, 5.0


class ProgressRecord(StoredForm):
    """`progress/<i>-of-<n>.json`."""

    WHAT: ClassVar[str] = "the progress of a stage"

    phase: str = setting("", description="What is being done now, e.g. `caption`.")
    step: int = setting(0, ge=0, le=MOST_ITEMS, description="Which phase of the round that is, from 1; 0: no rounds.")
    steps: int = setting(0, ge=0, le=MOST_ITEMS, description="Phases of a round.")
    done: int = setting(0, unit="items", ge=0, le=MOST_ITEMS, description="Items done, in this and earlier attempts.")
    total: int = setting(0, unit="items", ge=0, le=MOST_ITEMS, description="Items in all; 0 while unknown.")
    rate: float = setting(0.0, unit="items/s", ge=0, le=LARGEST, description="Mean rate of this phase and attempt.")
    eta_seconds: float | None = setting(
        None, unit="s", ge=-LARGEST, le=LARGEST, description="Expected time left in this phase; null while unknown."
    )
    waiting: str = setting("", description="Why no items are done just now, e.g. `loading the generator`.")
    updated: float = setting(0.0, unit="s since the epoch", ge=0, le=LATEST, description="When it was written.")
    detail: dict[str, float] = setting(dict, description="Latest figures, e.g. reward.")

    def line(self) -> str:
        """One line for a terminal: `caption (1 of 3) 96/320 (3.2/s, 1 min 10 s left)`."""
        counts = f"{self.done}/{self.total}" if self.total else str(self.done) if self.done else ""
        pace = [rate_words(self.rate)] if self.rate else []
        over = self.total and self.done >= self.total
        pace += [] if self.eta_seconds is None or over else [f"{duration(self.eta_seconds)} left"]
        words = (phase_words(self.phase, self.step, self.steps), counts, f"({', '.join(pace)})" if pace else "")
        waiting = [self.waiting] if self.waiting else []
        return ", ".join([" ".join(w for w in words if w), *detail_words(self.detail), *waiting])


def detail_words(detail: Mapping[str, float]) -> list[str]:
    """Figures with their names: `loss 0.0123`, `reward 0.25`."""
    return [f"{name} {value:.3g}" for name, value in detail.items()]


def rate_words(rate: float) -> str:
    """`3.2/s`; of what takes long, how long one takes: `one in 2 min 45 s`."""
    return f"{rate:.3g}/s" if rate >= 0.1 else f"one in {duration(1 / rate)}"


def phase_words(phase: str, step: int = 0, steps: int = 0) -> str:
    """A phase, and which of a round it is: `caption (1 of 3)`."""
    return f"{phase} ({step} of {steps})" if phase and steps > 1 else phase


def time_left(left: int, done: int, seconds: float, steps: int) -> float | None:
    """Seconds that the rest of a phase takes at the pace so far; None as long as that is a guess.

    Args:
        left: items that are not done.
        done: items of this phase done by this attempt since the first step of its count.
        seconds: that they took, without loading and waiting.
        steps: how often the count advanced for them.
    """
    if left <= 0:
        return 0.0
    if steps < ENOUGH_STEPS or seconds < ENOUGH_SECONDS or done <= 0:
        return None
    return left * seconds / done


def over_shards(records: Iterable[ProgressRecord]) -> ProgressRecord | None:
    """The progress of a stage from that of its shards; None without any.

    Phases are not mixed: counted is the first one that a shard is still at, and who is past it is done with its share.
    Rates add up; the time left is the longest.
    """
    found = sorted(records, key=lambda r: (r.step, r.updated))
    if len(found) <= 1:
        return found[0] if found else None
    open_ = [r for r in found if not r.total or r.done < r.total] or found
    at = open_[0]
    here = [r for r in found if (r.step, r.phase) == (at.step, at.phase)]
    past = [r for r in found if r.step > at.step or (r.step == at.step and r.phase != at.phase)]
    left = [r.eta_seconds for r in here if r.eta_seconds is not None]
    unknown = any(r.eta_seconds is None and r.done < r.total for r in here)
    return ProgressRecord.model_construct(
        phase=at.phase,
        step=at.step,
        steps=at.steps,
        done=sum(r.done for r in here) + sum(r.total for r in past if r.steps),
        total=sum(r.total for r in here) + sum(r.total for r in past if r.steps),
        rate=sum(r.rate for r in here if r.done < r.total),
        eta_seconds=None if unknown else max(left, default=None),
        waiting=next((r.waiting for r in here if r.waiting), "") if all(r.waiting for r in here) else "",
        updated=max(r.updated for r in found),
        detail={},
    )


def silent(_text: str) -> None:
    """Tells nobody."""


class Progress:
    """Counts items of one phase after the other.

    A record goes to `sink` at most once per `interval` seconds, a line to `tell` when a phase begins and ends and every
    `LINE_SECONDS` (`STEP_SECONDS`) between. On a terminal a live line is written instead of those between.

    Args:
        sink: receives each record (the store); its failures must not stop the work, so it should not raise.
        tell: receives lines for the log.
    """

    def __init__(
        self,
        sink: Callable[[ProgressRecord], None] | None = None,
        *,
        tell: Callable[[str], None] = silent,
        label: str = "",
        interval: float = 1.0,
        terminal: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sink, self._tell, self._label = sink, tell, label
        self._interval, self._clock = interval, clock
        self._terminal = sys.stderr if terminal is None else terminal
        self._lock = threading.RLock()  # servers are waited for in several threads
        self._last, self._told = float("-inf"), float("-inf")
        self._phase, self._step, self._steps, self._unit = "", 0, 0, "item"
        self._done, self._total, self._already = 0, 0, 0
        self._waiting = ""
        self._waits_since: float | None = None
        self._detail: dict[str, float] = {}
        self._open = False
        self._pace(clock())

    def _pace(self, now: float) -> None:
        """A phase begins: nothing is known of its pace."""
        self._start = self._moved_at = now
        self._waited = 0.0
        self._first: tuple[float, int] | None = None  # seconds and items after the first step
        self._counted = 0

    def begin(
        self, phase: str, total: int, already: int = 0, *, step: int = 0, steps: int = 0, unit: str = "item"
    ) -> None:
        """Starts a phase of `total` items of which `already` were done before; phase `step` of `steps` in its round.

        One that is open ends. What is waited for is over.
        """
        with self._lock:
            self.end()
            self._waiting = ""
            self._phase, self._step, self._steps, self._unit = phase, step, steps, unit
            self._total, self._done, self._already = total, already, already
            self._detail, self._open, self._last = {}, True, float("-inf")
            now = self._clock()
            self._pace(now)
            self._told = now
            said = f"{phase_words(phase, step, steps)} begins" + (f": {plural(total, unit)}" if total else "")
            self._tell(said + (f", {already} of them from an earlier attempt" if already else ""))
            self._report()

    def advance(self, items: int = 1, **detail: float) -> None:
        """Counts items as done. What was waited for is over."""
        with self._lock:
            self._waiting = ""
            self._done += items
            self._counted += 1
            if self._first is None:
                self._first = (self._worked(), self._made)
            self._detail.update(detail)
            self._moved()

    def reuse(self, items: int) -> None:
        """Counts items that an earlier attempt has done; they say nothing of the pace."""
        with self._lock:
            self._done += items
            self._already += items
            self._moved()

    def _moved(self) -> None:
        now, complete = self._clock(), self._done == self._total
        self._moved_at = now
        if now - self._last >= self._interval or complete:
            self._report()
        if complete:
            self.end()
        elif now - self._told >= (STEP_SECONDS if self._unit == "step" else LINE_SECONDS):
            self._told = now
            if not self._terminal.isatty():
                self._tell(self.record.line())

    def pulse(self) -> None:
        """A line when there has been none for `LINE_SECONDS` and something is being done: for a thread of its own."""
        with self._lock:
            now = self._clock()
            if now - self._told < LINE_SECONDS or not (self._open or self._waiting) or self._terminal.isatty():
                return
            self._told = now
            quiet = now - self._moved_at
            self._tell(self.record.line() + (f", for {duration(quiet)} now" if quiet >= LINE_SECONDS else ""))

    def end(self) -> None:
        """The phase is over; does nothing when none is open."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            seconds = self._clock() - self._start
            made = f": {plural(self._done, self._unit)}" if self._done or self._total else ""
            short = f" of {self._total}" if self._total and self._done < self._total else ""
            reused = f", {self._already} of them from an earlier attempt" if self._already else ""
            worked = self._worked()
            waited = f", {duration(self._waited, 1)} of it loading" if self._waited >= 1 else ""
            rate = f", {rate_words(self._made / worked)}" if worked >= 1 and self._made else ""
            said = f"{phase_words(self._phase, self._step, self._steps)} ends after {duration(seconds, 1)}{waited}"
            self._tell(", ".join([f"{said}{made}{short}{reused}{rate}", *detail_words(self._detail)]))

    @contextmanager
    def waits(self, text: str, place: str = "") -> Iterator[None]:
        """While something is loaded or waited for: its time says nothing of how fast items are done.

        Args:
            text: short, for a status.
            place: where it lies, for the log.
        """
        begun = self._waits_since = self._clock()
        self._tell(f"{text} ({place})" if place else text)
        with self._lock:
            self._waiting, self._moved_at = text, begun
            self._report()  # at once: nothing else may be written until it is over
        try:
            yield
        except BaseException:
            self._tell(f"{text}: given up after {duration(self._clock() - begun, 1)}")
            raise
        finally:
            with self._lock:
                self._waited += self._clock() - begun
                self._waiting, self._waits_since = "", None
        self._tell(f"{text}: done in {duration(self._clock() - begun, 1)}")
        self._report()

    def wait(self, text: str) -> None:
        """Something is waited for, until the next item is done; that is part of the pace, as others go on meanwhile."""
        with self._lock:
            if not self._waiting:
                self._moved_at = self._clock()
            changed, self._waiting = text != self._waiting, text
            if changed and self._clock() - self._last >= self._interval:
                self._report()

    @property
    def _made(self) -> int:
        """Items of this phase that this attempt has done."""
        return self._done - self._already

    def _worked(self) -> float:
        """Seconds of this phase without what was waited for."""
        waits = 0.0 if self._waits_since is None else self._clock() - self._waits_since
        return max(self._clock() - self._start - self._waited - waits, 0.0)

    @property
    def record(self) -> ProgressRecord:
        """Where the work stands now."""
        worked = self._worked()
        rate = self._made / worked if worked > 0 else 0.0
        left = None
        if self._total and self._first is not None:
            seconds, items = worked - self._first[0], self._made - self._first[1]
            left = time_left(self._total - self._done, items, seconds, self._counted - 1)
        return ProgressRecord(
            phase=self._phase,
            step=self._step,
            steps=self._steps,
            done=self._done,
            total=self._total,
            rate=float(f"{min(rate, LARGEST):.4g}"),
            eta_seconds=None if left is None else round(left, 1),
            waiting=self._waiting,
            updated=time.time(),
            detail={k: v for k, v in self._detail.items() if math.isfinite(v)},
        )

    def _report(self) -> None:
        with self._lock:
            self._last = self._clock()
            record = self.record
            if self._sink is not None:
                self._sink(record)
            if self._terminal.isatty():
                from viper.terminal import rewritten

                end = "\n" if record.total and record.done == record.total else ""
                self._terminal.write(rewritten(f"{self._label} {record.line()}", self._terminal) + end)
                self._terminal.flush()
