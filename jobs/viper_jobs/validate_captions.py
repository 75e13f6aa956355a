"""`viper-job validate-captions`: schema, perfect captions, duplicates, quota, split by image, data card."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.tasks.captions.validation import validate_captions


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or validate_captions(ctx)
