"""What one item of a stage asks of the engines, from the specification alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from viper.costs.ranges import Range
from viper.costs.table import CPU, RateTable, Work
from viper.methods.stages import (
    COLD_START,
    EVALUATE,
    INGEST,
    INGEST_SAMPLES,
    MAP_ATTENTION,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
)
from viper.spec import IterationSpec
from viper.spec.engines import DiffusionSettings, EditingSettings
from viper.spec.recipe import TrainingSettings

#: What an item is, by stage.
UNITS = {
    INGEST: "images",
    INGEST_SAMPLES: "samples",
    COLD_START: "samples",
    SYNTHESIZE_CAPTIONS: "images",
    VALIDATE_CAPTIONS: "samples",
    TRAIN_CAPTIONS: "steps",
    SYNTHESIZE_OPERATIONS: "edits",
    VALIDATE_OPERATIONS: "edits",
    TRAIN_OPERATIONS: "steps",
    TRAIN_MIXED: "steps",
    MAP_ATTENTION: "maps",
    EVALUATE: "answers",
}
#: Stages that train with GRPO.
TRAININGS = (TRAIN_CAPTIONS, TRAIN_MIXED, TRAIN_OPERATIONS)
_BILLIONS = re.compile(r"(?:^|[-_/])(\d+(?:\.\d+)?)[Bb](?![A-Za-z0-9])")
_PRODUCT = "nvidia.com/gpu.product"


@dataclass(frozen=True)
class Demand:
    """Calls of one engine for each item, and what decides how long a call takes."""

    work: Work
    engine: str
    calls: Range
    steps: int | None = None
    passes: int | None = None
    megapixels: float | None = None
    billions: float | None = None
    rollouts: int | None = None
    #: Names of `RateTable.factors` that apply.
    factors: tuple[str, ...] = ()
    #: Calls at once and images of a call: which of several rates is nearest.
    batch: int | None = None
    images: int | None = None
    tokens: int | None = None

    def key(self) -> dict[str, Any]:
        """What decides the speed, as plain data: measurements with the same key tell of one another.

        What was added since the first stores is not in it, so that what they measured still counts.
        """
        apart = ("work", "calls", "batch", "images", "tokens")
        dump = {k: v for k, v in asdict(self).items() if v not in (None, ()) and k not in apart}
        return dump | ({"factors": list(self.factors)} if self.factors else {})


def engine_name(engine: str) -> str:
    """`qwen-image` of `qwen-image:hf://Qwen/Qwen-Image`."""
    return engine.partition(":")[0]


def billions(text: str) -> float | None:
    """Parameters that a model's name tells: 7 of `hf://Qwen/Qwen2.5-VL-7B-Instruct@revision`."""
    found = _BILLIONS.findall(text.partition("@")[0])
    return float(found[-1]) if found else None


def generator_size(spec: IterationSpec) -> float | None:
    """Billions of parameters of θ0, by the name of its files, else of the registered model; None when neither says."""
    reference = spec.generator
    return next((b for n in (reference.uri, reference.initial_uri, spec.model) if n and (b := billions(n))), None)


def role_size(spec: IterationSpec, role: str) -> float | None:
    """The same of the critic or the judge: the generator's, as its base has its size, unless it is a URI."""
    return generator_size(spec) if role in ("generator", "base") else billions(role)


def gpu_of(spec: IterationSpec, stage: str, table: RateTable) -> str | None:
    """The kind of GPU a stage runs on, by its node selector; `cpu` without one; None when nothing tells."""
    resources = spec.profile.of(stage)
    if not resources.gpus and spec.profile.device == "cpu":
        return CPU
    chosen = (resources.node_selector, *(r.node_selector for r in spec.profile.stages.values()))
    return next((g for s in chosen if (p := s.get(_PRODUCT)) and (g := table.gpu_of(p)) is not None), None)


