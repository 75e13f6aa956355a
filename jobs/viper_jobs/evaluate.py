"""`viper-job evaluate`: asks every checkpoint of the iteration the same held-out questions."""

from __future__ import annotations

from viper.engines.base import VisionLanguageModel
from viper.evaluation.stage import Checkpoint, evaluate
from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""

    def load(checkpoint: Checkpoint) -> VisionLanguageModel:
        from viper.engines.factory import vision_language_model

        from viper.models import model_dir

        return vision_language_model(ctx.frozen.iteration.spec, model_dir(ctx, checkpoint.model))

    return ctx.done() or evaluate(ctx, load)
