"""`viper-job ingest-images`: reads the image pool, makes images uniform, rejects what cannot be used."""

from __future__ import annotations

from viper.ingest.stage import ingest
from viper.stage import Manifest, StageContext


def run(ctx: StageContext) -> Manifest | None:
    """Runs the stage; returns its manifest, or None while another shard works."""
    return ctx.done() or ingest(ctx)
