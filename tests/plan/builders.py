"""Builders of specs and observations: a row of a table says only what is special about it."""

from __future__ import annotations

from typing import Any

from viper.methods.stages import stage_graph
from viper.plan import Done, Exit, Observed, ObservedStage, Shard
from viper.spec import IterationSpec

ENGINES = dict.fromkeys(("reconstructor", "editor", "similarity", "image_similarity"), "fake")
NOW = 1000.0


def spec(
    *, recipe: dict[str, Any] | None = None, stages: dict[str, Any] | None = None, **defaults: Any
) -> IterationSpec:
    """A spec; `defaults` are the resources of every stage, `stages` those of single ones."""
    return IterationSpec.model_validate(
        {
            "model": "m",
            "images": {"uri": "file:///i"},
            "engines": ENGINES,
            "recipe": recipe or {},
            "profile": {"defaults": defaults, "stages": stages or {}},
        }
    )


def done(accepted: int = 10, **fields: Any) -> ObservedStage:
    """A stage with a valid manifest."""
    return ObservedStage(done=Done(accepted=accepted, **fields))


def running(since: float = NOW - 1, shard: int = 0) -> ObservedStage:
    """A stage of which one shard runs."""
    return ObservedStage(shards={shard: Shard(running_since=since)})


def ended(code: int, *, times: int = 1, at: float = NOW - 1, reason: str = "", message: str = "") -> ObservedStage:
    """A stage of one shard that ended `times` times, the last time at `at` with `code`."""
    return ObservedStage(shards={0: Shard(ended=times, last=Exit(at, code, reason, message))})


def upto(last: str, one: IterationSpec | None = None, **others: ObservedStage) -> dict[str, ObservedStage]:
    """All stages up to and including `last` done; `others` by name with underscores."""
    stages: dict[str, ObservedStage] = {}
    for node in stage_graph((one or spec()).recipe):
        stages[node.name] = done(decision="promoted", version=2) if node.name == "promote" else done()
        if node.name == last:
            break
    return {**stages, **{name.replace("_", "-"): stage for name, stage in others.items()}}


def observed(*stages: dict[str, ObservedStage], suspend: bool = False, **fields: Any) -> Observed:
    """Observations of several stages."""
    return Observed({k: v for one in stages for k, v in one.items()}, suspend=suspend, **fields)
