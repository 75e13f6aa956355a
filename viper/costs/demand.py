"""What one item of a stage asks of the engines, from the specification alone. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from viper.costs.ranges import Range, total
from viper.costs.table import CPU, RateTable, Work
from viper.methods.stages import Stage, StageNode
from viper.spec import IterationSpec
from viper.spec.engines import DiffusionSettings, EditingSettings
from viper.spec.recipe import TrainingSettings

#: Engines that draw.
DRAWING = ("reconstructor", "editor")
_ONCE = Range(1, 1)
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


def demands(spec: IterationSpec, node: StageNode, table: RateTable) -> Iterator[Demand]:
    """What one item of a stage asks for; nothing where it only keeps records."""
    stage, size = node.stage, generator_size(spec)
    match stage.makes:
        case "images":
            yield Demand("decode", "", _ONCE)
        case "rows" | "samples":
            if stage.engines:
                yield from _asked(spec, node, table)
            else:
                yield Demand("check" if node.needs else "decode", "", _ONCE)
        case "model":
            trainer = engine_name(spec.engines.trainer)
            if stage.training:
                settings: TrainingSettings = spec.value_at(stage.training)
                rollouts = settings.batch_prompts * settings.group_size
                yield Demand("train", trainer, _ONCE, billions=size, rollouts=rollouts)
            else:
                yield Demand("finetune", trainer, _ONCE, billions=size)
        case "maps":
            yield Demand("answer", "transformers", _ONCE, billions=size)
        case "scores":
            yield Demand("answer", engine_name(spec.engines.vlm), _ONCE, billions=size)
        case "decision" | "iteration":
            return
        case _:
            assert_never(stage.makes)


def _asked(spec: IterationSpec, node: StageNode, table: RateTable) -> Iterator[Demand]:
    """What one item asks of each engine, in an order that is kept: it is stored with what was measured."""
    stage, engines, recipe = node.stage, spec.engines, spec.recipe

    def write(names: Sequence[str], billions: float | None, images: int, times: float = 1) -> Demand:
        asked = total(table.calls[name].range if name in table.calls else _ONCE for name in names) if names else _ONCE
        vlm, batch = engine_name(engines.vlm), engines.generation.batch
        return Demand("write", vlm, asked * times, billions=billions, batch=batch, images=images)

    if "image_similarity" in stage.engines:
        yield Demand("compare", engine_name(engines.image_similarity), _ONCE)
    if "similarity" in stage.engines:
        yield Demand("embed", engine_name(engines.similarity), _ONCE)
    if "vlm" in stage.engines and (node.model is not None or not stage.second):
        yield write(stage.calls, generator_size(spec), 1)
    if stage.second:
        judge = recipe.validation.judge
        times = judge.votes * (1 + judge.controls) if stage.second == "judge" else 1
        yield write(stage.second_calls, role_size(spec, getattr(recipe.models, stage.second)), 2, times)
    # Photographs are about 4:3.
    whole, original = (side * side * 0.75 for side in (recipe.captions.reconstruction_size, spec.images.max_side))
    if "reconstructor" in stage.engines:
        yield _drawing("reconstruct", engines.reconstructor, engines.reconstruction, whole)
    if "editor" in stage.engines:
        pixels = min(engines.editing.max_pixels, original)
        yield _drawing("edit", engines.editor, engines.editing, pixels, table.calls["edit"].range)


def speed_key(spec: IterationSpec, node: StageNode, table: RateTable) -> dict[str, Any]:
    """What decides how long an item of a stage takes, as plain data; equal for stages that tell of one another."""
    resources = spec.profile.of(node.name)
    return {
        "gpu": gpu_of(spec, node.name, table) or "unknown",
        "gpus": resources.gpus,
        "threads": resources.threads,
        "demands": [{"work": d.work, **d.key()} for d in demands(spec, node, table)],
    }


def makers(node: StageNode, graph: Iterable[StageNode]) -> list[Stage]:
    """The stages whose rows a stage judges."""
    return [n.stage for n in graph if n.name in node.needs and n.stage.makes == "rows"]


def acceptance_key(spec: IterationSpec, node: StageNode, graph: Iterable[StageNode]) -> dict[str, Any]:
    """What decides which share of a stage's rows is accepted, apart from the images: who draws, criticises, judges."""
    recipe, external = spec.recipe, spec.recipe.external
    if node.stage.makes == "images":
        return {"images": spec.images.uri, "minSide": spec.images.min_side}
    if node.stage.makes == "samples" and not node.needs and external is not None:
        return {"samples": external.uri, "minSide": spec.images.min_side}
    key: dict[str, Any] = {"prompts": recipe.prompts, "billions": generator_size(spec)}
    for stage in (*makers(node, graph), node.stage):
        key |= {role: engine_name(getattr(spec.engines, role)) for role in DRAWING if role in stage.engines}
        if stage.second:
            key[stage.second] = getattr(recipe.models, stage.second)
        if stage.second == "judge":
            filters = recipe.validation.dump()
            key["filters"] = {k: v for k, v in filters.items() if k not in ("heldOutShare", "minimumSamples")}
    return key


def _drawing(work: Work, engine: str, settings: DiffusionSettings, pixels: float, calls: Range = _ONCE) -> Demand:
    return Demand(
        work,
        engine_name(engine),
        calls,
        steps=settings.steps,
        passes=_passes(settings, engine),
        megapixels=pixels / 1e6,
        factors=_factors(settings),
    )


def _passes(settings: DiffusionSettings, engine: str) -> int:
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
