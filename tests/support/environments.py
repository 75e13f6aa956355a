"""Interpreters of environments that cannot share that of the tests (tests/support/environment.sh)."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest


@functools.cache
def installed(name: str) -> tuple[int, str, str]:
    """Makes `verl`, `lmms` or `vllm` where it is not there: status (3: no room), interpreter, what was said."""
    made = subprocess.run(
        [Path(__file__).with_name("environment.sh"), name], capture_output=True, text=True, check=False
    )
    return made.returncode, made.stdout.strip(), made.stderr.strip()


def interpreter(name: str) -> str:
    """The interpreter of an environment; the test is skipped where the disk has no room for it."""
    status, python, said = installed(name)
    if status == 3:
        pytest.skip(said)
    assert status == 0, said
    return python
