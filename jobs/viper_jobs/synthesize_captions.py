"""`viper-job synthesize-captions`: caption with θ0, reconstruct from the caption alone, critique, refine."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.tasks.captions.synthesis import synthesize_captions


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or synthesize_captions(ctx)
