"""What a plan tells people: the outcome, the conditions, the acceptance funnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from viper.methods.stages import (
    INGEST,
    INGEST_SAMPLES,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
    StageNode,
    stage_graph,
)
from viper.plan.types import Condition, Done, Observed, Outcome, Stage, StageStatus, State
from viper.words import in_brackets, plural

if TYPE_CHECKING:
    from viper.spec import IterationSpec

SOURCES = (INGEST, SYNTHESIZE_CAPTIONS, SYNTHESIZE_OPERATIONS)
VALIDATIONS = (VALIDATE_CAPTIONS, VALIDATE_OPERATIONS, INGEST_SAMPLES)


def funnel(node: StageNode, spec: IterationSpec, observed: Observed) -> str:
    """The acceptance funnel up to a stage: accepted of all rows, and why the others were not, stage by stage."""
    tasks = {VALIDATE_CAPTIONS: SYNTHESIZE_CAPTIONS, VALIDATE_OPERATIONS: SYNTHESIZE_OPERATIONS}
    path = {node.name} if node.name == INGEST_SAMPLES else {INGEST, node.name, tasks.get(node.name, node.name)}
    steps = []
    for name in (n.name for n in stage_graph(spec.recipe) if n.name in path):
        done = observed.stages.get(name, Stage()).done
        if done is not None:
            reasons = ", ".join(f"{r} {n}" for r, n in sorted(done.rejected.items(), key=lambda x: (-x[1], x[0])))
            total = done.accepted + sum(done.rejected.values())
            steps.append(f"{name} {done.accepted} of {total}" + (f" ({reasons})" if reasons else ""))
    return f"Acceptance: {'; '.join(steps)}."


def outcome_of(stages: tuple[StageStatus, ...], stopped: StageStatus | None, observed: Observed) -> Outcome:
    """Where the iteration as a whole stands."""
    if stopped is not None:
        return "failed" if stopped.state is State.FAILED else "held"
    last = stages[-1].done
    if last is not None and all(s.state is State.SUCCEEDED for s in stages):
        return "promoted" if last.decision == "promoted" else "registered"
    return "suspended" if observed.suspend else "running"


def conditions_of(
    stages: tuple[StageStatus, ...], stopped: StageStatus | None, observed: Observed, outcome: Outcome
) -> tuple[Condition, ...]:
    """`Succeeded` (the summary) first, then `Held` and `Suspended`; what has ended is not suspended as well."""
    held = stopped if outcome == "held" else None
    return (
        _succeeded(stages, stopped, outcome),
        Condition("Held", "False", "NothingHeld", "")
        if held is None
        else Condition("Held", "True", held.reason, held.message),
        Condition("Suspended", "True", "Suspended", "spec.suspend is true")
        if observed.suspend and outcome in ("running", "suspended")
        else Condition("Suspended", "False", "Ended" if observed.suspend else "Active", ""),
    )


def _succeeded(stages: tuple[StageStatus, ...], stopped: StageStatus | None, outcome: Outcome) -> Condition:
    if stopped is not None:
        return Condition("Succeeded", "False", stopped.reason, f"{stopped.name}: {stopped.message}")
    if outcome in ("promoted", "registered"):
        done = stages[-1].done or Done()
        version = "" if done.version is None else f"version {done.version}"
        return Condition("Succeeded", "True", outcome.capitalize(), ", ".join(x for x in (version, done.reason) if x))
    active = [s for s in stages if s.state not in (State.SUCCEEDED, State.WAITING)]
    working = ", ".join(f"{s.name} {s.state.value.lower()}{in_brackets(s.message)}" for s in active)
    finished = sum(s.state is State.SUCCEEDED for s in stages)
    reason = "Suspended" if outcome == "suspended" else active[0].state.value if active else "Waiting"
    text = f"{finished} of {plural(len(stages), 'stage')} done"
    return Condition("Succeeded", "Unknown", reason, f"{text}: {working}" if working else text)
