"""What finished stages took: kept once each, and what they say together."""

from __future__ import annotations

from typing import Any

import pytest

from costs.builders import frozen, known, manifest, node, part, spec
from viper.costs import Measurement, Measurements, iteration_cost, measurement
from viper.costs.demand import acceptance_key, speed_key
from viper.costs.measured import load_measurements, remember
from viper.costs.table import default_table
from viper.methods.stages import stage_graph
from viper.spec import IterationSpec
from viper.stage import PartRecord
from viper.store import DirectoryStore

TABLE = default_table()
DRAWING, JUDGING = "synthesize-captions", "validate-operations"


def took(stage: str, *parts: PartRecord, outside: float = 0.0, one: IterationSpec | None = None, **outputs: Any) -> Any:
    return measurement(frozen(one), manifest(stage, *parts, outside=outside, **outputs), 100.0)


def said(seconds: float, when: float, one: IterationSpec | None = None, accepted: int = 50) -> Measurement:
    """A measurement of 100 images that took so many seconds each."""
    own = one or spec()
    return Measurement(
        stage=DRAWING,
        iteration=f"it-{when:g}",
        identity="i",
        when=when,
        items=100,
        rows=100,
        accepted=accepted,
        seconds=100 * seconds,
        shards=8,
        gpus=1,
        speed=speed_key(own, node(own, DRAWING), TABLE),
        quality=acceptance_key(own, node(own, DRAWING), stage_graph(own.recipe)),
    )


def planned(*measured: Measurement, one: IterationSpec | None = None) -> Any:
    stages = iteration_cost(one or spec(), known(Measurements(tuple(measured)))).stages
    return next(s for s in stages if s.name == DRAWING)


def test_the_time_of_all_pods_counts_whichever_made_the_parts() -> None:
    made = took(DRAWING, *(part(i, 64, 60, 640.0) for i in range(16)), outside=30.0)
    assert (made.items, made.rows, made.accepted, made.shards, made.gpus) == (1024, 1024, 960, 8, 1)
    assert (made.seconds, made.startup) == (16 * 640, 30)


def test_no_more_pods_are_reckoned_than_there_were_parts() -> None:
    assert took(DRAWING, part(0, 10, 10, 5.0), outside=1.0).shards == 1


def test_what_exceeds_the_quota_says_nothing_of_quality() -> None:
    made = took(JUDGING, part(0, 100, 30, 1.0, over_quota=50, judged_invalid=20))
    assert (made.items, made.rows, made.accepted) == (50, 50, 30)


def test_of_captions_those_with_flaws_count() -> None:
    record = part(0, 100, 90, 1.0).model_copy(update={"counters": {"usable": 70}})
    assert took(DRAWING, record).accepted == 70
    assert took("validate-captions", part(0, 90, 63, 1.0, perfect_caption=20)).rows == 70


def test_training_is_measured_in_steps() -> None:
    made = took("train-captions", outside=520.0, steps=52)
    assert (made.items, made.seconds_per_item, made.gpus, made.startup) == (52, 10.0, 8, None)


def test_starting_up_is_measured_apart_and_not_reckoned_twice() -> None:
    table = TABLE.startup["gpu"].range
    quick = said(10.0, 1).model_copy(update={"startup": 30.0})
    without, apart = planned(said(10.0, 1)), planned(quick)
    assert apart.seconds_per_item == without.seconds_per_item
    assert without.wall.low - apart.wall.low == pytest.approx(table.low - 27)
    training = took("train-captions", outside=520.0, steps=52)
    stages = iteration_cost(spec(), known(Measurements((training,)))).stages
    trained = next(s for s in stages if s.name == "train-captions")
    assert trained.wall.low == pytest.approx(trained.items.low * 9)


def test_answers_that_were_known_already_took_no_time() -> None:
    made = took("evaluate", part(0, 100, 100, 0.01), part(1, 100, 100, 200.0), part(2, 100, 100, 100.0), outside=1.0)
    assert (made.items, made.seconds) == (200, 300.0)


@pytest.mark.parametrize("stage", ["promote", "evaluate", "train-operations"])
def test_stages_without_work_are_not_measured(stage: str) -> None:
    assert took(stage, outside=3.0) is None


