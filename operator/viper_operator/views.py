"""What the operator keeps of the objects it watches: little, so that thousands fit into little memory."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from viper.methods.stages import DECLARED
from viper.spec.status import IterationStatus, LoopStatus, read_status
from viper_operator.kuberay import as_job
from viper_operator.names import (
    ATTEMPT_LABEL,
    GPUS,
    GROUP,
    ITERATION,
    LOOP,
    MODEL,
    NODES,
    QUEUE,
    RETRY,
    RETRY_LABEL,
    SECONDS_BEFORE,
    STAGE,
    TRAINS,
    job_name,
)

#: Conditions of a Job that is about to be complete or failed.
ENDS = ("SuccessCriteriaMet", "FailureTarget")
#: Outcomes after which nothing happens without a person.
FINISHED = frozenset({"Promoted", "Registered", "Held", "Failed"})
#: Largest number that a label or annotation may hold, and largest number of shards that a stage can have.
LARGEST, MOST_SHARDS = 2**31 - 1, 1024


def seconds(time: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 time."""
    return None if not time else datetime.fromisoformat(time).timestamp()


def whole(text: Any, default: int = 0, most: int = LARGEST) -> int:
    """The whole number that a label or annotation holds; what people wrote there may be anything.

    One beyond `most` is none: it counts nothing that we have.
    """
    try:
        found = int(text)
    except (TypeError, ValueError):
        return default
    return max(found, default) if found <= most else default


@dataclass(frozen=True)
class Meta:
    """What every object has. `problem`: why the rest of it cannot be read; empty when it can."""

    name: str
    uid: str
    version: int
    generation: int
    created: float
    deleting: bool
    problem: str = field(default="", kw_only=True)

    @classmethod
    def fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        """The fields' values, from an object of the API."""
        meta = body["metadata"]
        return {
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            # Comparable as numbers since Kubernetes 1.35; before, in practice.
            "version": whole(meta.get("resourceVersion"), most=2**64),
            "generation": meta.get("generation", 0),
            "created": seconds(meta.get("creationTimestamp")) or 0.0,
            "deleting": "deletionTimestamp" in meta,
        }


