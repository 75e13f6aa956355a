"""What no watch tells: pods that cannot run, progress, aliases, and objects that vanished while a watch was cut.

One of each for everything, at a bounded rate; none per resource.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from viper.errors import StoreError
from viper.spec.status import ItemsStatus
from viper.stage.progress import ProgressRecord
from viper_operator import metrics
from viper_operator.api import Api, ApiError
from viper_operator.cache import Cache, Kind
from viper_operator.names import SELECTOR
from viper_operator.observed import Problem, belongs, pod_report
from viper_operator.reconcile import Memory
from viper_operator.status import noticeable
from viper_operator.stores import Stores
from viper_operator.tracking import TrackingServer
from viper_operator.views import JobView

log = logging.getLogger(__name__)

#: Seconds that a Job may take to have its pods ready before anybody looks why.
PATIENCE = 10.0
#: Jobs without any pod whose Events are read in one round.
EVENTS_AT_ONCE = 20
#: Reads of progress at a time, and seconds a round takes at least for each hundred Jobs.
READS, SECONDS_PER_HUNDRED = 4, 10.0
#: Seconds between rounds where nobody can say how many they should be.
LONG_PAUSE = 30.0
#: Seconds for which an alias is believed.
ALIAS_SECONDS = 60.0


async def every(seconds: Callable[[], float], work: Callable[[], Awaitable[None]]) -> None:
    """Runs `work` again and again; what goes wrong, whatever it is, is logged and tried again the next time."""
    name, pause = getattr(work, "__qualname__", "round"), LONG_PAUSE
    while True:
        try:
            pause = seconds()
        except Exception:
            log.exception("%s: when", name)
        await asyncio.sleep(pause)
        try:
            await work()
        except (ApiError, StoreError) as error:
            log.warning("%s: %s", name, error)
        except Exception:
            log.exception("%s", name)


@dataclass
class Problems:
    """Finds out why Jobs that should run do not.

    Pods are listed and not watched: a watch would bring every change of every pod, several for each Job, while only
    those of Jobs that are not ready after `PATIENCE` matter; usually there are none, and then nothing is asked at all.
    """

    api: Api
    cache: Cache
    memory: Memory
    enqueue: Callable[[str], None]
    clock: Callable[[], float] = time.time

    async def round(self) -> None:
        """Looks once."""
        jobs = self.cache.jobs.items
        for name in [n for n in self.memory.problems if n not in jobs]:
            del self.memory.problems[name]
        for name in [n for n in self.memory.attempts if n not in jobs]:
            del self.memory.attempts[name]
        suspects = self.suspects()
        if not suspects:
            return
        found: dict[str, Problem] = {}
        by_name = {j.name: j for j in suspects}
        async for body in self.api.pods(SELECTOR, "status.phase=Pending"):
            try:
                report = pod_report(body)
            except Exception:
                log.exception("a pod cannot be read")
                continue
            job = by_name.get(report.job)
            if report.problem is not None and job is not None and belongs(report, job):
                found.setdefault(report.job, report.problem)
        podless = [j for j in suspects if not j.active and not j.failures and j.name not in found]
        for job in podless[:EVENTS_AT_ONCE]:
            try:
                async for event in self.api.events_of(job.name, "FailedCreate"):
                    found[job.name] = Problem("FailedCreate", event.get("message", ""))
            except ApiError as error:
                log.warning("Events of %s: %s", job.name, error)
        for job in suspects:
            old, new = self.memory.problems.get(job.name, ...), found.get(job.name)
            if old is ... or (old and old.reason) != (new and new.reason):
                self.memory.problems[job.name] = new
                self.enqueue(job.iteration)

    def suspects(self) -> list[JobView]:
        """Jobs that should have been ready by now."""
        now = self.clock()
        return [
            j
            for j in self.cache.owned_jobs()
            if j.working
            and not j.suspended
            and (j.ready < j.active or not j.active)
            and j.succeeded < j.shards
            and now - (j.started or j.created) > PATIENCE
        ]


@dataclass
class Progress:
    """Reads how far running stages are, and has it told when a person would notice the difference."""

    stores: Stores
    cache: Cache
    memory: Memory
    enqueue: Callable[[str], None]
    _shown: dict[str, ItemsStatus] = field(default_factory=dict)

    def running(self) -> list[JobView]:
        """Jobs with a pod at work."""
        return [j for j in self.cache.owned_jobs() if j.working and j.ready]

    async def round(self) -> None:
        """Reads once. What goes wrong with one Job is that one's; a store that is down is said once."""
        running = self.running()
        alive = {j.name for j in running}
        self._shown = {n: i for n, i in self._shown.items() if n in alive}
        for name in [n for n in self.memory.unreadable if n not in alive]:
            del self.memory.unreadable[name]
        slots = asyncio.Semaphore(READS)
        failed: list[StoreError] = []

        async def one(job: JobView) -> None:
            problem = ""
            try:
                async with slots:
                    record, problem = await self.stores.progress(job.iteration, job.stage, job.shards)
                self._tell(job, record)
            except StoreError as error:
                failed.append(error)
                return
            except Exception as error:
                log.exception("progress of %s", job.name)
                problem = f"{type(error).__name__}: {error}"
            if self.memory.unreadable.get(job.name, "") != problem:
                self.memory.unreadable[job.name] = problem
                self.enqueue(job.iteration)

        await asyncio.gather(*(one(j) for j in running))
        if failed:
            raise failed[0]

    def _tell(self, job: JobView, record: ProgressRecord | None) -> None:
        # What an earlier attempt has written says nothing about this one.
        if record is None or record.updated < (job.started or job.created):
            return
        if noticeable(self._shown.get(job.name), record):
            self._shown[job.name] = ItemsStatus(done=record.done, total=record.total)
            self.memory.progress.setdefault(job.iteration, {})[job.stage] = record
            self.enqueue(job.iteration)

    def pause(self, seconds: float) -> float:
        """Seconds between rounds: longer, the more Jobs there are."""
        return max(seconds, SECONDS_PER_HUNDRED * len(self.running()) / 100)


