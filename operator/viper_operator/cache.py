"""Everything the operator has seen, by what it is asked for. Written by watches and by the answers to own writes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from viper_operator.views import IterationView, JobView, LoopView, Meta, ProfileView, readable

View = TypeVar("View", bound=Meta)


class Kind(Generic[View]):
    """Objects of one kind by name. Older versions than the one that is known are ignored: a watch may lag behind what
    the operator itself has written."""

    def __init__(self, read: Callable[[dict[str, Any]], View]) -> None:
        self.read = read
        self.items: dict[str, View] = {}
        self._arrived = asyncio.Event()

    def put(self, body: dict[str, Any]) -> View | None:
        """The view of it when it was news; of one that cannot be read, what can, with its `problem`."""
        view = readable(self.read, body)
        known = self.items.get(view.name)
        if known is not None and known.uid == view.uid and known.version >= view.version:
            return None
        self.items[view.name] = view
        self._arrived.set()
        return view

    def drop(self, name: str, uid: str) -> View | None:
        """What was known of a deleted object; None when another one has its name now."""
        known = self.items.get(name)
        if known is None or known.uid != uid:
            return None
        self._arrived.set()
        return self.items.pop(name)

    async def has(self, names: Iterable[str]) -> None:
        """Returns once all of these are known."""
        while any(name not in self.items for name in names):
            self._arrived.clear()
            await self._arrived.wait()


@dataclass
class Cache:
    """The kinds, and indexes over them."""

    iterations: Kind[IterationView] = field(default_factory=lambda: Kind(IterationView.of))
    loops: Kind[LoopView] = field(default_factory=lambda: Kind(LoopView.of))
    profiles: Kind[ProfileView] = field(default_factory=lambda: Kind(ProfileView.of))
    jobs: Kind[JobView] = field(default_factory=lambda: Kind(JobView.of))
    _jobs_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _training: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: Iterations that wait for others of their model, in the order in which they came.
    _waiting: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    #: Models by the iteration that is about to train them: its Job has been asked for and is not known yet.
    _claims: dict[str, str] = field(default_factory=dict)

    # ---- Jobs --------------------------------------------------------------------------------------------------

    def put_job(self, body: dict[str, Any]) -> JobView | None:
        """The view of it when it was news. One without an `owner` is known, and belongs to nothing."""
        before = self.jobs.items.get(body["metadata"]["name"])
        job = self.jobs.put(body)
        if job is not None and before is not None:
            self._forget(before)
        if job is not None and job.owner:
            self._jobs_of[job.iteration].add(job.name)
            if job.trains:
                self._training[job.model].add(job.name)
        return job

    def drop_job(self, name: str, uid: str) -> JobView | None:
        """What was known of a deleted Job."""
        job = self.jobs.drop(name, uid)
        if job is not None:
            self._forget(job)
        return job

    def _forget(self, job: JobView) -> None:
        self._jobs_of[job.iteration].discard(job.name)
        if not self._jobs_of[job.iteration]:
            del self._jobs_of[job.iteration]
        self._training[job.model].discard(job.name)
        if not self._training[job.model]:
            del self._training[job.model]

    def jobs_of(self, iteration: Meta) -> list[JobView]:
        """The Jobs of this very iteration; those of a deleted one of the same name are not."""
        names = self._jobs_of.get(iteration.name, ())
        return [job for n in names if (job := self.jobs.items[n]).owner == iteration.uid]

    def owned_jobs(self) -> list[JobView]:
        """The Jobs of iterations that are there."""
        iterations = self.iterations.items
        return [
            job
            for job in self.jobs.items.values()
            if job.owner and (one := iterations.get(job.iteration)) is not None and one.uid == job.owner
        ]

    # ---- one training at a time --------------------------------------------------------------------------------

    def trainer(self, model: str, besides: str) -> str | None:
        """Another iteration that trains this model now, or is about to."""
        claimed = self._claims.get(model)
        if claimed is not None and claimed != besides:
            return claimed
        for name in self._training.get(model, ()):
            job = self.jobs.items[name]
            # Also one that is being suspended or deleted: its pods may still train.
            if (job.working or (job.active and not job.finished)) and job.iteration != besides:
                return job.iteration
        return None

    def claim(self, model: str, iteration: str) -> None:
        """From now on `trainer` names this iteration; call it without waiting in between."""
        self._claims[model] = iteration
        self._waiting[model].pop(iteration, None)

    def unclaim(self, model: str, iteration: str) -> None:
        """The Job is known, or could not be made."""
        if self._claims.get(model) == iteration:
            del self._claims[model]

    def wait_for_model(self, model: str, iteration: str) -> None:
        """Remembers that an iteration wants to train this model."""
        self._waiting[model].setdefault(iteration, None)

    def next_for_model(self, model: str, at_most: int = 3) -> list[str]:
        """Who has waited longest. More than one: the first may have been suspended meanwhile."""
        waiting = self._waiting.get(model, {})
        for name in [n for n in waiting if (i := self.iterations.items.get(n)) is None or i.settled]:
            del waiting[name]
        return list(waiting)[:at_most]

    # ---- iterations --------------------------------------------------------------------------------------------

    def by_profile(self, profile: str) -> list[str]:
        """Iterations that refer to a profile and have not ended."""
        return [i.name for i in self.iterations.items.values() if i.profile_ref == profile and not i.settled]

    def profile_of(self, iteration: str) -> str:
        """The profile that an iteration refers to; empty when it has one of its own."""
        view = self.iterations.items.get(iteration)
        return "" if view is None else view.profile_ref

    def by_loop(self, loop: str) -> list[IterationView]:
        """Iterations of a loop."""
        return [i for i in self.iterations.items.values() if i.loop == loop]
