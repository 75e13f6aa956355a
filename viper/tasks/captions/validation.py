"""The stage `validate-captions`: samples (I, C_g, R) that are worth training on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from viper.methods.stages import INGEST, SYNTHESIZE_CAPTIONS, VALIDATE_CAPTIONS
from viper.stage import Manifest, StageContext
from viper.stage.context import in_order
from viper.stage.rows import schema_of
from viper.tasks.captions.synthesis import CaptionRow
from viper.tasks.card import write_card
from viper.tasks.dataset import Figures, Selection
from viper.tasks.pool import Pool, PoolImage
from viper.tasks.text import comparable

#: A flaw is a fact about the original (paper, prompt 1); these words betray that the pictures are compared instead.
_COMPARES = re.compile(
    r"\b(reconstruct\w*|re-?creat(ed|ion)|generated (image|picture|version)|(second|other|painted) (image|picture))\b",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<!\d)[.!?\n]+|[.!?\n]+(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSample:
    """A validated sample. `image` (encoded) is empty in rejected rows; it is found under `image_id`."""

    sample_id: str
    image_id: str
    image: bytes = b""
    caption: str
    refinement: list[str]
    refined_caption: str
    split: str = ""
    passport: str
    accepted: bool = False
    reason: str


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
            rows = ctx.read(
                VALIDATE_CAPTIONS, record, CaptionSample, lambda r: (r.image_id, r.caption, r.refinement, r.accepted)
            )
            for row in rows:
                selection.recall(row, _key(row))
        else:
            found = [row for row in ctx.read(SYNTHESIZE_CAPTIONS, part, CaptionRow, _texts) if row.accepted]
            images = {image.image_id: image for image in pool.part(part.index)}
            rows = [_validate(row, images, selection) for row in found]
            splits = Counter(row.split for row in rows if row.accepted)
            before = sum(len(row.refinement) for row in found)
            counters = {
                "train": splits["train"],
                "held_out": splits["held_out"],
                "flaws.dropped": before - sum(len(row.refinement) for row in rows),
            }
            seconds = ctx.clock() - started
            schema = schema_of(CaptionSample)
            ctx.write_part(part.index, rows, schema, seconds=seconds, counters=counters, ordered=True)
        for row in rows:
            _measure(row, figures)
        count = ctx.progress.advance if record is None else ctx.progress.reuse
        count(len(rows))
    sources = (INGEST, SYNTHESIZE_CAPTIONS)
    outputs = write_card(ctx, sources, ("caption", "critique", "refine"), figures.summary())
    return ctx.finish(sources, parts=len(source.parts), outputs=outputs)


def _texts(row: CaptionRow) -> tuple[object, ...]:
    """What is read of a candidate: its picture stays where it is."""
    texts = row.caption, row.refinement, row.refined_caption
    return row.sample_id, row.image_id, *texts, row.passport, row.accepted


def _validate(row: CaptionRow, images: dict[str, PoolImage], selection: Selection) -> CaptionSample:
    flaws = clean_flaws(row.refinement, row.caption)
    if not row.caption.strip():
        reason = "empty-caption"
    elif not row.refinement:
        reason = "perfect-caption"
    else:
        reason = "" if flaws else "no-usable-flaw"
    sample = CaptionSample(
        sample_id=row.sample_id,
        image_id=row.image_id,
        caption=row.caption,
        refinement=flaws,
        refined_caption=row.refined_caption,
        passport=row.passport,
        reason=reason,
    )
    sample = selection.decide(sample, _key(sample))
    return replace(sample, image=images[sample.image_id].data) if sample.accepted else sample


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


def _key(row: CaptionSample) -> Hashable:
    """The same caption with the same flaws is the same lesson, whatever the image."""
    return comparable(row.caption), frozenset(comparable(flaw) for flaw in row.refinement)


def _measure(row: CaptionSample, figures: Figures) -> None:
    if row.accepted:
        figures.image(row.image_id)
        figures.measure("flaws per caption", len(row.refinement))
        figures.measure("characters per caption", len(row.caption))
        for flaw in row.refinement:
            figures.measure("characters per flaw", len(flaw))
