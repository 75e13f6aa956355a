"""From the URI of a model to a local directory with its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from viper.errors import InputError
from viper.modelcache.cache import CachedModel, ModelCache, Report
from viper.modelcache.remotes import Remote, hub, hub_commit, stored
from viper.modelcache.uris import hub_uri, is_pinned, is_remote, registered_model
from viper.store import DirectoryStore, directory_in_place
from viper.store.places import cache_dir, expanded
from viper.store.transfer import MANIFEST, directory_digests

if TYPE_CHECKING:
    from viper.registry import Registry

#: Where the cache is; the operator sets it to the mount path of the profile's model cache.
VARIABLE = "VIPER_MODEL_CACHE"
_TRUE = {"1", "ON", "YES", "TRUE"}  # as huggingface_hub reads HF_HUB_OFFLINE


@dataclass(frozen=True)
class Pinned:
    """What a URI means: the URI with everything movable resolved, and the digest of its content where it is known."""

    uri: str
    digest: str | None = None
    model: str | None = None
    version: int | None = None


def model_cache(environment: Mapping[str, str] = os.environ) -> ModelCache:
    """The cache of this machine or pod: `VIPER_MODEL_CACHE`, else `VIPER_CACHE`, else `~/.cache/viper`."""
    place = environment.get(VARIABLE)
    return ModelCache(Path(place) if place else cache_dir())


def hub_is_offline(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `HF_HUB_OFFLINE` forbids the hub, as `profile.offline` does in pods."""
    return environment.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def locate(
    uri: str,
    cache: ModelCache | None = None,
    *,
    offline: bool | None = None,
    registry: Registry | None = None,
    report: Report | None = None,
) -> Path:
    """A local directory with the verified files of a model; read it, never write it. See `fetch`.

    Args:
        uri: a path, `file:///directory`, `hf://org/name[@revision][/path]`, `s3://bucket/prefix` of a directory that
            `upload_directory` stored, `models:/name@alias` or `models:/name/version`.
    """
    if not is_remote(uri):
        return _local(uri)
    return fetch(uri, cache, offline=offline, registry=registry, report=report).path


def fetch(
    uri: str,
    cache: ModelCache | None = None,
    *,
    offline: bool | None = None,
    registry: Registry | None = None,
    update: bool = False,
    report: Report | None = None,
) -> CachedModel:
    """The entry of a model in the cache, filled or repaired first where that is needed and allowed.

    What lies on this machine (a path, `file://`, also behind `models:/`) is used in place.

    A revision of the hub that is no commit is resolved when it is first fetched; from then on the cache says what it
    means, until it is fetched with `update`. S3 and the registry are asked each time: both are the cluster's own.

    Args:
        offline: the hub is not contacted; by default what `HF_HUB_OFFLINE` says.

    Raises `InputError` with the command that fills the cache when the model is not there and may not be fetched,
    `StoreError`, `RegistryError`.
    """
    if not is_remote(uri):
        return _in_place(uri)
    cache = model_cache() if cache is None else cache
    offline = hub_is_offline() if offline is None else offline
    if uri.startswith("models:/"):
        found = pin(uri, cache, offline=offline, registry=registry)
        entry = fetch(found.uri, cache, offline=offline, report=report)
        if found.digest not in (None, "", entry.digest):
            raise InputError(
                f"its files have changed since it was registered: their digest is {entry.digest}, the registry says "
                f"{found.digest}",
                where=f"{uri} ({found.uri})",
                fix="restore the files, or register them as a new version",
            )
        return CachedModel(uri, found.uri, entry.digest, entry.size, entry.path)
    there = None if update and not offline else cache.find(uri)
    wrong = None if there is None else cache.damaged(there)
    if there is not None and wrong == [] and (uri.startswith("hf://") or not cache.writable):
        return there
    if not cache.writable or (offline and uri.startswith("hf://")):
        raise _missing(uri, cache, wrong, "the cache is read-only" if not cache.writable else "HF_HUB_OFFLINE is set")
    # Repair brings back what was recorded, not what the name means now.
    wanted = there.pinned if there is not None else uri
    return cache.fill(uri, _remote(wanted), report)


def pin(
    uri: str, cache: ModelCache | None = None, *, offline: bool | None = None, registry: Registry | None = None
) -> Pinned:
    """What a URI means now, without fetching the model: a commit of the hub, a version and digest of the registry.

    Raises `InputError` when the hub would have to be asked and must not be, `StoreError`, `RegistryError`.
    """
    cache = model_cache() if cache is None else cache
    offline = hub_is_offline() if offline is None else offline
    if uri.startswith("models:/"):
        model = registered_model(uri)
        version = (_registry() if registry is None else registry).resolve(model, uri)
        return Pinned(version.source_uri, version.digest or None, version.model, version.version)
    if uri.startswith("s3://"):
        return Pinned(uri, stored(uri).digest)
    if uri.startswith("hf://"):
        there = cache.find(uri)
        if there is not None:
            return Pinned(there.pinned, there.digest)
        if is_pinned(uri):
            return Pinned(str(hub_uri(uri)))
        if offline:
            raise InputError(
                "is not in the model cache, and HF_HUB_OFFLINE forbids to ask the hub which commit it means",
                where=uri,
                fix=f"write a commit instead of {hub_uri(uri).revision!r}, or fill the cache: {pull_command(uri)}",
            )
        return Pinned(str(hub_commit(hub_uri(uri))))
    return Pinned(uri)


def pull_command(uri: str) -> str:
    """What a person types to have a model in the cache."""
    return f"viper models pull '{uri}'"


def _remote(uri: str) -> Remote:
    return hub(uri) if uri.startswith("hf://") else stored(uri)


def _missing(uri: str, cache: ModelCache, wrong: list[str] | None, why: str) -> InputError:
    state = "is not in" if wrong is None else f"is damaged ({', '.join(wrong[:3])}) in"
    return InputError(
        f"{state} the model cache {cache.root}, and {why}",
        where=uri,
        fix=f"fill the cache where it can be written and the network is: {pull_command(uri)} "
        "(docs/model-cache.md has the pod that does it)",
    )


def _local(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        place = Path(unquote(parts.path))
    elif "://" in uri:
        raise InputError(
            "is not the URI of a model directory", where=uri, fix="use a path, file://, hf://, s3:// or models:/"
        )
    else:
        place = expanded(uri)
    if not place.is_dir():
        raise InputError("there is no such directory", where=str(place), fix="correct the path, or mount its volume")
    if (place / MANIFEST).is_file():
        return directory_in_place(DirectoryStore(place))
    return place


def _in_place(uri: str) -> CachedModel:
    place = _local(uri)
    digests = directory_digests(place, cache=cache_dir() / "digests.json")
    return CachedModel(uri, uri, digests.digest, digests.size, place)


def _registry() -> Registry:
    from viper.registry import Registry

    tracking = os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking:
        raise InputError(
            "which MLflow has the model is not said", where="MLFLOW_TRACKING_URI", fix="set it, or give --tracking-uri"
        )
    return Registry(tracking)
