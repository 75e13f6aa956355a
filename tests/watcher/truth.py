"""What Jobs, pods, the registry and the object store did: a timeline told again, as values over time. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from viper_operator.names import ITERATION, LOOP, STAGE
from viper_operator.observed import SAME, STARTING
from watcher.timeline import EARLY, LATE, LOOKS, Object, Span, Track, untold, untrue

T = TypeVar("T")


def moment(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time."""
    return datetime.fromisoformat(text).timestamp()


@dataclass(frozen=True)
class Stage:
    """One stage of one iteration, as everything but the operator knows it.

    `warned`: the reason of the last Event about a Job or pod, by uid, where that is a warning. `manifest`: what is
    worth knowing of it. `progress`: as the stage program wrote it last.
    """

    jobs: Mapping[str, Object] = field(default_factory=dict)
    pods: Mapping[str, Object] = field(default_factory=dict)
    warned: Mapping[str, str] = field(default_factory=dict)
    manifest: Object | None = None
    progress: Object | None = None

    def pods_of(self, job: str) -> list[Object]:
        """The pods whose controller is the Job that has this name now."""
        uid = self.jobs.get(job, {}).get("metadata", {}).get("uid", "")
        return [p for p in self.pods.values() if any(o["uid"] == uid for o in p["metadata"].get("ownerReferences", ()))]

    def open(self, job: str) -> bool:
        """Whether this Job is there and has not ended, nor is it suspended or going away."""
        body = self.jobs.get(job)
        if body is None or "deletionTimestamp" in body["metadata"] or body["spec"].get("suspend"):
            return False
        return not ended(body)

    def works(self, job: str) -> bool:
        """Whether a pod of this open Job runs."""
        return self.open(job) and any(p.get("status", {}).get("phase") == "Running" for p in self.pods_of(job))

    def failures(self, job: str) -> int:
        """How many pods of the Job that has this name now have failed."""
        return int(self.jobs.get(job, {}).get("status", {}).get("failed") or 0)

    @property
    def working(self) -> list[str]:
        """Names of Jobs at work."""
        return [name for name in self.jobs if self.works(name)]

    def troubles(self, job: str) -> set[str]:
        """Kubernetes' words for what keeps this Job's pods from running."""
        pods = self.pods_of(job)
        silent = [p for p in pods if p.get("status", {}).get("phase", "Pending") == "Pending"]
        found = {word for pod in pods for word in troubles(pod)}
        about = silent if pods else [self.jobs[job]] if job in self.jobs else []
        return found | {self.warned[uid] for o in about if (uid := o["metadata"]["uid"]) in self.warned}


def ended(job: Object) -> str:
    """`Complete` or `Failed`, empty while it has not ended."""
    conditions = job.get("status", {}).get("conditions") or ()
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), "")