def test_a_stage_is_remembered_once(tmp_path: Any) -> None:
    store = DirectoryStore(tmp_path)
    one, done = frozen(), manifest(DRAWING, part(0, 64, 60, 640.0))
    remember(store, one, done, lambda: 1.0)
    again = manifest(DRAWING, part(0, 64, 60, 640.0), outside=500.0)
    remember(store, one, again, lambda: 2.0)
    (kept,) = load_measurements(store).all
    assert (kept.when, kept.seconds, kept.key) == (1.0, 640.0, "rates/synthesize-captions/it.json")


def test_measurements_come_back_from_the_store_as_they_were(tmp_path: Any) -> None:
    store = DirectoryStore(tmp_path)
    for name in ("a", "b"):
        made = manifest(DRAWING, part(0, 64, 60, 640.0), name=name)
        remember(store, frozen(name=name), made, lambda: 1.0)
    store.put("rates/synthesize-captions/other.json", b'{"version": 2}')
    found = load_measurements(store)
    assert [m.iteration for m in found.all] == ["a", "b"]
    measured = found.speed(DRAWING, speed_key(spec(), node(spec(), DRAWING), TABLE))
    assert measured is not None
    assert measured.value.low < 10 < measured.value.high


def test_a_plan_believes_what_was_measured_rather_than_the_table() -> None:
    stage = planned(said(7.0, 1))
    assert (stage.seconds_per_item.low, stage.seconds_per_item.high) == pytest.approx((6.3, 7.7))
    assert (stage.acceptance.low, stage.acceptance.high) == pytest.approx((0.45, 0.55))
    assert stage.sources == ("measured in it-1 (n=100)", "acceptance measured in it-1 (n=100)")


def test_the_newest_measurement_counts_most() -> None:
    rising, falling = planned(said(4, 1), said(8, 2)), planned(said(8, 1), said(4, 2))
    assert falling.seconds_per_item.middle < 6 < rising.seconds_per_item.middle
    assert rising.sources[0] == "measured in it-2 and 1 before (n=200)"


def test_measurements_that_scatter_make_a_wider_range() -> None:
    def width(stage: Any) -> float:
        return float(stage.seconds_per_item.high / stage.seconds_per_item.low)

    assert width(planned(said(2, 1), said(10, 2))) > width(planned(said(6, 1), said(6, 2)))


def test_other_settings_are_scaled_from_what_was_measured() -> None:
    eight = spec(engines={"reconstruction": {"steps": 8, "guidance": 1.0}})
    exact, scaled, reckoned = planned(said(40.0, 1)), planned(said(40.0, 1), one=eight), planned(one=eight)
    assert scaled.sources[0] == "scaled from what was measured in it-1 (n=100) under other settings"
    assert scaled.seconds_per_item.high < exact.seconds_per_item.low / 4
    assert scaled.seconds_per_item.low <= reckoned.seconds_per_item.high
    assert reckoned.seconds_per_item.low <= scaled.seconds_per_item.high


@pytest.mark.parametrize(
    "other",
    [
        spec(engines={"reconstructor": "flux:/models/flux"}),
        spec(profile={"device": "cuda", "defaults": {"gpus": 1, "nodeSelector": {"nvidia.com/gpu.product": "H100"}}}),
    ],
    ids=["another engine", "another GPU"],
)
def test_measurements_say_nothing_of_another_engine_or_gpu(other: IterationSpec) -> None:
    assert planned(said(7.0, 1), one=other).seconds_per_item == planned(one=other).seconds_per_item


def test_where_the_model_lies_does_not_matter_to_its_speed() -> None:
    moved = spec(engines={"reconstructor": "qwen-image:/models/qwen-image"})
    assert planned(said(7.0, 1), one=moved).sources[0].startswith("measured")


def test_other_thresholds_accept_another_share() -> None:
    strict = spec(recipe={"validation": {"clip": {"minScore": 0.9}}})
    measured = Measurement(
        **{
            **said(1.0, 1).model_dump(),
            "stage": JUDGING,
            "speed": speed_key(spec(), node(spec(), JUDGING), TABLE),
            "quality": acceptance_key(spec(), node(spec(), JUDGING), stage_graph(spec().recipe)),
        }
    )

    def sources(one: IterationSpec) -> tuple[str, ...]:
        stages = iteration_cost(one, known(Measurements((measured,)))).stages
        return next(s.sources for s in stages if s.name == JUDGING)

    assert "acceptance measured in it-1 (n=100)" in sources(spec())
    assert "acceptance assumed" in sources(strict)


def test_a_stage_that_accepted_nothing_does_not_make_plans_impossible() -> None:
    assert planned(said(1.0, 1, accepted=0)).acceptance == TABLE.acceptance[DRAWING].range
