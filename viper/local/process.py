"""Stage processes, forked from a warm server that has the heavy libraries imported already."""

from __future__ import annotations

import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.forkserver import ensure_running
from pathlib import Path

from viper.local import child


def warm_up(modules: list[str]) -> None:
    """Starts the fork server, which imports `modules` in the background; modules that are not installed are skipped.

    Every stage process is forked from it and so starts in a fraction of a second. What is imported there must start no
    threads: they would not survive the fork.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(modules)
    ensure_running()


class StageProcess:
    """One attempt of one shard. Raises `EOFError` or `OSError` when the fork server dies meanwhile (out of memory)."""

    def __init__(self, entry: str, argv: list[str], log: Path, guard: Path) -> None:
        self.log = log
        context = multiprocessing.get_context("forkserver")
        self._process = context.Process(target=child.run, args=(entry, argv, str(log), str(guard)))
        self._process.start()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None  # noqa: S101 (started in the constructor)
        return self._process.pid

    @property
    def sentinel(self) -> int:
        """Becomes readable when the process ends."""
        return self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -N when signal N ended it."""
        return self._process.exitcode

    def stop(self) -> None:
        """Asks it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it and what it started."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.exit_code is not None:
            return
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:  # it has not made its group yet, or it is gone
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)
