"""A made-up run of a loop of one iteration in which everything that is said is so, and ways to change it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from watcher.timeline import Object

T0 = 1_800_000_000.0
STAGES = ("freeze", "ingest-images", "promote")
#: When each Job is made, its pod runs, its manifest is there, and it is complete.
TIMES = {"freeze": (1, 4, 10, 12), "ingest-images": (13, 16, 60, 62), "promote": (63, 66, 70, 72)}
END = 110.0

Act = Callable[["Film"], None]


def stamp(at: float) -> str:
    """Seconds of the film as an API server writes them."""
    return datetime.fromtimestamp(T0 + at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Film:
    """What is there now, and the entries so far."""

    def __init__(self) -> None:
        self.entries: list[Object] = []
        self.now = 0.0
        self.jobs: dict[str, Object] = {}
        self.pods: dict[str, Object] = {}
        self.loop: Object = {
            "kind": "ViperLoop",
            "metadata": {"name": "l", "uid": "L"},
            "spec": {"iterations": 1},
            "status": {"iteration": 1, "of": 1, "current": "l-1", "conditions": []},
        }
        self.iteration: Object = {
            "kind": "ViperIteration",
            "metadata": {"name": "l-1", "uid": "I", "labels": {"viper.dev/loop": "l"}},
            "spec": {"model": "m"},
            "status": {"conditions": [], "stages": []},
        }

    # ---- what happens ----------------------------------------------------------------------------------------------

    def add(self, kind: str, **fields: Any) -> None:
        self.entries.append({"at": T0 + self.now, "kind": kind, **copy.deepcopy(fields)})

    def job(self, stage: str, *, condition: str = "", suspend: bool = False, failed: int = 0) -> None:
        """The stage's Job, as it is now."""
        name = f"l-1-{stage}"
        labels = {"viper.dev/iteration": "l-1", "viper.dev/stage": stage}
        made = self.jobs.setdefault(
            stage,
            {
                "kind": "Job",
                "metadata": {"name": name, "uid": f"J-{stage}", "labels": labels, "creationTimestamp": stamp(self.now)},
            },
        )
        made["spec"] = {"suspend": suspend}
        ends = [{"type": condition, "status": "True", "lastTransitionTime": stamp(self.now)}] if condition else []
        made["status"] = {"failed": failed, "conditions": ends}
        self.add("object", object=made)

    def pod(self, stage: str, phase: str, *, waiting: str = "", owner: str = "") -> None:
        """The stage's pod."""
        labels = {"viper.dev/iteration": "l-1", "viper.dev/stage": stage}
        state = {"waiting": {"reason": waiting}} if waiting else {}
        body = {
            "kind": "Pod",
            "metadata": {
                "name": f"p-{stage}{owner}",
                "uid": f"P-{stage}{owner}",
                "labels": labels,
                "ownerReferences": [{"uid": owner or f"J-{stage}"}],
            },
            "status": {"phase": phase, "containerStatuses": [{"name": "stage", "state": state}]},
        }
        self.add("object", object=body)

    def store(self, stage: str, *, done: int | None = None, waiting: str = "", manifest: Object | None = None) -> None:
        """What the store has of the stage."""
        progress = None if done is None else {"phase": "read", "done": done, "total": 24, "waiting": waiting}
        self.add("store", of=f"l-1/{stage}", progress=progress, manifest=manifest)

    def alias(self, version: int) -> None:
        self.add("registry", aliases={"m@generator": version})

    # ---- what is said ----------------------------------------------------------------------------------------------

    def say(self, **changes: Any) -> None:
        """Changes the iteration's status."""
        self.iteration["status"] |= changes
        self.add("object", object=self.iteration)

    def condition(
        self, kind: str, status: str, reason: str = "R", message: str = "", since: float | None = None
    ) -> None:
        """A condition of the iteration; it is seen with the next `say`."""
        _set(
            self.iteration["status"]["conditions"],
            kind,
            status,
            (reason, message),
            self.now if since is None else since,
        )

    def stage(self, name: str, state: str, **more: Any) -> None:
        """A stage of the iteration's status, and the summary that follows."""
        stages = self.iteration["status"]["stages"]
        known = next((s for s in stages if s["name"] == name), None)
        if known is None:
            known = {"name": name}
            stages.append(known)
        known |= {"state": state, "reason": "", "message": "", **more}
        self.summary()
        self.say()

    def summary(self) -> None:
        """Summary, stage and progress as the stages are."""
        stages = self.iteration["status"]["stages"]
        done = sum(s["state"] == "Succeeded" for s in stages)
        at = next((s for s in stages if s["state"] != "Succeeded"), stages[-1])
        text = f"{done} of {len(stages)} stages done"
        self.condition("Succeeded", "Unknown", "Running", text)
        progress = f"{done}/{len(stages)} stages"
        if items := at.get("items"):
            progress = f"{items['done']}/{items['total']} {at['name']}"
        self.iteration["status"] |= {"outcome": "Running", "stage": at["name"], "progress": progress}

    def say_loop(self, status: str, reason: str, message: str, **changes: Any) -> None:
        """Changes the loop's status."""
        self.loop["status"] |= changes
        _set(self.loop["status"]["conditions"], "Succeeded", status, (reason, message), self.now)
        self.add("object", object=self.loop)

    def event(self, reason: str, message: str, *, kind: str = "ViperIteration", name: str = "l-1", **more: Any) -> None:
        """An Event."""
        fields = {"type": "Normal", "count": 1, "lastTimestamp": stamp(self.now), **more}
        about = {"kind": kind, "name": name, "uid": fields.pop("about", kind)}
        meta = {"name": f"e{len(self.entries)}"}
        body = {"kind": "Event", "metadata": meta, "involvedObject": about, "reason": reason, "message": message}
        self.add("object", object={**body, **fields})

    def picture(self, *lines: str) -> None:
        self.add("picture", text="\n".join(lines))

    def line(self, text: str, stream: str = "out") -> None:
        self.add("line", stream=stream, text=text)


