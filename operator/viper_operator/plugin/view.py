"""Loops, iterations and stages as trees, rows and plain data. Pure: from statuses and the time to text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from viper.cli.tree import stage_lines, stage_row, telling
from viper.spec.status import GeneratorStatus, IterationStatus, LoopStatus, StageStatus, read_status
from viper.stage.progress import ProgressRecord
from viper.terminal import columns, tree
from viper.words import joined, own_time
from viper_operator.names import LOOP, RETRY
from viper_operator.views import FINISHED, whole

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

Object = dict[str, Any]

HEADER = ("NAME", "STATE", "PROGRESS", "GENERATOR", "VERSION", "SCORE", "GPU-H", "AGE")


@dataclass(frozen=True)
class Iteration:
    """A ViperIteration, and what is wrong with its pods by stage."""

    body: Object
    problems: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def status(self) -> IterationStatus:
        """What the operator says about it."""
        return read_status(IterationStatus, self.body.get("status"))

    @property
    def loop(self) -> str:
        """The loop that it belongs to, empty for none."""
        return str(self.body["metadata"].get("labels", {}).get(LOOP, ""))

    @property
    def state(self) -> str:
        """The outcome; `Unseen` when no operator has looked at it yet."""
        return self.status.outcome or "Unseen"

    @property
    def unseen(self) -> bool:
        """Whether the status is older than the last change of the spec, or a person's last retry."""
        meta, status = self.body["metadata"], self.status
        retry = whole(meta.get("annotations", {}).get(RETRY))
        return status.observed_generation != meta.get("generation") or status.retries < retry

    @property
    def finished(self) -> bool:
        """Whether nothing will happen without a person."""
        return self.state in FINISHED and not self.unseen

    @property
    def message(self) -> str:
        """The summary, where it says more than the stages do."""
        if not self.status.outcome:
            return "no operator has looked at it yet"
        conditions = {c.type: c for c in self.status.conditions}
        texts = [c.message for c in self.status.conditions[:1] if self.state in ("Held", "Failed", "Pending")]
        current = conditions.get("GeneratorCurrent")
        if current is not None and current.status == "False":
            texts.append(current.message)
        internal = conditions.get("InternalError")
        if internal is not None and internal.message not in texts:
            texts.append(internal.message)
        return joined(texts)


@dataclass(frozen=True)
class Loop:
    """A ViperLoop and its iterations."""

    body: Object
    iterations: Sequence[Iteration] = ()

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.body["metadata"]["name"])

    @property
    def status(self) -> LoopStatus:
        """What the operator says about it."""
        return read_status(LoopStatus, self.body.get("status"))

    @property
    def state(self) -> str:
        """`Succeeded`, `Suspended`, `Running`, or why it stopped."""
        summary = next((c for c in self.status.conditions if c.type == "Succeeded"), None)
        if summary is None:
            return "Unseen"
        if summary.status == "True":
            return "Succeeded"
        if summary.status == "False":
            return summary.reason
        return "Suspended" if self.body.get("spec", {}).get("suspend") else "Running"

    @property
    def finished(self) -> bool:
        """Whether nothing will happen without a person."""
        generation: int | None = self.body["metadata"].get("generation")
        if self.status.observed_generation != generation or any(not i.finished for i in self.iterations):
            return False  # an iteration that is tried again goes on before its loop says so
        return self.state not in ("Unseen", "Running", "Suspended")

    @property
    def message(self) -> str:
        """The summary, where it says more than the iterations do."""
        if self.state == "Unseen":
            return "no operator has looked at it yet"
        return "" if self.state in ("Running", "Suspended") else self.status.conditions[0].message


# ---- trees -----------------------------------------------------------------------------------------------------------


def loop_node(loop: Loop, now: datetime, *, wide: bool = False) -> Tree:
    """A loop, its iterations, and the stages of those that are not promoted (`wide`: of all)."""
    status = loop.status
    title = _title(
        loop.name,
        loop.state,
        f"iteration {status.iteration} of {status.of}" if status.iteration and status.of else "",
        "" if status.version is None else f"promoted: version {status.version}",
        _gpu_time(status.gpu_seconds),
        loop.message,
    )
    return tree(title, (iteration_node(i, now, stages=wide or i.state != "Promoted") for i in loop.iterations))


def iteration_node(iteration: Iteration, now: datetime, *, stages: bool = True) -> Tree:
    """An iteration and its stages."""
    status = iteration.status
    made = "" if status.version is None else f"version {status.version}"
    title = _title(
        iteration.name,
        iteration.state,
        f"θ0: {origin(status.generator)}" if status.generator else "",
        made,
        status.score or "",
        _gpu_time(status.gpu_seconds),
        f"retry {status.retries}" if status.retries else "",
        iteration.message,
    )
    if not stages:
        return tree(title)
    known = {s.name for s in status.stages}
    other = tuple(t for stage, texts in iteration.problems.items() if stage not in known for t in texts)
    notes = [_notes(s, iteration.problems) for s in status.stages]
    lines = stage_lines(_stage(s, now, bool(n)) for s, n in zip(status.stages, notes, strict=True))
    return tree(title, (tree(line, (), n) for line, n in zip(lines, notes, strict=True)), other)


def origin(generator: GeneratorStatus) -> str:
    """Which model it is, in short."""
    if generator.version is None:
        return generator.uri
    return f"{generator.model} version {generator.version}" if generator.model else f"version {generator.version}"


