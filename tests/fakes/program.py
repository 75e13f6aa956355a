"""The stage program of the fakes: the real command, contract and files with contents that cost nothing."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyarrow as pa

from fakes.world import MarkedStore
from viper.errors import InputError, NotFoundError
from viper.methods.stages import StageNode
from viper.stage import Manifest, StageContext
from viper.store import ObjectStore, open_store
from viper_jobs.main import main as run_stage
from viper_jobs.main import split_iteration_uri

PARTS, ROWS = 3, 4
SCHEMA = pa.schema([("n", pa.int64()), ("accepted", pa.bool_()), ("reason", pa.string())])


def main(argv: Sequence[str]) -> int:
    """`viper-job` with fake stages; with those of `fakes.older` or `fakes.toys`, where the store says so."""
    store = open_store(split_iteration_uri(argv[argv.index("--iteration") + 1])[0])
    if store.stat("settings/chaos") is not None:
        from fakes.older import main as chaos

        return chaos(argv)
    if store.stat("settings/toys") is not None:
        from fakes.toys import main as toys

        return toys(argv)
    return run_stage(argv, program=lambda stage: FakeStage(), record=lambda ctx: None)


#: Object with the process id of the executor, where that is not the process from which stages are forked.
EXECUTOR = "settings/executor"


class FakeStage:
    """Any stage: parts of counted rows for data, outputs that follow from the input for the others."""

    def __call__(self, ctx: StageContext) -> Manifest | None:
        reject_all = ctx.store.stat(f"settings/reject-{ctx.stage}") is not None
        store = MarkedStore(ctx.store, ctx.stage, partial(strike, executor=partial(_executor, ctx.store)))
        ctx.store = store
        if manifest := ctx.done():
            return manifest
        node = ctx.frozen.node(ctx.stage)
        inputs = {need: ctx.manifest(need).content_digest for need in node.needs}
        parts = PARTS if node.stage.makes in ("images", "rows", "samples") else 0
        ctx.progress.begin("fake", parts, parts - len(ctx.pending(parts)))
        for index in ctx.pending(parts):
            store.mark(index)
            rows = [_row(ctx, node, index * ROWS + k, reject_all=reject_all) for k in range(ROWS)]
            train = sum(bool(r["accepted"]) for r in rows)
            ctx.write_part(index, rows, SCHEMA, counters={"train": train})
            ctx.progress.advance()
        return ctx.finish(node.needs, parts=parts, outputs=_outputs(node, inputs))


def _row(ctx: StageContext, node: StageNode, n: int, *, reject_all: bool) -> dict[str, Any]:
    accepted = not reject_all and (node.stage.makes == "images" or n % 4 != 3)
    return {"n": n + ctx.frozen.iteration.spec.recipe.seed, "accepted": accepted, "reason": "" if accepted else "odd"}


def _outputs(node: StageNode, inputs: dict[str, str]) -> dict[str, Any]:
    if node.stage.makes == "model":
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        return {"model": {"uri": "file:///fake", "digest": f"sha256:{digest}"}, "steps": 3}
    if node.stage.makes == "scores":
        return {"scores": {"theta2": {"overall": {"n": 10, "correct": 6, "accuracy": 0.6, "low": 0.3, "high": 0.8}}}}
    if node.stage.makes == "decision":
        return {"decision": "promoted", "reason": "because", "version": 2, "alias": "generator"}
    return {}


def _executor(store: ObjectStore) -> int:
    """Process id of the executor: the one that forks stages, unless the store names another."""
    with suppress(NotFoundError):
        return int(store.get(EXECUTOR))
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    return parent.pid


def strike(act: str, executor: Callable[[], int]) -> None:
    """A fault."""
    if act == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif act == "executor-killed":
        os.kill(executor(), signal.SIGKILL)
    elif act == "executor-killed-then-hang":
        os.kill(executor(), signal.SIGKILL)
        _hang()
    elif act == "executor-interrupted":
        os.kill(executor(), signal.SIGINT)
        _hang()
    elif act == "exit-0":
        sys.exit(0)
    elif act == "input-error":
        raise InputError("row 7 has no image", where="samples.jsonl", fix="add it")
    elif act == "hang":
        _hang()
    elif act == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _hang()
    else:
        raise RuntimeError(act)


def _hang() -> None:
    while True:
        signal.pause()
