"""The log of a stage: plain lines with the time in front, for whoever reads it in hours, alone.

What the library says by `logging` (a server that is asked again, a lock that others hold) comes through here too, and
becomes what the stage waits for.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Protocol, TextIO

from viper.words import one_line, plural

#: Seconds within which a logger's messages of one kind are one line: many requests meet the same server at once.
REPEATED_SECONDS = 15.0
#: Characters of a line.
LONGEST = 2000
#: Attribute of a log record that tells of waiting: `log.info(..., extra={"viper_waits": True})`.
WAITS = "viper_waits"


class Teller:
    """Writes lines: time of day in UTC, then the text. What cannot be written is not missed: the work goes on."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.time) -> None:
        self._out, self._clock, self._lock = out, clock, threading.Lock()

    def __call__(self, text: str) -> None:
        """Writes one line, whatever breaks the text has."""
        out = sys.stderr if self._out is None else self._out
        stamp = datetime.fromtimestamp(self._clock(), UTC).strftime("%H:%M:%SZ")
        line = one_line(text)
        line = line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
        with self._lock, suppress(OSError, ValueError):
            clear = "\r\x1b[K" if out.isatty() else ""
            out.write(f"{clear}{stamp}  {line}\n")
            out.flush()


class Waits(Protocol):
    """What is told of waiting (`viper.stage.progress.Progress`)."""

    def wait(self, text: str) -> None:
        """Something is waited for, until the next item is done."""
        ...


class Spoken(logging.Handler):
    """Messages of the library as lines of the log; those of one kind at most once in `REPEATED_SECONDS`."""

    def __init__(
        self, tell: Callable[[str], None], waits: Waits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(logging.INFO)
        self._tell, self.waits, self._clock = tell, waits, clock
        self._said: dict[tuple[str, object], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text = f"{text}: {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            if self.waits is not None and getattr(record, WAITS, False):
                self.waits.wait(one_line(text)[:300])
            kind, now = (record.name, record.msg), self._clock()
            since, more = self._said.get(kind, (float("-inf"), 0))
            if now - since < REPEATED_SECONDS:
                self._said[kind] = (since, more + 1)
                return
            self._said[kind] = (now, 0)
            self._tell(text + (f" (and {plural(more, 'message')} like it before)" if more else ""))
        except Exception:
            self.handleError(record)


@contextmanager
def beating(pulse: Callable[[], None], seconds: float) -> Iterator[None]:
    """Within the block, calls `pulse` every so many seconds from a thread of its own, whatever the work does."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds):
            pulse()

    thread = threading.Thread(target=beat, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


@contextmanager
def spoken(handler: Spoken) -> Iterator[None]:
    """Within the block, what the library logs is told by the handler, and by nothing else."""
    log = logging.getLogger("viper")
    before = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.level, log.propagate = before
