"""`viper-job ingest-samples`: reads supplied samples for reinforcement learning."""

from __future__ import annotations

from viper.stage import Manifest, StageContext
from viper.tasks.external.ingest import ingest_samples


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or ingest_samples(ctx)
