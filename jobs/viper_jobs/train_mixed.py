"""`viper-job train-mixed`: one GRPO run on caption and operation samples together."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.training.stage import Tools, train


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage and returns its manifest."""

    def tools() -> Tools:
        from viper.training.tools import grpo_tools

        return grpo_tools(ctx)

    return ctx.done() or train(ctx, tools)
