"""`viper-job promote`: registers the iteration's model and moves the alias, unless policy or gate say otherwise."""

from __future__ import annotations

from viper.evaluation.promotion import promote
from viper.registry import Registry
from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage and returns its manifest."""
    return ctx.done() or promote(ctx, Registry(ctx.frozen.tracking.uri))
