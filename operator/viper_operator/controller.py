"""Puts the parts together: watches fill the cache and name what to look at, the queue has it looked at."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from functools import partial
from typing import Any

from viper.errors import StoreError
from viper.store import ObjectStore
from viper_operator import metrics
from viper_operator.api import RAYJOBS, Api, ApiError
from viper_operator.cache import Cache
from viper_operator.loops import LoopReconciler
from viper_operator.memory import Memory
from viper_operator.names import SELECTOR
from viper_operator.reconcile import IterationReconciler
from viper_operator.settings import Settings
from viper_operator.stores import Stores
from viper_operator.tickers import STORE_SECONDS, Aliases, Problems, Progress, Sweep, Unread, every
from viper_operator.tracking import TrackingServer
from viper_operator.views import IterationView, JobView
from viper_operator.workqueue import WorkQueue
from viper_operator.writes import Writer

log = logging.getLogger(__name__)

Key = tuple[str, str]
ITERATIONS, LOOPS, PROFILES, JOBS = "viperiterations", "viperloops", "viperprofiles", "jobs"
#: Iterations that wait for a model and are told at once that another one trains it now.
WAITING_TOLD = 100
#: Seconds after which a watch that had to begin anew is checked for what it has missed.
SWEEP_SOON = 2.0


def _any(_: Any) -> bool:
    return True


class Controller:
    """`seen` and `gone` take what watches say, at any time; `run` acts on it."""

    def __init__(self, settings: Settings, api: Api, store: ObjectStore) -> None:
        self.settings, self.api = settings, api
        self.cache, self.memory = Cache(), Memory()
        self.stores = Stores(store, settings.store_threads)
        self.tracking = TrackingServer(settings.tracking)
        writer = Writer(api, self.cache, settings)
        self.iterations = IterationReconciler(settings, self.cache, writer, self.stores, self.tracking, self.memory)
        self.iterations.hurry = lambda: bool(self.queue.urgent)
        self.loops = LoopReconciler(settings, self.cache, writer, self.tracking, self.memory, self._look_at)
        self.queue: WorkQueue[Key] = WorkQueue(self._work, failed=self._failed)
        cache = self.cache
        self.sweep = Sweep(
            api,
            {
                PROFILES: (cache.profiles, "", _any),
                JOBS: (cache.jobs, SELECTOR, lambda job: job.kind == "Job"),
                **({RAYJOBS: (cache.jobs, SELECTOR, lambda job: job.kind == "RayJob")} if settings.ray_jobs else {}),
                ITERATIONS: (cache.iterations, "", _any),
                LOOPS: (cache.loops, "", _any),
            },
            self._deleted,
        )
        self._acting = False
        self._sweep_soon = asyncio.Event()

    # ---- what watches say ----------------------------------------------------------------------------------------

    def seen(self, plural: str, body: dict[str, Any], *, listed: bool = False) -> None:
        """An object is there, or has changed. `listed`: by a list, with which a watch begins."""
        try:
            self._seen(plural, body, listed=listed)
        except Exception:
            log.exception("%s: what a watch said cannot be read", plural)

    def _seen(self, plural: str, body: dict[str, Any], *, listed: bool) -> None:
        metrics.EVENTS_SEEN.labels(plural).inc()
        if listed and self._acting:
            self._sweep_soon.set()
        if plural in (JOBS, RAYJOBS):
            job = self.cache.put_job(body)
            if job is not None:
                self._job_changed(job)
        elif plural == ITERATIONS:
            view = self.cache.iterations.put(body)
            if view is not None:
                self._iteration_changed(view)
        elif plural == LOOPS:
            if (loop := self.cache.loops.put(body)) is not None:
                self._enqueue("loop", loop.name)
        elif (profile := self.cache.profiles.put(body)) is not None and self._acting:
            for name in self.cache.by_profile(profile.name):
                self._enqueue("iteration", name)

    def gone(self, plural: str, body: dict[str, Any]) -> None:
        """An object was deleted."""
        try:
            meta = body["metadata"]
            self._deleted(plural, meta["name"], meta["uid"])
        except Exception:
            log.exception("%s: what a watch said cannot be read", plural)

    def _deleted(self, plural: str, name: str, uid: str) -> None:
        if plural in (JOBS, RAYJOBS):
            job = self.cache.drop_job(name, uid)
            if job is not None:
                self._job_changed(job)
        elif plural == ITERATIONS:
            view = self.cache.iterations.drop(name, uid)
            self.stores.forget(uid)
            if view is not None:
                self._enqueue("iteration", name)
                if view.loop:
                    self._enqueue("loop", view.loop)
        elif plural == LOOPS:
            self.cache.loops.drop(name, uid)
        else:
            self.cache.profiles.drop(name, uid)

    def _job_changed(self, job: JobView) -> None:
        if not job.owner:  # somebody else's, whatever its labels say
            return
        self._enqueue("iteration", job.iteration)
        if self._acting and job.trains:
            # Who trains now is in their statuses; the first of them may be next.
            for name in self.cache.next_for_model(job.model, at_most=WAITING_TOLD):
                self._enqueue("iteration", name)

    def _iteration_changed(self, view: IterationView) -> None:
        self._enqueue("iteration", view.name, urgent=self._lacks_job(view))
        if view.loop:
            self._enqueue("loop", view.loop)

    def _lacks_job(self, view: IterationView) -> bool:
        return not view.outcome and not self.cache.jobs_of(view)

    def _enqueue(self, kind: str, name: str, *, urgent: bool = False) -> None:
        if self._acting:  # all of them are looked at when it begins to act
            self.queue.add((kind, name), urgent=urgent)

    def _look_at(self, iteration: str) -> None:
        self._enqueue("iteration", iteration)

    # ---- acting --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Acts until it is cancelled: everything that there is first, then what changes."""
        await self.sweep.wait_until_known()
        self._acting = True
        metrics.LEADER.set(1)
        for name, view in self.cache.iterations.items.items():
            self._enqueue("iteration", name, urgent=self._lacks_job(view))
        for name in self.cache.loops.items:
            self._enqueue("loop", name)
        log.info(
            "acting on %d iterations and %d loops with %d jobs",
            len(self.cache.iterations.items),
            len(self.cache.loops.items),
            len(self.cache.jobs.items),
        )
        settings, memory, cache = self.settings, self.memory, self.cache
        problems = Problems(self.api, cache, memory, self._look_at)
        progress = Progress(self.stores, cache, memory, self._look_at)
        aliases = Aliases(self.tracking, cache, memory, self._look_at, partial(self._enqueue, "loop"))
        unread = Unread(self.stores, memory, self._look_at)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.queue.run(settings.workers))
                tasks.create_task(
                    every(lambda: settings.problem_seconds * (1 + len(problems.suspects()) / 200), problems.round)
                )
                tasks.create_task(every(lambda: progress.pause(settings.progress_seconds), progress.round))
                tasks.create_task(every(aliases.pause, aliases.round))
                tasks.create_task(every(lambda: STORE_SECONDS, unread.round))
                tasks.create_task(self._sweeps())
                tasks.create_task(every(lambda: 5.0, self._gauges))
        finally:
            self._acting = False
            metrics.LEADER.set(0)
            self.stores.close()
            await self.tracking.close()

    async def _sweeps(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self.settings.sweep_seconds):
                    await self._sweep_soon.wait()
                await asyncio.sleep(SWEEP_SOON)
            except TimeoutError:
                pass
            self._sweep_soon.clear()
            try:
                await self.sweep.round()
            except ApiError as error:
                log.warning("sweep: %s", error)
            except Exception:
                log.exception("sweep")

    async def _gauges(self) -> None:
        metrics.QUEUE.set(len(self.queue))
        counts = Counter(v.outcome or "Pending" for v in self.cache.iterations.items.values())
        for outcome in ("Pending", "Running", "Suspended", "Promoted", "Registered", "Held", "Failed"):
            metrics.ITERATIONS.labels(outcome).set(counts[outcome])

    async def _work(self, key: Key) -> float | None:
        kind, name = key
        begun = time.perf_counter()
        reconcile = self.iterations.reconcile if kind == "iteration" else self.loops.reconcile
        result = "error"
        try:
            delay = await reconcile(name)
            result = "ok"
        finally:
            metrics.RECONCILES.labels(kind, result).inc()
            metrics.RECONCILE_SECONDS.labels(kind).observe(time.perf_counter() - begun)
        if (
            kind == "iteration"
            and (view := self.cache.iterations.items.get(name)) is not None
            and view.loop
            and view.settled
        ):
            self._enqueue("loop", view.loop)
        return delay

    def _failed(self, key: Key, error: Exception, delay: float) -> None:
        expected = isinstance(error, ApiError | StoreError)
        log.log(
            logging.WARNING if expected else logging.ERROR,
            "%s: %s",
            type(error).__name__,
            error,
            exc_info=None if expected else error,
            extra={"kind": key[0], key[0]: key[1], "retry_in": delay},
        )