def demands(spec: IterationSpec, stage: str, table: RateTable) -> Iterator[Demand]:
    """What one item of `stage` asks for; nothing for stages that only keep records."""
    recipe, engines = spec.recipe, spec.engines
    vlm, size, batch = engine_name(engines.vlm), generator_size(spec), engines.generation.batch

    def calls(name: str) -> Range:
        return table.calls[name].range

    def write(asked: Range, billions: float | None, images: int) -> Demand:
        return Demand("write", vlm, asked, billions=billions, batch=batch, images=images)

    if stage in (INGEST, INGEST_SAMPLES):
        yield Demand("decode", "", Range(1, 1))
    elif stage == COLD_START:
        yield Demand("finetune", engine_name(engines.trainer), Range(1, 1), billions=generator_size(spec))
    elif stage == SYNTHESIZE_CAPTIONS:
        yield write(calls("caption"), size, 1)
        yield write(calls("critique") + calls("refine"), role_size(spec, recipe.models.critic), 2)
        yield _reconstruction(spec)
    elif stage == VALIDATE_CAPTIONS:
        yield Demand("check", "", Range(1, 1))
    elif stage == SYNTHESIZE_OPERATIONS:
        yield write(calls("propose"), size, 1)
        yield _edit(spec, calls("edit"))
    elif stage == VALIDATE_OPERATIONS:
        yield Demand("compare", engine_name(engines.image_similarity), Range(1, 1))
        judge = recipe.validation.judge
        shown = calls("judge") * (judge.votes * (1 + judge.controls))
        yield write(shown, role_size(spec, recipe.models.judge), 2)
    elif stage in (TRAIN_CAPTIONS, TRAIN_MIXED):
        yield _training(spec, recipe.captions.training)
    elif stage == TRAIN_OPERATIONS:
        yield _training(spec, recipe.operations.training)
    elif stage == MAP_ATTENTION:
        yield Demand("answer", "transformers", Range(1, 1), billions=generator_size(spec))
    elif stage == EVALUATE:
        yield Demand("answer", vlm, Range(1, 1), billions=generator_size(spec))


def speed_key(spec: IterationSpec, stage: str, table: RateTable) -> dict[str, Any]:
    """What decides how long an item of a stage takes, as plain data; equal for stages that tell of one another."""
    return {
        "gpu": gpu_of(spec, stage, table) or "unknown",
        "gpus": spec.profile.of(stage).gpus,
        "threads": spec.profile.of(stage).threads,
        "demands": [{"work": d.work, **d.key()} for d in demands(spec, stage, table)],
    }


def acceptance_key(spec: IterationSpec, stage: str) -> dict[str, Any]:
    """What decides which share of a stage's rows is accepted, apart from the images."""
    recipe, engines = spec.recipe, spec.engines
    key: dict[str, Any] = {"prompts": recipe.prompts, "billions": generator_size(spec)}
    if stage == INGEST:
        return {"images": spec.images.uri, "minSide": spec.images.min_side}
    if stage == INGEST_SAMPLES and recipe.external is not None:
        return {"samples": recipe.external.uri, "minSide": spec.images.min_side}
    if stage in (SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS):
        key |= {"reconstructor": engine_name(engines.reconstructor), "critic": recipe.models.critic}
    if stage in (SYNTHESIZE_OPERATIONS, VALIDATE_OPERATIONS):
        key |= {"editor": engine_name(engines.editor)}
    if stage == VALIDATE_OPERATIONS:
        filters = {k: v for k, v in recipe.validation.dump().items() if k not in ("heldOutShare", "minimumSamples")}
        key |= {"judge": recipe.models.judge, "filters": filters}
    return key


def _reconstruction(spec: IterationSpec) -> Demand:
    settings, side = spec.engines.reconstruction, spec.recipe.captions.reconstruction_size
    # Photographs are about 4:3; the longer side is `side`.
    return Demand(
        "reconstruct",
        engine_name(spec.engines.reconstructor),
        Range(1, 1),
        steps=settings.steps,
        passes=_passes(settings),
        megapixels=side * side * 0.75 / 1e6,
        factors=_factors(settings),
    )


def _edit(spec: IterationSpec, calls: Range) -> Demand:
    settings, side = spec.engines.editing, spec.images.max_side
    return Demand(
        "edit",
        engine_name(spec.engines.editor),
        calls,
        steps=settings.steps,
        passes=_passes(settings, spec.engines.editor),
        megapixels=min(settings.max_pixels, side * side * 0.75) / 1e6,
        factors=_factors(settings),
    )


def _passes(settings: DiffusionSettings, engine: str = "") -> int:
    """Passes of the model a step: one, one more without the text, and for OmniGen2 one more without the image."""
    if settings.guidance <= 1:
        return 1
    guided = isinstance(settings, EditingSettings) and settings.image_guidance > 1
    return 3 if guided and engine_name(engine).startswith("omnigen") else 2


def _factors(settings: DiffusionSettings) -> tuple[str, ...]:
    named = {
        "cache": settings.cache != "none",
        "offload.model": settings.offload == "model",
        "offload.sequential": settings.offload == "sequential",
        "compile": settings.compile,
    }
    return tuple(name for name, applies in named.items() if applies)


def _training(spec: IterationSpec, settings: TrainingSettings) -> Demand:
    return Demand(
        "train",
        engine_name(spec.engines.trainer),
        Range(1, 1),
        billions=generator_size(spec),
        rollouts=settings.batch_prompts * settings.group_size,
    )
