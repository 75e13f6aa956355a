"""`python -m end_to_end.runner ENTRY FILE DIR [TRACKING_URI]`: `viper run` with other stage programs."""

from __future__ import annotations

import sys
from pathlib import Path

from viper.cli.console import Console
from viper.errors import ViperError
from viper.local import PRELOAD, LocalRun, RunDirectory
from viper.spec import load_resource


def main(entry: str, file: str, folder: str, tracking: str | None = None) -> int:
    """Exit status 0 when the iteration has finished and has not failed."""
    directory = RunDirectory(Path(folder))
    try:
        with directory.lock():
            record = directory.open(load_resource(Path(file)), None, tracking)
            preload = (*PRELOAD, entry.partition(":")[0])
            run = LocalRun(directory, record, Console(sys.stdout), entry=entry, preload=preload)
            return 0 if run.run().last.outcome in ("promoted", "held", "registered") else 1
    except ViperError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
