"""`viper-job synthesize-operations`: edit category, entity and instruction, then the edit."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.tasks.operations.synthesis import synthesize_operations


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or synthesize_operations(ctx)
