"""A registry with a base and two versions, each made by an iteration whose records are in a store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from report.report_builders import Plan, build_iteration, model
from viper.evaluation.promotion import lineage
from viper.methods.stages import PROMOTE
from viper.registry import Registry, sqlite_uri
from viper.registry.tags import BASE_VERSION
from viper.stage import FrozenIteration, StageContext
from viper.store import DirectoryStore

NAME = "viper-small"


@dataclass(frozen=True)
class Ancestry:
    """Versions 1 (the base), 2 and 3 of `viper-small`; `@generator` is 3."""

    registry: Registry
    store: DirectoryStore
    iterations: tuple[FrozenIteration, ...]


def ancestry(root: Path) -> Ancestry:
    """Builds it below a folder."""
    registry, store = Registry(sqlite_uri(root)), DirectoryStore(root / "store")
    base = model("v1")
    registry.register(NAME, base.uri, base.digest, tags={BASE_VERSION: 1, "viper.initial_uri": "smallworld:starter"})
    made = []
    for number in (1, 2):
        plan = Plan(name=f"demo-{number}", number=number, seed=number, images=24, steps=6)
        frozen = build_iteration(store, root / "work", plan)
        tags = lineage(StageContext(frozen, store, PROMOTE, root / "work"))
        after = model(f"v{number + 1}")
        tags |= {"viper.decision": "promoted", "viper.reason": "not worse"}
        registry.register(NAME, after.uri, after.digest, run=frozen.tracking.parent_run, tags=tags)
        made.append(frozen)
    registry.promote(NAME, "generator", 3, expected=None)
    return Ancestry(registry, store, tuple(made))
