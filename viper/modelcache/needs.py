"""Which model directories the engines of a stage need. Pure: it reads a specification and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from viper.methods.stages import (
    COLD_START,
    EVALUATE,
    FREEZE,
    INGEST,
    MAP_ATTENTION,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_OPERATIONS,
    stage_graph,
)
from viper.modelcache.uris import engine_uri, is_uri
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.engines import Engines
from viper.spec.evaluation import Benchmarks
from viper.spec.iteration import IterationSpec

#: Fields of `spec.engines` with settings that may name weights of their own.
LORA = {"reconstructor": "reconstruction", "editor": "editing"}
FIELDS = ("vlm", "reconstructor", "editor", "similarity", "image_similarity")
#: Engines that a stage loads.
_ENGINES: dict[str, tuple[str, ...]] = {
    SYNTHESIZE_CAPTIONS: ("vlm", "reconstructor"),
    SYNTHESIZE_OPERATIONS: ("vlm", "editor"),
    VALIDATE_OPERATIONS: ("vlm", "image_similarity"),
    COLD_START: ("vlm",),
    TRAIN_CAPTIONS: ("vlm", "similarity"),
    TRAIN_OPERATIONS: ("vlm", "similarity"),
    TRAIN_MIXED: ("vlm", "similarity"),
    MAP_ATTENTION: ("vlm",),
    EVALUATE: ("vlm",),
}


def engine_fields(spec: IterationSpec, stage: str) -> tuple[str, ...]:
    """The fields of `spec.engines` that a stage makes engines of."""
    if stage == INGEST:
        # Near-duplicates are looked for by CLIP embeddings only where that is asked for.
        return () if spec.recipe.validation.near_duplicate_similarity is None else ("image_similarity",)
    return _ENGINES.get(stage, ())


def engine_models(engines: Engines, fields: tuple[str, ...] = FIELDS) -> dict[str, str]:
    """Field path (`spec.engines.editing.lora`) → URI of a model directory; plain paths are left out."""
    found: dict[str, str] = {}
    for field in fields:
        uri = engine_uri(getattr(engines, field))
        if uri is not None:
            found[_path(field)] = uri
        if field in LORA:
            lora = getattr(engines, LORA[field]).lora
            if lora is not None and is_uri(lora):
                found[f"{_path(LORA[field])}.lora"] = lora
    return found


def stage_models(spec: IterationSpec, stage: str) -> dict[str, str]:
    """Field path → URI of what a stage, or freezing, needs before it starts, as far as the specification tells.

    Freezing needs the models that become part of the store: θ0, critic and judge where the file names them by URI.
    """
    if stage == FREEZE:
        return _roles(spec)
    found = engine_models(spec.engines, engine_fields(spec, stage))
    return found | benchmark_data(spec.evaluation.benchmarks) if stage == EVALUATE else found


def benchmark_data(benchmarks: Benchmarks) -> dict[str, str]:
    """Field path → URI of the data sets of the benchmarks, which are kept as models are; those of the hub are left out.

    Plain paths are left out too.
    """
    path, place = "spec.evaluation.benchmarks.datasets", benchmarks.datasets
    if not is_uri(place):
        return {}
    return {f"{path} ({task})": f"{place.rstrip('/')}/{BENCHMARKS[task].dataset}" for task in benchmarks.tasks}


def all_models(spec: IterationSpec) -> dict[str, str]:
    """Field path → URI of everything that an iteration needs."""
    stages = {node.name for node in stage_graph(spec.recipe)}
    fields = tuple(f for f in FIELDS if any(f in engine_fields(spec, stage) for stage in stages))
    data = benchmark_data(spec.evaluation.benchmarks) if EVALUATE in stages else {}
    return _roles(spec) | engine_models(spec.engines, fields) | data


def with_directories(engines: Engines, fields: tuple[str, ...], place: Callable[[str], str]) -> Engines:
    """The same engines, with `place(uri)` where one of `fields` (or its LoRA) names a URI."""
    changed: dict[str, object] = {}
    for field in fields:
        name = getattr(engines, field)
        if (uri := engine_uri(name)) is not None:
            changed[field] = f"{name.partition(':')[0]}:{place(uri)}"
        if field in LORA:
            settings = getattr(engines, LORA[field])
            if settings.lora is not None and is_uri(settings.lora):
                changed[LORA[field]] = settings.model_copy(update={"lora": place(settings.lora)})
    return engines.model_copy(update=changed)


def _roles(spec: IterationSpec) -> dict[str, str]:
    return dict(_role_uris(spec))


def _role_uris(spec: IterationSpec) -> Iterator[tuple[str, str]]:
    generator, models = spec.generator, spec.recipe.models
    for path, value in (
        ("spec.generator.uri", generator.uri),
        ("spec.generator.initialUri", generator.initial_uri),
        ("spec.recipe.models.critic", models.critic),
        ("spec.recipe.models.judge", models.judge),
    ):
        if value is not None and is_uri(value):
            yield path, value


def _path(field: str) -> str:
    first, *rest = field.split("_")
    return "spec.engines." + first + "".join(word.capitalize() for word in rest)
