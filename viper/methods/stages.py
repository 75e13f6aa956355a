"""The stages, each declared once, and how a recipe hangs them together: pure data (architecture: "One iteration").

Whoever needs to know something of a stage asks its declaration. There is no other table of stages, and nobody has a
default for one that is not here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field
from pydantic.alias_generators import to_camel as _camel

from viper.errors import SpecError, nearest

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
#: On a cluster, the Job that writes `iteration.json` before the first stage.
FREEZE = "freeze"

#: What a stage makes: images of the pool; rows of a task; samples to learn from; a model; maps of attention; scores; a
#: decision about the registry; a frozen iteration.
Makes = Literal["images", "rows", "samples", "model", "maps", "scores", "decision", "iteration"]


@dataclass(frozen=True)
class Stage:
    """What there is to know of a stage.

    Args:
        name: in resources, Jobs, keys of the store and runs of MLflow; seeds are derived from it.
        makes: see `Makes`.
        unit: what one of its items is, in the plural; empty where it works on none.
        program: `module:function`; called with the `StageContext`, returns the manifest, or None while other shards
            still work. It is not stored: what runs is what the image of the stage declares.
        task: what its rows are for: `captions`, `operations`, `external`, `mixed`.
        settings: paths of the specification that it depends on, beside those that all depend on.
        engines: fields of `spec.engines` that it makes engines of.
        optional_engines: such a field, and the path of the setting that has to be set for it.
        second: role of a model that it asks beside its policy (`critic`, `judge`).
        splittable: several shards share its parts; every other stage is done by a single process.
        distributed: it may span several nodes, as one Ray cluster.
        training: path of the settings that it trains with.
        quota: path of how many samples it is to accept.
        expected_acceptance: path of the share of what it is given that it should accept.
        per_image: path of how many of its items come from one image; one where empty.
        calls: what it asks its policy for each item, showing it one image, by the names of `RateTable.calls`.
        second_calls: what it asks the model beside, showing it two.
        label: its model, for people; its name where empty.
        score: its model in scores; its name where empty.
        title: of its data card, or of its part of the report; its task where empty.
        texts: columns that show a sample to a person.
        images_beside: the images of its samples are those of the pool, and have their source there.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"alias_generator": _camel, "populate_by_name": True}

    name: str
    makes: Makes
    unit: str
    program: Annotated[str, Field(exclude=True)] = ""
    task: str = ""
    settings: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    optional_engines: tuple[tuple[str, str], ...] = ()
    second: str = ""
    splittable: bool = False
    distributed: bool = False
    training: str = ""
    quota: str = ""
    expected_acceptance: str = ""
    per_image: str = ""
    calls: tuple[str, ...] = ()
    second_calls: tuple[str, ...] = ()
    label: str = ""
    score: str = ""
    title: str = ""
    texts: tuple[str, ...] = ()
    images_beside: bool = True


_GRPO = ("engines.similarity", "engines.trainer", "engines.training")
_TRAIN: dict[str, Any] = {
    "makes": "model",
    "program": "viper_jobs.programs:train",
    "unit": "steps",
    "engines": ("vlm", "similarity"),
    "distributed": True,
}

