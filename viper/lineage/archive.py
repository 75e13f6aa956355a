"""The registry and the object stores that a walk reads; nothing is written and nothing but they is asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from viper.errors import NotFoundError
from viper.registry import ModelVersion, Registry
from viper.stage import FrozenIteration, Manifest, StageContext, load_frozen, load_manifest
from viper.store import store_of


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
        reader = open_iteration(uri)
        return load_manifest(reader.store, reader.frozen.prefix, stage)


def open_iteration(uri: str) -> StageContext:
    """A reader of the parts of the iteration at `<store URI>/iterations/<name>`; raises `StoreError`."""
    store, name = store_of(uri)
    frozen = load_frozen(store, name)
    if frozen is None:
        raise NotFoundError("it is not in the store", where=uri)
    return StageContext(frozen, store, "lineage", Path("unused"))