@dataclass
class Aliases:
    """Keeps an eye on the aliases that running iterations will move."""

    tracking: TrackingServer
    cache: Cache
    memory: Memory
    enqueue: Callable[[str], None]

    async def round(self) -> None:
        """Looks once at every alias, for all of its iterations together."""
        if not self.tracking.uri:
            return
        users: dict[tuple[str, str], list[str]] = {}
        for view in self.cache.iterations.items.values():
            if view.outcome in ("Running", "Suspended"):
                users.setdefault((view.model, view.alias), []).append(view.name)
        for gone in self.memory.aliases.keys() - users.keys():
            del self.memory.aliases[gone]
        for key, names in users.items():
            try:
                version = await self.tracking.alias(*key)
            except Exception:
                log.exception("alias %s of model %s", key[1], key[0])
                continue
            if version is not None and self.memory.aliases.get(key) != version:
                self.memory.aliases[key] = version
                for name in names:
                    self.enqueue(name)


@dataclass
class Sweep:
    """Compares what is known with what there is. A watch that was cut for long tells of what is there, not of what has
    been deleted meanwhile."""

    api: Api
    #: What is known of each kind, the selector of those that concern us, and which of the known ones are of that kind.
    kinds: dict[str, tuple[Kind, str, Callable[[Any], bool]]]  # type: ignore[type-arg]
    deleted: Callable[[str, str, str], None]

    async def wait_until_known(self) -> None:
        """Returns once everything that there is now is known."""
        while True:
            try:
                for plural, (kind, selector, _) in self.kinds.items():
                    there = await self.api.existing(plural, selector)
                    async with asyncio.timeout(10):
                        await kind.has(there)
                return
            except TimeoutError:
                log.info("objects went while they were being read; looking again")

    async def round(self) -> None:
        """Forgets what is gone."""
        metrics.RELISTS.inc()
        for plural, (kind, selector, concerns) in self.kinds.items():
            known = {name: view.uid for name, view in kind.items.items() if concerns(view)}
            there = await self.api.existing(plural, selector)
            for name, uid in known.items():
                if there.get(name) != uid and (view := kind.items.get(name)) is not None and view.uid == uid:
                    self.deleted(plural, name, uid)
