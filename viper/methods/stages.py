"""The stages of one iteration and how they hang together, as pure data (architecture: "One iteration")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.spec.recipe import Recipe

INGEST = "ingest-images"
INGEST_SAMPLES = "ingest-samples"
COLD_START = "cold-start"
SYNTHESIZE_CAPTIONS = "synthesize-captions"
VALIDATE_CAPTIONS = "validate-captions"
TRAIN_CAPTIONS = "train-captions"
SYNTHESIZE_OPERATIONS = "synthesize-operations"
VALIDATE_OPERATIONS = "validate-operations"
TRAIN_OPERATIONS = "train-operations"
TRAIN_MIXED = "train-mixed"
MAP_ATTENTION = "map-attention"
EVALUATE = "evaluate"
PROMOTE = "promote"

STAGES = (
    INGEST,
    INGEST_SAMPLES,
    COLD_START,
    SYNTHESIZE_CAPTIONS,
    VALIDATE_CAPTIONS,
    TRAIN_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    VALIDATE_OPERATIONS,
    TRAIN_OPERATIONS,
    TRAIN_MIXED,
    MAP_ATTENTION,
    EVALUATE,
    PROMOTE,
)

#: Stages whose parts are shared by several shards; every other one is done by a single process.
SPLITTABLE = (SYNTHESIZE_CAPTIONS, SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS)

#: Stages that may span several nodes, as one Ray cluster.
DISTRIBUTED = (TRAIN_CAPTIONS, TRAIN_OPERATIONS, TRAIN_MIXED)

#: On a cluster, the Job that writes `iteration.json` before the first stage.
FREEZE = "freeze"

#: `StageNode.model` for the iteration's generator θ0.
THETA0 = "generator"


@dataclass(frozen=True)
class StageNode:
    """One stage. `needs`: stages whose manifests it reads. `model`: the training stage whose output it loads, or
    `THETA0`; None when it loads no policy. `data`: the stages whose accepted rows a training stage learns from."""

    name: str
    needs: tuple[str, ...]
    model: str | None = None
    data: tuple[str, ...] = ()


def stage_graph(recipe: Recipe) -> tuple[StageNode, ...]:
    """The stages of an iteration in an order in which they can be run one after another."""
    external = recipe.external
    synthesised = external is None or external.use == "add"
    nodes = [StageNode(INGEST, ())] if synthesised else []
    if external is not None:
        nodes.append(StageNode(INGEST_SAMPLES, ()))
    start = THETA0
    if recipe.cold_start is not None:
        nodes.append(StageNode(COLD_START, (), THETA0))
        start = COLD_START

    def training(name: str, model: str, *made: str) -> StageNode:
        data = (*(made if synthesised else ()), *(() if external is None else (INGEST_SAMPLES,)))
        return StageNode(name, (*data, *(() if model == THETA0 else (model,))), model, data)

    captions = [
        StageNode(SYNTHESIZE_CAPTIONS, (INGEST,), THETA0),
        StageNode(VALIDATE_CAPTIONS, (SYNTHESIZE_CAPTIONS,)),
    ]
    if not synthesised:
        captions = []

    def operations(author: str, *needs: str) -> list[StageNode]:
        if not synthesised:
            return []
        by = () if author == THETA0 else (author,)
        return [
            StageNode(SYNTHESIZE_OPERATIONS, (INGEST, *needs, *by), author),
            StageNode(VALIDATE_OPERATIONS, (SYNTHESIZE_OPERATIONS,)),
        ]

    if recipe.stages == "captions":
        nodes += [*captions, training(TRAIN_CAPTIONS, start, VALIDATE_CAPTIONS)]
        last = TRAIN_CAPTIONS
    elif recipe.stages == "operations":
        nodes += [*operations(THETA0), training(TRAIN_OPERATIONS, start, VALIDATE_OPERATIONS)]
        last = TRAIN_OPERATIONS
    elif recipe.stages == "mixed":
        nodes += [*captions, *operations(THETA0, VALIDATE_CAPTIONS)]
        nodes.append(training(TRAIN_MIXED, start, VALIDATE_CAPTIONS, VALIDATE_OPERATIONS))
        last = TRAIN_MIXED
    else:
        first = training(TRAIN_CAPTIONS, start, VALIDATE_CAPTIONS)
        second = training(TRAIN_OPERATIONS, TRAIN_CAPTIONS, VALIDATE_OPERATIONS)
        if recipe.schedule == "interleaved":
            nodes += [*captions, first, *operations(TRAIN_CAPTIONS, VALIDATE_CAPTIONS), second]
        else:
            nodes += [*captions, *operations(THETA0, VALIDATE_CAPTIONS), first, second]
        last = TRAIN_OPERATIONS
    trained = tuple(n.name for n in nodes if n.name in (TRAIN_CAPTIONS, TRAIN_OPERATIONS, TRAIN_MIXED))
    watched: tuple[str, ...] = ()
    if recipe.analysis.attention_images:
        cold = () if recipe.cold_start is None else (COLD_START,)
        nodes.append(StageNode(MAP_ATTENTION, (INGEST if synthesised else INGEST_SAMPLES, *cold, *trained), last))
        watched = (MAP_ATTENTION,)  # a version's record is whole, or there is none
    nodes.append(StageNode(EVALUATE, trained, last))
    nodes.append(StageNode(PROMOTE, (EVALUATE, last, *watched), last))
    return tuple(nodes)
