"""What no watch tells: pods that cannot run, progress, aliases, and objects that vanished while a watch was cut.

One of each for everything, at a bounded rate; none per resource.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from viper.errors import StoreError
from viper.spec.status import ItemsStatus
from viper.stage.progress import ProgressRecord
from viper_operator import metrics
from viper_operator.aliases import FRESH_SECONDS, AliasSeen
from viper_operator.api import Api, ApiError
from viper_operator.cache import Cache, Kind
from viper_operator.memory import Memory
from viper_operator.names import SELECTOR
from viper_operator.observed import PodReport, Problem, belongs, pod_report
from viper_operator.status import items_of, noticeable
from viper_operator.stores import Stores
from viper_operator.tracking import TrackingServer
from viper_operator.troubles import STARTING, last_word, remembered
from viper_operator.views import IterationView, JobView

log = logging.getLogger(__name__)

#: Seconds that a Job may take to have its pods ready before anybody looks why.
PATIENCE = 10.0
#: Jobs and pods that say nothing themselves whose Events are read in one round.
EVENTS_AT_ONCE = 20
#: Seconds after which progress is told that is less than a twentieth further.
OLD_SECONDS = 9.0
#: Reads of progress at a time, and seconds a round takes at least for each hundred Jobs.
READS, SECONDS_PER_HUNDRED = 4, 10.0
#: Seconds between rounds where nobody can say how many they should be.
LONG_PAUSE = 30.0
#: Seconds between questions to a store that was down.
STORE_SECONDS = 10.0
#: Seconds between looks at the aliases, and a second for as many more.
ALIAS_SECONDS, ALIASES_A_SECOND = 5.0, 20


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
        self.memory.forget(self.cache)
        suspects = {j.uid: j for j in self.suspects()}
        found = await self._found(suspects) if suspects else {}
        before = self.memory.problems
        self.memory.problems = remembered(before, suspects, found)
        for uid, problem in self.memory.problems.items():
            if before.get(uid, ...) != problem:
                self.enqueue(suspects[uid].iteration)

    async def _found(self, suspects: Mapping[str, JobView]) -> dict[str, Problem]:
        """By Job, what is wrong: what its pods say, else the last word of Events about them, or about itself."""
        found: dict[str, Problem] = {}
        starting: list[tuple[str, PodReport]] = []
        by_name = {j.name: j for j in suspects.values()}
        async for body in self.api.pods(SELECTOR, "status.phase=Pending"):
            try:
                report = pod_report(body)
            except Exception:
                log.exception("a pod cannot be read")
                continue
            job = by_name.get(report.job)
            if job is None or not belongs(report, job):
                continue
            if report.problem is not None:
                found.setdefault(job.uid, report.problem)
            else:
                starting.append((job.uid, report))
        silent = [(uid, r.uid, r.created) for uid, r in starting if uid not in found]
        podless = [j for j in suspects.values() if not j.active and not j.ending and j.uid not in found]
        silent += [(j.uid, j.uid, j.started or j.created) for j in podless]
        for uid, about, since in silent[:EVENTS_AT_ONCE]:
            try:
                told = last_word([e async for e in self.api.events_of(about)], about, since)
            except ApiError as error:
                log.warning("Events of a Job of %s: %s", suspects[uid].iteration, error)
                continue
            if told is not None:
                found.setdefault(uid, told)
        for uid, _ in starting:
            found.setdefault(uid, Problem(STARTING, ""))
        return found

    def suspects(self) -> list[JobView]:
        """Jobs that should have been ready by now."""
        now = self.clock()
        return [
            j
            for j in self.cache.owned_jobs()
            if j.working
            and not j.suspended
            and (j.ready < j.active or not j.active)
            and not j.ending
            and now - (j.started or j.created) > PATIENCE
        ]


@dataclass
class Progress:
    """Reads how far running stages are, and has it told when a person would notice the difference."""

    stores: Stores
    cache: Cache
    memory: Memory
    enqueue: Callable[[str], None]
    clock: Callable[[], float] = time.time
    #: By uid of the Job, what was told last, and when.
    _shown: dict[str, tuple[ItemsStatus, float]] = field(default_factory=dict)

    def running(self) -> list[JobView]:
        """Jobs with a pod at work."""
        return [j for j in self.cache.owned_jobs() if j.working and j.ready]

    async def round(self) -> None:
        """Reads once. What goes wrong with one Job is that one's; a store that is down is said once."""
        running = self.running()
        alive = {j.uid for j in running}
        self._shown = {uid: i for uid, i in self._shown.items() if uid in alive}
        for uid in [u for u in self.memory.unreadable if u not in alive]:
            del self.memory.unreadable[uid]
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
            if self.memory.unreadable.get(job.uid, "") != problem:
                self.memory.unreadable[job.uid] = problem
                self.enqueue(job.iteration)

        await asyncio.gather(*(one(j) for j in running))
        if failed:
            raise failed[0]

    def _tell(self, job: JobView, record: ProgressRecord | None) -> None:
        # What an earlier attempt has written says nothing about this one.
        if record is None or record.updated < (job.started or job.created):
            return
        now = self.clock()
        shown, at = self._shown.get(job.uid, (None, now))
        # While few Jobs run nobody reads old figures; with many there is a write a second for all of them together.
        old = now - at >= max(OLD_SECONDS, len(self._shown)) and shown is not None and shown.done != record.done
        if old or noticeable(shown, record):
            self._shown[job.uid] = (items_of(record), now)
            self.memory.progress.setdefault(job.iteration, {})[job.stage] = record
            self.enqueue(job.iteration)

    def pause(self, seconds: float) -> float:
        """Seconds between rounds: longer, the more Jobs there are."""
        return max(seconds, SECONDS_PER_HUNDRED * len(self.running()) / 100)


