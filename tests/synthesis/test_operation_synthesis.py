"""Operations: categories, instructions, edits; what is dropped before the costly edit, and what steering does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.synthesis import FakeEngines, FakeVlm, context, frozen, say_instruction
from viper.ingest.stage import ingest
from viper.spec.recipe import CATEGORIES
from viper.stage import FrozenIteration, Manifest, StageContext
from viper.tasks.captions.synthesis import synthesize_captions
from viper.tasks.captions.validation import validate_captions
from viper.tasks.operations.balance import quotas, steer
from viper.tasks.operations.synthesis import MAX_INSTRUCTION, synthesize_operations

SCENES = "smallworld:scenes?count=6&seed=3"
ONLY = {"stages": "operations", "partSize": 4}


def operations(root: Path, recipe: dict[str, Any], vlm: FakeVlm | None = None) -> tuple[StageContext, FakeEngines]:
    it = frozen(SCENES, {**ONLY, **recipe})
    assert ingest(context(root, "ingest-images", it)) is not None
    ctx = context(root, "synthesize-operations", it)
    engines = FakeEngines(ctx, vlm)
    assert synthesize_operations(ctx, engines) is not None
    return ctx, engines


def manifest(ctx: StageContext) -> Manifest:
    found = ctx.done()
    assert found is not None
    return found


def instruct(*texts: str) -> FakeVlm:
    def say(request: object, seed: int, place: int) -> str:
        return json.dumps({"entity_to_edit": "it", "editing_instruction": texts[place % len(texts)]})

    return FakeVlm({"instruction": say})


def test_operations_work_without_captions(tmp_path: Path) -> None:
    ctx, engines = operations(tmp_path, {"operations": {"editsPerImage": 2}})
    rows = list(ctx.rows("synthesize-operations"))
    assert len(rows) == 12
    assert len({r["sample_id"] for r in rows}) == 12
    assert engines.vlm.calls == [("category", 8), ("instruction", 8), ("category", 4), ("instruction", 4)]
    assert all(r["edited"] and r["category"] == r["chosen_category"] and not r["steered"] for r in rows)
    assert manifest(ctx).inputs.keys() == {"ingest-images"}


def test_proposals_start_from_the_refined_caption_and_from_the_caption_when_it_was_perfect(tmp_path: Path) -> None:
    def critique(request: Any, seed: int, place: int) -> str:
        return json.dumps({"refinement": [] if place == 1 else ["A ring is missing."]})

    it = frozen(SCENES, {"partSize": 4, "schedule": "upfront"})
    ingest(context(tmp_path, "ingest-images", it))
    before = context(tmp_path, "synthesize-captions", it)
    synthesize_captions(before, FakeEngines(before, FakeVlm({"critique": critique})))
    validate_captions(context(tmp_path, "validate-captions", it))
    ctx = context(tmp_path, "synthesize-operations", it)
    engines = FakeEngines(ctx)
    synthesize_operations(ctx, engines)
    captions = {r["image_id"]: r for r in ctx.rows("synthesize-captions")}
    asked = [r.prompt for r in engines.vlm.requests if r.prompt.startswith("Write an instruction")]
    rows = list(ctx.rows("synthesize-operations"))
    for row, prompt in zip(rows, asked, strict=True):
        assert captions[row["image_id"]]["refined_caption"] in prompt
    assert sum("with a blue top" in prompt for prompt in asked) == 4, "the two perfect captions were not refined"
    assert manifest(ctx).inputs.keys() == {"ingest-images", "synthesize-captions"}


def test_weak_instructions_are_dropped_before_the_edit(tmp_path: Path) -> None:
    vlm = instruct("Make it red.", "make it  RED", " . ", "x" * (MAX_INSTRUCTION + 1))
    ctx, engines = operations(tmp_path, {"operations": {"editsPerImage": 4}}, vlm)
    assert manifest(ctx).rejected == {"empty-instruction": 6, "long-instruction": 6, "repeated-instruction": 6}
    assert engines.editor.instructions == ["Make it red."] * 6


def test_the_same_instruction_for_different_images_is_no_repetition(tmp_path: Path) -> None:
    ctx, _ = operations(tmp_path, {}, instruct("Make it red."))
    assert manifest(ctx).accepted == 6


def test_what_the_editor_refuses_is_rejected_with_its_note(tmp_path: Path) -> None:
    ctx, _ = operations(tmp_path, {}, instruct("Do the impossible.", "Make it red."))
    assert manifest(ctx).rejected == {"editor-refused": 3}
    row = next(r for r in ctx.rows("synthesize-operations", rejected=True) if not r["accepted"])
    assert (row["editor_note"], row["edited"]) == ("there is no such thing", b"")


def test_unreadable_choices_and_instructions_are_rejected_and_never_edited(tmp_path: Path) -> None:
    vlm = FakeVlm(
        {
            "category": lambda r, s, p: '{"chosen_category": "Painting"}' if p == 0 else _choice(p),
            "instruction": lambda r, s, p: "{}" if p == 0 else say_instruction(r, s, p),
        }
    )
    ctx, engines = operations(tmp_path, {"partSize": 6}, vlm)
    assert manifest(ctx).rejected == {"invalid-json": 2}
    assert len(engines.editor.instructions) == 4
    assert manifest(ctx).counters["category.failed"] == manifest(ctx).counters["instruction.failed"] == 1


def _choice(place: int, category: str = "") -> str:
    return json.dumps({"analysis": "", "chosen_category": category or CATEGORIES[place % 4], "reasoning": ""})


def test_a_model_that_always_chooses_one_category_is_steered_to_the_targets(tmp_path: Path) -> None:
    vlm = FakeVlm({"category": lambda r, s, p: _choice(p, "Editing Background")})
    balance = {"mode": "targets", "targets": dict(zip(CATEGORIES, (0.25, 0.25, 0.0, 0.5), strict=True))}
    recipe = {"partSize": 6, "operations": {"editsPerImage": 2, "categoryBalance": balance}}
    ctx, engines = operations(tmp_path, recipe, vlm)
    rows = list(ctx.rows("synthesize-operations"))
    assert Counter(r["category"] for r in rows) == {CATEGORIES[0]: 3, CATEGORIES[1]: 3, CATEGORIES[3]: 6}
    assert all(r["steered"] and r["chosen_category"] == "Editing Background" for r in rows)
    counters = manifest(ctx).counters
    assert (counters["steered"], counters["chosen.Editing Background"]) == (12, 12)
    assert counters["used.Attribute Tuning"] == 6
    prompts = [r.prompt for r in engines.vlm.requests if r.prompt.startswith("Write")]
    assert sum("Attribute Tuning" in p for p in prompts) == 6, "the instruction is asked for the steered category"


def test_in_model_mode_the_choice_stands(tmp_path: Path) -> None:
    ctx, _ = operations(tmp_path, {}, FakeVlm({"category": lambda r, s, p: _choice(p, "Editing Background")}))
    assert {r["category"] for r in ctx.rows("synthesize-operations")} == {"Editing Background"}


SHARES = st.lists(st.integers(0, 5), min_size=4, max_size=4).filter(any)


@given(st.lists(st.sampled_from(CATEGORIES), max_size=60), SHARES, st.integers(0, 7))
def test_steering_meets_the_quotas_exactly_and_changes_no_more_than_it_must(
    choices: list[str], weights: list[int], first: int
) -> None:
    shares = {c: w / sum(weights) for c, w in zip(CATEGORIES, weights, strict=True)}
    quota = quotas(len(choices), shares, first)
    steered = steer(choices, shares, first)
    assert {c: steered.count(c) for c in CATEGORIES} == {c: quota[c] for c in CATEGORIES}
    must = sum(max(0, choices.count(c) - quota[c]) for c in CATEGORIES)
    assert sum(a != b for a, b in zip(choices, steered, strict=True)) == must
    assert all(abs(quota[c] - len(choices) * shares[c]) < 1 for c in CATEGORIES)


def test_ties_go_to_another_category_in_every_part() -> None:
    equal = dict.fromkeys(CATEGORIES, 0.25)
    total = Counter[str]()
    for part in range(4):
        total.update(quotas(1, equal, part))
    assert set(total.values()) == {1}


@pytest.mark.parametrize("stages", ["both", "mixed"])
def test_operations_of_theta1_name_the_training_stage_they_were_made_with(tmp_path: Path, stages: str) -> None:
    it: FrozenIteration = frozen(SCENES, {"stages": stages})
    ctx = context(tmp_path, "synthesize-operations", it)
    assert FakeEngines(ctx).inputs == (("train-captions",) if stages == "both" else ())
