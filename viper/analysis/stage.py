"""The stage `map-attention`: where θ0 and each trained checkpoint look on the same images, in numbers and pictures."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from viper.analysis.heat import Grid, panel
from viper.errors import InputError
from viper.evaluation.stage import THETA0, trained
from viper.images import decode
from viper.ingest.stage import ImageRow
from viper.methods.stages import Stage
from viper.prompts import PromptSet
from viper.stage import Manifest, ResolvedModel, StageContext
from viper.stage.rows import Float32, Int32, schema_of
from viper.tasks.dataset import split_of
from viper.tasks.external.ingest import ExternalSample

if TYPE_CHECKING:
    from viper.analysis.attention import Look

#: Parts of the pool that images are taken from.
PARTS_READ = 2


class Looker(Protocol):
    """`viper.analysis.attention.AttentionModel`."""

    def look(self, image: Image.Image, prompt: str, tokens: int) -> Look: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionRow:
    """Where a checkpoint looks on an image: `weights` is the grid row by row, shares of all attention."""

    image_id: str
    model: str
    model_digest: str
    rows: Int32
    columns: Int32
    weights: list[Float32]
    image_share: Float32
    answer: str
    accepted: bool = True
    reason: str = ""


def checkpoints(ctx: StageContext) -> list[tuple[str, ResolvedModel]]:
    """θ0, then every trained model in the order of training, by the names of the evaluation."""
    return [(THETA0, ctx.frozen.generator), *((c.name, c.model) for c in trained(ctx))]


@dataclass(frozen=True)
class Shown:
    """An image that is looked at, encoded."""

    image_id: str
    data: bytes


def chosen(ctx: StageContext, count: int) -> list[Shown]:
    """A fixed few images, held-out ones first: always the same of one iteration, in whatever order they come."""
    needed = map(ctx.frozen.node, ctx.frozen.node(ctx.stage).needs)
    source = next(n.stage for n in needed if n.stage.makes == "images" or not n.stage.images_beside)
    share = ctx.frozen.iteration.spec.recipe.validation.held_out_share
    found = {image.image_id: image for image in _images(ctx, source)}
    if not found:
        raise InputError("there is no image to look at", where=f"{ctx.frozen.name}, {source.name}")

    def rank(image_id: str) -> tuple[bool, bytes]:
        digest = hashlib.sha256(f"attention:{image_id}".encode()).digest()
        return split_of(image_id, share) != "held_out", digest

    return [found[image_id] for image_id in sorted(found, key=rank)[:count]]


def _images(ctx: StageContext, source: Stage) -> Iterator[Shown]:
    read = 0
    for part in ctx.manifest(source.name).parts:
        if not part.accepted:
            continue
        if source.makes == "images":
            pool = ctx.read(source.name, part, ImageRow, lambda r: (r.image_id, r.image, r.accepted))
            yield from (Shown(row.image_id, row.image) for row in pool if row.accepted)
        else:
            supplied = ctx.read(source.name, part, ExternalSample, lambda r: (r.image_id, r.images, r.accepted))
            yield from (Shown(row.image_id, row.images[0]) for row in supplied if row.accepted)
        read += 1
        if read == PARTS_READ:
            return


def map_attention(ctx: StageContext, open_model: Callable[[ResolvedModel], Looker]) -> Manifest | None:
    """Runs the stage; a killed one goes on with the checkpoint it was at.

    Args:
        open_model: opens a checkpoint; called only for those whose maps are not there yet.
    """
    if ctx.shard:
        return None
    recipe = ctx.frozen.iteration.spec.recipe
    settings, prompt = recipe.analysis, PromptSet.load(recipe.prompts).render("caption")
    models, images = checkpoints(ctx), chosen(ctx, recipe.analysis.attention_images)
    pending = ctx.pending(len(models))
    total = len(models) * len(images)
    ctx.progress.begin("attention", total, total - len(pending) * len(images), unit="map")
    for index in pending:
        started, (name, resolved) = ctx.clock(), models[index]
        with ctx.progress.waits(f"loading {name}"):
            model = open_model(resolved)
        rows = []
        for image in images:
            rows.append(_row(name, resolved, image, model.look(decode(image.data), prompt, settings.attention_tokens)))
            ctx.progress.advance()
        model.close()
        ctx.write_part(index, rows, schema_of(AttentionRow), seconds=ctx.clock() - started)
    made = {name: _made(ctx, index) for index, (name, _) in enumerate(models)}
    maps = []
    for number, image in enumerate(images):
        grids = {name: grid for name, by_image in made.items() for grid in [by_image[image.image_id][0]]}
        buffer = io.BytesIO()
        panel(decode(image.data), grids).save(buffer, "PNG")
        maps.append(ctx.keep(f"attention-{number:02d}.png", buffer.getvalue()))
    shares = {name: float(np.mean([share for _, share in by_image.values()])) for name, by_image in made.items()}
    outputs = {
        "maps": maps,
        "images": [image.image_id for image in images],
        "checkpoints": {name: m.digest for name, m in models},
        "image_share": {name: round(share, 6) for name, share in shares.items()},
    }
    return ctx.finish(ctx.frozen.node(ctx.stage).needs, parts=len(models), outputs=outputs)


def _row(name: str, model: ResolvedModel, image: Shown, look: Look) -> AttentionRow:
    rows, columns = look.weights.shape
    return AttentionRow(
        image_id=image.image_id,
        model=name,
        model_digest=model.digest,
        rows=rows,
        columns=columns,
        weights=look.weights.ravel().tolist(),
        image_share=look.image_share,
        answer=look.answer,
    )


def _made(ctx: StageContext, index: int) -> dict[str, tuple[Grid, float]]:
    """Grid and share by image, as the part of a checkpoint has them."""
    part = ctx.part(index)
    assert part is not None  # noqa: S101 - every part was made above, or before
    return {
        row.image_id: (np.array(row.weights, np.float32).reshape(row.rows, row.columns), row.image_share)
        for row in ctx.read(ctx.stage, part, AttentionRow)
    }
