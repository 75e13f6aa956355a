"""Bytes that a stage leaves in the object store. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from viper.costs.demand import generator_size, makers
from viper.costs.items import Items
from viper.costs.ranges import ZERO, Range, total
from viper.costs.table import RateTable
from viper.extensions import reader
from viper.methods.stages import StageNode
from viper.spec import IterationSpec

#: Photographs are about 4:3, their longer side as long as allowed.
ASPECT = 0.75


def stage_bytes(
    spec: IterationSpec, node: StageNode, graph: Iterable[StageNode], counted: Items, table: RateTable
) -> Range:
    """Bytes of a stage: the pool and generated images, or weights and one resumable checkpoint.

    Text is left out, being a thousandth of it; so are weights whose size no name tells (the small world's are small).
    """
    own = reader("pools", spec.images.uri)
    side = (own and own.side) or spec.images.max_side
    photo = table.storage["photo"].range * (side**2 * ASPECT)
    png = table.storage["png"].range
    drawn = {
        "reconstructor": png * (spec.recipe.captions.reconstruction_size**2 * ASPECT),
        "editor": png * min(spec.engines.editing.max_pixels, side**2 * ASPECT),
    }
    makes = node.stage.makes
    match makes:
        case "images":
            return counted.kept * photo
        case "rows":
            return counted.kept * total(size for engine, size in drawn.items() if engine in node.stage.engines)
        case "samples":  # a reconstruction is for the critic alone, an edit is part of the sample
            edited = any("editor" in maker.engines for maker in makers(node, graph))
            return counted.kept * (photo + drawn["editor"] if edited else photo)
        case "model":
            size = generator_size(spec)
            if size is None:
                return ZERO
            return (table.storage["weights"].range + table.storage["state"].range) * (size * 1e9)
        case "maps" | "scores" | "decision" | "iteration":
            return ZERO
        case _:
            assert_never(makes)
