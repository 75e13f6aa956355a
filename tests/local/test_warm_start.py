"""What stage processes find imported must be safe to fork."""

from __future__ import annotations

import subprocess
import sys

import pytest

from viper.local import PRELOAD


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_importing_it_starts_no_thread_that_a_fork_would_lose() -> None:
    code = (
        "import importlib, os, pathlib, sys, threading\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "names = [(p / 'comm').read_text().strip() for p in pathlib.Path('/proc/self/task').iterdir()]\n"
        # jemalloc (pyarrow) starts its thread anew after a fork.
        "print(threading.active_count(), len([n for n in names if n != 'jemalloc_bg_thd']))"
    )
    # One thread for OpenBLAS, which takes down and restores its own around a fork.
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code, *PRELOAD], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["1", "1"]
