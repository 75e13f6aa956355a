"""Iterations whose training stages are done without training."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import Opener, iteration

from viper.methods.stages import EVALUATE, PROMOTE, stage_graph
from viper.stage import FrozenIteration, ResolvedModel, StageContext
from viper.stage.frozen import Tracking
from viper.store import open_store


@pytest.fixture
def open_context(tmp_path: Path) -> Opener:
    """Opens a stage of a frozen iteration whose earlier stages are done; `models` are what they ended in."""

    def opened(
        stage: str,
        *,
        name: str = "it",
        models: Mapping[str, str | ResolvedModel] | None = None,
        generator: ResolvedModel | None = None,
        base: ResolvedModel | None = None,
        alias_version: int | None = None,
        tracking: Tracking | None = None,
        **spec: Any,
    ) -> StageContext:
        theta0 = generator or ResolvedModel(uri="file:///models/0", digest="sha256:000")
        frozen = FrozenIteration(
            iteration=iteration(name, **spec),
            generator=theta0,
            base=base or theta0,
            critic=theta0,
            judge=theta0,
            alias_version=alias_version,
            tracking=tracking or Tracking(uri="sqlite:////none/mlflow.db", parent_run="none"),
        )
        store = open_store(tmp_path / "store")
        for node in stage_graph(frozen.iteration.spec.recipe):
            if node.name in (EVALUATE, PROMOTE):
                continue
            ctx = StageContext(frozen, store, node.name, tmp_path / "work" / name)
            if ctx.done() is None:
                made = (models or {}).get(node.name) or f"sha256:{hashlib.sha256(node.name.encode()).hexdigest()}"
                if isinstance(made, str):
                    made = ResolvedModel(uri=f"file:///models/{node.name}", digest=made)
                outputs = {"model": {"uri": made.uri, "digest": made.digest}}
                ctx.finish(node.needs, outputs=outputs if node.name.startswith(("train-", "cold-")) else {})
        return StageContext(frozen, store, stage, tmp_path / "work" / name)

    return opened
