"""How far a download is: a live line on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from viper.stage.progress import Progress, ProgressRecord

#: Seconds between two lines where there is no terminal.
ELSEWHERE_S = 10.0
_MB = 10**6


class FetchProgress:
    """A `Report` of the cache that writes megabytes with rate and time left."""

    def __init__(self, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = sys.stderr if out is None else out
        live = self._out.isatty()
        self._progress = Progress(
            None if live else self._line,
            label="MB of",
            interval=0.5 if live else ELSEWHERE_S,
            terminal=self._out,
            clock=clock,
        )
        self._name, self._done = "", 0

    def __call__(self, name: str, done: int, total: int) -> None:
        """As `viper.modelcache.cache.Report`."""
        if not total:
            print(name, file=self._out, flush=True)
            return
        done, total = done // _MB, -(-total // _MB)
        if name != self._name:
            self._name, self._done = name, done
            self._progress.begin(name, total, done)
        elif done > self._done:
            self._progress.advance(done - self._done)
            self._done = done

    def _line(self, record: ProgressRecord) -> None:
        print(f"MB of {record.line()}", file=self._out, flush=True)