def _set(conditions: list[Object], kind: str, status: str, why: tuple[str, str], at: float) -> None:
    known = next((c for c in conditions if c["type"] == kind), None)
    if known is None:
        known = {"type": kind, "status": "", "lastTransitionTime": ""}
        conditions.append(known)
    if known["status"] != status:
        known["lastTransitionTime"] = stamp(at)
    known |= {"status": status, "reason": why[0], "message": why[1]}


# ---- the run ---------------------------------------------------------------------------------------------------------


def script() -> list[tuple[float, Act]]:
    """What happens and is said, by second."""
    acts: list[tuple[float, Act]] = [
        (0.0, lambda f: f.alias(1)),
        (0.1, lambda f: f.add("followed", loop="l", logs=True)),
        (0.2, lambda f: f.say_loop("Unknown", "Running", "iteration 1 of 1")),
        (0.3, lambda f: f.add("object", object={**f.iteration, "status": {}})),
        (0.4, lambda f: f.event("IterationStarted", "iteration 1 of 1 made: l-1", kind="ViperLoop", name="l")),
    ]
    for number, stage in enumerate(STAGES):
        acts += _stage(number, stage)
    acts += [
        (71.0, lambda f: f.alias(2)),
        (72.6, lambda f: f.event("Promoted", "version 2; promote done: promoted")),
        (72.7, _promoted),
        (73.0, lambda f: f.say_loop("True", "AllIterationsDone", "1 of 1 iterations done", version=2)),
        (73.1, lambda f: f.event("AllIterationsDone", "1 of 1 iterations done", kind="ViperLoop", name="l")),
        (73.2, lambda f: f.picture("l  Succeeded  iteration 1 of 1", "└─ l-1  Promoted  version 2")),
        (73.3, lambda f: f.line("l: 1 of 1 iterations done")),
    ]
    return acts


def _stage(number: int, stage: str) -> list[tuple[float, Act]]:
    made, runs, written, complete = TIMES[stage]
    name = f"l-1-{stage}"
    before, later = STAGES[:number], STAGES[number + 1 :]

    def started(f: Film) -> None:
        f.stage(stage, "Running", job=name, startedAt=stamp(made))
        for other in later:
            f.stage(other, "Waiting")
        if "Suspended" not in {c["type"] for c in f.iteration["status"]["conditions"]}:
            f.condition("Held", "False")
            f.condition("Suspended", "False")
            f.say(generator={"version": 1})
        if number == 1:
            f.condition("GeneratorCurrent", "True")
            f.say()

    def pictured(f: Film) -> None:
        f.picture(
            "l  Running  iteration 1 of 1",
            "└─ l-1  Running  θ0: m version 1",
            *(f"   ├─ ✔ {s:22} {'Succeeded':11}" for s in before),
            f"   ├─ ▶ {stage:22} {'Running':11} {'4.0 s':>12}",
            *(f"   ├─   {s:22} {'Waiting':11}" for s in later),
        )

    acts: list[tuple[float, Act]] = [
        (made + 0.1, lambda f: f.job(stage)),
        (made + 0.2, lambda f: f.event("StageStarted", f"{stage} started (Job {name})")),
        (made + 0.3, started),
        (made + 0.5, lambda f: f.pod(stage, "Pending")),
        (runs, lambda f: f.pod(stage, "Running")),
        (runs + 0.3, pictured),
        (runs + 0.5, lambda f: f.line(f"l-1 {stage}: begins")),
        (written, lambda f: f.store(stage, manifest={})),
        (complete, lambda f: f.pod(stage, "Succeeded")),
        (complete + 0.1, lambda f: f.job(stage, condition="Complete")),
    ]
    if stage != "promote":
        acts += [
            (complete + 0.2, lambda f: f.event("StageSucceeded", f"{stage} done: 24 of 24 accepted")),
            (complete + 0.3, lambda f: f.stage(stage, "Succeeded", finishedAt=stamp(complete), items=None)),
        ]
    if stage == "ingest-images":
        for done in range(0, 25, 4):
            at = runs + 1.0 + done
            acts += [
                (at, lambda f, d=done: f.store(stage, done=d)),  # type: ignore[misc]
                (at + 1.0, lambda f, d=done: f.stage(stage, "Running", items={"done": d, "total": 24})),  # type: ignore[misc]
                (at + 1.1, lambda f, d=done: f.line(f"l-1 {stage}: read {d}/24")),  # type: ignore[misc]
            ]
        acts.append((57.0, lambda f: f.line("l-1 ingest-images: writes its manifest")))
    return acts


def _promoted(f: Film) -> None:
    f.stage("promote", "Succeeded", finishedAt=stamp(72))
    f.entries.pop()
    f.condition("Succeeded", "True", "Promoted", "version 2")
    found = f.iteration["status"]["conditions"]
    f.iteration["status"]["conditions"] = [c for c in found if c["type"] != "GeneratorCurrent"]
    f.say(outcome="Promoted", progress="3/3 stages", version=2)


def play(*more: tuple[float, Act], without: Iterable[float] = ()) -> list[Object]:
    """The entries of the run, with further acts and without those of some seconds."""
    film, left_out = Film(), set(without)
    for at, act in sorted([*(a for a in script() if round(a[0], 1) not in left_out), *more], key=lambda a: a[0]):
        film.now = at
        act(film)
    film.now = END
    film.add("end")
    return film.entries
