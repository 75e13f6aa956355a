"""How many items every stage works on."""

from __future__ import annotations

from typing import Any

import pytest

from costs.builders import accepted, counted, spec
from viper.costs.items import pool_size
from viper.costs.ranges import Range


def recipe(part_size: int = 1, captions: float = 1.0, operations: float = 1.0, edits: int = 1) -> dict[str, Any]:
    """A recipe by its part size, expected acceptances and edits for each image."""
    return {
        "partSize": part_size,
        "captions": {"expectedAcceptance": captions},
        "operations": {"expectedAcceptance": operations, "editsPerImage": edits},
    }


def test_with_all_accepted_the_paper_needs_its_quotas() -> None:
    found = counted(spec(recipe=recipe()), accepted(), questions=None)
    assert {name: (i.worked.low, i.worked.high) for name, i in found.items() if i.worked.high} == {
        "ingest-images": (7000, 7000),
        "synthesize-captions": (7000, 7000),
        "validate-captions": (7000, 7000),
        "train-captions": (52, 52),  # ⌈7,000 · 0.95 / 128⌉
        "synthesize-operations": (3000, 3000),
        "validate-operations": (3000, 3000),
        "train-operations": (23, 23),
    }


def test_what_is_rejected_has_to_be_made_as_well() -> None:
    shares = accepted(synthesize_captions=0.8, validate_captions=0.5, validate_operations=0.2)
    found = counted(spec(recipe=recipe(captions=0.5, operations=0.2, edits=3)), shares)
    assert found["synthesize-captions"].worked == Range(17500, 17500)
    assert found["validate-captions"].worked == Range(14000, 14000)
    assert found["synthesize-operations"].worked == Range(15000, 15000)
    assert found["validate-operations"].kept == Range(3000, 3000)
    assert found["ingest-images"].worked == Range(17500, 17500)


def test_the_less_acceptance_is_expected_the_more_is_made_up_to_the_pool() -> None:
    made = []
    for expected in (0.8, 0.4, 0.2):
        one = spec(recipe=recipe(operations=expected), images={"limit": 10000})
        made.append(counted(one, accepted(validate_operations=expected)))
    synthesis = [m["synthesize-operations"] for m in made]
    assert [i.worked.high for i in synthesis] == [3750, 7500, 10000]
    assert [bool(i.notes) for i in synthesis] == [False, False, True]
    assert "at most 10,000 of the 15,000 candidates" in synthesis[2].notes[0]
    assert [m["validate-operations"].kept.high for m in made] == [3000, 3000, 2000]


def test_expecting_too_much_pays_for_too_few_candidates_and_is_said() -> None:
    found = counted(spec(recipe=recipe(operations=0.5)), accepted(validate_operations=0.25))
    assert found["synthesize-operations"].worked == Range(6000, 6000)
    assert found["validate-operations"].kept == Range(1500, 1500)
    said = "gives at most 1,500 of 3,000 samples: recipe.operations.expectedAcceptance is too high"
    assert found["validate-operations"].notes == (said,)


def test_an_acceptance_that_may_be_too_low_is_said() -> None:
    shares = accepted() | {"validate-operations": Range(0.25, 0.7)}
    (note,) = counted(spec(recipe=recipe(operations=0.5)), shares)["validate-operations"].notes
    assert note.startswith("if only 25 % are accepted, 1,500 of 3,000 samples come out")


def test_edits_are_judged_until_there_are_enough() -> None:
    found = counted(spec(recipe=recipe(operations=0.2)), accepted(validate_operations=0.5))
    assert found["synthesize-operations"].worked == Range(15000, 15000)
    assert found["validate-operations"].worked == Range(6000, 6000)


def test_items_come_in_whole_parts_and_never_exceed_the_pool() -> None:
    one = spec(recipe={"partSize": 64, "captions": {"samples": 100, "expectedAcceptance": 1}}, images={"limit": 120})
    assert counted(one, accepted())["synthesize-captions"].worked == Range(120, 120)


