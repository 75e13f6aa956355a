"""What `viper models pull` fetches: for a file, for URIs, or for one stage of a frozen iteration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from viper.errors import InputError, StoreError
from viper.methods.stages import THETA0, StageNode
from viper.modelcache.needs import all_models, benchmark_data, engine_fields, engine_models
from viper.modelcache.uris import is_remote, is_uri
from viper.spec import ViperIteration, ViperLoop, load_runnable
from viper.spec.documents import shown
from viper.stage.frozen import FrozenIteration, load_frozen
from viper.stage.manifest import load_manifest
from viper.store import ObjectStore, store_of


def wanted(what: str) -> list[str]:
    """The remote models behind an argument: a URI, or the file of an iteration or a loop."""
    if is_uri(what):
        return [what]
    if "://" in what or not _is_file(what):
        raise InputError(
            "is neither the URI of a model nor a file",
            where=shown(what),
            fix="use hf://org/name@revision, s3://bucket/prefix, models:/name@alias, or a file with a ViperIteration",
        )
    resource: ViperIteration | ViperLoop = load_runnable(Path(what))
    spec = resource.spec.template if isinstance(resource, ViperLoop) else resource.spec
    return _once(uri for uri in all_models(spec).values() if is_remote(uri))


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # too long for a name
        return False


def of_stage(iteration_uri: str, stage: str) -> list[tuple[str, str]]:
    """URI and digest (empty when not known) of what a stage of a frozen iteration needs, in its pinned form.

    Args:
        iteration_uri: `<store URI>/iterations/<name>`.

    Raises `StoreError` when the iteration or a checkpoint it needs is not there, `StageError` when the iteration has no
    such stage.
    """
    store, name = store_of(iteration_uri)
    frozen = load_frozen(store, name)
    if frozen is None:
        raise StoreError("is not a frozen iteration", where=iteration_uri)
    node = frozen.node(stage)
    found = dict(_weights(frozen, node)) | dict(_policies(frozen, node, store))
    return [(uri, digest) for uri, digest in found.items() if is_remote(uri)]


def _weights(frozen: FrozenIteration, node: StageNode) -> Iterator[tuple[str, str]]:
    spec = frozen.iteration.spec
    for uri in engine_models(spec.engines, engine_fields(spec, node.stage)).values():
        pinned = frozen.weights.get(uri)
        yield (uri, "") if pinned is None else (pinned.uri, pinned.digest or "")
    if node.stage.makes == "scores":
        for uri in benchmark_data(spec.evaluation.benchmarks).values():
            yield uri, ""


def _policies(frozen: FrozenIteration, node: StageNode, store: ObjectStore) -> Iterator[tuple[str, str]]:
    """θ0 or a checkpoint of a stage before, critic, judge: as far as this stage loads them."""
    if "vlm" not in engine_fields(frozen.iteration.spec, node.stage):
        return
    if node.model == THETA0:
        yield frozen.generator.uri, frozen.generator.digest
    elif node.model is not None:
        manifest = load_manifest(store, frozen.prefix, node.model)
        if manifest is None:
            raise StoreError(f"{node.model} is not done yet", where=f"{store.uri}/{frozen.prefix}")
        model = manifest.outputs.get("model")
        if isinstance(model, dict) and {"uri", "digest"} <= model.keys():
            yield str(model["uri"]), str(model["digest"])
    if (second := frozen.second(node.stage)) is not None:
        yield second.uri, second.digest


def _once(uris: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(uris))
