"""One loop: the next iteration is made when the one before allows it."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from viper.plan import Condition, LoopObserved, LoopPlan, plan_loop
from viper.spec import ViperLoop
from viper.spec.base import first_problem
from viper.spec.forms import STORED
from viper.spec.status import IterationStatus, LoopStatus
from viper.words import joined
from viper_operator.aliases import FRESH_SECONDS
from viper_operator.api import ApiError
from viper_operator.cache import Cache
from viper_operator.events import Event
from viper_operator.job_specs import owner_reference
from viper_operator.memory import Memory
from viper_operator.names import API_VERSION, LOOP, RETRY, SUSPEND_MANAGER
from viper_operator.settings import Settings
from viper_operator.status import INTERNAL_ERROR, KUBERNETES_ERROR, Facts, conditions
from viper_operator.tracking import TrackingServer
from viper_operator.views import IterationView, LoopView
from viper_operator.writes import AWAY, REFUSED_AGAIN, UnreadableError, Writer, complaint

log = logging.getLogger(__name__)

KIND = "ViperLoop"
#: Seconds after which a loop that waits for an alias looks by itself; usually it is told before.
LOOK_AGAIN = 30.0
#: Why a loop stops whose next iteration the API server does not take.
ITERATION_REFUSED = "IterationRefused"


@dataclass(frozen=True)
class SeenLoop:
    """A loop as it is now, with its iterations in order and the GPU-seconds they have used."""

    view: LoopView
    body: dict[str, Any]
    loop: ViperLoop
    previous: LoopStatus
    iterations: Sequence[IterationView]
    observed: Sequence[LoopObserved]
    spent: float


@dataclass
class LoopReconciler:
    """`reconcile(name)` brings a loop one step further; returns when it wants to be asked again. When it raises, it is
    to be asked again later: `ApiError`, and anything else, of which the status says `InternalError`."""

    settings: Settings
    cache: Cache
    writer: Writer
    tracking: TrackingServer
    memory: Memory
    #: Has an iteration looked at; a watch says nothing new of what was written here.
    look_at: Callable[[str], None]
    clock: Callable[[], float] = time.time

    async def reconcile(self, name: str) -> float | None:
        view = self.cache.loops.items.get(name)
        if view is None or view.deleting:
            return None
        try:
            return await self._look(view)
        except Exception as error:
            if (said := complaint(error)) is not None:
                await self._complain(view, error, *said)
            raise

    async def _complain(self, view: LoopView, error: Exception, reason: str, message: str) -> None:
        """Says that this loop does not go on, and why. The others do."""
        try:
            previous = view.status()
            facts = Facts(view.generation, 0, self.clock(), "")
            found = [Condition("Succeeded", "Unknown", reason, message)]
            if reason == INTERNAL_ERROR:
                found.append(Condition(INTERNAL_ERROR, "True", type(error).__name__, message))
            said = {"conditions": conditions(found, facts, previous.conditions)}
            await self._write(view, previous, previous.model_copy(update=said))
        except Exception:
            log.exception("loop %s: what went wrong cannot be said in its status", view.name)

    async def _look(self, view: LoopView) -> float | None:
        if view.problem:
            raise UnreadableError(view.problem)
        body, previous = view.body(), view.status()
        try:
            loop = _loop(body)
        except ValidationError as error:
            await self._write(view, previous, self._invalid(view, previous, first_problem(error)))
            return None
        iterations = self._iterations(view, loop)
        statuses = [i.status() for i in iterations]
        spent = sum(s.gpu_seconds for s in statuses)
        observed = [await self._observed(loop, i, s) for i, s in zip(iterations, statuses, strict=True)]
        seen = SeenLoop(view, body, loop, previous, iterations, observed, spent)
        decided = await self._act(seen, plan_loop(loop.spec, observed, spent))
        await self._write(view, previous, self._status(seen, decided))
        if decided.condition.reason in ("WaitingForPromotion", "IterationHeld") and self.tracking.uri:
            self.memory.waiting[view.name] = _alias(loop)
            return LOOK_AGAIN
        self.memory.waiting.pop(view.name, None)
        return REFUSED_AGAIN if decided.condition.reason == ITERATION_REFUSED else None

    def _iterations(self, view: LoopView, loop: ViperLoop) -> list[IterationView]:
        """The iterations so far, in order, without gaps."""
        found = []
        for number in range(1, loop.spec.iterations + 1):
            one = self.cache.iterations.items.get(f"{view.name}-{number}")
            if one is None or one.loop != view.name:
                break
            found.append(one)
        return found

    async def _observed(self, loop: ViperLoop, view: IterationView, status: IterationStatus) -> LoopObserved:
        template = loop.spec.template
        message = status.conditions[0].message if status.conditions else ""
        outcome = view.outcome.lower() if view.settled else "running"
        alias = None
        if outcome in ("registered", "held") and status.version is not None and template.promotion.policy != "Never":
            seen = self.memory.aliases.get(_alias(loop))
            if seen is None or not seen.known or self.clock() - seen.at > FRESH_SECONDS:
                seen = await self.tracking.alias(*_alias(loop))
            alias = None if seen is None else seen.version
        return LoopObserved(outcome, message, status.version, alias, status.gpu_seconds)  # type: ignore[arg-type]

    async def _act(self, seen: SeenLoop, decided: LoopPlan) -> LoopPlan:
        """Makes the next iteration, or passes `suspend` on; the plan, or why it could not be carried out."""
        spec, iterations = seen.loop.spec, seen.iterations
        number = decided.next
        if number is not None and number > len(iterations):
            return decided if spec.suspend else await self._make(seen, decided, number)
        if iterations and not iterations[-1].settled:
            last = iterations[-1]
            was = any(c.type == "Suspended" and c.status == "True" for c in seen.previous.conditions)
            if spec.suspend and not last.suspend:
                await self._suspend(last, suspend=True)
            elif was and not spec.suspend and last.suspend:
                await self._suspend(last, suspend=False)
        return decided

    async def _make(self, seen: SeenLoop, decided: LoopPlan, number: int) -> LoopPlan:
        try:
            made = await self.writer.api.apply(iteration_body(seen.view, seen.body, seen.loop, number))
        except ApiError as error:
            if error.status in AWAY and error.status != 409:
                raise
            message = f"iteration {number} cannot be made: {error}"
            return LoopPlan(None, Condition("Succeeded", "False", ITERATION_REFUSED, message))
        name = made["metadata"]["name"]
        self.cache.iterations.put(made)
        self.look_at(name)
        told = f"iteration {number} of {seen.loop.spec.iterations} made: {name}"
        await self.writer.tell(KIND, seen.view, [Event("Normal", "IterationStarted", told)])
        return decided

    async def _suspend(self, view: IterationView, *, suspend: bool) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "ViperIteration",
            "metadata": {"name": view.name, "uid": view.uid},
            "spec": {"suspend": suspend},
        }
        self.cache.iterations.put(await self.writer.api.apply(body, manager=SUSPEND_MANAGER, force=True))
        self.look_at(view.name)

    def _status(self, seen: SeenLoop, decided: LoopPlan) -> LoopStatus:
        spec, there = seen.loop.spec, len(seen.iterations)
        number = there if spec.suspend else max(decided.next or 0, there)
        summary = decided.condition
        suspended = Condition("Suspended", "False", "Active", "")
        if spec.suspend:
            suspended = Condition("Suspended", "True", "Suspended", "spec.suspend is true")
            if decided.next is not None:
                message = joined([summary.message, "spec.suspend is true"])
                summary = Condition(summary.type, summary.status, "Suspended", message)
        facts = Facts(seen.view.generation, 0, self.clock(), "")
        versions = [o.version for o in seen.observed if o.promoted]
        return LoopStatus(
            observed_generation=seen.view.generation,
            conditions=conditions([summary, suspended], facts, seen.previous.conditions),
            iteration=number or None,
            of=spec.iterations,
            current=f"{seen.view.name}-{number}" if number else None,
            version=versions[-1] if versions else None,
            gpu_seconds=seen.spent,
        )

    def _invalid(self, view: LoopView, previous: LoopStatus, message: str) -> LoopStatus:
        facts = Facts(view.generation, 0, self.clock(), "")
        summary = Condition("Succeeded", "False", "SpecInvalid", message)
        found = conditions([summary], facts, previous.conditions)
        return previous.model_copy(update={"observed_generation": view.generation, "conditions": found})

    async def _write(self, view: LoopView, previous: LoopStatus, new: LoopStatus) -> None:
        if new.dump() == previous.dump():
            return
        old, summary = (previous.conditions[0] if previous.conditions else None), new.conditions[0]
        told = summary.status != "Unknown" or summary.reason in (INTERNAL_ERROR, KUBERNETES_ERROR)
        if told and (old is None or (old.status, old.reason) != (summary.status, summary.reason)):
            kind = "Normal" if summary.status == "True" else "Warning"
            await self.writer.tell(KIND, view, [Event(kind, summary.reason, summary.message)])  # type: ignore[arg-type]
        body = await self.writer.status(KIND, view, new.dump())
        if body is not None:
            self.cache.loops.put(body)


def _alias(loop: ViperLoop) -> tuple[str, str]:
    """Model and alias that its iterations move."""
    return loop.spec.template.model, loop.spec.template.promotion.alias


def _loop(body: dict[str, Any]) -> ViperLoop:
    meta = {"name": body["metadata"]["name"]}
    document = {"apiVersion": body["apiVersion"], "kind": KIND, "metadata": meta, "spec": body["spec"]}
    # What has begun was taken by the release that it began with.
    begun = bool((body.get("status") or {}).get("current"))
    return ViperLoop.model_validate(document, context=STORED if begun else None)


def iteration_body(view: LoopView, body: dict[str, Any], loop: ViperLoop, number: int) -> dict[str, Any]:
    """The `number`-th iteration: the template as it was written, with its own images and seed."""
    one = loop.iteration(number)
    spec = copy.deepcopy(body["spec"]["template"])
    spec.setdefault("images", {})["offset"] = one.spec.images.offset
    spec.setdefault("recipe", {})["seed"] = one.spec.recipe.seed
    spec["suspend"] = one.spec.suspend
    meta = body["metadata"]
    notes = {k: v for k, v in meta.get("annotations", {}).items() if not k.startswith("kubectl.") and k != RETRY}
    return {
        "apiVersion": API_VERSION,
        "kind": "ViperIteration",
        "metadata": {
            "name": one.metadata.name,
            "labels": {**meta.get("labels", {}), LOOP: view.name},
            "annotations": notes,
            "ownerReferences": [owner_reference(KIND, view.name, view.uid)],
        },
        "spec": spec,
    }
