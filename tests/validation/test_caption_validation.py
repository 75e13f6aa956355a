"""Validated captions: what is dropped and why, the split by image, the quota, the data card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.synthesis import FakeEngines, FakeVlm, Script, context, frozen, interrupt_after, say_critique
from viper.ingest.stage import ingest
from viper.stage import FrozenIteration, Manifest, StageContext
from viper.tasks.captions.synthesis import synthesize_captions
from viper.tasks.captions.validation import clean_flaws, validate_captions


def validated(
    root: Path, recipe: dict[str, Any] | None = None, count: int = 8, **scripts: Script
) -> tuple[Manifest, StageContext]:
    it = frozen(f"smallworld:scenes?count={count}&seed=3", {"partSize": 3, **(recipe or {})})
    before = synthesized(root, it, **scripts)
    ctx = context(root, "validate-captions", before.frozen)
    manifest = validate_captions(ctx)
    assert manifest is not None
    return manifest, ctx


def synthesized(root: Path, it: FrozenIteration, **scripts: Script) -> StageContext:
    ingest(context(root, "ingest-images", it))
    ctx = context(root, "synthesize-captions", it)
    assert synthesize_captions(ctx, FakeEngines(ctx, FakeVlm(scripts))) is not None
    return ctx


def flaws(*by_place: list[str]) -> Callable[[object, int, int], str]:
    return lambda request, seed, place: json.dumps({"refinement": by_place[place % len(by_place)]})


def test_accepted_samples_carry_the_image_bytes_of_ingest(tmp_path: Path) -> None:
    manifest, ctx = validated(tmp_path)
    assert (manifest.accepted, manifest.rejected) == (8, {})
    images = {r["image_id"]: r["image"] for r in ctx.rows("ingest-images")}
    rows = list(ctx.rows("validate-captions"))
    assert all(r["image"] == images[r["image_id"]] for r in rows)
    assert [r["sample_id"] for r in rows] == [r["sample_id"] for r in ctx.rows("synthesize-captions", ["sample_id"])]


def test_perfect_captions_are_dropped_and_kept_for_inspection(tmp_path: Path) -> None:
    manifest, ctx = validated(tmp_path, critique=flaws([], ["A ring is missing."], []))
    assert manifest.rejected == {"perfect-caption": 5}
    row = next(r for r in ctx.rows("validate-captions", rejected=True) if not r["accepted"])
    assert row["caption"]
    assert (row["split"], row["image"]) == ("", b"")


def test_flaws_that_speak_of_the_reconstruction_are_removed(tmp_path: Path) -> None:
    said = flaws(["The reconstructed image lacks a ring.", "A ring is missing."], ["The second image is darker."])
    manifest, ctx = validated(tmp_path, critique=said)
    assert manifest.rejected == {"no-usable-flaw": 3}
    assert {tuple(r["refinement"]) for r in ctx.rows("validate-captions")} == {("A ring is missing.",)}


def test_a_flaw_that_the_caption_already_states_is_none(tmp_path: Path) -> None:
    caption = "The wall is red. A cat sleeps!"
    assert clean_flaws(["The wall is red.", "a cat sleeps", "The cat is black."], caption) == ["The cat is black."]
    manifest, _ = validated(tmp_path, caption=lambda r, s, p: caption, critique=flaws(["The wall is red."]))
    assert manifest.rejected == {"no-usable-flaw": 8}
    assert manifest.counters["flaws.dropped"] == 8


def test_flaws_are_cleaned_of_repetitions_and_blanks() -> None:
    assert clean_flaws(["A ring.", " a RING ", "", " … ", "A disc."]) == ["A ring.", "A disc."]


def test_the_same_caption_with_the_same_flaws_counts_once(tmp_path: Path) -> None:
    manifest, _ = validated(tmp_path, caption=lambda r, s, p: "An image.", critique=flaws(["A ring.", "A disc."]))
    assert (manifest.accepted, manifest.rejected) == (1, {"duplicate-sample": 7})


def test_the_quota_takes_the_first_samples_in_order(tmp_path: Path) -> None:
    manifest, ctx = validated(tmp_path, {"captions": {"samples": 4, "expectedAcceptance": 0.5}})
    assert (manifest.accepted, manifest.rejected) == (4, {"over-quota": 4})
    assert [r["accepted"] for r in ctx.rows("validate-captions", ["accepted"], rejected=True)] == [True] * 4 + [
        False
    ] * 4


def test_the_split_is_counted_and_about_the_share_that_was_asked_for(tmp_path: Path) -> None:
    manifest, ctx = validated(tmp_path, {"validation": {"heldOutShare": 0.4}}, count=40)
    splits = [r["split"] for r in ctx.rows("validate-captions", ["split"])]
    assert 8 <= splits.count("held_out") <= 24
    assert (manifest.counters["train"], manifest.counters["held_out"]) == (
        splits.count("train"),
        splits.count("held_out"),
    )


def test_the_card_tells_counts_funnel_distributions_and_origin(tmp_path: Path) -> None:
    recipe = {"captions": {"samples": 4, "expectedAcceptance": 0.5}}
    manifest, ctx = validated(tmp_path, recipe, critique=flaws([], ["A.", "B."], ["C."]))
    card = json.loads(ctx.store.get(f"{ctx.prefix}/{manifest.outputs['card']}"))
    assert card["counts"]["accepted"] == card["counts"]["train"] + card["counts"]["heldOut"] == manifest.accepted
    assert [s["stage"] for s in card["funnel"]] == ["ingest-images", "synthesize-captions", "validate-captions"]
    assert card["funnel"][2]["rejected"] == manifest.rejected
    assert card["distributions"]["flaws per caption"]["max"] == 2
    assert card["provenance"]["models"]["author"]["digest"] == "sha256:theta0"
    assert len(card["provenance"]["prompts"]["critique"]) == 64
    text = ctx.store.get(f"{ctx.prefix}/{manifest.outputs['cardMarkdown']}").decode()
    assert "perfect-caption 3" in text
    assert "smallworld:scenes" in text


def test_cards_and_manifests_are_the_same_bytes_for_the_same_iteration(tmp_path: Path) -> None:
    made = [validated(tmp_path / name) for name in "ab"]
    assert made[0][0].content_digest == made[1][0].content_digest
    for name in ("card", "cardMarkdown"):
        assert len({ctx.store.get(f"{ctx.prefix}/{manifest.outputs[name]}") for manifest, ctx in made}) == 1


def test_a_rerun_after_any_part_ends_in_the_same_manifest(tmp_path: Path) -> None:
    recipe = {"captions": {"samples": 5, "expectedAcceptance": 0.5}}
    whole, _ = validated(tmp_path / "whole", recipe)
    for stop in (0, 1, 2):
        it = frozen("smallworld:scenes?count=8&seed=3", {"partSize": 3, **recipe})
        synthesized(tmp_path / str(stop), it)
        ctx = context(tmp_path / str(stop), "validate-captions", it)
        interrupt_after(ctx, stop)
        with pytest.raises(KeyboardInterrupt):
            validate_captions(ctx)
        again = validate_captions(context(tmp_path / str(stop), "validate-captions", it))
        assert again is not None
        assert again.content_digest == whole.content_digest


def test_rejecting_every_sample_still_ends_in_a_manifest_that_says_why(tmp_path: Path) -> None:
    manifest, ctx = validated(tmp_path, critique=say_nothing)
    assert (manifest.accepted, manifest.rejected, manifest.counters["train"]) == (0, {}, 0)
    card = json.loads(ctx.store.get(f"{ctx.prefix}/{manifest.outputs['card']}"))
    assert card["funnel"][1]["rejected"] == {"invalid-json": 8}
    assert "invalid-json 8" in ctx.store.get(f"{ctx.prefix}/{manifest.outputs['cardMarkdown']}").decode()


def say_nothing(request: object, seed: int, place: int) -> str:
    return ""


def test_other_shards_leave_the_work_to_the_first(tmp_path: Path) -> None:
    it = frozen("smallworld:scenes?count=4&seed=3")
    synthesized(tmp_path, it, critique=say_critique)
    assert validate_captions(context(tmp_path, "validate-captions", it, 1, 2)) is None
    assert validate_captions(context(tmp_path, "validate-captions", it, 0, 2)) is not None
