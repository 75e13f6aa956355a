"""What stages, iterations and loops are expected to take."""

from __future__ import annotations

from typing import Any

import pytest

from costs.builders import ENGINES, known, node, spec
from viper.costs import Range, iteration_cost, loop_cost
from viper.costs.demand import Demand, billions, demands, engine_name, gpu_of
from viper.costs.estimate import call_seconds
from viper.costs.table import default_table
from viper.spec import LoopSpec
from viper.spec.iteration import Budget

TABLE = default_table()


def stage(name: str, **fields: Any) -> Any:
    return next(s for s in iteration_cost(spec(**fields), known()).stages if s.name == name)


def test_an_iteration_as_printed_takes_what_the_field_reckons() -> None:
    """320 to 450 GPU-hours on 8×A100, and diffusion is most of synthesis."""
    one = iteration_cost(spec(recipe={"captions": {"training": {"epochs": 6}}}), known())
    assert one.gpu == "A100"
    assert one.gpu_hours.low < 320
    assert one.gpu_hours.high > 450
    named = {d.work: d for d in demands(spec(), node(spec(), "synthesize-captions"), TABLE)}
    drawing, writing = (call_seconds(named[w], "A100", TABLE)[0].middle for w in ("reconstruct", "write"))
    assert drawing / (drawing + 3 * writing) > 0.9


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"steps": 25}, 1 / 2),
        ({"steps": 8, "guidance": 1}, 8 / 100),
        ({"guidance": 1}, 1 / 2),
    ],
)
def test_diffusion_costs_in_proportion_to_steps_and_passes(settings: dict[str, Any], factor: float) -> None:
    def drawing(**engines: Any) -> Range:
        one = spec(engines=engines)
        wanted = [d for d in demands(one, node(one, "synthesize-captions"), TABLE) if d.work == "reconstruct"]
        return call_seconds(wanted[0], "A100", TABLE)[0]

    whole, part = drawing(), drawing(reconstruction=settings)
    assert part.low == pytest.approx(whole.low * factor)
    assert part.high == pytest.approx(whole.high * factor)


def test_smaller_images_cost_in_proportion_to_their_pixels() -> None:
    def megapixels(side: int) -> float:
        one = spec(recipe={"captions": {"reconstructionSize": side}})
        return next(
            d.megapixels or 0 for d in demands(one, node(one, "synthesize-captions"), TABLE) if d.work == "reconstruct"
        )

    assert megapixels(512) * 4 == pytest.approx(megapixels(1024))


def test_settings_that_make_it_faster_or_slower_are_reckoned_with() -> None:
    def middle(**settings: Any) -> float:
        return float(stage("synthesize-captions", engines={"reconstruction": settings}).seconds_per_item.middle)

    assert middle(cache="firstBlock") < middle() < middle(offload="model") < middle(offload="sequential")
    assert middle(compile=True) < middle()


def test_omnigen2_takes_a_pass_more_than_others_when_it_heeds_the_image() -> None:
    def passes(editor: str, **settings: Any) -> int | None:
        one = spec(engines={"editor": editor, "editing": settings})
        return next(d.passes for d in demands(one, node(one, "synthesize-operations"), TABLE) if d.work == "edit")

    assert [passes("omnigen2"), passes("omnigen2", imageGuidance=1.0), passes("qwen-image-edit")] == [3, 2, 2]
    assert passes("omnigen2", guidance=1.0) == 1


def test_gpu_hours_do_not_depend_on_the_shards_but_the_wall_time_does() -> None:
    def cost(shards: int) -> Any:
        stages = {"synthesize-captions": {"shards": shards, "gpus": 1}}
        return stage("synthesize-captions", profile={"device": "cuda", "stages": stages})

    one, eight = cost(1), cost(8)
    startup = TABLE.startup["gpu"].range
    assert eight.gpu_hours.low - one.gpu_hours.low == pytest.approx(7 * startup.low / 3600)
    assert eight.wall.low - startup.low == pytest.approx((one.wall.low - startup.low) / 8)


def test_training_is_reckoned_by_rollouts_model_and_gpus() -> None:
    def steps(model: str, group: int, gpus: int) -> Any:
        return stage(
            "train-captions",
            generator={"uri": model},
            recipe={"captions": {"training": {"groupSize": group, "steps": 10}}},
            profile={"device": "cuda", "stages": {"train-captions": {"gpus": gpus}}},
        )

    seven, three = (steps(f"hf://Qwen/Qwen2.5-VL-{b}B-Instruct", 5, 8) for b in (7, 3))
    assert three.seconds_per_item.low == pytest.approx(seven.seconds_per_item.low * 3 / 7)
    ten = steps("hf://Qwen/Qwen2.5-VL-7B-Instruct", 10, 8)
    assert ten.seconds_per_item.low == pytest.approx(2 * seven.seconds_per_item.low)
    four = steps("hf://Qwen/Qwen2.5-VL-7B-Instruct", 5, 4)
    assert four.seconds_per_item == seven.seconds_per_item
    assert four.wall.low > seven.wall.low


