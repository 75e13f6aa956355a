"""The stage `ingest-samples`: supplied samples for RL, each row accepted, or rejected with a reason."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from viper.beside import read_beside
from viper.errors import AlreadyExistsError, InputError, StageError
from viper.images import ImageLimits, Prepared, Unusable, prepare
from viper.methods.stages import INGEST_SAMPLES
from viper.reward.sentences import normalise, split_sentences
from viper.seeds import derive
from viper.spec import ExternalData
from viper.stage import Manifest, StageContext
from viper.stage.context import in_order
from viper.stage.rows import schema_of
from viper.stored import enveloped, read_content
from viper.tasks.dataset import Selection
from viper.tasks.external.supplied import Supplied, SuppliedRow, open_supplied
from viper.tasks.passport import Passport, text_digest
from viper.words import plural

#: The policy sees one image or a pair.
MAX_IMAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSample:
    """A supplied sample. `images` are encoded, none in rejected rows; `source` is the row's place in the file."""

    sample_id: str
    image_id: str
    images: list[bytes]
    prompt: str
    ground_truth: list[str]
    split: str = ""
    source: str
    detail: str
    passport: str
    accepted: bool = False
    reason: str


def ingest_samples(ctx: StageContext) -> Manifest | None:
    """Runs the stage; duplicates depend on all rows before, so shard 0 does the work in order.

    Raises:
        InputError: there is no such file, it has no row, or rows of it are no samples; the first ones are named.
        StageError: the file has changed since the stage began.
    """
    spec = ctx.frozen.iteration.spec
    external = spec.recipe.external
    if ctx.shard or external is None:
        return None
    supplied = open_supplied(external.uri, external.columns, ctx.work_dir)
    if not len(supplied):
        raise InputError("there is no sample", where=external.uri, fix="give at least one row")
    _pin(ctx, supplied)
    supplied.check()
    return in_order(lambda: _ingest(ctx, supplied, external))


def _ingest(ctx: StageContext, supplied: Supplied, external: ExternalData) -> Manifest | None:
    spec = ctx.frozen.iteration.spec
    size = spec.recipe.part_size
    parts = -(-len(supplied) // size)
    wanted = drawn(len(supplied), external.samples, derive(spec.recipe.seed, INGEST_SAMPLES))
    selection = Selection(len(supplied), spec.recipe.validation.held_out_share)
    limits = ImageLimits(spec.images.min_side, spec.images.max_side, spec.images.max_pixels)
    ctx.progress.begin("ingest", len(wanted), unit="sample")
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for index in range(parts):
            started, record = ctx.clock(), ctx.part(index)
            if record is not None:
                for row in ctx.read(INGEST_SAMPLES, record, ExternalSample, lambda r: (r.passport, r.accepted)):
                    if row.accepted:
                        selection.recall(row, _key(json.loads(row.passport)))
                ctx.progress.reuse(record.rows)
                continue
            found = enumerate(supplied.rows(index * size, (index + 1) * size), index * size)
            there = [(position, row) for position, row in found if position in wanted]
            made = list(pool.map(partial(_prepared, supplied, limits), [row for _, row in there]))
            rows = []
            for (position, source), images in zip(there, made, strict=True):
                rows.append(_row(supplied, source, position, images, selection))
                ctx.progress.advance()
            splits = Counter(row.split for row in rows if row.accepted)
            counters = {"train": splits["train"], "held_out": splits["held_out"]}
            seconds = ctx.clock() - started
            ctx.write_part(index, rows, schema_of(ExternalSample), seconds=seconds, counters=counters, ordered=True)
    outputs = {"source": external.uri, "digest": f"sha256:{supplied.digest}", "rows": len(supplied)}
    return ctx.finish((), parts=parts, outputs=outputs)


def drawn(rows: int, count: int | None, seed: int) -> frozenset[int]:
    """Places of `count` of `rows` rows, those whose hash is smallest; all of them when there are no more."""
    if count is None or count >= rows:
        return frozenset(range(rows))
    return frozenset(sorted(range(rows), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())[:count])


def _pin(ctx: StageContext, supplied: Supplied) -> None:
    """The file must stay what it was when the stage first saw it: parts are cut from it."""
    key = f"{ctx.prefix}/listing.json"
    seen = {"digest": supplied.digest, "rows": len(supplied)}
    try:
        ctx.store.put(key, json.dumps(enveloped(seen)).encode(), if_absent=True)
    except AlreadyExistsError:
        before = read_content(ctx.store.get(key), what="a listing", where=f"{ctx.store.uri}/{key}")
        if {name: before.get(name) for name in seen} != seen:
            raise StageError(
                "the file has changed since the stage began",
                where=supplied.uri,
                fix="restore it, or start a new iteration",
            ) from None


def _prepared(supplied: Supplied, limits: ImageLimits, row: SuppliedRow) -> list[Prepared] | Unusable:
    if row.problem is not None:
        return row.problem
    if len(row.images) > MAX_IMAGES:
        return Unusable(
            "too-many-images", f"the row has {plural(len(row.images), 'image')}, at most {MAX_IMAGES} are used"
        )
    try:
        return [prepare(_read(supplied, image, limits), limits) for image in row.images]
    except Unusable as problem:
        return problem


def _read(supplied: Supplied, image: str | bytes, limits: ImageLimits) -> bytes:
    return read_beside(supplied.store, image, limits) if isinstance(image, str) else image


def _row(
    supplied: Supplied, source: SuppliedRow, position: int, images: Sequence[Prepared] | Unusable, selection: Selection
) -> ExternalSample:
    truth = source.ground_truth
    sentences = list(split_sentences(truth)) if isinstance(truth, str) else [t for t in map(str.strip, truth) if t]
    found: Sequence[Prepared] = () if isinstance(images, Unusable) else images
    passport = Passport(
        task="external",
        image_id=found[0].image_id if found else "",
        inputs={
            "file": supplied.digest,
            "prompt": text_digest(normalise(source.prompt)),
            "groundTruth": text_digest("\n".join(map(normalise, sentences))),
            **{f"image{number}": image.image_id for number, image in enumerate(found, 1)},
        },
        prompts={},
        models={},
        engines={},
        seeds={},
        part=0,  # the file decides the sample, not how it is cut
        position=position,
    )
    problem = images if isinstance(images, Unusable) else None
    if problem is None and not sentences:
        problem = Unusable("no-ground-truth", "the row has no answer")
    row = ExternalSample(
        sample_id=passport.sample_id,
        image_id=passport.image_id,
        images=[image.data for image in found],
        prompt=source.prompt,
        ground_truth=sentences,
        source=source.place,
        detail="" if problem is None else problem.detail,
        passport=passport.text,
        reason="" if problem is None else problem.reason,
    )
    row = selection.decide(row, _key(json.loads(passport.text)))
    return row if row.accepted else replace(row, images=[])


def _key(passport: dict[str, Any]) -> Hashable:
    """The same question about the same images with the same answer is the same lesson."""
    return tuple(sorted((name, digest) for name, digest in passport["inputs"].items() if name != "file"))
