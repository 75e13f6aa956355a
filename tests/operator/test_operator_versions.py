"""An operator that is older than what it reads in the store says so, and leaves the iteration to one that is not."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_one_bad_object import controller, owned, reconciled

from support.golden import GOLDEN
from viper.store import DirectoryStore
from viper_operator.controller import ITERATIONS, JOBS

FROZEN = "iterations/it/iteration.json"
MANIFEST = "iterations/it/stages/synthesize-captions/manifest.json"


def begun(folder: Path) -> DirectoryStore:
    """What 0.1.0 began."""
    shutil.copytree(GOLDEN / "0.1.0" / "begun" / "store", folder)
    return DirectoryStore(folder)


def changed(store: DirectoryStore, key: str, **fields: Any) -> bytes:
    """Puts the object there with further fields; returns what it was."""
    before = store.get(key)
    store.put(key, json.dumps({**json.loads(before), **fields}).encode())
    return before


@pytest.mark.parametrize("key", [FROZEN, MANIFEST])
@pytest.mark.parametrize("suspend", [False, True])
def test_what_a_later_release_wrote_for_itself_waits_for_an_operator_of_that_release(
    tmp_path: Path, key: str, suspend: bool
) -> None:
    async def scenario() -> None:
        store = begun(tmp_path / "store")
        before = changed(store, key, schemaVersion=9, minVersion="0.9.0")
        made, server = controller(tmp_path / "store", "it")
        frozen = owned("freeze")
        frozen["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
        made.seen(JOBS, frozen)
        if suspend:
            body = server.objects["ViperIteration", "it"]
            made.seen(ITERATIONS, server.put({**body, "spec": {**body["spec"], "suspend": True}}))
        assert await reconciled(made, "it") is None
        summary = server.status("it")["conditions"][0]
        assert (summary["type"], summary["status"], summary["reason"]) == ("Succeeded", "Unknown", "NewerVersionNeeded")
        assert "needs viper 0.9.0" in summary["message"]
        assert key in summary["message"]
        assert server.status("it")["outcome"] not in ("Failed", "Held")
        assert [name for kind, name in server.objects if kind == "Job"] == [], "nothing is started"
        store.put(key, before)  # as for an operator of that release
        made.seen(ITERATIONS, server.put({**server.objects["ViperIteration", "it"]}))
        assert await reconciled(made, "it") is None
        assert server.status("it")["conditions"][0]["reason"] != "NewerVersionNeeded"
        started = [name for kind, name in server.objects if kind == "Job"]
        assert started == ([] if suspend else ["it-train-captions"])
        made.stores.close()

    asyncio.run(scenario())


def test_what_an_earlier_release_began_goes_on_where_it_was(tmp_path: Path) -> None:
    async def scenario() -> None:
        begun(tmp_path / "store")
        made, server = controller(tmp_path / "store", "it")
        frozen = owned("freeze")
        frozen["status"] = {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
        made.seen(JOBS, frozen)
        assert await reconciled(made, "it") is None
        states = {s["name"]: s["state"] for s in server.status("it")["stages"]}
        done = [name for name, state in states.items() if state == "Succeeded"]
        assert done == ["freeze", "ingest-images", "synthesize-captions", "validate-captions"]
        assert [name for kind, name in server.objects if kind == "Job"] == ["it-train-captions"]
        made.stores.close()

    asyncio.run(scenario())
