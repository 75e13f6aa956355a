"""The registry and the object stores that a walk reads; nothing is written and nothing but they is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from viper.errors import NotFoundError, StoreError
from viper.freeze import load_frozen
from viper.registry import ModelVersion, Registry
from viper.stage import FrozenIteration, Manifest, StageContext, load_manifest
from viper.store import ObjectStore, existing_store


class Records:
    """`viper.lineage.walk.Archive` on MLflow and on the stores that the versions' tags name."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._aliases = cache(registry.aliases)

    def version(self, model: str, number: int) -> ModelVersion:
        return self._registry.get(model, number)

    def aliases(self, model: str) -> Mapping[str, int]:
        return self._aliases(model)

    def frozen(self, uri: str) -> FrozenIteration:
        return open_iteration(uri).frozen

    def manifest(self, uri: str, stage: str) -> Manifest | None:
        store, name = store_of(uri)
        return load_manifest(store, f"iterations/{name}", stage)


def open_iteration(uri: str) -> StageContext:
    """A reader of the parts of the iteration at `<store URI>/iterations/<name>`; raises `StoreError`."""
    store, name = store_of(uri)
    frozen = load_frozen(store, name)
    if frozen is None:
        raise NotFoundError("it is not in the store", where=uri)
    return StageContext(frozen, store, "lineage", Path("unused"))


def store_of(uri: str) -> tuple[ObjectStore, str]:
    """The store and the name of `<store URI>/iterations/<name>`; raises `StoreError`, also when the store is gone."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise StoreError("is not the URI of an iteration", where=uri) from None
    found = re.fullmatch(r"(.*?)/*iterations/([^/]+)/?", parts.path)
    if found is None:
        raise StoreError("is not the URI of an iteration", where=uri)
    return existing_store(urlunsplit(parts._replace(path=found[1]))), found[2]
