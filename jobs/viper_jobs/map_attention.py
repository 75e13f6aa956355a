"""`viper-job map-attention`: where θ0 and the trained checkpoints look on the same images."""

from __future__ import annotations

from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    if manifest := ctx.done():
        return manifest
    from viper.analysis.attention import AttentionModel
    from viper.analysis.stage import Looker, map_attention
    from viper.modelcache.resolve import model_dir
    from viper.stage import ResolvedModel

    spec = ctx.frozen.iteration.spec

    def load(model: ResolvedModel) -> Looker:
        return AttentionModel(model_dir(ctx, model), spec.profile.device, spec.recipe.analysis.attention_pixels)

    return map_attention(ctx, load)
