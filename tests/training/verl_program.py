"""The stage programs of a local run where they run on a cluster: training in verl's environment, the others in ours."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from verl_jobs import command, environment

from viper.methods.stages import TRAIN_CAPTIONS, TRAIN_OPERATIONS
from viper_jobs.main import main


def program(argv: Sequence[str]) -> int:
    """`viper-job`."""
    if argv[0] in (TRAIN_CAPTIONS, TRAIN_OPERATIONS):
        return subprocess.run(command(*argv), env=environment(), check=False).returncode
    return main(argv)
