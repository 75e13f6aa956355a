"""Whether servers answer, models are in the cache, and how much memory engines plan."""

from __future__ import annotations

import http.client
import itertools
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from viper.doctor.facts import EngineMemory, Place
from viper.engines.endpoints import is_endpoint
from viper.errors import RegistryError, ViperError
from viper.methods.stages import Stage, stage_graph
from viper.modelcache import ModelCache, pull_command
from viper.modelcache.needs import FIELDS, LORA, all_models, engine_fields, with_directories
from viper.modelcache.uris import engine_uri, is_remote, is_uri
from viper.spec import IterationSpec

TIMEOUT_S = 5.0
_URL = re.compile(r"https?://[^\s#]+")
#: Field of `spec.engines` → interface and field with its settings.
_ENGINES = {
    "reconstructor": ("reconstructor", "reconstruction"),
    "editor": ("editor", "editing"),
    "image_similarity": ("imageSimilarity", ""),
    "similarity": ("similarity", ""),
}


def store_answers(uri: str) -> Place:
    """Whether the store can be used, and does what everything here relies on.

    What that takes lies below `probe/` meanwhile; a directory that does not exist yet is not made.
    """
    from viper.store import open_store
    from viper.store.probe import probe, stand_in

    try:
        store = open_store(uri)
        for _ in itertools.islice(store.list(), 1):
            pass
        with stand_in(store) as place:
            probe(place, thorough=True)
    except ViperError as error:
        return Place("store", uri, error.what, error.fix or "correct --store and the credentials")
    return Place("store", uri)


def mlflow_answers(uri: str) -> Place:
    """Whether MLflow is healthy; a database of this machine needs no server."""
    from viper.registry import existing_registry

    fix = "correct --tracking-uri"
    try:
        database = existing_registry(uri).connection.database
    except RegistryError as error:
        # One that is not there yet is made by the first run.
        made = uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists()
        return Place("MLflow", uri) if made else Place("MLflow", uri, error.what, error.fix or fix)
    if database is not None:
        return Place("MLflow", uri)
    problem = answers(f"{uri.rstrip('/')}/health")
    return Place("MLflow", uri, problem, "start it, correct --tracking-uri, or open the network policy" * bool(problem))


def endpoints(spec: IterationSpec) -> Iterator[Place]:
    """The HTTP endpoints that a file names: for engines, critic and judge."""
    named = {f"spec.engines.{field}": getattr(spec.engines, field) for field in FIELDS}
    roles = {f"spec.recipe.models.{role}": getattr(spec.recipe.models, role) for role in ("critic", "judge")}
    roles["spec.evaluation.benchmarks.judge"] = spec.evaluation.benchmarks.judge
    for path, name in {**named, **{p: uri for p, uri in roles.items() if is_endpoint(uri)}}.items():
        if found := _URL.search(name):
            url = found[0]
            problem = answers(f"{url.rstrip('/')}/models")
            fix = f"start the server, correct {path}, or allow it in networkPolicy.stageEgress"
            yield Place(f"endpoint of {path.rpartition('.')[2]}", url, problem, fix * bool(problem))


