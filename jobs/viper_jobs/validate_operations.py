"""`viper-job validate-operations`: CLIP-score filter, judge, duplicates, quota, split by image, data card."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.tasks.operations.validation import validate_operations


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or validate_operations(ctx)
