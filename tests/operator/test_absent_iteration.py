"""An iteration that has begun and is not in the store any more is no new one: a condition says so, nothing starts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kube_objects import SETTINGS, job_body
from test_one_bad_object import controller, reconciled

from fakes import world
from fakes.program import SCHEMA
from viper.stage import StageContext
from viper.store import DirectoryStore
from viper_operator.controller import ITERATIONS, JOBS, Controller


def prefix(root: Path) -> Path:
    return root / "iterations" / "it"


GONE: dict[str, Callable[[Path], object]] = {
    "the whole store": shutil.rmtree,
    "all iterations": lambda root: shutil.rmtree(root / "iterations"),
    "this iteration": lambda root: shutil.rmtree(prefix(root)),
    "iteration.json": lambda root: (prefix(root) / "iteration.json").unlink(),
}


@pytest.mark.parametrize("gone", GONE)
def test_an_operator_that_starts_does_not_begin_anew_what_its_store_lost(tmp_path: Path, gone: str) -> None:
    async def scenario() -> None:
        store = DirectoryStore(tmp_path / "store")
        world.write(store, world.frozen())
        ingest = StageContext(world.frozen(), store, "ingest-images", tmp_path)
        ingest.write_part(0, [{"n": n, "accepted": True, "reason": ""} for n in range(12)], SCHEMA)
        ingest.finish((), parts=1)
        made, server = controller(tmp_path / "store", "it")
        made.seen(JOBS, job_body("freeze", condition="Complete"))
        made.seen(JOBS, job_body("ingest-images", condition="Complete"))
        assert await reconciled(made, "it") is None
        states = {s["name"]: s["state"] for s in server.status("it")["stages"]}
        assert (states["freeze"], states["ingest-images"]) == ("Succeeded", "Succeeded")
        made.stores.close()
        made = Controller(SETTINGS, server, store)  # type: ignore[arg-type]
        made.seen(ITERATIONS, server.objects["ViperIteration", "it"])
        jobs = [name for kind, name in server.objects if kind == "Job"]
        away = tmp_path / "away"
        shutil.copytree(tmp_path / "store", away)
        GONE[gone](tmp_path / "store")

        error = await reconciled(made, "it")
        assert error is not None
        assert "is not in the store" in str(error)
        summary = server.status("it")["conditions"][0]
        assert (summary["type"], summary["status"], summary["reason"]) == ("Succeeded", "Unknown", "IterationMissing")
        assert "bring the bucket back" in summary["message"]
        assert [name for kind, name in server.objects if kind == "Job"] == jobs, "nothing is started"
        assert {s["name"]: s["state"] for s in server.status("it")["stages"]} == states

        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        away.rename(tmp_path / "store")
        made.seen(ITERATIONS, server.objects["ViperIteration", "it"])
        assert await reconciled(made, "it") is None
        assert server.status("it")["conditions"][0]["reason"] != "IterationMissing"
        made.stores.close()

    asyncio.run(scenario())
