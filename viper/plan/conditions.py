"""What a plan tells people: the outcome, the conditions, the acceptance funnel."""

from __future__ import annotations

from collections.abc import Mapping

from viper.methods.stages import StageNode
from viper.plan.types import Condition, Done, Observed, ObservedStage, Outcome, StageStatus, State
from viper.words import in_brackets, plural


def funnel(node: StageNode, observed: Observed) -> str:
    """The acceptance funnel up to a stage: accepted of all rows, and why the others were not, stage by stage."""
    path = _fed_by(node, {n.name: n for n in observed.nodes})
    steps = []
    for name in (n.name for n in observed.nodes if n.name in path):
        done = observed.stages.get(name, ObservedStage()).done
        if done is not None:
            reasons = ", ".join(f"{r} {n}" for r, n in sorted(done.rejected.items(), key=lambda x: (-x[1], x[0])))
            total = done.accepted + sum(done.rejected.values())
            steps.append(f"{name} {done.accepted} of {total}" + (f" ({reasons})" if reasons else ""))
    return f"Acceptance: {'; '.join(steps)}."


def _fed_by(node: StageNode, nodes: Mapping[str, StageNode]) -> set[str]:
    """A stage and those whose rows came into its own: of its task, or of none."""
    rows = (nodes[n] for n in node.needs if nodes[n].stage.makes in ("images", "rows", "samples"))
    feeding = [_fed_by(n, nodes) for n in rows if n.stage.task in ("", node.stage.task)]
    return {node.name}.union(*feeding)


def outcome_of(
    stages: tuple[StageStatus, ...], stopped: StageStatus | None, observed: Observed, decided: Done
) -> Outcome:
    """Where the iteration as a whole stands. `decided`: what was decided about its model, if anything yet."""
    if stopped is not None:
        return "failed" if stopped.state is State.FAILED else "held"
    if all(s.state is State.SUCCEEDED for s in stages):
        return "promoted" if decided.decision == "promoted" else "registered"
    return "suspended" if observed.suspend else "running"


def conditions_of(
    stages: tuple[StageStatus, ...], stopped: StageStatus | None, observed: Observed, outcome: Outcome, decided: Done
) -> tuple[Condition, ...]:
    """`Succeeded` (the summary) first, then `Held` and `Suspended`; what has ended is not suspended as well."""
    held = stopped if outcome == "held" else None
    return (
        _succeeded(stages, stopped, outcome, decided),
        Condition("Held", "False", "NothingHeld", "")
        if held is None
        else Condition("Held", "True", held.reason, held.message),
        Condition("Suspended", "True", "Suspended", "spec.suspend is true")
        if observed.suspend and outcome in ("running", "suspended")
        else Condition("Suspended", "False", "Ended" if observed.suspend else "Active", ""),
    )


def _succeeded(
    stages: tuple[StageStatus, ...], stopped: StageStatus | None, outcome: Outcome, decided: Done
) -> Condition:
    if stopped is not None:
        return Condition("Succeeded", "False", stopped.reason, f"{stopped.name}: {stopped.message}")
    if outcome in ("promoted", "registered"):
        version = "" if decided.version is None else f"version {decided.version}"
        said = ", ".join(x for x in (version, decided.reason) if x)
        return Condition("Succeeded", "True", outcome.capitalize(), said)
    active = [s for s in stages if s.state not in (State.SUCCEEDED, State.WAITING)]
    working = ", ".join(f"{s.name} {s.state.value.lower()}{in_brackets(s.message)}" for s in active)
    finished = sum(s.state is State.SUCCEEDED for s in stages)
    reason = "Suspended" if outcome == "suspended" else active[0].state.value if active else "Waiting"
    text = f"{finished} of {plural(len(stages), 'stage')} done"
    return Condition("Succeeded", "Unknown", reason, f"{text}: {working}" if working else text)
