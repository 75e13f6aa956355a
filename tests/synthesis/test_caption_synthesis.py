"""Captions, reconstructions, critiques: what a part holds, and what happens to outputs that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.synthesis import FakeEngines, FakeVlm, context, frozen, say_critique
from viper.images import decode
from viper.ingest.stage import ingest
from viper.stage import FrozenIteration, StageContext
from viper.tasks.captions.synthesis import synthesize_captions

SCENES = "smallworld:scenes?count=6&seed=3"


def ingested(root: Path, it: FrozenIteration) -> StageContext:
    assert ingest(context(root, "ingest-images", it)) is not None
    return context(root, "synthesize-captions", it)


def test_every_image_gets_a_caption_a_reconstruction_and_a_critique(tmp_path: Path) -> None:
    ctx = ingested(tmp_path, frozen(SCENES, {"partSize": 4, "captions": {"reconstructionSize": 96}}))
    engines = FakeEngines(ctx)
    manifest = synthesize_captions(ctx, engines)
    assert manifest is not None
    assert [p.rows for p in manifest.parts] == [4, 2]
    rows = list(ctx.rows("synthesize-captions"))
    images = [r["image_id"] for r in ctx.rows("ingest-images", ["image_id"])]
    assert [r["image_id"] for r in rows] == images
    for row in rows:
        assert row["refinement"][1] == "A small ring is missing."
        assert row["refined_caption"].endswith("small ring.")
        assert decode(row["reconstruction"]).size == (96, 96)
    assert len({r["sample_id"] for r in rows}) == 6
    # One engine at a time: all captions before the first critique.
    told = [("critique", 4), ("refine", 4), ("critique", 2), ("refine", 2)]
    assert engines.vlm.calls == [("caption", 4), ("caption", 2), *told]


def test_the_reconstructor_and_the_critic_see_what_they_should_and_nothing_else(tmp_path: Path) -> None:
    ctx = ingested(tmp_path, frozen("smallworld:scenes?count=1&seed=3"))
    engines = FakeEngines(ctx)
    synthesize_captions(ctx, engines)
    caption, critique, refine = engines.vlm.requests
    assert (len(caption.images), len(critique.images), len(refine.images)) == (1, 2, 1)
    assert critique.images[0].tobytes() == caption.images[0].tobytes()
    assert critique.schema is not None
    assert critique.schema["required"] == ["refinement"]
    assert "A small ring is missing." in refine.prompt


def test_only_the_requests_that_could_not_be_read_are_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def stubborn(request: object, seed: int, place: int) -> str:
        asked.append(seed)
        return "no JSON here" if len(asked) in (2, 5) else say_critique(request, seed, place)  # type: ignore[arg-type]

    ctx = ingested(tmp_path, frozen("smallworld:scenes?count=4&seed=3"))
    engines = FakeEngines(ctx, FakeVlm({"critique": stubborn}))
    manifest = synthesize_captions(ctx, engines)
    assert manifest is not None
    assert [c for c in engines.vlm.calls if c[0] == "critique"] == [("critique", 4), ("critique", 1), ("critique", 1)]
    assert len(set(asked)) == 3, "each attempt has its own seed"
    temperatures = [
        s.temperature for s, c in zip(engines.vlm.samplings, engines.vlm.calls, strict=True) if c[0] == "critique"
    ]
    assert temperatures[0] == 0
    assert min(temperatures[1:]) > 0, "a greedy retry would repeat itself"
    assert manifest.accepted == 4
    assert manifest.counters["critique.attempts"] == 6


def test_invalid_json_is_rejected_and_counted_when_the_attempts_are_used_up(tmp_path: Path) -> None:
    ctx = ingested(tmp_path, frozen("smallworld:scenes?count=3&seed=3"))
    engines = FakeEngines(ctx, FakeVlm({"critique": lambda r, s, p: '{"refinement": "a string"}' if p == 1 else "{"}))
    manifest = synthesize_captions(ctx, engines)
    assert manifest is not None
    assert (manifest.accepted, manifest.rejected) == (0, {"invalid-json": 3})
    assert manifest.counters["critique.failed"] == 3
    row = next(ctx.rows("synthesize-captions", rejected=True))
    assert row["caption"]
    assert row["attempts"] == 4
    assert row["detail"]


@pytest.mark.parametrize(
    ("said", "reason"), [("  \n", "empty-caption"), ("A picture that never…", "unfinished-caption")]
)
def test_captions_without_content_are_not_reconstructed(tmp_path: Path, said: str, reason: str) -> None:
    ctx = ingested(tmp_path, frozen("smallworld:scenes?count=2&seed=3"))
    engines = FakeEngines(ctx, FakeVlm({"caption": lambda r, s, p: said}))
    manifest = synthesize_captions(ctx, engines)
    assert manifest is not None
    assert manifest.rejected == {reason: 2}
    assert engines.reconstructor.calls == []


def test_a_perfect_caption_is_its_own_refined_caption(tmp_path: Path) -> None:
    ctx = ingested(tmp_path, frozen("smallworld:scenes?count=1&seed=3"))
    engines = FakeEngines(ctx, FakeVlm({"critique": lambda r, s, p: '{"refinement": []}'}))
    synthesize_captions(ctx, engines)
    (row,) = ctx.rows("synthesize-captions")
    assert (row["refinement"], row["refined_caption"]) == ([], row["caption"])
    assert ("refine", 1) not in engines.vlm.calls


def test_the_same_iteration_gives_the_same_manifest_and_another_seed_other_samples(tmp_path: Path) -> None:
    digests, ids = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ctx = ingested(tmp_path / name, frozen(SCENES, {"seed": seed}))
        manifest = synthesize_captions(ctx, FakeEngines(ctx))
        assert manifest is not None
        digests.append(manifest.content_digest)
        ids.append([r["sample_id"] for r in ctx.rows("synthesize-captions")])
    assert digests[0] == digests[1] != digests[2]
    assert not set(ids[0]) & set(ids[2])


def test_the_passport_tells_who_made_a_sample_from_what(tmp_path: Path) -> None:
    ctx = ingested(tmp_path, frozen(SCENES))
    synthesize_captions(ctx, FakeEngines(ctx))
    row = next(ctx.rows("synthesize-captions"))
    passport = json.loads(row["passport"])
    assert passport["image_id"] == row["image_id"]
    assert passport["models"] == {"generator": "sha256:theta0", "critic": "sha256:theta0"}
    assert set(passport["seeds"]) == {"caption", "reconstruct", "critique", "refine"}
    assert set(passport["prompts"]) == {"caption", "critique", "refine"}


def test_photographs_are_reconstructed_in_their_own_aspect(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    folder = tmp_path / "pool"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for i, (width, height) in enumerate([(300, 200), (200, 300), (600, 400)]):
        Image.fromarray(noise.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{i}.png")
    ctx = ingested(tmp_path, frozen(str(folder), {"captions": {"reconstructionSize": 512}}))
    engines = FakeEngines(ctx)
    synthesize_captions(ctx, engines)
    assert sorted(engines.reconstructor.calls) == [(1, (352, 512)), (2, (512, 352))]
