"""The local executor on the fake stages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from viper.local import LocalExecutor, RunDirectory
from viper.local.process import warm_up
from viper.plan import Plan
from viper.stage import FrozenIteration, ProgressRecord, load_frozen
from viper.store import open_store

#: Imported once by the fork server; its path is that of its environment.
PRELOAD = ["pyarrow.parquet", "pandas", "pytest", "viper_jobs.main", "fakes.program"]
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])


class Quiet:
    """A listener that does nothing."""

    def __init__(self, interval: float = 3600.0) -> None:
        self.interval = interval

    def update(self, frozen: FrozenIteration, made: Plan, progress: Mapping[str, ProgressRecord]) -> None:
        pass


def run_here(
    path: Path,
    *,
    suspend: bool = False,
    parallel: int = 1,
    grace: float = 10.0,
    clock: Callable[[], float] = time.time,
    interval: float = 3600.0,
) -> Plan:
    """Runs the iteration `it` of the run directory `path`."""
    directory = RunDirectory(path)
    store = open_store(path / "store")
    one = load_frozen(store, "it")
    assert one is not None
    warm_up(PRELOAD)
    with directory.lock():
        executor = LocalExecutor(
            one,
            store,
            directory,
            Quiet(interval),
            parallel=parallel,
            entry="fakes.program:main",
            suspend=suspend,
            grace=grace,
            clock=clock,
        )
        return executor.run()