DECLARED: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            INGEST,
            "images",
            "images",
            "viper.ingest.stage:ingest",
            settings=(
                "images",
                "recipe.partSize",
                "recipe.validation.nearDuplicateDistance",
                "recipe.validation.nearDuplicateSimilarity",
            ),
            # Near-duplicates are looked for by CLIP embeddings only where that is asked for.
            optional_engines=(("image_similarity", "recipe.validation.nearDuplicateSimilarity"),),
        ),
        Stage(
            INGEST_SAMPLES,
            "samples",
            "samples",
            "viper.tasks.external.ingest:ingest_samples",
            task="external",
            settings=("recipe.external", "images", "recipe.partSize", "recipe.validation.heldOutShare"),
            title="Supplied samples",
            texts=("prompt", "ground_truth", "source"),
            images_beside=False,
        ),
        Stage(
            COLD_START,
            "model",
            "samples",
            "viper_jobs.programs:cold_start",
            settings=("recipe.coldStart", "recipe.captions.training"),
            engines=("vlm",),
            label="cold start",
            score="coldStart",
        ),
        Stage(
            SYNTHESIZE_CAPTIONS,
            "rows",
            "images",
            "viper.tasks.captions.synthesis:synthesize_captions",
            task="captions",
            settings=(
                "engines.vlm",
                "engines.generation",
                "engines.reconstructor",
                "engines.reconstruction",
                "recipe.captions.samples",
                "recipe.captions.expectedAcceptance",
                "recipe.captions.captioning",
                "recipe.captions.critique",
                "recipe.captions.reconstructionSize",
                "recipe.models.critic",
            ),
            engines=("vlm", "reconstructor"),
            second="critic",
            splittable=True,
            calls=("caption",),
            second_calls=("critique", "refine"),
            title="Task 1: caption self-refining",
        ),
        Stage(
            VALIDATE_CAPTIONS,
            "samples",
            "samples",
            "viper.tasks.captions.validation:validate_captions",
            task="captions",
            settings=("recipe.captions.samples", "recipe.validation"),
            quota="recipe.captions.samples",
            expected_acceptance="recipe.captions.expectedAcceptance",
            title="Captions and their flaws",
            texts=("caption", "refinement", "refined_caption"),
        ),
        Stage(
            TRAIN_CAPTIONS,
            task="captions",
            settings=(*_GRPO, "recipe.captions.training", "recipe.reward"),
            training="recipe.captions.training",
            label="θ1",
            score="theta1",
            title="GRPO stage 1: caption self-refining",
            **_TRAIN,
        ),
        Stage(
            SYNTHESIZE_OPERATIONS,
            "rows",
            "edits",
            "viper.tasks.operations.synthesis:synthesize_operations",
            task="operations",
            settings=(
                "engines.vlm",
                "engines.generation",
                "engines.editor",
                "engines.editing",
                "recipe.operations.samples",
                "recipe.operations.expectedAcceptance",
                "recipe.schedule",
                "recipe.operations.editsPerImage",
                "recipe.operations.proposing",
                "recipe.operations.categoryBalance",
            ),
            engines=("vlm", "editor"),
            splittable=True,
            per_image="recipe.operations.editsPerImage",
            calls=("propose",),
            title="Task 2: visual-operation predicting",
        ),
        Stage(
            VALIDATE_OPERATIONS,
            "samples",
            "edits",
            "viper.tasks.operations.validation:validate_operations",
            task="operations",
            settings=(
                "engines.imageSimilarity",
                "recipe.models.judge",
                "recipe.operations.samples",
                "recipe.validation",
            ),
            engines=("vlm", "image_similarity"),
            second="judge",
            splittable=True,
            second_calls=("judge",),
            quota="recipe.operations.samples",
            expected_acceptance="recipe.operations.expectedAcceptance",
            per_image="recipe.operations.editsPerImage",
            title="Visual operations",
            texts=("category", "instruction"),
        ),
        Stage(
            TRAIN_OPERATIONS,
            task="operations",
            settings=(*_GRPO, "recipe.operations.training", "recipe.reward"),
            training="recipe.operations.training",
            label="θ2",
            score="theta2",
            title="GRPO stage 2: visual-operation predicting",
            **_TRAIN,
        ),
        Stage(
            TRAIN_MIXED,
            task="mixed",
            settings=(*_GRPO, "recipe.captions.training", "recipe.reward"),
            training="recipe.captions.training",
            label="θ2",
            score="theta2",
            title="GRPO on mixed data",
            **_TRAIN,
        ),
        Stage(
            MAP_ATTENTION,
            "maps",
            "maps",
            "viper_jobs.programs:map_attention",
            settings=("recipe.analysis",),
            engines=("vlm",),
        ),
        Stage(
            EVALUATE,
            "scores",
            "answers",
            "viper_jobs.programs:evaluate",
            settings=("engines.vlm", "evaluation"),
            engines=("vlm",),
        ),
        Stage(PROMOTE, "decision", "", "viper_jobs.programs:promote", settings=("promotion",)),
    )
}

