"""`python -m fakes.runner DIR`: the local executor on the fake stages, in a process that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from fakes.local import run_here
from viper.local import Stopped


def main() -> int:
    """Exit status 0 when the iteration finished, 1 when it did not, 3 when a signal stopped it."""
    try:
        return 0 if run_here(Path(sys.argv[1])).finished else 1
    except Stopped:
        return 3


if __name__ == "__main__":
    sys.exit(main())
