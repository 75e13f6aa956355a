"""Which model directories the engines of a stage need. Pure: it reads a specification and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from viper.errors import SpecError, nearest
from viper.methods.stages import Stage, stage_graph
from viper.modelcache.uris import engine_uri, is_uri
from viper.spec.benchmarks import BENCHMARKS
from viper.spec.engines import Engines
from viper.spec.evaluation import Benchmarks
from viper.spec.iteration import IterationSpec

#: Fields of `spec.engines` with settings that may name weights of their own.
LORA = {"reconstructor": "reconstruction", "editor": "editing"}
FIELDS = ("vlm", "reconstructor", "editor", "similarity", "image_similarity")


def engine_fields(spec: IterationSpec, stage: Stage) -> tuple[str, ...]:
    """The fields of `spec.engines` that a stage makes engines of; raises `SpecError` where it declares another one."""
    asked = (field for field, path in stage.optional_engines if spec.value_at(path) is not None)
    found = (*stage.engines, *asked)
    if unknown := sorted(set(found) - set(FIELDS)):
        raise SpecError(f"declares the engine {unknown[0]!r}", where=stage.name, fix=nearest(unknown[0], FIELDS))
    return found


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


def stage_models(spec: IterationSpec, stage: Stage) -> dict[str, str]:
    """Field path → URI of what a stage, or freezing, needs before it starts, as far as the specification tells.

    Freezing needs the models that become part of the store: θ0, critic and judge where the file names them by URI.
    """
    if stage.makes == "iteration":
        return _roles(spec)
    data = benchmark_data(spec.evaluation.benchmarks) if stage.makes == "scores" else {}
    return engine_models(spec.engines, engine_fields(spec, stage)) | data


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
    stages = [node.stage for node in stage_graph(spec.recipe)]
    needed = {field for stage in stages for field in engine_fields(spec, stage)}
    data = benchmark_data(spec.evaluation.benchmarks) if any(s.makes == "scores" for s in stages) else {}
    return _roles(spec) | engine_models(spec.engines, tuple(f for f in FIELDS if f in needed)) | data


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
