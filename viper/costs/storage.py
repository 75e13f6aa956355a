"""Bytes that a stage leaves in the object store. Pure."""

from __future__ import annotations

from viper.costs.demand import generator_size
from viper.costs.items import Items
from viper.costs.ranges import ZERO, Range
from viper.costs.table import RateTable
from viper.extensions import reader
from viper.methods.stages import (
    COLD_START,
    INGEST,
    INGEST_SAMPLES,
    SYNTHESIZE_CAPTIONS,
    SYNTHESIZE_OPERATIONS,
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
)
from viper.spec import IterationSpec

#: Photographs are about 4:3, their longer side as long as allowed.
ASPECT = 0.75
_TRAININGS = (COLD_START, TRAIN_CAPTIONS, TRAIN_OPERATIONS, TRAIN_MIXED)


def stage_bytes(spec: IterationSpec, stage: str, counted: Items, table: RateTable) -> Range:
    """Bytes of a stage: the pool and generated images, or weights and one resumable checkpoint.

    Text is left out, being a thousandth of it; so are weights whose size no name tells (the small world's are small).
    """
    own = reader("pools", spec.images.uri)
    side = (own and own.side) or spec.images.max_side
    photo = table.storage["photo"].range * (side**2 * ASPECT)
    png = table.storage["png"].range
    edited = png * min(spec.engines.editing.max_pixels, side**2 * ASPECT)
    each = {
        INGEST: photo,
        INGEST_SAMPLES: photo,
        SYNTHESIZE_CAPTIONS: png * (spec.recipe.captions.reconstruction_size**2 * ASPECT),
        VALIDATE_CAPTIONS: photo,
        SYNTHESIZE_OPERATIONS: edited,
        VALIDATE_OPERATIONS: photo + edited,
    }
    if stage in each:
        return counted.kept * each[stage]
    size = generator_size(spec)
    if stage in _TRAININGS and size is not None:
        return (table.storage["weights"].range + table.storage["state"].range) * (size * 1e9)
    return ZERO
