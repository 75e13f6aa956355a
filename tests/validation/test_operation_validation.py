"""Validated operations: CLIP filter, judge, votes, quota by category, shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageChops

from support.synthesis import FakeClip, FakeEditor, FakeEngines, FakeVlm, Script, context, frozen, say_valid
from viper.engines.base import EditResult, VlmRequest
from viper.images import decode, image_id
from viper.ingest.stage import ingest
from viper.spec.recipe import CATEGORIES, ClipFilter
from viper.stage import FrozenIteration, Manifest, StageContext
from viper.tasks.dataset import split_of
from viper.tasks.operations.clip_filter import clip_problem, clip_scores
from viper.tasks.operations.judge import tally
from viper.tasks.operations.synthesis import synthesize_operations
from viper.tasks.operations.validation import validate_operations
from viper.tasks.structured import Reply, Verdict

SCENES = "smallworld:scenes?count=8&seed=3"


def proposed(root: Path, recipe: dict[str, Any] | None = None, **roles: Any) -> FrozenIteration:
    quiet = {"validation": {"judge": {"controls": 0}}}
    it = frozen(SCENES, {"stages": "operations", "partSize": 3, **quiet, **(recipe or {})})
    ingest(context(root, "ingest-images", it))
    ctx = context(root, "synthesize-operations", it)
    assert synthesize_operations(ctx, FakeEngines(ctx, **roles)) is not None
    return it


def validated(
    root: Path, it: FrozenIteration, judge: Script = say_valid, **roles: Any
) -> tuple[Manifest, StageContext, FakeEngines]:
    ctx = context(root, "validate-operations", it)
    engines = FakeEngines(ctx, FakeVlm({"judge": judge}), **roles)
    manifest = validate_operations(ctx, engines)
    assert manifest is not None
    return manifest, ctx, engines


def test_accepted_edits_carry_both_images_and_the_score(tmp_path: Path) -> None:
    it = proposed(tmp_path)
    manifest, ctx, engines = validated(tmp_path, it)
    assert (manifest.accepted, manifest.rejected) == (8, {})
    for row in ctx.rows("validate-operations"):
        assert row["image"]
        assert row["edited"]
        assert row["clip_score"] == 1.0
        assert row["instruction"]
    assert engines.vlm.calls == [("judge", 3), ("judge", 3), ("judge", 2)]


def test_drifted_edits_are_rejected_before_the_judge_sees_them(tmp_path: Path) -> None:
    it = proposed(tmp_path)
    originals = {r["image_id"] for r in context(tmp_path, "x", it).rows("ingest-images", ["image_id"])}
    clip = FakeClip(lambda image: (1.0, 0.0) if image_id(image) in originals else (0.6, 0.8))
    manifest, ctx, engines = validated(tmp_path, it, image_similarity=clip)
    assert manifest.rejected == {"clip-drift": 8}
    assert engines.vlm.calls == []
    row = next(ctx.rows("validate-operations", rejected=True))
    assert row["clip_score"] == pytest.approx(0.6)
    assert row["edited"] == b""


class IdleEditor(FakeEditor):
    """Changes nothing and does not say so."""

    def edit(self, images: Any, instructions: Any, seeds: Any) -> list[EditResult]:
        return [EditResult(image) for image in images]


def test_edits_that_changed_no_pixel_are_rejected_whatever_their_score(tmp_path: Path) -> None:
    manifest, _, engines = validated(tmp_path, proposed(tmp_path, editor=IdleEditor()))
    assert manifest.rejected == {"unchanged": 8}
    assert engines.vlm.calls == []


def test_each_original_is_embedded_once(tmp_path: Path) -> None:
    it = proposed(tmp_path, {"operations": {"editsPerImage": 3}})
    _, _, engines = validated(tmp_path, it)
    assert engines.image_similarity.images == 8 + 24


def test_the_judge_sees_original_edit_and_instruction_and_its_reason_is_kept(tmp_path: Path) -> None:
    it = proposed(tmp_path)
    manifest, ctx, engines = validated(tmp_path, it, lambda r, s, p: '{"is_valid": false, "reason": "a ring is gone"}')
    assert manifest.rejected == {"judge-rejected": 8}
    assert {r["judge_reason"] for r in ctx.rows("validate-operations", rejected=True)} == {"a ring is gone"}
    request, row = engines.vlm.requests[0], next(ctx.rows("synthesize-operations"))
    assert len(request.images) == 2
    assert request.images[0].tobytes() != request.images[1].tobytes()
    assert row["instruction"] in request.prompt


def test_a_majority_of_votes_decides(tmp_path: Path) -> None:
    def vote(request: object, seed: int, place: int) -> str:
        return json.dumps({"is_valid": place % 3 != 0})

    it = proposed(tmp_path, {"validation": {"judge": {"votes": 3, "controls": 0}}})
    manifest, ctx, engines = validated(tmp_path, it, vote)
    assert manifest.accepted == 8
    assert engines.vlm.calls[0] == ("judge", 9)
    assert {(r["votes"], r["votes_valid"]) for r in ctx.rows("validate-operations")} == {(3, 2)}


def test_an_unreadable_judge_accepts_nothing(tmp_path: Path) -> None:
    manifest, _, engines = validated(tmp_path, proposed(tmp_path), lambda r, s, p: "yes, fine")
    assert manifest.rejected == {"invalid-json": 8}
    assert engines.vlm.calls[:3] == [("judge", 3)] * 3, "asked again as often as the recipe says"
    assert manifest.counters["judge.attempts"] == 24


VOTES = st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=9).filter(lambda v: len(v) % 2 == 1)


@given(VOTES)
def test_only_more_than_half_of_all_votes_accept(votes: list[bool | None]) -> None:
    answers = [Reply(None if v is None else Verdict(is_valid=v), 1, 0, "unread" if v is None else "") for v in votes]
    assert (tally(answers).problem == "") == (votes.count(True) > len(votes) / 2)


def test_clip_limits() -> None:
    limits = ClipFilter(min_score=0.7, max_score=0.99)
    assert clip_problem(0.69, limits) == "clip-drift"
    assert clip_problem(0.7, limits) == ""
    assert clip_problem(0.995, limits) == "clip-unchanged"
    assert clip_problem(1.0, ClipFilter()) == "", "a maximum of 1 disables the upper limit"


def test_a_broken_embedding_counts_as_drift() -> None:
    image = Image.new("RGB", (8, 8))
    (score,) = clip_scores(FakeClip(lambda _: (float("nan"), 0.0)), [image], [image.copy()])
    assert clip_problem(score, ClipFilter()) == "clip-drift"


def test_the_quota_keeps_the_targets_when_categories_are_steered(tmp_path: Path) -> None:
    balance = {"mode": "targets"}
    operations = {"editsPerImage": 4, "samples": 8, "expectedAcceptance": 0.25, "categoryBalance": balance}
    manifest, _, _ = validated(tmp_path, proposed(tmp_path, {"operations": operations}))
    assert {k: v for k, v in manifest.counters.items() if k.startswith("accepted.")} == {
        f"accepted.{c}": 2 for c in CATEGORIES
    }
    assert manifest.rejected == {"over-quota": 24}


def test_the_same_image_is_on_the_same_side_in_both_tasks(tmp_path: Path) -> None:
    it = proposed(tmp_path, {"operations": {"editsPerImage": 3}, "validation": {"heldOutShare": 0.5}})
    _, ctx, _ = validated(tmp_path, it)
    rows = list(ctx.rows("validate-operations", ["image_id", "split"]))
    assert {r["split"] for r in rows} == {"train", "held_out"}
    assert all(r["split"] == split_of(r["image_id"], 0.5) for r in rows)


def test_the_card_shows_the_balance_before_and_after_the_filters(tmp_path: Path) -> None:
    it = proposed(tmp_path, {"operations": {"editsPerImage": 2}})
    manifest, ctx, _ = validated(tmp_path, it, lambda r, s, p: json.dumps({"is_valid": p % 2 == 0}))
    card = json.loads(ctx.store.get(f"{ctx.prefix}/{manifest.outputs['card']}"))
    assert sum(card["tables"]["Candidates by category"].values()) == 16
    assert sum(card["tables"]["Samples by category"].values()) == manifest.accepted == 8
    assert card["distributions"]["CLIP score of candidates"]["n"] == 16


def test_shards_end_in_the_same_data_as_one_process(tmp_path: Path) -> None:
    rows = []
    for name, shards in (("one", 1), ("three", 3)):
        it = proposed(tmp_path / name, {"operations": {"samples": 5}})
        calls = []
        for shard in reversed(range(shards)):
            ctx = context(tmp_path / name, "validate-operations", it, shard, shards)
            engines = FakeEngines(ctx)
            validate_operations(ctx, engines)
            calls += engines.vlm.calls
        assert calls == [("judge", 3), ("judge", 3)], "nothing is judged twice, and nothing beyond the quota"
        rows.append(list(ctx.rows("validate-operations", rejected=True)))
    assert rows[0] == rows[1]
    assert sum(r["accepted"] for r in rows[0]) == 5
    assert [r["reason"] for r in rows[0]] == [""] * 5 + ["over-quota"] * 3


def test_a_shard_that_was_interrupted_judges_only_what_is_missing(tmp_path: Path) -> None:
    it = proposed(tmp_path)
    first = context(tmp_path, "validate-operations", it, 0, 2)
    first.store.put(f"{first.prefix}/claims/2/00001", b"1")  # the other shard has begun its part
    assert validate_operations(first, FakeEngines(first)) is None
    again = context(tmp_path, "validate-operations", it, 0, 2)
    engines = FakeEngines(again)
    assert validate_operations(again, engines) is None
    assert engines.vlm.calls == []


def test_the_card_says_how_many_known_bad_edits_the_judge_accepted(tmp_path: Path) -> None:
    """One that says yes to everything is found out; its verdicts on real edits stay what they were."""
    recipe = {"validation": {"judge": {"controls": 1.0}}}
    manifest, ctx, engines = validated(tmp_path, proposed(tmp_path, recipe))
    assert manifest.accepted == 8
    assert (manifest.counters["judge.controls"], manifest.counters["judge.controls.accepted"]) == (8, 8)
    assert sum(count for _, count in engines.vlm.calls) == 16
    card = ctx.store.get(f"{ctx.prefix}/{manifest.outputs['cardMarkdown']}").decode()
    assert "8 of 8 known-bad edits" in card
    assert "take another judge" in card


def test_a_judge_that_reads_instructions_has_no_false_accepts(tmp_path: Path) -> None:
    it = proposed(tmp_path, {"validation": {"judge": {"controls": 1.0}}})
    true = {r["sample_id"]: r for r in context(tmp_path, "x", it).rows("synthesize-operations")}
    of = {decode(r["edited"]).tobytes(): r["instruction"] for r in true.values()}

    def look(request: VlmRequest, seed: int, place: int) -> str:
        said = of.get(request.images[1].tobytes())
        return json.dumps({"is_valid": said is not None and said in request.prompt})

    manifest, ctx, _ = validated(tmp_path, it, look)
    assert manifest.accepted == 8
    assert manifest.counters["judge.controls.accepted"] == 0
    assert "it tells them apart" in ctx.store.get(f"{ctx.prefix}/{manifest.outputs['cardMarkdown']}").decode()


def test_edits_that_drew_another_picture_are_rejected_before_the_judge_is_paid(tmp_path: Path) -> None:
    class Redrawing(FakeEditor):
        def edit(self, images: Any, instructions: Any, seeds: Any) -> list[EditResult]:
            return [EditResult(ImageChops.invert(image)) for image in images]

    manifest, _, engines = validated(tmp_path, proposed(tmp_path, editor=Redrawing()))
    assert manifest.rejected == {"redrawn": 8}
    assert engines.vlm.calls == []


def test_a_quantile_becomes_the_clip_threshold_the_same_for_all_shards(tmp_path: Path) -> None:
    recipe = {"validation": {"judge": {"controls": 0}, "clip": {"minQuantile": 0.25}}}
    it = proposed(tmp_path, recipe)
    edited = [r["edited"] for r in context(tmp_path, "x", it).rows("synthesize-operations")]
    cosine = {decode(e).tobytes(): 0.5 + i / 100 for i, e in enumerate(edited)}

    def embed(image: Image.Image) -> tuple[float, float]:
        c = cosine.get(image.tobytes(), 1.0)
        return c, (1 - c * c) ** 0.5

    for shard in (0, 1):
        ctx = context(tmp_path, "validate-operations", it, shard, 2)
        ctx.store.put(f"{ctx.prefix}/claims/2/00001", b"1")
        engines = FakeEngines(ctx, FakeVlm({"judge": say_valid}), image_similarity=FakeClip(embed))
        manifest = validate_operations(ctx, engines)
    assert manifest is not None
    assert manifest.rejected == {"clip-drift": 2}, "a quarter of eight"