def troubles(pod: Object) -> set[str]:
    """Kubernetes' words for what keeps a pod from running."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed") or "deletionTimestamp" in pod["metadata"]:
        return set()
    found = set()
    for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        word = one.get("state", {}).get("waiting", {}).get("reason", "")
        if word not in STARTING:
            found |= {word, SAME.get(word, word)}
    for c in status.get("conditions", ()):
        if c["type"] == "PodScheduled" and c["status"] == "False":
            found.add(c.get("reason", "Unschedulable"))
    return found


@dataclass
class World:
    """Everything over time. `events`, `lines`: when they were first seen, and what. `late`: seconds for which something
    may be shown that is not so any more."""

    late: float = LATE
    end: float = 0.0
    loops: dict[str, Track[Object | None]] = field(default_factory=lambda: defaultdict(lambda: Track(None)))
    iterations: dict[str, Track[Object | None]] = field(default_factory=lambda: defaultdict(lambda: Track(None)))
    stages: dict[tuple[str, str], Track[Stage]] = field(default_factory=lambda: defaultdict(lambda: Track(Stage())))
    aliases: dict[str, Track[int | None]] = field(default_factory=lambda: defaultdict(lambda: Track(None)))
    events: dict[str, tuple[float, Object]] = field(default_factory=dict)
    pictures: list[Span] = field(default_factory=list)
    lines: list[tuple[float, str, str]] = field(default_factory=list)
    followed: bool = False  # whether the lines are those of the whole run

    def untrue(
        self, shown: Span, fact: Track[T], holds: Callable[[T], object], *, early: float | None = None
    ) -> float | None:
        """`timeline.untrue` within what is known."""
        early = self.early if early is None else early
        return untrue(shown, fact, holds, end=self.end, late=self.late, early=early)

    def untold(self, so: Span, shown: Track[T], tells: Callable[[T], object], *, more: float = 0.0) -> float | None:
        """`timeline.untold` within what is known; `more`: seconds that may pass besides."""
        return untold(so, shown, tells, end=self.end, late=self.late + more)

    @property
    def early(self) -> float:
        """Seconds by which one watch may be ahead of another; more where everything may take longer."""
        return EARLY * self.late / LATE

    @property
    def looks(self) -> float:
        """Seconds between two looks at the store, when it takes long to answer."""
        return LOOKS * self.late / LATE

    def members(self, loop: str) -> list[str]:
        """The iterations of a loop in the order in which they were made."""
        found = []
        for name, track in self.iterations.items():
            bodies = [s for s in track.spans(self.end) if s.value is not None]
            if bodies and bodies[0].value["metadata"].get("labels", {}).get(LOOP) == loop:
                found.append((bodies[0].start, name))
        return [name for _, name in sorted(found)]


def told(entries: Iterable[Object], late: float = LATE) -> World:
    """A timeline as values over time."""
    world = World(late)
    places: dict[str, tuple[str, str]] = {}  # of Jobs and pods, by uid
    for entry in entries:
        at = world.end = entry["at"]
        if entry["kind"] == "object":
            _object(world, places, at, entry["object"], gone=entry.get("gone", False))
        elif entry["kind"] == "registry":
            for alias, version in entry["aliases"].items():
                world.aliases[alias].put(at, version)
        elif entry["kind"] == "store":
            iteration, stage = entry["of"].split("/")
            track = world.stages[iteration, stage]
            track.put(at, replace(track.now, manifest=entry["manifest"], progress=entry["progress"]))
        elif entry["kind"] == "picture":
            if world.pictures:
                world.pictures[-1] = world.pictures[-1]._replace(end=at)
            world.pictures.append(Span(at, float("inf"), entry["text"]))
        elif entry["kind"] == "followed":
            world.followed = entry["logs"]
        elif entry["kind"] == "line":
            world.lines.append((at, entry["stream"], entry["text"]))
    world.pictures = [p._replace(end=min(p.end, world.end)) for p in world.pictures]
    return world


def _object(world: World, places: dict[str, tuple[str, str]], at: float, body: Object, *, gone: bool) -> None:
    kind, meta = body["kind"], body["metadata"]
    if kind in ("ViperLoop", "ViperIteration"):
        tracks = world.loops if kind == "ViperLoop" else world.iterations
        tracks[meta["name"]].put(at, None if gone else body)
    elif kind in ("Job", "Pod"):
        labels = meta.get("labels", {})
        if ITERATION not in labels or STAGE not in labels:
            return
        place = places[meta["uid"]] = labels[ITERATION], labels[STAGE]
        track = world.stages[place]
        field_name = "jobs" if kind == "Job" else "pods"
        known = {k: v for k, v in getattr(track.now, field_name).items() if k != meta["name"]}
        track.put(at, replace(track.now, **{field_name: known if gone else {**known, meta["name"]: body}}))
    elif kind == "Event" and not gone:
        world.events.setdefault(meta["name"], (at, body))
        if body.get("count", 1) > 1:  # told again
            world.events[meta["name"]] = (world.events[meta["name"]][0], body)
        about = body["involvedObject"].get("uid", "")
        if about in places:
            track = world.stages[places[about]]
            warned = {uid: reason for uid, reason in track.now.warned.items() if uid != about}
            if body.get("type") == "Warning":
                warned[about] = body["reason"]
            track.put(at, replace(track.now, warned=warned))
