"""`python -m end_to_end.runner FILE DIR`: `viper run` with stage programs that can die."""

from __future__ import annotations

import sys
from pathlib import Path

from viper.cli.console import Console
from viper.local import PRELOAD, LocalRun, RunDirectory
from viper.spec import load_resource


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
