"""Synthesis stops at its quota, whichever shard gets there, and takes over what nobody has begun."""

from __future__ import annotations

from pathlib import Path

from support.synthesis import FakeEngines, context, frozen
from viper.ingest.stage import ingest
from viper.stage import FrozenIteration, load_manifest
from viper.tasks.captions.synthesis import synthesize_captions

SCENES = "smallworld:scenes?count=24&seed=3"


def prepared(root: Path, samples: int) -> FrozenIteration:
    captions = {"samples": samples, "expectedAcceptance": 1.0}
    it = frozen(SCENES, {"partSize": 4, "captions": captions})
    assert ingest(context(root, "ingest-images", it)) is not None
    return it


def drawn(engines: FakeEngines) -> int:
    return sum(count for count, _ in engines.reconstructor.calls)  # type: ignore[attr-defined]


def test_no_more_images_are_drawn_than_the_quota_needs(tmp_path: Path) -> None:
    it = prepared(tmp_path, 7)
    ctx = context(tmp_path, "synthesize-captions", it)
    engines = FakeEngines(ctx)
    manifest = synthesize_captions(ctx, engines)
    assert manifest is not None
    assert (len(manifest.parts), manifest.accepted, drawn(engines)) == (2, 8, 8)
    assert not list(ctx.store.list(f"{ctx.prefix}/phases/")), "drafts go when their part is there"


def test_shards_share_what_the_quota_needs_and_leave_the_rest(tmp_path: Path) -> None:
    it = prepared(tmp_path, 12)
    contexts = [context(tmp_path, "synthesize-captions", it, shard, 3) for shard in range(3)]
    engines = [FakeEngines(ctx) for ctx in contexts]
    for ctx, own in zip(contexts, engines, strict=True):
        synthesize_captions(ctx, own)
    manifest = load_manifest(contexts[0].store, it.prefix, "synthesize-captions")
    assert manifest is not None
    assert (len(manifest.parts), sum(map(drawn, engines))) == (3, 12)


def test_a_shard_that_is_alone_makes_what_nobody_has_begun_and_what_others_claimed_stays_theirs(
    tmp_path: Path,
) -> None:
    it = prepared(tmp_path, 24)
    first = context(tmp_path, "synthesize-captions", it, 0, 2)
    first.store.put(f"{first.prefix}/claims/2/00003", b"1", if_absent=True)  # the other began this one, and was killed
    engines = FakeEngines(first)
    assert synthesize_captions(first, engines) is None
    assert drawn(engines) == 20
    second = context(tmp_path, "synthesize-captions", it, 1, 2)
    manifest = synthesize_captions(second, engines)
    assert manifest is not None
    assert drawn(engines) == 24
    with_other_shards = context(tmp_path / "other", "synthesize-captions", prepared(tmp_path / "other", 24), 0, 1)
    alone = synthesize_captions(with_other_shards, FakeEngines(with_other_shards))
    assert alone is not None
    assert alone.content_digest == manifest.content_digest
