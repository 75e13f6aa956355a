"""Runs one shard of a stage in a process of its own that can be told to die."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet

from viper.methods.stages import DECLARED
from viper.stage import open_stage
from viper_jobs.main import stage_program

#: Everything the program needs is imported once, in a server from which the shards are forked.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROGRAMS = {s.program.partition(":")[0] for s in DECLARED.values() if s.program.startswith("viper.tasks.")}
_PRELOADED = [__name__, "support.synthesis", pyarrow.parquet.__name__, *_PROGRAMS]
_PROCESSES.set_forkserver_preload(_PRELOADED)


def preload(module: str) -> None:
    """Has the server import `module` too; call it while tests are collected, before the server starts."""
    _PRELOADED.append(module)
    _PROCESSES.set_forkserver_preload(_PRELOADED)


@dataclass(frozen=True)
class Death:
    """When the process kills itself: after so many calls of the fake VLM, or `before KEY` or `after KEY`, around the
    moment at which an object whose key ends like that is stored; digests in keys are left out."""

    calls: int = 0
    put: str = ""


def run_shard(root: Path, stage: str, shard: tuple[int, int], death: Death | None = None) -> int:
    """Runs shard i of n of the iteration `it` in the store below `root`; its exit status, -9 when it was killed."""
    process = _PROCESSES.Process(target=_run, args=(root, stage, shard, death or Death()))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def _run(root: Path, stage: str, shard: tuple[int, int], death: Death) -> None:
    os.environ |= {
        "VIPER_CACHE": str(root / "cache"),
        "FAKE_LOG": str(root / "calls.jsonl"),
        "FAKE_KILL_AT": str(death.calls),
    }
    ctx = open_stage(str(root / "store"), "it", stage, root / f"work-{shard[0]}", shard=shard[0], shards=shard[1])
    moment, _, key = death.put.partition(" ")
    put = ctx.store.put

    def deadly(name: str, *arguments: Any, **options: Any) -> None:
        meant = re.sub(r"-[0-9a-f]{16}(?=\.)", "", name).endswith(key)
        if moment == "before" and meant:
            os.kill(os.getpid(), signal.SIGKILL)
        put(name, *arguments, **options)
        if moment == "after" and meant:
            os.kill(os.getpid(), signal.SIGKILL)

    ctx.store.put = deadly  # type: ignore[method-assign]
    if ctx.complete() is None:
        stage_program(stage)(ctx)
