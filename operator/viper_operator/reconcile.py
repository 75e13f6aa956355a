"""One iteration: what is observed, what the brain makes of it, what is written. The same whatever happened before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from viper.errors import NewerFormError, StoreError
from viper.methods.stages import FREEZE, FREEZING, StageNode, making
from viper.plan import Done, Observed, ObservedStage, Plan, plan
from viper.spec import ViperIteration
from viper.spec.status import IterationStatus
from viper.stage.frozen import FrozenIteration
from viper.store import child_uri
from viper_operator import metrics
from viper_operator.aliases import GENERATOR_CURRENT, Begun, claim, is_news, promoting
from viper_operator.cache import Cache
from viper_operator.decide import Decision, decide, left_over, quiet
from viper_operator.events import events
from viper_operator.job_specs import JobRequest
from viper_operator.memory import Memory
from viper_operator.observed import (
    JOB_OF_POD,
    PodReport,
    belongs,
    current_jobs,
    last_exits,
    pod_report,
    shards_of,
)
from viper_operator.settings import Settings
from viper_operator.specs import KIND, SpecProblemError, iteration_of
from viper_operator.status import (
    INTERNAL_ERROR,
    ITERATION_MISSING,
    NEWER_VERSION,
    STORE_UNAVAILABLE,
    Facts,
    explained,
    is_other,
    iteration_status,
    with_progress,
)
from viper_operator.stores import LostError, Stores
from viper_operator.tracking import TrackingServer
from viper_operator.troubles import Attempts, at_rest
from viper_operator.views import FINISHED, IterationView, JobView
from viper_operator.writes import REFUSED_AGAIN, RefusedError, UnreadableError, Writer, complaint

log = logging.getLogger(__name__)

#: Seconds after which an iteration that waits for its model looks by itself; usually it is told before.
LOOK_AGAIN = 30.0


@dataclass(frozen=True)
class SeenIteration:
    """An iteration as it is now. `one`: the frozen resource, or the one that will be. `stored`: what manifests say.
    `reports`: what pods say, by Job."""

    view: IterationView
    one: ViperIteration
    frozen: FrozenIteration | None
    stored: Mapping[str, ObservedStage]
    reports: Mapping[str, list[PodReport]]

    def node(self, stage: str) -> StageNode:
        """A stage of it. Before it is frozen there is only freezing."""
        return FREEZING if stage == FREEZE or self.frozen is None else self.frozen.node(stage)


@dataclass
class IterationReconciler:
    """`reconcile(name)` brings an iteration one step further and returns after how many seconds to ask again, None when
    something else will say so. When it raises, it is to be asked again later: what a store or the API server does not
    do now (`StoreError`, `ApiError`), and anything else. What is not over soon the status says: `StoreUnavailable`,
    `KubernetesError`, `InternalError`."""

    settings: Settings
    cache: Cache
    writer: Writer
    stores: Stores
    tracking: TrackingServer
    memory: Memory
    #: Whether other iterations have no Job yet.
    hurry: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time

    async def reconcile(self, name: str) -> float | None:
        view = self.cache.iterations.items.get(name)
        if view is None or view.deleting:
            return None
        try:
            return await self._look(view)
        except Exception as error:
            if not view.settled and (said := complaint(error)) is not None:
                await self._complain(view, error, *said)
            raise

    async def _complain(self, view: IterationView, error: Exception, reason: str, message: str) -> None:
        """Says that this iteration does not go on, and why. The others do."""
        try:
            # As it is known now: what went wrong may be the second write of two.
            view = self.cache.iterations.items.get(view.name, view)
            previous = view.status()
            facts = self._facts(view, previous)
            internal = error if reason == INTERNAL_ERROR else None
            await self._write(view, previous, explained(previous, reason, message, facts, internal=internal))
        except Exception:
            log.exception("iteration %s: what went wrong cannot be said in its status", view.name)

    async def _look(self, view: IterationView) -> float | None:
        if view.settled and not await self._corrected(view):
            await self._settled(view)
            return None
        if view.problem:
            raise UnreadableError(view.problem)
        name, previous = view.name, view.status()
        if view.settled:
            previous = self._anew(view, previous)
        trainer = partial(self.cache.trainer, view.model, name)
        known = self.cache.jobs_of(view)
        if odd := next((j for j in known if j.problem), None):
            raise UnreadableError(f"{odd.kind} {odd.name}: {odd.problem}")
        if quiet(
            view,
            previous,
            known,
            self._facts(view, previous),
            rested=self.memory.rested,
            alias_news=self._alias_news(view, previous),
            trainer=trainer,
        ):
            await self._tell_progress(view, previous)
            return LOOK_AGAIN if self._waits(view, previous) else None
        try:
            return await self._step(view, previous)
        except (SpecProblemError, RefusedError) as error:
            explained = self._explained(view, previous, error.reason, str(error), failed=error.permanent)
            await self._write(view, previous, explained)
            return REFUSED_AGAIN if isinstance(error, RefusedError) and not error.permanent else None
        except StoreError as error:
            await self._cannot_read(view, previous, error)
            if isinstance(error, NewerFormError):  # an operator of that release goes on with it
                return REFUSED_AGAIN
            raise

    async def _cannot_read(self, view: IterationView, previous: IterationStatus, error: StoreError) -> None:
        """Says why the store tells nothing of it. Nothing is lost, and suspending needs nothing from the store."""
        reason, said = STORE_UNAVAILABLE, error.what
        if isinstance(error, NewerFormError):
            reason, said = NEWER_VERSION, str(error)
        else:
            metrics.STORE_ERRORS.inc()
        if isinstance(error, LostError):
            reason = ITERATION_MISSING
        if reason == STORE_UNAVAILABLE:
            self.memory.unread.add(view.name)
        if view.suspend:
            for job in self.cache.jobs_of(view):
                if job.working and not job.queued:
                    await self.writer.suspend_job(job, self.clock())
        await self._write(view, previous, self._explained(view, previous, reason, said))

    # ---- observe, plan, act ------------------------------------------------------------------------------------

    async def _step(self, view: IterationView, previous: IterationStatus) -> float | None:
        retry = max(view.retry, previous.retries)
        now = self.clock()
        jobs = current_jobs(self.cache.jobs_of(view), retry)
        frozen = await self._frozen(view, previous, jobs)
        one = self._as_written(view) if frozen is None else frozen.iteration
        stored = await self._stored(view, previous, frozen)
        for job in jobs.values():
            (self.memory.rested.add if at_rest(job) else self.memory.rested.discard)(job.uid)
        reports = await self._reports(jobs, stored)
        seen = SeenIteration(view, one, frozen, stored, reports)
        made = self._plan(seen, jobs, now)
        decision = decide(
            made,
            jobs,
            suspended=view.suspend,
            trainer=partial(self.cache.trainer, view.model, view.name),
            now=now,
            known=self.cache.jobs_of(view),
        )
        if await self._carry_out(seen, decision, retry, now):
            if not previous.outcome and self.hurry():
                return 0.0  # when many come at once, their first Jobs come before words about any of them
            jobs = current_jobs(self.cache.jobs_of(view), retry)
            made = self._plan(seen, jobs, now)
        facts = replace(
            self._facts(view, previous),
            now=now,
            jobs=jobs,
            frozen=frozen,
            blocked=decision.blocked,
            progress=self.memory.progress.pop(view.name, {}),
            alias=claim(self.memory.begun.get(view.uid), self.memory.aliases.get((view.model, view.alias)), now),
        )
        new = iteration_status(made, facts, previous)
        await self._write(view, previous, new, frozen)
        if decision.blocked:
            self.cache.wait_for_model(view.model, view.name)
            return LOOK_AGAIN
        return None if decision.wake_at is None else max(decision.wake_at - self.clock(), 0.1)

    async def _frozen(
        self, view: IterationView, previous: IterationStatus, jobs: Mapping[str, JobView]
    ) -> FrozenIteration | None:
        """The frozen iteration, once its Job has said that it is this one's.

        The Job compares it with the spec: a store may hold an iteration of this name with another one.
        """
        said = any(s.name == FREEZE and s.state == "Succeeded" for s in previous.stages)
        job = jobs.get(FREEZE)
        if not said and (job is None or not job.complete):
            return None
        found = await self.stores.frozen(view.uid, view.name)
        if found is None and said:
            await self.stores.check(view.name)
        if found is not None:
            policy = found.iteration.spec.promotion.policy
            deciding = frozenset(n.name for n in making(found.nodes, "decision"))
            self.memory.begun.setdefault(view.uid, Begun(found.alias_version, self.clock(), policy, deciding))
        return found

    def _alias_news(self, view: IterationView, status: IterationStatus) -> bool:
        """Whether more can be said of the alias than the status says."""
        seen = self.memory.aliases.get((view.model, view.alias))
        if seen is None or not any(s.name == FREEZE and s.state == "Succeeded" for s in status.stages):
            return False
        begun = self.memory.begun.get(view.uid)
        if begun is None:  # what it began from is in the store
            return True
        if promoting(status.stages, begun.deciding):
            return False
        said = next((c for c in status.conditions if c.type == GENERATOR_CURRENT), None)
        return is_news(claim(begun, seen, self.clock()), said)

    async def _stored(
        self, view: IterationView, previous: IterationStatus, frozen: FrozenIteration | None
    ) -> dict[str, ObservedStage]:
        if frozen is None:
            return {}
        stages = await self.stores.stages(view.uid)
        done = [s.name for s in previous.stages if s.state == "Succeeded" and s.name in stages]
        if any(stages[name].done is None for name in done):
            await self.stores.check(view.name)
        model = frozen.generator
        what = model.uri if model.version is None else f"version {model.version} of {model.model}"
        return {FREEZE: ObservedStage(done=Done(headline=f"generator is {what}")), **stages}

    async def _reports(
        self, jobs: Mapping[str, JobView], stored: Mapping[str, ObservedStage]
    ) -> dict[str, list[PodReport]]:
        """What pods say of Jobs that have failed, or had attempts that did, of which nobody has heard yet."""
        found: dict[str, list[PodReport]] = {}
        for stage, job in jobs.items():
            if stored.get(stage, ObservedStage()).done is not None:
                continue
            known = self.memory.attempts.get(job.uid)
            news = job.failures > 0 and (known is None or known.failed != job.failures)
            if job.failed or (job.working and news):
                said_by = [pod_report(p) async for p in self.writer.api.pods(f"{JOB_OF_POD}={job.name}")]
                reports = found[job.name] = [r for r in said_by if belongs(r, job)]
                ends = last_exits(job, reports).values()
                if ends:
                    last = max(ends, key=lambda e: e.at)
                    text = ": ".join(t for t in (last.reason, last.message) if t) or f"exit status {last.code}"
                    self.memory.attempts[job.uid] = Attempts(job.failures, text)
        return found

    def _plan(self, seen: SeenIteration, jobs: Mapping[str, JobView], now: float) -> Plan:
        spec = seen.one.spec
        stages = dict(seen.stored)
        for stage, job in jobs.items():
            known = stages.get(stage, ObservedStage())
            shards = shards_of(job, seen.reports.get(job.name, ()), retries=spec.profile.of(stage).retries, now=now)
            stages[stage] = ObservedStage(shards, known.done, known.problem)
        nodes = () if seen.frozen is None else seen.frozen.nodes
        return plan(spec, Observed(stages, suspend=seen.view.suspend, nodes=nodes), now, freeze=True)

    async def _carry_out(self, seen: SeenIteration, decision: Decision, retry: int, now: float) -> bool:
        """Whether anything was done."""
        for job in decision.suspend:
            await self.writer.suspend_job(job, now)
        for job in decision.delete:
            await self.writer.delete_job(job)
        for job in decision.resume:
            await self.writer.resume_job(job)
        done = bool(decision.suspend or decision.delete or decision.resume)
        for new in decision.create:
            stage = seen.node(new.stage).stage
            request = JobRequest(seen.one, seen.view.uid, stage, retry, new.attempt, new.seconds_before)
            done = await self._create(seen.view, request) or done
        return done

    async def _create(self, view: IterationView, request: JobRequest) -> bool:
        if request.stage.makes != "model":
            return await self.writer.create_job(request) is not None
        # Nothing else ran between the look at who trains and this line.
        self.cache.claim(view.model, view.name)
        try:
            return await self.writer.create_job(request) is not None
        finally:
            self.cache.unclaim(view.model, view.name)

    # ---- what is said --------------------------------------------------------------------------------------------

    async def _write(
        self,
        view: IterationView,
        previous: IterationStatus,
        new: IterationStatus,
        frozen: FrozenIteration | None = None,
    ) -> None:
        """Events, then the status that holds them back from being told again; nothing when nothing is new."""
        if new.dump() == previous.dump():
            return
        await self.writer.tell(KIND, view, events(previous, new))
        ended = new.outcome in FINISHED and new.outcome != previous.outcome
        if ended and frozen is not None:
            status = "FAILED" if new.outcome == "Failed" else "FINISHED"
            await self.tracking.finish_run(frozen.tracking.parent_run, status)
        body = await self.writer.status(KIND, view, new.dump())
        if body is not None:
            self.cache.iterations.put(body)
            metrics.count_ended(previous, new)
        if ended:
            self.stores.forget(view.uid)

    def _explained(
        self, view: IterationView, previous: IterationStatus, reason: str, message: str, *, failed: bool = False
    ) -> IterationStatus:
        return explained(previous, reason, message, self._facts(view, previous), failed=failed)

    def _facts(self, view: IterationView, previous: IterationStatus) -> Facts:
        """What a status is made from, without its Jobs and what the store says."""
        return Facts(
            generation=view.generation,
            retries=max(view.retry, previous.retries),
            now=self.clock(),
            store=child_uri(self.settings.store, f"iterations/{view.name}"),
            problems=self.memory.problems,
            attempts=self.memory.attempts,
            unreadable=self.memory.unreadable,
        )

    def _as_written(self, view: IterationView) -> ViperIteration:
        return iteration_of(view.body(), self.cache.profiles.items, self.settings.namespace)

    async def _corrected(self, view: IterationView) -> bool:
        """Whether a failed iteration has another spec now, and nothing was made of the one that failed.

        Not what a profile says now, where the iteration names one: it is looked at when somebody asks for it.
        """
        if view.outcome != "Failed" or view.observed_generation >= view.generation or view.problem or view.suspend:
            return False
        frozen, data = await self.stores.begun(view.name)
        if frozen is None or data:
            return frozen is None
        try:
            wanted = self._as_written(view).spec
        except SpecProblemError:
            return True  # which is said then
        return frozen.iteration.spec.dump() != wanted.model_copy(update={"suspend": False}).dump()

    def _anew(self, view: IterationView, previous: IterationStatus) -> IterationStatus:
        """The status to go on from when the spec was corrected: its Jobs are those of a further retry."""
        self.stores.forget(view.uid)
        self.memory.begun.pop(view.uid, None)
        kept = [s for s in previous.stages if s.name != FREEZE]
        return previous.model_copy(
            update={"retries": previous.retries + 1, "stages": kept, "generator": None, "outcome": None}
        )

    async def _settled(self, view: IterationView) -> None:
        """An iteration that has ended stays as it is; only that its spec was read is said."""
        self.stores.forget(view.uid)
        for job in left_over(self.cache.jobs_of(view), {}):
            await self.writer.delete_job(job)
        if view.observed_generation != view.generation:
            # As it stands there, whoever wrote it.
            status = {**view.body().get("status", {}), "observedGeneration": view.generation}
            body = await self.writer.status(KIND, view, status)
            if body is not None:
                self.cache.iterations.put(body)

    async def _tell_progress(self, view: IterationView, previous: IterationStatus) -> None:
        records = self.memory.progress.pop(view.name, {})
        shown = {s.name: s.items for s in previous.stages}
        # What is in the status already may be news to a process that has just started.
        news = {name: r for name, r in records.items() if is_other(shown.get(name), r)}
        if news:
            await self._write(view, previous, with_progress(previous, news))

    def _waits(self, view: IterationView, previous: IterationStatus) -> bool:
        waits = any(s.state == "Pending" and s.reason == "WaitsForModel" for s in previous.stages)
        if waits:
            self.cache.wait_for_model(view.model, view.name)
        return waits
