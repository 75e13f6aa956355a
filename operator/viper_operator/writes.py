"""What the operator writes, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from viper.digests import digest_of
from viper.errors import SpecError, StoreError
from viper.methods.stages import stage_graph
from viper.spec.pod_fields import hint
from viper_operator.api import GROUPS, Api, ApiError
from viper_operator.cache import Cache
from viper_operator.events import Event
from viper_operator.job_specs import JobRequest, stage_job, stage_service
from viper_operator.metrics import STAGES_STARTED
from viper_operator.names import API_VERSION, MANAGER, SECONDS_BEFORE, SUSPEND_MANAGER
from viper_operator.observed import shortened
from viper_operator.pod_templates import checked_job
from viper_operator.settings import Settings
from viper_operator.status import INTERNAL_ERROR, KUBERNETES_ERROR
from viper_operator.views import JobView, Resource

log = logging.getLogger(__name__)

#: Seconds for which a status waits for the Events before it; and for how long it waits no more once one was late.
EVENT_SECONDS, EVENTS_LATE_SECONDS = 2.0, 60.0
#: Rounds of Events that may be under way at a time; those of further ones are only in the log.
MOST_EVENTS = 256
#: Profiles that are remembered as ones that the API server takes.
MOST_TRIED = 4096


class RefusedError(Exception):
    """A child cannot be made. `permanent`: not before a person has done something about it."""

    def __init__(self, reason: str, message: str, *, permanent: bool) -> None:
        self.reason, self.permanent = reason, permanent
        super().__init__(message)


class UnreadableError(Exception):
    """An object of the API cannot be read."""


#: Answers of the API server to what cannot be, however often it is asked: our own fault, not its.
NEVER = (400, 413, 422)
#: Answers of one that is away or busy (0: none), or where somebody else was writing: nothing is said of what was asked.
AWAY = (0, 409, 429, 502, 503, 504)
#: Characters of an error's text that a status keeps.
LONGEST = 1000
#: Seconds after which what a quota, a policy or a rule of the API server forbids is asked for again.
REFUSED_AGAIN = 60.0


def is_internal(error: Exception) -> bool:
    """Whether an error says that something is not understood, and not that somebody else is down or busy."""
    if isinstance(error, ApiError):
        return error.status in NEVER
    return not isinstance(error, StoreError)


def why(error: Exception) -> str:
    """An error as a status says it, in one line."""
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"this cannot be understood; the operator tries again, others go on: {shortened(said, LONGEST)}"


def complaint(error: Exception) -> tuple[str, str] | None:
    """Reason and message by which the status of a resource says that something went wrong with it; None where somebody
    is away or busy, which is told elsewhere, and over soon."""
    if is_internal(error):
        return INTERNAL_ERROR, why(error)
    if isinstance(error, ApiError) and error.status not in AWAY:
        text = shortened(" ".join(str(error).split()), LONGEST)
        return KUBERNETES_ERROR, f"the API server does not do what the operator asks, which tries again: {text}"
    return None


class Writer:
    """Writes children, statuses and Events; the answers go into the cache, so that what was written is seen at once."""

    def __init__(
        self, api: Api, cache: Cache, settings: Settings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.api, self.cache, self.settings, self._clock = api, cache, settings, clock
        self._telling: set[asyncio.Task[None]] = set()
        self._late_until = float("-inf")
        self._tried: set[str] = set()

    async def create_job(self, request: JobRequest) -> JobView | None:
        """Makes a Job; None while another one of its name is on its way out.

        Raises `RefusedError`, `ApiError`.
        """
        known = self.cache.jobs.items.get(request.name)
        if known is not None and (known.deleting or (known.owner and known.owner != request.uid)):
            return None
        if known is not None and not known.owner:
            raise _taken(request, "Job", request.name)
        by_reference = self.cache.profile_of(request.iteration.metadata.name)
        try:
            made, problems = checked_job(request, self.settings)
            if problems:
                raise RefusedError("PodTemplateRefused", problems, permanent=not by_reference)
            service = stage_service(request, self.settings)
        except SpecError as error:
            raise RefusedError("SpecTooLarge", str(error), permanent=not by_reference) from None
        if request.freezing:
            await self._try_stages(request, permanent=not by_reference)
        try:
            if service is not None:
                await self._make_service(request, service)
            body = await self.api.apply(made)
        except ApiError as error:
            if error.status in AWAY and error.status != 409:
                raise
            return await self._there(request, made, error)
        STAGES_STARTED.labels(request.stage.name).inc()
        return self._job(body)

    async def _try_stages(self, request: JobRequest, *, permanent: bool) -> None:
        """Raises `RefusedError` when the API server would not take a later stage's Job for what its profile writes
        freely: days of work before that stage would be lost.

        Quota and policies may be others by then, and an API server that is in trouble says so soon enough. What it took
        once is not asked again: a thousand iterations with one profile ask as much as one.
        """
        spec = request.iteration.spec
        stages = [node.stage for node in stage_graph(spec.recipe)]
        tried = digest_of([spec.profile.dump(), [stage.name for stage in stages]])
        if tried in self._tried:
            return
        taken = True
        for stage in stages:
            resources = spec.profile.of(stage.name)
            spread = any(c.label_selector is not None for c in resources.topology_spread_constraints)
            if resources.pod_template is None and resources.affinity is None and not spread:
                continue
            job = stage_job(replace(request, stage=stage), self.settings)
            # Of no Job that there is: one of the stage's name may be on its way out.
            name = f"try-{hashlib.sha256(f'{request.uid} {stage.name}'.encode()).hexdigest()[:16]}"
            try:
                await self.api.apply({**job, "metadata": {**job["metadata"], "name": name}}, dry_run=True)
            except ApiError as error:
                if error.status == 422:
                    message = refused(replace(request, stage=stage), error)
                    raise RefusedError("JobRefused", message, permanent=permanent) from None
                taken = False
        if not taken:
            return
        if len(self._tried) >= MOST_TRIED:
            self._tried.clear()
        self._tried.add(tried)

    async def _make_service(self, request: JobRequest, service: dict[str, Any]) -> None:
        """Raises `RefusedError` when one of its name is there that no iteration of this name owns."""
        there = await self.api.look(service)
        # The uid of an iteration that was deleted and applied again is another one; its Service serves both.
        if there is not None and not _owners(service) & _owners(there):
            raise _taken(request, "Service", service["metadata"]["name"])
        await self.api.apply(service, force=True)

    async def _there(self, request: JobRequest, made: dict[str, Any], refusal: ApiError) -> JobView | None:
        """The Job that was there before, as our own that a watch has not shown yet; or why there is none."""
        try:
            body = await self.api.get_job(request.name, made["kind"])
        except ApiError as error:
            if error.status != 404 or refusal.status == 409:
                raise refusal from None  # somebody else was writing: to be tried again
            # Never: the profile asks for something that cannot be. Else quota and policies (403), webhooks that do not
            # answer (500) and whatever there may be, which may change.
            raise RefusedError("JobRefused", refused(request, refusal), permanent=refusal.status in NEVER) from None
        job = JobView.of(body)
        if job.owner == request.uid:
            return self._job(body)
        if job.deleting or job.owner:
            return None  # of an iteration of the same name that was deleted
        raise _taken(request, "Job", request.name)

    async def suspend_job(self, job: JobView, now: float) -> JobView:
        """Stops a Job's pods; how long it was active stays with it."""
        notes = {SECONDS_BEFORE: f"{job.active_seconds(now):.0f}"}
        return await self._set_suspend(job, suspend=True, annotations=notes)

    async def resume_job(self, job: JobView) -> JobView:
        """Lets a Job go on."""
        notes = {SECONDS_BEFORE: f"{job.seconds_before:.0f}"} if job.seconds_before else {}
        return await self._set_suspend(job, suspend=False, annotations=notes)

    async def _set_suspend(self, job: JobView, *, suspend: bool, annotations: Mapping[str, str]) -> JobView:
        body = {
            "apiVersion": GROUPS[job.kind],
            "kind": job.kind,
            # With its uid, so that a Job that is gone is not made again from nothing.
            "metadata": {"name": job.name, "uid": job.uid, "annotations": dict(annotations)},
            "spec": {"suspend": suspend},
        }
        return self._job(await self.api.apply(body, manager=SUSPEND_MANAGER, force=True))

    async def delete_job(self, job: JobView) -> None:
        """Deletes a Job and its pods."""
        await self.api.delete_job(job.name, job.uid, job.kind)
        self.cache.jobs.items[job.name] = replace(job, deleting=True)

    def _job(self, body: dict[str, Any]) -> JobView:
        self.cache.put_job(body)
        return self.cache.jobs.items[body["metadata"]["name"]]

    async def status(self, kind: str, view: Resource, status: Mapping[str, Any]) -> dict[str, Any] | None:
        """Replaces the status of a resource; None when it is gone.

        409 is an `ApiError`, after which it is looked at again: another one has its name, or somebody else was writing.
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {"name": view.name, "uid": view.uid},
            "status": dict(status),
        }
        try:
            return await self.api.apply_status(body)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def tell(self, kind: str, view: Resource, found: Sequence[Event]) -> None:
        """Creates Events. Told again after a crash, they have the same names and so are not there twice.

        They come before the status that holds them back from being told again, but it does not depend on them: one that
        is refused is only in the log, and one that takes long goes on beside it.
        """
        bodies = self._events(kind, view, found)
        if not bodies:
            return
        if len(self._telling) >= MOST_EVENTS:
            log.warning("%d Events are not created: too many wait for the API server already", len(bodies))
            return
        task = asyncio.create_task(self._create_events(bodies))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)
        if self._clock() >= self._late_until:
            _, late = await asyncio.wait({task}, timeout=EVENT_SECONDS)
            if late:
                self._late_until = self._clock() + EVENTS_LATE_SECONDS

    async def _create_events(self, bodies: Sequence[dict[str, Any]]) -> None:
        for body in bodies:
            try:
                await self.api.create_event(body)
            except ApiError as error:
                log.warning("an Event is not created: %s", error)

    def _events(self, kind: str, view: Resource, found: Sequence[Event]) -> list[dict[str, Any]]:
        bodies = []
        for event in found:
            said = f"{view.uid} {event.once or view.version} {event.reason} {event.message}"
            digest = hashlib.sha256(said.encode()).hexdigest()[:16]
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            about = {kind.removeprefix("Viper").lower(): view.name, "reason": event.reason}
            log.info(event.message, extra=about)
            body = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{view.name}.{digest}", "namespace": self.settings.namespace},
                "involvedObject": {
                    "apiVersion": API_VERSION,
                    "kind": kind,
                    "name": view.name,
                    "namespace": self.settings.namespace,
                    "uid": view.uid,
                    "resourceVersion": str(view.version),
                },
                "type": event.type,
                "reason": event.reason,
                "message": event.message[:1024],
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
                "source": {"component": MANAGER},
                "reportingComponent": MANAGER,
                "reportingInstance": self.settings.identity,
            }
            bodies.append(body)
        return bodies


def refused(request: JobRequest, error: ApiError) -> str:
    """What is said of a Job that the API server does not take, with its words, and what a field that it does not know
    was meant to be."""
    meant = hint(str(error))
    return f"{request.stage.name}: the API server refuses the Job: {error}" + (f"; {meant}" if meant else "")


def _taken(request: JobRequest, kind: str, name: str) -> RefusedError:
    message = f"{request.stage.name}: a {kind} called {name} is there and belongs to somebody else; delete it"
    return RefusedError("NameTaken", message, permanent=False)


def _owners(body: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Who owns an object: API version, kind and name."""
    owners = body["metadata"].get("ownerReferences") or ()
    return {tuple(str(owner.get(key)) for key in ("apiVersion", "kind", "name")) for owner in owners}
