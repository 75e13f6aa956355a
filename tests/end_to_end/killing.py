"""A stage program that dies where faults in the store say so.

A fault strikes at a store operation (`fakes.world.fault`) and kills a random moment later, so that processes die inside
their work as well as between two writes.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Sequence

from fakes.world import MarkedStore
from viper.stage import Manifest, StageContext
from viper_jobs.main import StageProgram, stage_program
from viper_jobs.main import main as run_stage

#: Longest time between the operation and the death, in seconds.
DELAY = 0.5


class Mortal:
    """A real stage program with the faults of its stage."""

    def __init__(self, program: StageProgram) -> None:
        self._program = program

    def __call__(self, ctx: StageContext) -> Manifest | None:
        ctx.store = MarkedStore(ctx.store, ctx.stage, strike)
        return self._program(ctx)


def strike(_act: str) -> None:
    """Kills this process within `DELAY`."""
    timer = threading.Timer(random.uniform(0, DELAY), os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def program(argv: Sequence[str]) -> int:
    """`viper-job` with mortal stages."""
    return run_stage(argv, program=lambda stage: Mortal(stage_program(stage)))