def test_two_nodes_train_in_half_the_time_of_one_for_the_same_gpu_hours() -> None:
    def trained(nodes: int) -> Any:
        stages = {"train-captions": {"gpus": 8, "nodes": nodes, "workClaim": "shared"}}
        return stage("train-captions", profile={"device": "cuda", "stages": stages})

    one, two = trained(1), trained(2)
    startup = TABLE.startup["gpu"].range
    assert (two.shards, two.gpus) == (2, 8)
    assert two.wall.low - startup.low == pytest.approx((one.wall.low - startup.low) / 2)
    assert two.gpu_hours.low - one.gpu_hours.low == pytest.approx(8 * startup.low / 3600)


def test_the_published_training_step_is_the_rate_on_its_own_hardware() -> None:
    step = Demand("train", "verl", Range(1, 1), billions=7, rollouts=2560)
    seconds, kind = call_seconds(step, "H100", TABLE)
    assert (seconds / 8, kind) == (Range(120, 145), "published")
    assert call_seconds(step, "A100", TABLE)[1] == "published for H100"


def test_more_votes_of_the_judge_cost_more() -> None:
    one, three = (
        stage("validate-operations", recipe={"validation": {"judge": {"votes": v}}}).seconds_per_item.low
        for v in (1, 3)
    )
    assert three > 2.5 * one


def test_without_gpus_there_are_no_gpu_hours_and_no_bill() -> None:
    engines = {**ENGINES, **dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")}
    one = iteration_cost(spec(profile={}, engines=engines), known())
    assert (one.gpu, one.gpu_hours, one.money) == ("cpu", Range(0, 0), None)
    assert one.wall.low > 0


def test_a_price_of_ones_own_replaces_the_range() -> None:
    one = iteration_cost(spec(), known(price=2.0))
    assert one.money is not None
    assert one.money.low == pytest.approx(2 * one.gpu_hours.low)
    assert one.money.high == pytest.approx(2 * one.gpu_hours.high)


def test_what_nothing_tells_is_assumed_and_said() -> None:
    bare = spec(model="m", generator={"alias": "g"}, profile={"device": "cuda", "defaults": {"gpus": 1}})
    said = " ".join(iteration_cost(bare, known()).assumptions)
    assert "reckoned with A100" in said
    assert "7 billion" in said
    assert iteration_cost(spec(), known()).assumptions == ()
    assert "A100" not in " ".join(iteration_cost(bare, known(gpu="H100")).assumptions)


def test_a_faster_gpu_takes_fewer_hours() -> None:
    a100, h100 = (iteration_cost(spec(), known(gpu=g)).gpu_hours for g in ("A100", "H100"))
    assert h100.low < a100.low
    assert h100.high < a100.high


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("hf://Qwen/Qwen2.5-VL-7B-Instruct", 7),
        ("hf://Qwen/Qwen2.5-VL-3B-Instruct@66285546d2b821cf421d4f5eb2576359d3770cd3", 3),
        ("qwen-viper-7b", 7),
        ("qwen-viper-7b-8step", 7),
        ("llava-0.5b", 0.5),
        ("smallworld:starter", None),
        ("s3://bucket/4898137f460b", None),
    ],
)
def test_the_size_of_a_model_is_in_its_name(name: str, size: float | None) -> None:
    assert billions(name) == size


def test_an_engine_is_known_by_its_name_and_a_gpu_by_the_label_of_its_node() -> None:
    assert engine_name("qwen-image:hf://Qwen/Qwen-Image@abc") == "qwen-image"
    assert gpu_of(spec(), "synthesize-captions", TABLE) == "A100"
    other = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}, "gpus": 1}
    assert gpu_of(spec(profile={"device": "cuda", "defaults": other}), "evaluate", TABLE) == "H100"


@pytest.mark.parametrize(("hours", "affordable"), [(1.0, (0, 0)), (1e6, (3, 3)), (None, None)])
def test_a_loop_says_what_its_budget_is_good_for(hours: float | None, affordable: tuple[int, int] | None) -> None:
    one = LoopSpec(iterations=3, template=spec(), budget=Budget(gpu_hours=hours))
    cost = loop_cost(one, known())
    assert cost.affordable == affordable
    assert cost.gpu_hours.low == pytest.approx(3 * cost.iteration.gpu_hours.low)
