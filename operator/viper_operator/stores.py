"""What the object store says about iterations: read in threads, a bounded number at a time, little of it remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from viper.errors import StoreError
from viper.iteration.observe import StoreObserver, read_progress
from viper.plan import ObservedStage
from viper.stage.frozen import FrozenIteration, load_frozen, prefix_of
from viper.stage.manifest import has_data
from viper.stage.progress import ProgressRecord
from viper.store import ObjectStore

Result = TypeVar("Result")

#: Iterations whose frozen spec and manifests are remembered; the others are read again when something happens.
REMEMBERED = 500


class LostError(StoreError):
    """What has begun is not in the store any more."""


class Stores:
    """Reads of the store. All raise `StoreError`."""

    def __init__(self, store: ObjectStore, threads: int) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store")
        self._observers: OrderedDict[str, StoreObserver] = OrderedDict()

    async def frozen(self, uid: str, name: str) -> FrozenIteration | None:
        """The frozen iteration, None before it is there."""
        observer = self._observers.get(uid)
        if observer is None:
            found = await self._read(lambda: load_frozen(self.store, name))
            if found is None:
                return None
            observer = self._observers[uid] = StoreObserver(self.store, found)
            if len(self._observers) > REMEMBERED:
                self._observers.popitem(last=False)
        self._observers.move_to_end(uid)
        return observer.frozen

    async def begun(self, name: str) -> tuple[FrozenIteration | None, bool]:
        """The frozen iteration as it is now, and whether a stage of it is done."""

        def look() -> tuple[FrozenIteration | None, bool]:
            found = load_frozen(self.store, name)
            return found, found is not None and has_data(self.store, found)

        return await self._read(look)

    async def check(self, name: str) -> None:
        """Raises `LostError` when an iteration that was frozen is not in the store: absence is not "new"."""
        if await self._read(lambda: self.store.stat(f"iterations/{name}/iteration.json")) is None:
            raise LostError(
                f"the iteration has begun, and iterations/{name}/ is not in the store: nothing is started, lest it "
                "begins anew; bring the bucket back, or point the operator at the one that has it",
                where=self.store.uri,
            )

    async def stages(self, uid: str) -> dict[str, ObservedStage]:
        """What manifests say of each stage; `frozen` comes first."""
        observer = self._observers[uid]
        observed = await self._read(observer.observe)
        return dict(observed.stages)

    async def progress(self, name: str, stage: str, shards: int) -> tuple[ProgressRecord | None, str]:
        """Progress of a stage, over all shards, and what is wrong with that of some."""
        known = next((o.frozen.prefix for o in self._observers.values() if o.frozen.name == name), prefix_of(name, 0))
        return await self._read(lambda: read_progress(self.store, known, stage, shards))

    async def answers(self) -> None:
        """Returns when the store answers at all."""
        await self._read(lambda: self.store.stat("iterations/-"))

    def forget(self, uid: str) -> None:
        """Nothing will be asked about this iteration for a while."""
        self._observers.pop(uid, None)

    def close(self) -> None:
        """Does not wait for reads that hang."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, read: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, read)
