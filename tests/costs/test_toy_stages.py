"""Estimates of stages that nobody here has heard of: everything follows from what is declared of them."""

from __future__ import annotations

import pytest

from costs.builders import frozen, known, manifest, part, spec
from viper.costs import Measurements, Range, StageCost, iteration_cost, measurement
from viper.costs.demand import demands
from viper.costs.table import default_table
from viper.methods.stages import DECLARED, Stage, StageNode

TABLE = default_table()
ONE = spec(
    images={"limit": 100},
    recipe={"partSize": 1, "captions": {"samples": 50}, "operations": {"editsPerImage": 4}},
    evaluation={"questions": "q.jsonl", "limit": 10, "base": False},
)
_IMAGINE = Stage("imagine", "rows", "riddles", engines=("vlm",), per_image="recipe.operations.editsPerImage")
GRAPH = (
    StageNode(Stage("gather", "images", "pictures")),
    StageNode(Stage("fetch", "samples", "riddles")),
    StageNode(_IMAGINE, ("gather",)),
    StageNode(Stage("sift", "samples", "riddles", quota="recipe.captions.samples"), ("imagine", "gather")),
    StageNode(Stage("warm-up", "model", "riddles"), ("sift",), "generator", ("sift",)),
    StageNode(
        Stage("learn", "model", "steps", training="recipe.operations.training"), ("fetch",), "warm-up", ("fetch",)
    ),
    StageNode(Stage("rank", "scores", "answers"), ("learn",), "learn"),
    StageNode(Stage("decide", "decision", ""), ("rank",)),
)


def costs(*graph: StageNode, measured: Measurements | None = None) -> dict[str, StageCost]:
    return {s.name: s for s in iteration_cost(ONE, known(measured), graph or GRAPH).stages}


def test_each_stage_works_on_what_the_ones_before_it_make() -> None:
    assert {name: (s.items.low, s.items.high, s.unit) for name, s in costs().items()} == {
        "gather": (100, 100, "pictures"),
        "fetch": (38870, 38870, "riddles"),
        "imagine": (4, 400, "riddles"),  # 50 of them, 4 an image, if all or next to none is accepted
        "sift": (pytest.approx(0.04), 50, "riddles"),
        "warm-up": (pytest.approx(0.00038), 47.5, "riddles"),  # ones that are not held out
        "learn": (3, 289, "steps"),  # of 128
        "rank": (20, 20, "answers"),  # of θ0 and what was learnt
        "decide": (0, 0, ""),
    }


def test_each_stage_that_works_takes_time_and_says_how_that_is_known() -> None:
    for name, stage in costs().items():
        assert (stage.wall.low > 0) == bool(stage.sources) == (name != "decide"), name
        assert stage.storage.high > 0 or name in ("imagine", "rank", "decide"), name


def test_how_much_of_its_rows_a_stage_accepts_is_unknown_until_it_is_measured() -> None:
    stored = frozen(ONE).model_copy(update={"graph": GRAPH})
    made = measurement(stored, manifest("imagine", part(0, 100, 80, 200.0), outside=5.0), 1.0)
    assert made is not None
    before, after = (costs(measured=m)["imagine"] for m in (None, Measurements((made,))))
    assert (before.acceptance, before.sources) == (Range(0, 1), ("write assumed", "acceptance unknown"))
    assert after.sources == ("measured in it (n=100)", "acceptance measured in it (n=100)")
    assert after.seconds_per_item.middle == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("makes", ["rows", "samples"])
def test_a_stage_of_which_nothing_says_how_much_it_does_says_that(makes: str) -> None:
    learn = StageNode(Stage("learn", "model", "steps", training="recipe.operations.training"))
    alone = StageNode(Stage("dream", makes, "dreams"), ("learn",), "learn")  # type: ignore[arg-type]
    assert costs(learn, alone)["dream"].notes == ("nothing says how many items it works on",)


@pytest.mark.parametrize("stage", DECLARED.values(), ids=lambda s: s.name)
def test_the_table_has_a_figure_of_everything_that_is_declared(stage: Stage) -> None:
    assert {*stage.calls, *stage.second_calls} <= set(TABLE.calls)
    assert (stage.name in TABLE.acceptance) == (stage.makes in ("images", "rows", "samples"))
    policy = None if stage.second == "judge" else "generator"
    assert bool(list(demands(ONE, StageNode(stage, model=policy), TABLE))) == bool(stage.unit)
