"""Runs inside a stage process: output to the log, signals, and no life after the runner's death."""

from __future__ import annotations

import fcntl
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import wait

from viper.stage.termination import leave


def run(entry: str, argv: list[str], log: str, guard: str) -> None:
    """Entry point of a stage process.

    Args:
        entry: `module:function` of a program that takes arguments and returns an exit status.
        argv: its arguments.
        log: file that receives standard output and error.
        guard: file to hold a shared lock on while this process lives.
    """
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    # A group of its own: Ctrl-C in the terminal reaches the runner alone, and what this process starts dies with it.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave)
    # Never closed: the lock lasts as long as the process. Taken before the look at the parent, so that a new runner,
    # which waits for this lock, either waits for this process or finds it leaving.
    fcntl.flock(os.open(guard, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_SH)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    module, _, name = entry.partition(":")
    try:
        code = getattr(importlib.import_module(module), name)(argv)
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)
