"""What happens next in one iteration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from viper.methods.stages import FREEZE, FREEZING, StageNode, stage_graph
from viper.plan.conditions import conditions_of, funnel, outcome_of
from viper.plan.types import (
    Action,
    Done,
    Fail,
    Hold,
    Observed,
    ObservedStage,
    Plan,
    RetryAt,
    Shard,
    StageStatus,
    StartStage,
    State,
    StopStage,
)
from viper.words import plural

if TYPE_CHECKING:
    from viper.spec import IterationSpec

#: Longest pause before a retry; the cap of the Kubernetes Job controller.
MAX_BACKOFF_SECONDS = 360.0
#: Of `SpecError`, `InputError`, `StageError`, `UnfitEngineError`, `UnfitStoreError`, `UnfitRegistryError` and
#: `NewerFormError`: the same input would fail in the same way again.
PERMANENT_EXIT_CODES = frozenset({2, 3, 7, 9, 11})


def plan(spec: IterationSpec, observed: Observed, now: float, *, freeze: bool = False) -> Plan:
    """Decides what happens next.

    Args:
        spec: the frozen spec; whether it is suspended is taken from `observed`.
        observed: what is there now, and the stages; those of the recipe before it is frozen.
        now: seconds since the epoch.
        freeze: whether freezing is carried out like a stage (`FREEZE`), before all others.
    """
    statuses: dict[str, StageStatus] = {}
    actions: list[Action] = []
    wakes: list[float] = []
    nodes = observed.nodes or stage_graph(spec.recipe)
    if freeze:
        nodes = (FREEZING, *(replace(n, needs=n.needs or (FREEZE,)) for n in nodes))
    observed = replace(observed, nodes=nodes)
    for node in nodes:
        status = _settled(node, spec, observed) or _waiting(node, statuses)
        if status is None:
            work = _Work(node.name, spec, observed, now)
            status = work.decide()
            actions += work.actions
            wakes += work.wakes
        statuses[node.name] = status
    stages = tuple(statuses.values())
    stopped = next((s for s in stages if s.state in (State.FAILED, State.HELD)), None)
    if stopped is not None:
        end = Fail if stopped.state is State.FAILED else Hold
        actions = [*_stop_all(observed, stopped.reason), end(stopped.name, stopped.reason, stopped.message)]
        wakes = []
    made = Plan((), (), stages, "running", nodes=nodes)
    decided = made.made("decision") or Done()
    outcome = outcome_of(stages, stopped, observed, decided)
    conditions = conditions_of(stages, stopped, observed, outcome, decided)
    wake_at = min(wakes, default=None)
    return replace(made, actions=tuple(actions), conditions=conditions, outcome=outcome, wake_at=wake_at)


def backoff(first_seconds: float, failures: int) -> float:
    """Seconds between failure number `failures` (from 1) and the next attempt: doubling, capped."""
    return min(first_seconds * 2.0 ** min(max(failures, 1) - 1, 64), MAX_BACKOFF_SECONDS)


def _settled(node: StageNode, spec: IterationSpec, observed: Observed) -> StageStatus | None:
    """The status of a stage that has a manifest."""
    stage = observed.stages.get(node.name, ObservedStage())
    if stage.problem:
        return StageStatus(node.name, State.FAILED, "ManifestInvalid", stage.problem)
    if stage.done is None:
        return None
    if hold := _hold(node, spec, observed, stage.done):
        return StageStatus(node.name, State.HELD, *hold, done=stage.done)
    return StageStatus(node.name, State.SUCCEEDED, "ManifestWritten", done=stage.done)


def _hold(node: StageNode, spec: IterationSpec, observed: Observed, done: Done) -> tuple[str, str] | None:
    """Reason and message, when what the stage made is nothing to go on with."""
    makes = node.stage.makes
    if makes == "decision" and done.decision == "held":
        return "PromotionHeld", done.reason or "the gate held the promotion"
    if makes in ("images", "rows") and done.accepted == 0:
        return "NoData", f"nothing was accepted. {funnel(node, observed)}"
    minimum = spec.recipe.validation.minimum_samples
    train = done.accepted if done.train is None else done.train
    if makes == "samples" and train < minimum:
        found = f"{plural(train, 'accepted training sample')}, recipe.validation.minimumSamples is {minimum}"
        return "TooFewSamples", f"{found}. {funnel(node, observed)}"
    return None


def _waiting(node: StageNode, before: Mapping[str, StageStatus]) -> StageStatus | None:
    missing = [n for n in node.needs if before[n].state is not State.SUCCEEDED]
    if not missing:
        return None
    return StageStatus(node.name, State.WAITING, "NeedsEarlierStages", f"waits for {', '.join(missing)}")


def _stop_all(observed: Observed, reason: str) -> list[Action]:
    return [
        StopStage(name, i, reason)
        for name, stage in observed.stages.items()
        if stage.done is None
        for i, shard in sorted(stage.shards.items())
        if shard.running_since is not None
    ]


@dataclass
class _Work:
    """A stage whose input is there and whose manifest is not."""

    name: str
    spec: IterationSpec
    observed: Observed
    now: float
    actions: list[Action] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    running: int = 0
    failure: tuple[str, str] | None = None
    retry: str = ""

    def __post_init__(self) -> None:
        self.resources = self.spec.profile.of(self.name)
        there = self.observed.stages.get(self.name, ObservedStage()).shards
        self.shards = {i: there.get(i, Shard()) for i in range(self.resources.shards)}

    def decide(self) -> StageStatus:
        if self.observed.suspend:
            for index, shard in self.shards.items():
                if shard.running_since is not None:
                    self.actions.append(StopStage(self.name, index, "Suspended"))
            return StageStatus(self.name, State.SUSPENDED, "Suspended", "spec.suspend is true")
        # Every shard says it is through and there is no manifest: exit status 0 proves nothing.
        through = [s.running_since is None and s.last is not None and s.last.code == 0 for s in self.shards.values()]
        for index, shard in self.shards.items():
            if shard.running_since is not None:
                self._watch(index, shard.running_since)
            elif shard.last is None:
                self.actions.append(StartStage(self.name, index, len(self.shards), shard.ended + 1))
            elif shard.last.code != 0 or all(through):
                self._again(index, shard)
        if self.failure is not None:
            return StageStatus(self.name, State.FAILED, *self.failure)
        if self.running:
            return StageStatus(self.name, State.RUNNING, "Running", self.retry)
        if self.retry:
            return StageStatus(self.name, State.RETRYING, "BackOff", self.retry)
        return StageStatus(self.name, State.PENDING, "Ready")

    def _watch(self, index: int, since: float) -> None:
        self.running += 1
        deadline = self.resources.deadline_seconds
        if deadline is None:
            return
        if self.now >= since + deadline:
            self.actions.append(StopStage(self.name, index, "DeadlineExceeded"))
        else:
            self.wakes.append(since + deadline)

    def _again(self, index: int, shard: Shard) -> None:
        last, retries = shard.last, self.resources.retries
        assert last is not None  # noqa: S101 (the caller looked)
        reason, message = last.reason or "StageFailed", last.message or f"exit status {last.code}"
        if last.code == 0:
            reason, message = "ManifestMissing", "the program exited with status 0 and left no manifest"
        if len(self.shards) > 1:
            message = f"shard {index} of {len(self.shards)}: {message}"
        if last.code in PERMANENT_EXIT_CODES:
            self.failure = (reason, message)
            return
        if shard.ended > retries:
            self.failure = (
                reason,
                f"{message} (after {plural(shard.ended, 'attempt')}; the profile allows {plural(retries, 'retry')})",
            )
            return
        at = last.at + backoff(self.resources.backoff_seconds, shard.ended)
        self.retry = f"attempt {shard.ended} failed, {message}"
        if self.now >= at:
            self.actions.append(StartStage(self.name, index, len(self.shards), shard.ended + 1))
        else:
            self.actions.append(RetryAt(self.name, index, at))
            self.wakes.append(at)
