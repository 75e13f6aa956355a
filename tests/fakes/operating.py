"""`viper-operator` as a process forked from the warm server: it starts in a fraction of a second."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`argv[0]`: its environment as JSON."""
    from viper_operator.main import main as operator

    os.environ.update(json.loads(argv[0]))
    return operator()
