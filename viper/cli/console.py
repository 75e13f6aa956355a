"""What `viper run` prints: events as single lines and, on a terminal, below them what runs, with bars."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TextIO

from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from viper.plan import Plan, StageStatus, State
from viper.stage.frozen import FrozenIteration
from viper.stage.progress import LINE_SECONDS, ProgressRecord
from viper.terminal import console, plain
from viper.words import one_line, took

#: Seconds between two looks at a running stage.
ON_TERMINAL, ELSEWHERE = 0.5, 5.0


class Console:
    """Prints what changed since the last plan; as the plans are, it is level-triggered."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = console(out), clock
        # No thread of its own, as stages are forked, and their streams stay theirs.
        self._live = Live(
            console=self._out, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._rewrites = self._out.is_terminal and not self._out.is_dumb_terminal
        self.interval = ON_TERMINAL if self._rewrites else ELSEWHERE
        self._start = clock()
        self._seen: dict[tuple[str, str], StageStatus] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._reported = float("-inf")
        self._phases: dict[str, str] = {}

    def iteration(self, frozen: FrozenIteration, *, resumed: bool) -> None:
        """An iteration begins or goes on."""
        generator = frozen.generator
        which = f"{generator.model} version {generator.version}" if generator.version else generator.uri
        self._print(f"{frozen.name} {'goes on' if resumed else 'starts'}: θ0 is {which}")

    def notice(self, text: str) -> None:
        """Something a person should know."""
        self._print(f"note: {text}")

    def update(self, frozen: FrozenIteration, made: Plan, progress: Mapping[str, ProgressRecord]) -> None:
        """Prints transitions, then progress when its time has come."""
        for status in made.stages:
            key = (frozen.name, status.name)
            before = self._seen.get(key)
            self._seen[key] = status
            if before is None or (before.state, before.message) != (status.state, status.message):
                self._transition(frozen.name, before, status)
        if self._rewrites:
            self._live.start()
            self._live.update(_bars(frozen.name, progress), refresh=True)
            return
        lines = [f"{frozen.name} {stage} {record.line()}" for stage, record in progress.items()]
        now = self._clock()
        phases = {f"{frozen.name} {stage}": record.phase for stage, record in progress.items()}
        if lines and (now - self._reported >= LINE_SECONDS or phases.items() - self._phases.items()):
            self._reported, self._phases = now, phases
            for line in lines:
                self._print(line)

    def finish(self) -> None:
        """Takes away what runs."""
        self._live.stop()

    def _transition(self, name: str, before: StageStatus | None, status: StageStatus) -> None:
        key, what = (name, status.name), f"{name} {status.name}"
        if status.state is State.RUNNING:
            if before is None or before.state is not State.RUNNING:
                self._since[key] = self._reported = self._clock()
                self._print(f"{what} started")
        elif status.state is State.SUCCEEDED:
            headline = status.done.headline if status.done else ""
            if key in self._since:
                work = status.done.seconds if status.done else None
                ended = f"done in {took(self._clock() - self._since.pop(key), work)}"
            else:
                ended = "was done before"
            self._print(f"{what} {ended}" + (f": {headline}" if headline else ""))
        elif status.state in (State.RETRYING, State.HELD, State.FAILED, State.SUSPENDED):
            self._print(f"{what} {status.state.value.lower()}: {status.message}")

    def _print(self, text: str) -> None:
        elapsed = int(self._clock() - self._start)
        self._out.print(plain(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {one_line(text)}"), soft_wrap=True)


def _bars(name: str, progress: Mapping[str, ProgressRecord]) -> Table:
    """A line for each stage that runs, cut where the terminal ends."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    for stage, record in progress.items():
        bar = ProgressBar(record.total, record.done, width=20) if record.total else ""
        table.add_row(bar, plain(f"{name} {stage} {record.line()}"))
    return table
