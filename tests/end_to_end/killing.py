"""`python -m end_to_end.killing FILE DIR`: `viper run` whose stage processes die where faults in the store say so.

A fault strikes at a store operation (`fakes.world.fault`) and kills a random moment later, so that processes die inside
their work as well as between two writes.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from fakes.world import MarkedStore
from viper.cli.console import Console
from viper.local import PRELOAD, LocalRun, RunDirectory
from viper.spec import load_resource
from viper.stage import Manifest, StageContext
from viper_jobs.main import StageProgram, stage_program
from viper_jobs.main import main as run_stage

#: Longest time between the operation and the death, in seconds.
DELAY = 0.5


class Mortal:
    """A real stage program with the faults of its stage."""

    def __init__(self, program: StageProgram) -> None:
        self._program = program

    def run(self, ctx: StageContext) -> Manifest | None:
        ctx.store = MarkedStore(ctx.store, ctx.stage, strike)
        return self._program.run(ctx)


def strike(_act: str) -> None:
    """Kills this process within `DELAY`."""
    timer = threading.Timer(random.uniform(0, DELAY), os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def program(argv: Sequence[str]) -> int:
    """`viper-job` with mortal stages."""
    return run_stage(argv, program=lambda stage: Mortal(stage_program(stage)))


def main() -> int:
    """Exit status 0 when the iteration has finished and has not failed."""
    directory = RunDirectory(Path(sys.argv[2]))
    with directory.lock():
        record = directory.open(load_resource(Path(sys.argv[1])), None, None)
        run = LocalRun(
            directory,
            record,
            Console(sys.stdout),
            entry="end_to_end.killing:program",
            preload=(*PRELOAD, "end_to_end.killing"),
        )
        return 0 if run.run().last.outcome in ("promoted", "held") else 1


if __name__ == "__main__":
    sys.exit(main())