_FREEZING = Stage(FREEZE, "iteration", "", "viper_jobs.freeze:main")

STAGES = tuple(DECLARED)
SPLITTABLE = tuple(s.name for s in DECLARED.values() if s.splittable)
DISTRIBUTED = tuple(s.name for s in DECLARED.values() if s.distributed)

#: `StageNode.model` for the iteration's generator θ0.
THETA0 = "generator"


def declared(name: str) -> Stage:
    """The declaration of a stage, freezing included; raises `SpecError` for one that there is not."""
    found = _FREEZING if name == FREEZE else DECLARED.get(name)
    if found is None:
        raise SpecError(f"there is no stage {name!r}", fix=nearest(name, STAGES))
    return found


@dataclass(frozen=True)
class StageNode:
    """A stage in its place in an iteration. `needs`: stages whose manifests it reads. `model`: the training stage whose
    output it loads, or `THETA0`; None when it loads no policy. `data`: the stages whose accepted rows a training stage
    learns from."""

    __pydantic_config__: ClassVar[dict[str, Any]] = Stage.__pydantic_config__

    stage: Stage
    needs: tuple[str, ...] = ()
    model: str | None = None
    data: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def label(self) -> str:
        """What its model is called for people."""
        return self.stage.label or self.name

    @property
    def score(self) -> str:
        """What its model is called in scores."""
        return self.stage.score or self.name


def making(nodes: Iterable[StageNode], makes: Makes) -> tuple[StageNode, ...]:
    """Those of the stages that make it, in their order."""
    return tuple(node for node in nodes if node.stage.makes == makes)


#: Freezing, as a stage before all others.
FREEZING = StageNode(_FREEZING)


def _node(name: str, needs: tuple[str, ...] = (), model: str | None = None, data: tuple[str, ...] = ()) -> StageNode:
    return StageNode(declared(name), needs, model, data)


def stage_graph(recipe: Recipe) -> tuple[StageNode, ...]:
    """The stages of an iteration in an order in which they can be run one after another."""
    external = recipe.external
    synthesised = external is None or external.use == "add"
    nodes = [_node(INGEST)] if synthesised else []
    if external is not None:
        nodes.append(_node(INGEST_SAMPLES))
    start = THETA0
    if recipe.cold_start is not None:
        nodes.append(_node(COLD_START, (), THETA0))
        start = COLD_START

    def training(name: str, model: str, *made: str) -> StageNode:
        data = (*(made if synthesised else ()), *(() if external is None else (INGEST_SAMPLES,)))
        return _node(name, (*data, *(() if model == THETA0 else (model,))), model, data)

    captions = [
        _node(SYNTHESIZE_CAPTIONS, (INGEST,), THETA0),
        _node(VALIDATE_CAPTIONS, (SYNTHESIZE_CAPTIONS,)),
    ]
    if not synthesised:
        captions = []

    def operations(author: str, *needs: str) -> list[StageNode]:
        if not synthesised:
            return []
        by = () if author == THETA0 else (author,)
        return [
            _node(SYNTHESIZE_OPERATIONS, (INGEST, *needs, *by), author),
            _node(VALIDATE_OPERATIONS, (SYNTHESIZE_OPERATIONS,)),
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
    trained = tuple(n.name for n in nodes if n.data)
    watched: tuple[str, ...] = ()
    if recipe.analysis.attention_images:
        cold = () if recipe.cold_start is None else (COLD_START,)
        nodes.append(_node(MAP_ATTENTION, (INGEST if synthesised else INGEST_SAMPLES, *cold, *trained), last))
        watched = (MAP_ATTENTION,)  # a version's record is whole, or there is none
    nodes.append(_node(EVALUATE, trained, last))
    nodes.append(_node(PROMOTE, (EVALUATE, last, *watched), last))
    return tuple(nodes)
