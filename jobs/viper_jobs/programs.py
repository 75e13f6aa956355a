"""The programs of the stages that open models, trainers or the registry: what stands between them and the library.

The other stages need nothing of the kind: their declarations name the library's function itself. Everything is imported
where it is used: no image has what every stage needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from viper.engines.base import VisionLanguageModel
    from viper.evaluation.stage import Checkpoint
    from viper.spec import IterationSpec
    from viper.stage import Manifest, ResolvedModel, StageContext

#: Most images of a question: Mantis-Eval has questions of five, BLINK of four.
BENCHMARK_IMAGES = 8


def train(ctx: StageContext) -> Manifest | None:
    """A GRPO stage: from validated samples to a model."""
    from viper.training import stage

    def tools() -> stage.Tools:
        from viper.training.assembly import grpo_tools

        return grpo_tools(ctx)

    return stage.train(ctx, tools)


def cold_start(ctx: StageContext) -> Manifest | None:
    """Supervised fine-tuning on supplied samples before reinforcement learning."""
    from viper.training.assembly import live_curves
    from viper.training.cold_start import cold_start
    from viper.training.local.sft import train_sft
    from viper.training.verify import verify_model

    return cold_start(ctx, train_sft, verify_model, live_curves(ctx))


def map_attention(ctx: StageContext) -> Manifest | None:
    """Where θ0 and the trained checkpoints look on the same images."""
    from viper.analysis.attention import AttentionModel
    from viper.analysis.stage import Looker, map_attention
    from viper.modelcache.resolve import model_dir

    spec = ctx.frozen.iteration.spec

    def load(model: ResolvedModel) -> Looker:
        return AttentionModel(model_dir(ctx, model), spec.profile.device, spec.recipe.analysis.attention_pixels)

    return map_attention(ctx, load)


def evaluate(ctx: StageContext) -> Manifest | None:
    """Asks every checkpoint of the iteration the same held-out questions."""
    from viper.engines import factory
    from viper.evaluation.stage import evaluate
    from viper.modelcache.resolve import model_dir
    from viper.modelcache.stage import local_spec

    spec = with_images(local_spec(ctx.frozen, "vlm"))

    def load(checkpoint: Checkpoint) -> VisionLanguageModel:
        return factory.vision_language_model(spec, model_dir(ctx, checkpoint.model))

    return evaluate(ctx, load)


def with_images(spec: IterationSpec) -> IterationSpec:
    """The specification with room for benchmarks' questions of several images."""
    generation = spec.engines.generation
    if not spec.evaluation.benchmarks.tasks or generation.max_images >= BENCHMARK_IMAGES:
        return spec
    wider = generation.model_copy(update={"max_images": BENCHMARK_IMAGES})
    return spec.model_copy(update={"engines": spec.engines.model_copy(update={"generation": wider})})


def promote(ctx: StageContext) -> Manifest | None:
    """Registers the iteration's model and moves the alias, unless policy or gate say otherwise."""
    from viper.evaluation.promotion import promote
    from viper.registry import Registry

    return promote(ctx, Registry(ctx.frozen.tracking.uri))
