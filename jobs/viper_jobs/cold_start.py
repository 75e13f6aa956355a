"""`viper-job cold-start`: supervised fine-tuning on supplied samples before reinforcement learning."""

from __future__ import annotations

from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage and returns its manifest."""
    if manifest := ctx.done():
        return manifest
    from viper.training.cold_start import cold_start
    from viper.training.local.sft import train_sft
    from viper.training.tools import live_curves
    from viper.training.verify import verify_model

    return cold_start(ctx, train_sft, verify_model, live_curves(ctx))