@dataclass(frozen=True)
class JobView(Meta):
    """A stage's Job, or RayJob. Times are seconds since the epoch, None where not (yet) so.

    `owner`: uid of the iteration that it was made for; empty when it was not made by us, whatever its labels say: a Job
    of ours has the iteration that its labels name as controller, and the name that follows from its labels. `nodes`:
    pods of each shard. `terminating`: pods that are going and not gone. `ending`: nothing is left but to be said to be
    over. `trains`: it changes weights; two of the same model never do at the same time. `code`: how its program failed,
    where the object itself says so (a RayJob's does).
    """

    iteration: str
    owner: str
    stage: str
    retry: int
    attempt: int
    model: str
    trains: bool
    queued: bool
    suspended: bool
    gpus: int
    seconds_before: float
    shards: int
    nodes: int
    active: int
    ready: int
    failures: int
    succeeded: int
    terminating: int
    ending: bool
    started: float | None
    ended: float | None
    complete: bool
    failed: bool
    reason: str
    message: str
    kind: str = "Job"
    code: int | None = None

    @classmethod
    def of(cls, body: dict[str, Any]) -> JobView:
        """From a Job or RayJob of the API."""
        if body.get("kind") == "RayJob" or "rayClusterSpec" in body.get("spec", {}):
            body = as_job(body)
        meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        labels, notes = meta.get("labels", {}), meta.get("annotations", {})
        conditions = {c["type"]: c for c in status.get("conditions", ()) if c.get("status") == "True"}
        stage = labels.get(STAGE, "")
        nodes = whole(labels.get(NODES), 1)
        shards = min((spec.get("completions") or 1) // nodes, MOST_SHARDS)
        # Pods that have ended and that the Job controller is about to count.
        uncounted = status.get("uncountedTerminatedPods") or {}
        succeeded = status.get("succeeded", 0) + len(uncounted.get("succeeded") or ())
        end = conditions.get("Complete") or conditions.get("Failed") or {}
        return cls(
            **cls.fields(body),
            iteration=labels.get(ITERATION, ""),
            owner=_owner(meta, labels),
            stage=stage,
            retry=whole(labels.get(RETRY_LABEL)),
            attempt=whole(labels.get(ATTEMPT_LABEL), 1),
            model=notes.get(MODEL, ""),
            trains=TRAINS in notes or (stage in DECLARED and DECLARED[stage].makes == "model"),
            queued=QUEUE in labels,
            suspended=bool(spec.get("suspend")),
            gpus=whole(notes.get(GPUS)),
            seconds_before=float(whole(notes.get(SECONDS_BEFORE))),
            shards=shards,
            nodes=nodes,
            active=status.get("active", 0),
            ready=status.get("ready", 0),
            failures=status.get("failed", 0) + len(uncounted.get("failed") or ()),
            succeeded=succeeded,
            terminating=status.get("terminating") or 0,
            ending=succeeded >= shards or not conditions.keys().isdisjoint(ENDS),
            started=seconds(status.get("startTime")),
            ended=seconds(status.get("completionTime") or end.get("lastTransitionTime")),
            complete="Complete" in conditions,
            failed="Failed" in conditions,
            reason=end.get("reason", ""),
            message=end.get("message", ""),
            kind=body.get("kind") or "Job",
            code=status.get("exitCode"),
        )

    @property
    def finished(self) -> bool:
        """Whether it is complete or has failed."""
        return self.complete or self.failed

    @property
    def working(self) -> bool:
        """Whether it has pods or will have them; one that waits in a Kueue queue counts."""
        return not self.finished and not self.deleting and (self.queued or not self.suspended)

    def active_seconds(self, now: float) -> float:
        """How long the stage has been active, in this Job and before."""
        if self.started is None:
            return self.seconds_before
        return self.seconds_before + max((self.ended or now) - self.started, 0.0)


def _owner(meta: dict[str, Any], labels: dict[str, str]) -> str:
    iteration, stage = labels.get(ITERATION, ""), labels.get(STAGE, "")
    retry, attempt = whole(labels.get(RETRY_LABEL)), whole(labels.get(ATTEMPT_LABEL), 1)
    if meta["name"] != job_name(iteration, stage, retry=retry, attempt=attempt):
        return ""
    for owner in meta.get("ownerReferences", ()):
        ours = owner.get("kind") == "ViperIteration" and str(owner.get("apiVersion", "")).startswith(f"{GROUP}/")
        if ours and owner.get("controller") and owner.get("name") == iteration:
            return str(owner["uid"])
    return ""


@dataclass(frozen=True)
class Resource(Meta):
    """A custom resource: what is looked at often, and the whole of it packed."""

    packed: bytes = field(repr=False)

    @classmethod
    def fields(cls, body: dict[str, Any]) -> dict[str, Any]:
        return {**Meta.fields(body), "packed": packed(body)}

    def body(self) -> dict[str, Any]:
        """The object as the API gave it, without `managedFields`."""
        found: dict[str, Any] = json.loads(zlib.decompress(self.packed))
        return found


def packed(body: dict[str, Any]) -> bytes:
    """An object without its `managedFields`, small."""
    slim = {k: v for k, v in body.items() if k != "metadata"}
    slim["metadata"] = {k: v for k, v in body["metadata"].items() if k != "managedFields"}
    return zlib.compress(json.dumps(slim, separators=(",", ":")).encode(), 1)


@dataclass(frozen=True)
class IterationView(Resource):
    """A ViperIteration."""

    model: str
    alias: str
    profile_ref: str
    loop: str
    suspend: bool
    retry: int
    outcome: str
    retries: int
    observed_generation: int

    @classmethod
    def of(cls, body: dict[str, Any]) -> IterationView:
        """From a ViperIteration of the API."""
        meta, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
        return cls(
            **cls.fields(body),
            model=spec.get("model", ""),
            alias=spec.get("promotion", {}).get("alias", "generator"),
            profile_ref=spec.get("profileRef") or "",
            loop=meta.get("labels", {}).get(LOOP, ""),
            suspend=bool(spec.get("suspend")),
            retry=whole(meta.get("annotations", {}).get(RETRY)),
            outcome=status.get("outcome", ""),
            retries=status.get("retries", 0),
            observed_generation=status.get("observedGeneration", 0),
        )

    @property
    def settled(self) -> bool:
        """Whether it has ended and no person has asked for another try."""
        return self.outcome in FINISHED and self.retries >= self.retry

    def status(self) -> IterationStatus:
        """What was last said about it."""
        return read_status(IterationStatus, self.body().get("status"))


@dataclass(frozen=True)
class LoopView(Resource):
    """A ViperLoop."""

    @classmethod
    def of(cls, body: dict[str, Any]) -> LoopView:
        """From a ViperLoop of the API."""
        return cls(**cls.fields(body))

    def status(self) -> LoopStatus:
        """What was last said about it."""
        return read_status(LoopStatus, self.body().get("status"))


@dataclass(frozen=True)
class ProfileView(Resource):
    """A ViperProfile."""

    @classmethod
    def of(cls, body: dict[str, Any]) -> ProfileView:
        """From a ViperProfile of the API."""
        return cls(**cls.fields(body))

    @cached_property
    def spec(self) -> dict[str, Any]:
        """The profile."""
        found: dict[str, Any] = self.body().get("spec", {})
        return found


View = TypeVar("View", bound=Meta)
#: What of an object is kept that cannot be read as a whole: enough to know it by, then only that it is there.
KEPT = (("name", "uid", "resourceVersion", "generation", "labels", "ownerReferences"), ("name", "uid"))


def readable(read: Callable[[dict[str, Any]], View], body: dict[str, Any]) -> View:
    """What `read` makes of an object; of one that it cannot read, what can be said of it, and the `problem`.

    Raises what `read` raises only where an object has no name.
    """
    try:
        return read(body)
    except Exception as error:
        problem, raised = f"{type(error).__name__}: {error}", error
    for kept in KEPT:
        meta = {k: body["metadata"][k] for k in kept if k in body["metadata"]}
        try:
            view = replace(read({"metadata": meta, "kind": body.get("kind", "")}), problem=problem)
        except Exception:  # noqa: S112 (the next keeps less)
            continue
        return replace(view, packed=packed(body)) if isinstance(view, Resource) else view
    raise raised
