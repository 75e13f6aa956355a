"""The stage `ingest-images`: every source image becomes one row, accepted or rejected with a reason."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from viper.errors import AlreadyExistsError, InputError, NotFoundError, StoreError
from viper.images import ImageLimits, Prepared, Unusable, decode, prepare, reading
from viper.ingest.near import NearDuplicates, NearEmbeddings
from viper.ingest.sources import Listing, PoolEntry, Source, open_source
from viper.methods.stages import INGEST
from viper.modelcache.engines import StageEngines
from viper.plan.types import LEFT_OUT, counted
from viper.spec.iteration import Images
from viper.stage import Manifest, StageContext
from viper.stage.context import in_order
from viper.stage.rows import Binary, Float32, Int32, schema_of
from viper.stored import KEEP, enveloped, read_content
from viper.words import plural


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRow:
    """An image of the pool. `image` is empty for those that could not be read and for exact duplicates; `embedding`
    unless near-duplicates are looked for by it."""

    image_id: str = ""
    image: Binary = b""
    width: Int32 = 0
    height: Int32 = 0
    source: str
    phash: str = ""
    embedding: list[Float32] | None = None
    bytes: int
    detail: str = ""
    accepted: bool = False
    reason: str = ""


def ingest(ctx: StageContext, engines: StageEngines | None = None) -> Manifest | None:
    """Runs the stage in one process with several decoding threads.

    Whether an image is a duplicate depends on all images before it, so shard 0 does all the work; further shards
    return None at once. Raises `InputError` when the pool has no images.
    """
    if ctx.shard:
        return None
    engines = engines or StageEngines(ctx)
    return in_order(lambda: _ingest(ctx, engines))


def _ingest(ctx: StageContext, engines: StageEngines) -> Manifest | None:
    spec = ctx.frozen.iteration.spec
    source = open_source(spec.images.uri)
    with ctx.progress.waits("listing the pool", source.uri):
        entries, left_out = _entries(ctx, source, spec.images)
    size = spec.recipe.part_size
    parts = [entries[start : start + size] for start in range(0, len(entries), size)]
    pending = set(ctx.pending(len(parts)))
    already = sum(len(p) for i, p in enumerate(parts) if i not in pending)
    ctx.progress.begin("ingest", len(entries), already, unit="image")
    prepare_entry = partial(_prepare, source, _limits(spec.images))
    limits = spec.recipe.validation
    seen = _Seen(limits.near_duplicate_distance, limits.near_duplicate_similarity)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for index, part in enumerate(parts):
            started = ctx.clock()
            if index not in pending:
                record = ctx.part(index)
                assert record is not None  # noqa: S101 - `pending` found it; parts are immutable
                for row in ctx.read(
                    INGEST, record, ImageRow, lambda r: (r.image_id, r.source, r.phash, r.embedding, r.accepted)
                ):
                    if row.accepted:
                        seen.add(Known(row.image_id, int(row.phash, 16), _vector(row.embedding)), row.source)
                continue
            rows, changed = [], 0
            made = list(pool.map(prepare_entry, part))
            embeddings = _embeddings(made, engines) if limits.near_duplicate_similarity is not None else {}
            for i, (prepared, entry) in enumerate(zip(made, part, strict=True)):
                rows.append(_row(entry, prepared, embeddings.get(i), seen))
                changed += isinstance(prepared, Prepared) and prepared.changed
                ctx.progress.advance()
            counters = {"images.reencoded": changed}
            seconds = ctx.clock() - started
            ctx.write_part(index, rows, schema_of(ImageRow), seconds=seconds, counters=counters, ordered=True)
    outputs = {"source": source.uri, "images": len(entries), **({LEFT_OUT: left_out} if left_out else {})}
    return ctx.finish((), parts=len(parts), outputs=outputs)


def _limits(images: Images) -> ImageLimits:
    return ImageLimits(images.min_side, images.max_side, images.max_pixels)


def _entries(ctx: StageContext, source: Source, images: Images) -> tuple[list[PoolEntry], dict[str, int]]:
    """The entries of this iteration, and what is left out beside them by suffix.

    A folder is listed once, so that files that come and go change nothing later.
    """
    if not source.enumerable:
        return _choose(source, source.listing(), images), {}
    key = f"{ctx.prefix}/listing.json"
    if (listed := _listing(ctx, key)) is not None:
        return listed
    listing = source.listing()
    chosen = _choose(source, listing, images)
    # ASCII: names may not be valid Unicode.
    content = enveloped({"entries": [[e.name, e.size] for e in chosen], LEFT_OUT: listing.left_out})
    try:
        ctx.store.put(key, json.dumps(content, indent=0).encode(), if_absent=True)
        return chosen, listing.left_out
    except AlreadyExistsError:
        return _listing(ctx, key) or (chosen, listing.left_out)


def _listing(ctx: StageContext, key: str) -> tuple[list[PoolEntry], dict[str, int]] | None:
    try:
        data = ctx.store.get(key)
    except NotFoundError:
        return None
    where = f"{ctx.store.uri}/{key}"
    if data.startswith(b"["):  # 0.1.0 wrote the list alone
        data = b'{"entries": ' + data + b"}"
    found = read_content(data, what="a listing", where=where, names=True)
    try:
        entries = [PoolEntry(str(name), int(size)) for name, size in found["entries"]]
        return entries, {str(suffix): int(count) for suffix, count in found.get(LEFT_OUT, {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise StoreError("is not a listing: it has no names with their sizes", where=where, fix=KEEP) from None


def _choose(source: Source, listing: Listing, images: Images) -> list[PoolEntry]:
    entries = listing.entries
    if not entries:
        others = counted(listing.left_out)
        raise InputError(
            "there are no images" + (f", but other files: {others}" if others else ""),
            where=source.uri,
            fix="put images there (JPEG, PNG, WebP, TIFF, …; sub-folders are searched, archives are not), or change "
            "spec.images.uri",
        )
    chosen = entries[images.offset :][: images.limit]
    if not chosen:
        raise InputError(
            f"the pool has {plural(len(entries), 'image')}, and spec.images.offset skips {images.offset}",
            where=source.uri,
            fix="add images, or lower offset (in a ViperLoop: limit × iterations images are needed, "
            "or set rotateImages: false)",
        )
    return chosen


def _prepare(source: Source, limits: ImageLimits, entry: PoolEntry) -> Prepared | Unusable:
    try:
        if entry.size > limits.max_bytes:
            raise Unusable("too-large", f"{entry.size} bytes cannot be an image of {limits.max_pixels} pixels")
        with reading(entry.size):
            return prepare(source.read(entry.name), limits)
    except Unusable as problem:
        return problem


@dataclass(frozen=True)
class Known:
    """What an image is recognised by."""

    image_id: str
    phash: int
    embedding: NDArray[np.float32] | None


def _embeddings(made: Sequence[Prepared | Unusable], engines: StageEngines) -> dict[int, NDArray[np.float32]]:
    """Embeddings of the images of a part, by their place in it."""
    places = [i for i, image in enumerate(made) if isinstance(image, Prepared)]
    images = [decode(image.data) for image in made if isinstance(image, Prepared)]
    return dict(zip(places, engines.image_similarity.embed_images(images), strict=True)) if images else {}


def _vector(embedding: Sequence[float] | None) -> NDArray[np.float32] | None:
    return None if embedding is None else np.asarray(embedding, np.float32)


class _Seen:
    """Accepted images so far, by id, by perceptual hash and by embedding."""

    def __init__(self, distance: int, similarity: float | None) -> None:
        self._by_id: dict[str, str] = {}
        self._sources: list[str] = []
        self._near, self._alike = NearDuplicates(distance), NearEmbeddings(similarity)

    def add(self, image: Known, source: str) -> None:
        self._by_id[image.image_id] = source
        self._sources.append(source)
        self._near.add(image.phash)
        if image.embedding is not None:
            self._alike.add(image.embedding)

    def problem(self, image: Known) -> Unusable | None:
        if image.image_id in self._by_id:
            return Unusable("duplicate", f"the same pixels as {self._by_id[image.image_id]}")
        near = self._near.find(image.phash)
        if near is None and image.embedding is not None:
            near = self._alike.find(image.embedding)
        return None if near is None else Unusable("near-duplicate", f"looks like {self._sources[near]}")


def _row(entry: PoolEntry, image: Prepared | Unusable, embedding: NDArray[np.float32] | None, seen: _Seen) -> ImageRow:
    source = entry.name.encode("utf-8", "replace").decode()
    if isinstance(image, Unusable):
        return ImageRow(source=source, bytes=max(0, entry.size), reason=image.reason, detail=image.detail)
    known = Known(image.image_id, image.phash, embedding)
    problem = Unusable("blank", f"all its pixels are {image.blank}") if image.blank else seen.problem(known)
    row = ImageRow(
        image_id=image.image_id,
        # An exact duplicate is inspected at its original; a near-duplicate has to be seen beside it.
        image=b"" if problem is not None and problem.reason == "duplicate" else image.data,
        width=image.width,
        height=image.height,
        source=source,
        phash=f"{image.phash:016x}",
        embedding=None if embedding is None else embedding.tolist(),
        bytes=entry.size if entry.size >= 0 else len(image.data),
    )
    if problem is not None:
        return replace(row, reason=problem.reason, detail=problem.detail)
    seen.add(known, source)
    return replace(row, accepted=True)
