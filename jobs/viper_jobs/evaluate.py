"""`viper-job evaluate`: asks every checkpoint of the iteration the same held-out questions."""

from __future__ import annotations

from viper.engines import factory
from viper.engines.base import VisionLanguageModel
from viper.evaluation.stage import Checkpoint, evaluate
from viper.modelcache.resolve import model_dir
from viper.modelcache.stage import local_spec
from viper.spec import IterationSpec
from viper.stage import Manifest, StageContext

#: Most images of a question: Mantis-Eval has questions of five, BLINK of four.
BENCHMARK_IMAGES = 8


def with_images(spec: IterationSpec) -> IterationSpec:
    """The specification with room for benchmarks' questions of several images."""
    generation = spec.engines.generation
    if not spec.evaluation.benchmarks.tasks or generation.max_images >= BENCHMARK_IMAGES:
        return spec
    wider = generation.model_copy(update={"max_images": BENCHMARK_IMAGES})
    return spec.model_copy(update={"engines": spec.engines.model_copy(update={"generation": wider})})


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    spec = with_images(local_spec(ctx.frozen, "vlm"))

    def load(checkpoint: Checkpoint) -> VisionLanguageModel:
        return factory.vision_language_model(spec, model_dir(ctx, checkpoint.model))

    return ctx.done() or evaluate(ctx, load)