def _title(*parts: str) -> str:
    return "  ".join(p for p in parts if p)


def _stage(stage: StageStatus, now: datetime, noted: bool) -> Sequence[str | Text]:
    seconds = active_seconds(stage, now)
    # What the operator says of pods is what they say themselves, a while ago.
    message = "" if noted and stage.state in ("Pending", "Running") else telling(stage.state, stage.message)
    own = own_time(seconds, stage.seconds) if stage.state == "Succeeded" else ""
    text = joined([stage_text(stage, message), own])
    return stage_row(stage.name, stage.state, text, seconds, _gpu_time(stage.gpu_seconds))


def active_seconds(stage: StageStatus, now: datetime) -> float | None:
    """How long a stage has taken or takes, without the time in which it was suspended; the work alone where that is all
    there is to know."""
    if stage.state == "Waiting":
        return None
    begun, before = stage.active_since, stage.active_seconds or 0.0
    if begun is None and stage.active_seconds is None:
        begun = stage.started_at if stage.state != "Suspended" else None  # an operator of before
    if begun is not None:
        return before + max(((stage.finished_at or now) - begun).total_seconds(), 0.0)
    return before or stage.seconds


def stage_text(stage: StageStatus, message: str) -> str:
    """What a stage made, how far it is, or what is wrong."""
    if stage.state == "Succeeded":
        return stage.headline or ""
    if stage.items is None:
        return message
    items = stage.items
    record = ProgressRecord(**{name: getattr(items, name) for name in type(items).model_fields})
    return "  ".join(x for x in (record.line(), message) if x)


def _notes(stage: StageStatus, problems: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return () if stage.state == "Succeeded" else tuple(problems.get(stage.name, ()))


def _gpu_time(seconds: float) -> str:
    if not seconds:
        return ""
    return f"{seconds / 3600:.1f} GPU-h" if seconds >= 360 else f"{seconds:.0f} GPU-s"


# ---- tables ----------------------------------------------------------------------------------------------------------


def table(loops: Iterable[Loop], single: Iterable[Iteration], now: datetime, *, namespaces: bool = False) -> list[str]:
    """All loops with their iterations, then the other iterations; columns aligned."""
    rows: list[tuple[str, ...]] = [("NAMESPACE", *HEADER)]
    for loop in sorted(loops, key=lambda x: (_namespace(x.body), x.name)):
        status = loop.status
        progress = f"iteration {status.iteration} of {status.of}" if status.iteration and status.of else ""
        version = "" if status.version is None else str(status.version)
        cells = (loop.name, loop.state, progress, "", version, "", _hours(status.gpu_seconds), age(loop.body, now))
        rows.append((_namespace(loop.body), *cells))
        for i, iteration in enumerate(loop.iterations):
            branch = "└─ " if i == len(loop.iterations) - 1 else "├─ "
            rows.append(_row(iteration, now, branch))
    rows += [_row(i, now) for i in sorted(single, key=lambda x: (_namespace(x.body), x.name))]
    return [str(line) for line in columns(rows if namespaces else [row[1:] for row in rows], gap=3)]


def _row(iteration: Iteration, now: datetime, branch: str = "") -> tuple[str, ...]:
    status = iteration.status
    generator = ""
    if status.generator is not None:
        generator = status.generator.uri if status.generator.version is None else str(status.generator.version)
    return (
        _namespace(iteration.body),
        branch + iteration.name,
        iteration.state,
        status.progress or "",
        generator,
        "" if status.version is None else str(status.version),
        status.score or "",
        _hours(status.gpu_seconds),
        age(iteration.body, now),
    )


def _namespace(body: Object) -> str:
    return str(body["metadata"].get("namespace", ""))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f}" if seconds else ""


def age(body: Object, now: datetime) -> str:
    """Time since its creation, as kubectl writes it: `41s`, `12m`, `5h`, `3d`."""
    created = body["metadata"].get("creationTimestamp")
    if not created:
        return ""
    seconds = max(int((now - datetime.fromisoformat(created)).total_seconds()), 0)
    for unit, size, limit in (("s", 1, 120), ("m", 60, 120), ("h", 3600, 48)):
        if seconds < size * limit:
            return f"{seconds // size}{unit}"
    return f"{seconds // 86400}d"


# ---- plain data ------------------------------------------------------------------------------------------------------


def loop_data(loop: Loop) -> Object:
    """A loop and its iterations for `-o json`."""
    data = {"kind": "ViperLoop", "name": loop.name, "namespace": _namespace(loop.body), "state": loop.state}
    return data | {"status": loop.status.dump(), "iterations": [iteration_data(i) for i in loop.iterations]}


def iteration_data(iteration: Iteration) -> Object:
    """An iteration for `-o json`."""
    return {
        "kind": "ViperIteration",
        "name": iteration.name,
        "namespace": _namespace(iteration.body),
        "state": iteration.state,
        "loop": iteration.loop,
        "status": iteration.status.dump(),
        "problems": {stage: list(texts) for stage, texts in iteration.problems.items()},
    }


def ordered(iterations: Iterable[Iteration]) -> Iterator[Iteration]:
    """The iterations of a loop by their number, `<loop>-<n>`."""

    def number(iteration: Iteration) -> int:
        end = iteration.name.rpartition("-")[2]
        return int(end) if end.isdigit() else 0

    return iter(sorted(iterations, key=number))
