"""The stage `validate-captions`: samples (I, C_g, R) that are worth training on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from viper.methods.stages import INGEST, SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS
from viper.stage import Manifest, StageContext
from viper.stage.context import Row, in_order
from viper.tasks.card import write_card
from viper.tasks.dataset import Figures, Selection
from viper.tasks.pool import Pool, PoolImage
from viper.tasks.text import comparable

if TYPE_CHECKING:
    import pyarrow as pa

#: A flaw is a fact about the original (paper, prompt 1); these words betray that the pictures are compared instead.
_COMPARES = re.compile(
    r"\b(reconstruct\w*|re-?creat(ed|ion)|generated (image|picture|version)|(second|other|painted) (image|picture))\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<!\d)[.!?\n]+|[.!?\n]+(?!\d)")


def schema() -> pa.Schema:
    """Columns of the stage. `image` (encoded) is empty in rejected rows; it is found under `image_id`."""
    import pyarrow as pa

    return pa.schema(
        [
            ("sample_id", pa.string()),
            ("image_id", pa.string()),
            ("image", pa.binary()),
            ("caption", pa.string()),
            ("refinement", pa.list_(pa.string())),
            ("refined_caption", pa.string()),
            ("split", pa.string()),
            ("passport", pa.string()),
            ("accepted", pa.bool_()),
            ("reason", pa.string()),
        ]
    )


def validate_captions(ctx: StageContext) -> Manifest | None:
    """Runs the stage. Duplicates and the quota depend on all samples before, so shard 0 does the work in order."""
    return None if ctx.shard else in_order(lambda: _validate_parts(ctx))


def _validate_parts(ctx: StageContext) -> Manifest | None:
    recipe = ctx.frozen.iteration.spec.recipe
    pool, source = Pool(ctx), ctx.manifest(SYNTHESIZE_CAPTIONS)
    selection = Selection(recipe.captions.samples, recipe.validation.held_out_share)
    figures = Figures()
    ctx.progress.begin("check", sum(p.accepted for p in source.parts), unit="caption")
    for part in source.parts:
        started, record = ctx.clock(), ctx.part(part.index)
        if record is not None:
            light = ["image_id", "caption", "refinement", "accepted", "reason", "split"]
            rows = ctx.table(VALIDATE_CAPTIONS, record, light).to_pylist()
            for row in rows:
                selection.recall(row, _key(row))
        else:
            columns = [n for n in schema().names if n not in ("image", "split")]
            found = ctx.table(SYNTHESIZE_CAPTIONS, part, columns).to_pylist()
            images = {image.image_id: image for image in pool.part(part.index)}
            rows = [_validate(row, images, selection) for row in found if row["accepted"]]
            splits = Counter(row["split"] for row in rows if row["accepted"])
            before = sum(len(row["refinement"]) for row in found if row["accepted"])
            counters = {
                "train": splits["train"],
                "held_out": splits["held_out"],
                "flaws.dropped": before - sum(len(row["refinement"]) for row in rows),
            }
            seconds = ctx.clock() - started
            ctx.write_part(part.index, rows, schema(), seconds=seconds, counters=counters, ordered=True)
        for row in rows:
            _measure(row, figures)
        count = ctx.progress.advance if record is None else ctx.progress.reuse
        count(len(rows))
    sources = (INGEST, SYNTHESIZE_CAPTIONS)
    outputs = write_card(ctx, sources, ("caption", "critique", "refine"), figures.summary())
    return ctx.finish(sources, parts=len(source.parts), outputs=outputs)


def _validate(row: Row, images: dict[str, PoolImage], selection: Selection) -> Row:
    flaws = clean_flaws(row["refinement"], row["caption"])
    if not row["caption"].strip():
        reason = "empty-caption"
    elif not row["refinement"]:
        reason = "perfect-caption"
    else:
        reason = "" if flaws else "no-usable-flaw"
    row = selection.decide(row | {"refinement": flaws, "reason": reason}, _key(row | {"refinement": flaws}))
    return row | {"image": images[row["image_id"]].data if row["accepted"] else b""}


def clean_flaws(refinement: Sequence[str], caption: str = "") -> list[str]:
    """The flaws in order, without repetitions, blanks, sentences about the reconstruction, and what the caption says
    itself word for word."""
    said = {comparable(sentence) for sentence in _SENTENCES.split(caption)}
    kept: dict[str, str] = {}
    for flaw in refinement:
        key = comparable(flaw)
        if key and key not in said and not _COMPARES.search(flaw):
            kept.setdefault(key, flaw.strip())
    return list(kept.values())


def _key(row: Row) -> Hashable:
    """The same caption with the same flaws is the same lesson, whatever the image."""
    return comparable(row["caption"]), frozenset(comparable(flaw) for flaw in row["refinement"])


def _measure(row: Row, figures: Figures) -> None:
    if row["accepted"]:
        figures.image(row["image_id"])
        figures.measure("flaws per caption", len(row["refinement"]))
        figures.measure("characters per caption", len(row["caption"]))
        for flaw in row["refinement"]:
            figures.measure("characters per flaw", len(flaw))