@dataclass
class Unread:
    """Has iterations of which the store told nothing looked at as soon as it answers: each by itself waits for up to a
    minute, and would be said to be unread for as long."""

    stores: Stores
    memory: Memory
    enqueue: Callable[[str], None]

    async def round(self) -> None:
        """Asks once for all of them; nothing where there are none."""
        if not self.memory.unread:
            return
        try:
            await self.stores.answers()
        except StoreError:
            return  # which is said of each of them
        names, self.memory.unread = self.memory.unread, set()
        for name in sorted(names):
            self.enqueue(name)


@dataclass
class Aliases:
    """Keeps an eye on the aliases that running iterations will move, and loops wait for."""

    tracking: TrackingServer
    cache: Cache
    memory: Memory
    enqueue: Callable[[str], None]
    enqueue_loop: Callable[[str], None] = lambda name: None
    clock: Callable[[], float] = time.time

    async def round(self) -> None:
        """Looks once at every alias, for all of its iterations and loops together."""
        if not self.tracking.uri:
            return
        iterations: dict[tuple[str, str], list[IterationView]] = {}
        for view in self.cache.iterations.items.values():
            if view.outcome in ("Running", "Suspended"):
                iterations.setdefault((view.model, view.alias), []).append(view)
        loops: dict[tuple[str, str], list[str]] = {}
        for name, key in self.memory.waiting.items():
            loops.setdefault(key, []).append(name)
        wanted = {**iterations, **loops}
        for gone in self.memory.aliases.keys() - wanted.keys():
            del self.memory.aliases[gone]
        for key in wanted:
            old = self.memory.aliases.get(key)
            try:
                seen = await self.tracking.alias(*key)
            except Exception:
                log.exception("alias %s of model %s", key[1], key[0])
                continue
            if seen is None and (seen := self._silent(old)) is None:
                continue
            self.memory.aliases[key] = seen
            news = old is None or (old.version, old.known) != (seen.version, seen.known)
            for view in iterations.get(key, ()):
                begun = self.memory.begun.get(view.uid)
                if news or (old is not None and begun is not None and begun.at >= old.at):
                    self.enqueue(view.name)
            for name in loops.get(key, ()) if news else ():
                self.enqueue_loop(name)

    def _silent(self, old: AliasSeen | None) -> AliasSeen | None:
        """What is known of an alias when the registry says nothing: after a while, nothing."""
        now = self.clock()
        if old is not None and (not old.known or now - old.at <= FRESH_SECONDS):
            return None
        return AliasSeen(None if old is None else old.version, now, known=False)

    def pause(self) -> float:
        """Seconds between rounds: longer, the more aliases there are."""
        return max(ALIAS_SECONDS, len(self.memory.aliases) / ALIASES_A_SECOND)


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
