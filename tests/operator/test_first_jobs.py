"""What is written first when many iterations come at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fakes.cluster import manifest
from viper.store import DirectoryStore
from viper_operator.cache import Cache
from viper_operator.reconcile import IterationReconciler, Memory
from viper_operator.settings import Settings
from viper_operator.stores import Stores
from viper_operator.tracking import TrackingServer
from viper_operator.writes import Writer


class Recording:
    """An API server that stores what it is sent and says what that was."""

    def __init__(self) -> None:
        self.wrote: list[str] = []
        self._version = 1

    def stored(self, body: dict[str, Any]) -> dict[str, Any]:
        """The object as the server would answer."""
        self._version += 1
        return {**body, "metadata": {"uid": "job", **body["metadata"], "resourceVersion": str(self._version)}}

    async def apply(self, body: dict[str, Any]) -> dict[str, Any]:
        self.wrote.append(body["kind"])
        return self.stored(body)

    async def create_event(self, body: dict[str, Any]) -> None:
        self.wrote.append("Event")

    async def apply_status(self, body: dict[str, Any]) -> dict[str, Any]:
        self.wrote.append("status")
        return self.stored({**manifest(), **body})


def reconciled(folder: Path, *, others_wait: bool) -> tuple[list[str], float | None, list[str]]:
    """Writes of the first reconciliation of a new iteration, when it wants the next, and the writes of that."""
    cache, api, settings = Cache(), Recording(), Settings("n", "file:///s", "sqlite:////none", "image")
    new = manifest()
    new["metadata"] |= {"uid": "it", "resourceVersion": "1", "generation": 1}
    cache.iterations.put(new)
    stores = Stores(DirectoryStore(folder), 1)
    reconciler = IterationReconciler(
        settings,
        cache,
        Writer(api, cache, settings),  # type: ignore[arg-type]
        stores,
        TrackingServer("sqlite:////none"),
        Memory(),
        hurry=lambda: others_wait,
    )

    async def both() -> tuple[list[str], float | None, list[str]]:
        again = await reconciler.reconcile("it")
        first = list(api.wrote)
        await reconciler.reconcile("it")
        return first, again, api.wrote[len(first) :]

    try:
        return asyncio.run(both())
    finally:
        stores.close()


def test_while_others_have_no_job_yet_an_iterations_first_job_is_made_and_its_status_comes_later(
    tmp_path: Path,
) -> None:
    assert reconciled(tmp_path, others_wait=True) == (["Job"], 0.0, ["Event", "status"])


def test_alone_an_iteration_gets_its_job_and_its_status_at_once(tmp_path: Path) -> None:
    first, again, _ = reconciled(tmp_path, others_wait=False)
    assert (first, again) == (["Job", "Event", "status"], None)
