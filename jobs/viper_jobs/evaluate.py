"""`viper-job evaluate`: asks every checkpoint of the iteration the same held-out questions."""

from __future__ import annotations

from viper.engines import factory
from viper.engines.base import VisionLanguageModel
from viper.evaluation.stage import Checkpoint, evaluate
from viper.modelcache.stage import local_spec
from viper.models import model_dir
from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    spec = local_spec(ctx.frozen, "vlm")

    def load(checkpoint: Checkpoint) -> VisionLanguageModel:
        return factory.vision_language_model(spec, model_dir(ctx, checkpoint.model))

    return ctx.done() or evaluate(ctx, load)