def answers(url: str) -> str:
    """Why a URL has no answer; empty when it has one. Refused credentials are an answer: the server is there."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "is not an http address"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):  # noqa: S310 (its scheme was checked)
            return ""
    except urllib.error.HTTPError as error:
        return f"answers {error.code}" if error.code >= 500 else ""
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {getattr(error, 'reason', error)}"


def models_there(spec: IterationSpec, cache: ModelCache, stage: Stage | None = None) -> Iterator[Place]:
    """Models that a file, or one stage of it, names by URI, and whether they are in the cache."""
    from viper.modelcache.needs import stage_models

    wanted = stage_models(spec, stage) if stage else all_models(spec)
    for path, uri in wanted.items():
        if not is_remote(uri):
            place = Path(urlsplit(uri).path)
            yield Place(path, uri, "" if place.is_dir() else "there is no such directory", "mount its volume")
            continue
        entry = cache.find(uri)
        wrong = None if entry is None else cache.damaged(entry)
        problem = "" if wrong == [] else "is not in the cache" if wrong is None else f"is damaged: {', '.join(wrong)}"
        yield Place(path, uri, problem, pull_command(uri) if problem else "")


def planned(spec: IterationSpec, cache: ModelCache, stage: Stage | None = None) -> Iterator[EngineMemory]:
    """The memory that engines plan, from the files of their models; nothing is loaded."""
    stages = [stage] if stage else [node.stage for node in stage_graph(spec.recipe)]
    needed = {field for one in stages for field in engine_fields(spec, one)}
    if "vlm" in needed:
        yield from _policies(spec, cache, stages)
    for field, (interface, settings) in _ENGINES.items():
        if field not in needed:
            continue
        role, engine = field.replace("_", " "), getattr(spec.engines, field).partition(":")[0]
        setting = f"spec.engines.{settings or interface}"
        missing = [u for u in _uris(spec, field) if is_remote(u) and cache.find(u) is None]
        if missing:
            yield EngineMemory(
                role,
                engine,
                setting,
                problem=f"not known before {missing[0]} is in the cache",
                fix=pull_command(missing[0]),
            )
            continue
        engines = with_directories(spec.engines, (field,), _place(cache))
        values = getattr(engines, settings) if settings else None
        asked = (interface, engines.of(interface), values)
        yield _phase(EngineMemory(role, engine, setting, interface=interface), asked)


def _policies(spec: IterationSpec, cache: ModelCache, stages: Sequence[Stage]) -> Iterator[EngineMemory]:
    """θ0, then critic and judge where they are models of their own; what is not known yet is said."""
    generator, models = spec.generator, spec.recipe.models
    uri = generator.uri or generator.initial_uri or ""
    if not uri or is_uri(uri):  # the small world's starter is small
        yield _policy(spec, cache, "vlm", uri)
    for role, uri in (("critic", models.critic), ("judge", models.judge)):
        if is_uri(uri) and any(stage.second == role for stage in stages):
            yield _policy(spec, cache, role, uri)


def _policy(spec: IterationSpec, cache: ModelCache, role: str, uri: str) -> EngineMemory:
    engine, setting = spec.engines.vlm, "spec.engines.generation"
    name = engine.partition(":")[0]
    if is_endpoint(engine):
        return EngineMemory(role, name, setting)  # its memory is the server's
    if not is_uri(uri):
        where = f"@{spec.generator.alias}" if spec.generator.alias else f" version {spec.generator.version}"
        problem = f"not known here: {spec.model}{where} is looked up in the registry when the iteration starts"
        return EngineMemory(
            role, name, setting, problem=problem, fix="set gpuMemory of the profile to what its size needs"
        )
    if is_remote(uri) and cache.find(uri) is None:
        return EngineMemory(
            role, name, setting, problem=f"not known before {uri} is in the cache", fix=pull_command(uri)
        )
    asked = ("vlm", engine, spec.engines.generation, Path(_place(cache)(uri)))
    return _phase(EngineMemory(role, name, setting, interface="vlm"), asked)


def _phase(phase: EngineMemory, asked: tuple[Any, ...]) -> EngineMemory:
    from viper.engines import factory

    try:
        return replace(phase, bytes=factory.memory_needed(*asked), weights=factory.weights_needed(*asked))
    except ViperError as error:
        return replace(phase, problem=error.what, fix=error.fix or f"correct {phase.setting}")
    except (OSError, TypeError, ValueError, KeyError) as error:
        return replace(phase, problem=f"its model cannot be read: {error}", fix="name a complete model")


def _uris(spec: IterationSpec, field: str) -> list[str]:
    lora = getattr(spec.engines, LORA[field]).lora if field in LORA else None
    return [uri for uri in (engine_uri(getattr(spec.engines, field)), lora) if uri]


def _place(cache: ModelCache) -> Callable[[str], str]:
    def place(uri: str) -> str:
        entry = cache.find(uri)
        return urlsplit(uri).path if entry is None else str(entry.path)

    return place
