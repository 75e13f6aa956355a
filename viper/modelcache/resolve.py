"""Model directories: what a URI points at, whether it is complete, and where a stage finds the files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from viper.engines.endpoints import endpoint
from viper.errors import InputError, NotFoundError, StageError, StoreError
from viper.extensions import reader
from viper.methods.stages import THETA0
from viper.modelcache import ModelCache, fetch, model_cache
from viper.modelcache.uris import check_model_uri
from viper.stage.frozen import ResolvedModel
from viper.store import DirectoryStore, ObjectStore, child_uri, open_store
from viper.store.places import cache_dir
from viper.store.transfer import (
    MANIFEST,
    directory_digest,
    directory_digests,
    directory_in_place,
    stored_digests,
    upload_directory,
)

if TYPE_CHECKING:
    from viper.stage import StageContext

#: Each entry: what it is for, and the files of which one (or all of a tuple) must be there.
_PARTS: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("configuration", (("config.json",),)),
    ("weights", (("model.safetensors",), ("model.safetensors.index.json",))),
    ("tokenizer", (("tokenizer.json",), ("vocab.json", "merges.txt"))),
    ("processor", (("processor_config.json",), ("preprocessor_config.json",))),
)


def resolve_model(uri: str, store: ObjectStore) -> ResolvedModel:
    """Pins a model directory by content and makes sure that it is complete.

    Args:
        uri: `file:///directory`, `s3://bucket/prefix` of a directory that `upload_directory` stored; or
            `hf://org/name@revision`, `models:/name@alias` or one of an extension, which are copied into `store`, so
            that their lineage does not depend on a hub or an installation.

    Raises `InputError` when files are missing or the URI is of no known kind, `StoreError` when S3 cannot be read.
    """
    check_model_uri(uri)
    if (own := reader("models", uri)) is not None:
        return _stored_copy(uri, own.open(uri), store)
    if uri.startswith(("hf://", "models:/")):
        # Into the store, so that its lineage depends on no hub; what is there already is not sent again.
        return _stored_copy(uri, fetch(uri).path, store)
    place = _file(uri)
    if place is not None:
        digests = directory_digests(place, cache=cache_dir() / "digests.json")
        check_model(uri, digests.files, lambda name: (place / name).read_bytes())
        return ResolvedModel(uri=place.absolute().as_uri(), digest=digests.digest)
    remote = open_store(uri)
    try:
        digests = stored_digests(remote, "")
    except NotFoundError as error:
        raise InputError(error.what, where=uri, fix=error.fix) from error
    check_model(uri, digests.files, remote.get)
    return ResolvedModel(uri=uri, digest=digests.digest)


def resolve_endpoint(uri: str, where: str = "") -> ResolvedModel:
    """A critic or judge behind `openai:https://host/v1#model-name`; raises `SpecError` for another form.

    Its digest is over URL and name: nobody can verify the weights there.
    """
    place = endpoint(uri, where)
    return ResolvedModel(uri=place.uri, digest=place.digest)


def _stored_copy(uri: str, folder: Path, store: ObjectStore) -> ResolvedModel:
    digests = directory_digests(folder)
    check_model(uri, digests.files, lambda name: (folder / name).read_bytes())
    key = f"models/{digests.digest.replace(':', '-')}"
    upload_directory(store, key, folder)
    return ResolvedModel(uri=child_uri(store.uri, key), digest=digests.digest)


def check_model(uri: str, files: Collection[str], read: Callable[[str], bytes]) -> None:
    """Raises `InputError` naming every file that a model directory in Hugging Face layout lacks.

    Args:
        files: relative paths that are there.
        read: content of one of them.
    """
    there = set(files)
    missing = []
    for purpose, choices in _PARTS:
        if not any(there.issuperset(choice) for choice in choices):
            missing.append(f"{' or '.join(' and '.join(c) for c in choices)} ({purpose})")
    index = "model.safetensors.index.json"
    if index in there and "model.safetensors" not in there:
        try:
            shards = set(json.loads(read(index))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{index} is not a list of weight files", where=uri, fix="save the model again") from None
        missing += [f"{name} (weights)" for name in sorted(shards - there)]
    if missing:
        raise InputError(
            f"the model directory lacks {', '.join(missing)}",
            where=uri,
            fix="save model, tokenizer and processor into it with save_pretrained (weights as safetensors)",
        )


def policy_of(ctx: StageContext) -> ResolvedModel:
    """The policy that this stage loads: θ0, or the model of the training stage that its `StageNode.model` names."""
    node = ctx.frozen.node(ctx.stage)
    if node.model is None:
        raise StageError(f"the stage {ctx.stage} loads no policy", where=ctx.frozen.name)
    return ctx.frozen.generator if node.model == THETA0 else trained_model(ctx, node.model)


def trained_model(ctx: StageContext, stage: str) -> ResolvedModel:
    """The model that a training stage made; raises `StageError` when its manifest names none."""
    model = ctx.manifest(stage).outputs.get("model")
    if not isinstance(model, dict) or not {"uri", "digest"} <= model.keys():
        raise StageError(f"the manifest of {stage} names no model", where=ctx.frozen.name)
    return ResolvedModel(uri=str(model["uri"]), digest=str(model["digest"]))


def model_dir(ctx: StageContext, model: ResolvedModel | str) -> Path:
    """A local directory with the files of a model, verified against its digest; read it, never write it.

    Args:
        model: a resolved model, or the name of a training stage of this iteration.

    Raises `StageError` when the content is not what the iteration was frozen with.
    """
    resolved = trained_model(ctx, model) if isinstance(model, str) else model
    try:
        return _directory(resolved)
    except (InputError, StoreError):
        moved = in_store(ctx.store, resolved)
        if moved is None or moved == resolved:
            raise
        return _directory(moved)


def in_store(store: ObjectStore, model: ResolvedModel) -> ResolvedModel | None:
    """The same content in `store`, where its URI is of a place that the store had before; None when it is not there."""
    inside = re.search(r"(?:^|/)(iterations/[^/]+/(?:r[0-9]+/)?stages/[^?]+|models/[^/?]+)", urlsplit(model.uri).path)
    for key in dict.fromkeys([f"models/{model.digest.replace(':', '-')}", *([inside[1]] if inside else [])]):
        with suppress(StoreError):
            if stored_digests(store, key).digest == model.digest:
                return model.model_copy(update={"uri": child_uri(store.uri, key)})
    return None


def _directory(resolved: ResolvedModel) -> Path:
    place = _file(resolved.uri)
    if place is not None and not (place / MANIFEST).is_file():
        _same(resolved, directory_digest(place, cache=cache_dir() / "digests.json"))
        return place
    store = open_store(resolved.uri)
    _same(resolved, stored_digests(store, "").digest)
    if isinstance(store, DirectoryStore):
        return directory_in_place(store)
    shared = model_cache()
    if not shared.writable and (entry := shared.find(resolved.uri)) is not None and shared.damaged(entry) == []:
        return entry.path
    # Checkpoints are made while the iteration runs: nobody could have put them into a cache that is read-only.
    return fetch(resolved.uri, shared if shared.writable else ModelCache(cache_dir())).path


def _same(model: ResolvedModel, digest: str) -> None:
    if digest != model.digest:
        raise StageError(
            f"the model has changed: its digest is {digest}, the iteration was frozen with {model.digest}",
            where=model.uri,
            fix="restore its files, or start a new iteration",
        )


def _file(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None
