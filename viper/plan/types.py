"""What a plan is made from (`Observed`) and what it consists of (`Plan`, its actions, conditions and stage states)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from viper.methods.stages import Makes, StageNode, making
from viper.words import plural

if TYPE_CHECKING:
    from viper.stage.manifest import Manifest

# ---- what is observed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exit:
    """How an attempt of a shard ended. `code`: exit status; -N for signal N. `message`: its last error."""

    at: float
    code: int
    reason: str = ""
    message: str = ""


@dataclass(frozen=True)
class Shard:
    """One shard of a stage.

    `ended` counts the attempts that ended for reasons of their own or at their deadline. Attempts that were stopped
    from outside (suspension, preemption, loss of a node, Ctrl-C) are no failures: executors leave them out.
    """

    running_since: float | None = None
    ended: int = 0
    last: Exit | None = None


#: Characters of a text that plans keep of a manifest, and the largest number.
LONGEST_TEXT, LARGEST = 1000, 1e15


@dataclass(frozen=True)
class Done:
    """What a plan and its readers need to know of a valid manifest. `seconds`: time spent in the stage."""

    accepted: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    train: int | None = None
    decision: str = ""
    reason: str = ""
    version: int | None = None
    seconds: float = 0.0
    headline: str = ""
    score: str = ""

    @property
    def rows(self) -> int:
        """Accepted and rejected rows."""
        return self.accepted + sum(self.rejected.values())

    @classmethod
    def of(cls, manifest: Manifest) -> Done:
        """The summary of a manifest, whatever its outputs are: what has not the type it should have is left out."""
        outputs = manifest.outputs
        return cls(
            accepted=manifest.accepted,
            rejected=dict(manifest.rejected),
            train=manifest.counters.get("train"),
            decision=_text(outputs.get("decision")),
            reason=_text(outputs.get("reason")),
            version=_whole(outputs.get("version")),
            seconds=manifest.seconds,
            headline=_text(headline(manifest)),
            score=_text(score(manifest)),
        )


#: In the outputs of a manifest: files of a pool that no suffix calls images, counted by suffix.
LEFT_OUT = "leftOut"
#: As many suffixes are named in a few words.
_SUFFIXES = 6


def score(manifest: Manifest) -> str:
    """Mean of the benchmarks, else held-out accuracy, of what an evaluation calls final, and its gain over θ0.

    `80.3 % (+8.4)`; empty for another manifest.
    """
    final, found = manifest.outputs.get("final"), _overall(manifest.outputs)
    names = (final if isinstance(final, str) else "", "theta0")
    after, before = (None if (value := found.get(name)) is None else 100 * value for name in names)
    if after is None:
        return ""
    return f"{after:.1f} %" + ("" if before is None else f" ({after - before:+.1f})")


def _overall(outputs: Mapping[str, Any]) -> dict[Any, float]:
    """Model → mean score of the benchmarks where they were asked, else its accuracy; 0..1."""
    benchmarks = outputs.get("benchmarks")
    scores, key = (
        (benchmarks.get("scores"), "score") if isinstance(benchmarks, dict) else (outputs.get("scores"), "accuracy")
    )
    if not isinstance(scores, dict):
        return {}
    overall = {m: s.get("overall") for m, s in scores.items() if isinstance(s, dict)}
    found = {m: _number(s.get(key)) for m, s in overall.items() if isinstance(s, dict)}
    return {m: value for m, value in found.items() if value is not None}


def _text(value: object) -> str:
    """A text of the length that a status may have; empty for anything else."""
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31 else None


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) <= LARGEST else None


def headline(manifest: Manifest) -> str:
    """What a stage made, in a few words."""
    outputs = manifest.outputs
    if isinstance(decision := outputs.get("decision"), str):
        version = _whole(outputs.get("version"))
        return decision + ("" if version is None else f", version {version}")
    if isinstance(outputs.get("scores"), dict):
        what = "benchmarks" if outputs.get("benchmarks") else "accuracy"
        return f"{what} " + ", ".join(f"{m} {a:.1%}" for m, a in _overall(outputs).items())
    if isinstance(outputs.get("model"), dict):
        return plural(_whole(outputs.get("steps")) or 0, "step")
    if not manifest.parts:
        return ""
    reasons = ", ".join(f"{r} {n}" for r, n in sorted(manifest.rejected.items(), key=lambda x: (-x[1], x[0])))
    total = manifest.accepted + sum(manifest.rejected.values())
    others = counted(outputs.get(LEFT_OUT))
    return (
        f"{manifest.accepted} of {total} accepted"
        + (f" ({reasons})" if reasons else "")
        + (f"; no images by name: {others}" if others else "")
    )


def counted(files: object) -> str:
    """Files that were left out, the most frequent suffixes first: `3 .txt, 1 .zip`; empty for anything else."""
    found = files.items() if isinstance(files, Mapping) else ()
    numbers = [(name, n) for name, n in found if isinstance(name, str) and isinstance(n, int)]
    numbers.sort(key=lambda x: (-x[1], x[0]))
    rest = sum(n for _, n in numbers[_SUFFIXES:])
    return ", ".join([*(f"{n} {name}" for name, n in numbers[:_SUFFIXES]), *([f"{rest} more"] if rest else [])])


@dataclass(frozen=True)
class ObservedStage:
    """One stage. `done`: its manifest is there and valid. `problem`: a manifest is there and this is wrong with it."""

    shards: Mapping[int, Shard] = field(default_factory=dict)
    done: Done | None = None
    problem: str = ""


@dataclass(frozen=True)
class Observed:
    """Everything a plan depends on beside the spec. `nodes`: the graph of the frozen iteration; none before it is
    frozen."""

    stages: Mapping[str, ObservedStage] = field(default_factory=dict)
    suspend: bool = False
    nodes: tuple[StageNode, ...] = ()


# ---- what to do --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StartStage:
    """Start a shard; `attempt` counts from 1."""

    stage: str
    shard: int
    shards: int
    attempt: int


@dataclass(frozen=True)
class StopStage:
    """Stop a running shard; its parts stay. With reason `DeadlineExceeded` the attempt counts as ended, else not."""

    stage: str
    shard: int
    reason: str


@dataclass(frozen=True)
class RetryAt:
    """Nothing to do for this shard before `at`."""

    stage: str
    shard: int
    at: float


@dataclass(frozen=True)
class Hold:
    """The iteration goes no further until a person decides."""

    stage: str
    reason: str
    message: str


@dataclass(frozen=True)
class Fail:
    """The iteration has failed."""

    stage: str
    reason: str
    message: str


Action = StartStage | StopStage | RetryAt | Hold | Fail


class State(StrEnum):
    """Where a stage stands."""

    WAITING = "Waiting"
    PENDING = "Pending"
    RUNNING = "Running"
    RETRYING = "Retrying"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    HELD = "Held"
    FAILED = "Failed"


@dataclass(frozen=True)
class StageStatus:
    """One stage for a person to read."""

    name: str
    state: State
    reason: str = ""
    message: str = ""
    done: Done | None = None


@dataclass(frozen=True)
class Condition:
    """A condition without its transition time, which belongs to whoever stores it."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


Outcome = Literal["running", "suspended", "promoted", "registered", "held", "failed"]


@dataclass(frozen=True)
class Plan:
    """Actions to take now; `wake_at`: when the plan changes by itself (retries, deadlines), None if never. `nodes`:
    what `stages` are."""

    actions: tuple[Action, ...]
    conditions: tuple[Condition, ...]
    stages: tuple[StageStatus, ...]
    outcome: Outcome
    wake_at: float | None = None
    nodes: tuple[StageNode, ...] = ()

    def making(self, what: Makes) -> frozenset[str]:
        """Names of the stages that make this."""
        return frozenset(n.name for n in making(self.nodes, what))

    def made(self, what: Makes) -> Done | None:
        """What the last stage that makes this says of it; None while none is done."""
        names = self.making(what)
        return next((s.done for s in reversed(self.stages) if s.done is not None and s.name in names), None)

    @property
    def summary(self) -> Condition:
        """The one condition to wait for."""
        return self.conditions[0]

    @property
    def finished(self) -> bool:
        """Whether nothing will happen any more without a person."""
        return self.outcome not in ("running", "suspended")