def test_rejected_images_make_the_pool_smaller() -> None:
    found = counted(spec(images={"limit": 100}), accepted(ingest_images=0.9))
    assert (found["ingest-images"].worked.high, found["synthesize-captions"].worked.high) == (100, 90)


@pytest.mark.parametrize(
    ("uri", "limit", "offset", "size"),
    [
        ("s3://photographs", None, 0, None),
        ("s3://photographs", 50, 0, 50),
        ("smallworld:scenes?count=1000&seed=1", None, 0, 1000),
        ("smallworld:scenes?count=1000&seed=1", 320, 0, 320),
        ("smallworld:scenes?count=1000&seed=1", 320, 900, 100),
    ],
)
def test_the_pool_is_as_large_as_the_specification_tells(
    uri: str, limit: int | None, offset: int, size: int | None
) -> None:
    assert pool_size(spec(images={"uri": uri, "limit": limit, "offset": offset})) == size


def test_a_pool_of_unknown_size_says_how_large_it_has_to_be() -> None:
    found = counted(spec(recipe=recipe(captions=0.5)), accepted(validate_captions=0.5))
    assert "up to 14,000" in found["ingest-images"].notes[0]


@pytest.mark.parametrize(
    ("settings", "stage", "steps"),
    [
        ({"captions": {"training": {"epochs": 6}}}, "train-captions", 312),
        ({"captions": {"training": {"steps": 7}}}, "train-captions", 7),
        ({"operations": {"training": {"batchPrompts": 64, "miniBatchPrompts": 64}}}, "train-operations", 45),
        ({"stages": "mixed"}, "train-mixed", 75),
    ],
)
def test_training_takes_as_many_steps_as_its_settings_say(settings: dict[str, Any], stage: str, steps: int) -> None:
    assert counted(spec(recipe={"partSize": 1, **settings}), accepted())[stage].worked == Range(steps, steps)


@pytest.mark.parametrize(("stages", "checkpoints"), [("both", 4), ("captions", 3), ("mixed", 3)])
def test_every_checkpoint_answers_every_question(stages: str, checkpoints: int) -> None:
    one = spec(recipe={"stages": stages}, evaluation={"questions": "q.jsonl", "limit": 100})
    assert counted(one, accepted(), questions=250)["evaluate"].worked.high == checkpoints * 100
    assert counted(one, accepted(), questions=10)["evaluate"].worked.high == checkpoints * 10


def test_questions_that_are_not_known_are_asked_for() -> None:
    assert "--questions" in counted(spec(evaluation={"questions": "q.jsonl"}), accepted())["evaluate"].notes[0]
    assert "ask nothing" in counted(spec(), accepted())["evaluate"].notes[0]


def test_benchmarks_are_asked_of_every_checkpoint_whole_or_up_to_their_limit() -> None:
    benchmarks = {"tasks": {"mmstar": {}, "mmerealworld": {"limit": 1000}}, "datasets": "/data"}
    alone = spec(recipe={"stages": "captions"}, evaluation={"benchmarks": benchmarks, "base": False})
    assert counted(alone, accepted())["evaluate"].worked == Range.of(2 * (1500 + 1000))
    both = spec(recipe={"stages": "captions"}, evaluation={"questions": "q.jsonl", "benchmarks": benchmarks})
    found = counted(both, accepted())["evaluate"]
    assert found.worked.low == 2 * 2500
    assert "--questions" in found.notes[0]
    assert counted(both, accepted(), questions=50)["evaluate"].worked.low == 2 * 2550


def test_stages_that_a_recipe_leaves_out_are_left_out() -> None:
    found = counted(spec(recipe={"stages": "captions", "coldStart": {"samplesUri": "s"}}), accepted())
    assert list(found) == [
        "ingest-images",
        "cold-start",
        "synthesize-captions",
        "validate-captions",
        "train-captions",
        "evaluate",
        "promote",
    ]


def test_nothing_accepted_at_all_is_still_a_number() -> None:
    found = counted(spec(recipe=recipe()), accepted(synthesize_operations=0.0))
    assert found["synthesize-operations"].worked.high == pytest.approx(300_000, rel=0.01)
