"""The stage graph: every recipe option gives the stages the method needs, in a runnable order."""

from __future__ import annotations

import pytest

from viper.methods.stages import STAGES, THETA0, StageNode, stage_graph
from viper.spec.options import ExternalData
from viper.spec.recipe import ColdStart, Recipe


def graph(**recipe: object) -> dict[str, StageNode]:
    return {n.name: n for n in stage_graph(Recipe.model_validate(recipe))}


ALL = [
    {"stages": stages, "schedule": schedule, "cold_start": cold, "external": external}
    for stages in ("both", "captions", "operations", "mixed")
    for schedule in ("interleaved", "upfront")
    for cold in (None, ColdStart(samples_uri="x.jsonl"))
    for external in (None, ExternalData(uri="y.jsonl"), ExternalData(uri="y.jsonl", use="add"))
]


@pytest.mark.parametrize("options", ALL)
def test_every_stage_comes_after_what_it_needs(options: dict[str, object]) -> None:
    seen: set[str] = set()
    for name, node in graph(**options).items():
        assert name in STAGES
        assert set(node.needs) <= seen
        assert node.model in {None, THETA0} or node.model in node.needs
        seen.add(name)


def test_the_papers_order_writes_operations_with_the_model_after_stage_one() -> None:
    nodes = graph()
    assert list(nodes) == [
        "ingest-images",
        "synthesize-captions",
        "validate-captions",
        "train-captions",
        "synthesize-operations",
        "validate-operations",
        "train-operations",
        "evaluate",
        "promote",
    ]
    assert nodes["synthesize-captions"].model == THETA0
    assert nodes["synthesize-operations"].model == "train-captions"
    assert nodes["train-operations"].model == "train-captions"
    assert nodes["promote"].model == "train-operations"


def test_upfront_writes_all_data_with_the_generator_but_still_trains_in_two_stages() -> None:
    nodes = graph(schedule="upfront")
    assert nodes["synthesize-operations"].model == THETA0
    assert "train-captions" not in nodes["synthesize-operations"].needs
    assert nodes["train-operations"].model == "train-captions"


@pytest.mark.parametrize(
    ("stages", "trained"),
    [("captions", "train-captions"), ("operations", "train-operations"), ("mixed", "train-mixed")],
)
def test_single_runs_train_once_and_promote_that(stages: str, trained: str) -> None:
    nodes = graph(stages=stages)
    assert [n for n in nodes if n.startswith("train-")] == [trained]
    assert nodes["promote"].model == trained
    assert nodes[trained].model == THETA0


def test_mixed_learns_from_both_tasks_at_once() -> None:
    assert graph(stages="mixed")["train-mixed"].data == ("validate-captions", "validate-operations")


@pytest.mark.parametrize("stages", ["both", "captions", "operations", "mixed"])
def test_cold_start_comes_before_reinforcement_learning_and_writes_no_data(stages: str) -> None:
    nodes = graph(stages=stages, cold_start=ColdStart(samples_uri="x.jsonl"))
    first = next(n for n in nodes.values() if n.name.startswith("train-"))
    assert first.model == "cold-start"
    assert "cold-start" in first.needs
    assert nodes["cold-start"].model == THETA0
    writers = [n for n in nodes.values() if n.name.startswith("synthesize-")]
    assert all(w.model != "cold-start" for w in writers)


@pytest.mark.parametrize("stages", ["both", "captions", "operations", "mixed"])
def test_external_data_in_place_of_ours_leaves_nothing_to_synthesise(stages: str) -> None:
    nodes = graph(stages=stages, external=ExternalData(uri="y.jsonl"))
    trained = {"both": ["train-captions", "train-operations"]}.get(stages, [f"train-{stages}"])
    assert list(nodes) == ["ingest-samples", *trained, "evaluate", "promote"]
    assert {nodes[t].data for t in trained} == {("ingest-samples",)}


@pytest.mark.parametrize("stages", ["both", "captions", "operations", "mixed"])
def test_external_data_beside_ours_joins_every_training(stages: str) -> None:
    ours, more = graph(stages=stages), graph(stages=stages, external=ExternalData(uri="y.jsonl", use="add"))
    assert set(more) == {*ours, "ingest-samples"}
    for name, node in ours.items():
        expected = (*node.data, "ingest-samples") if node.data else ()
        assert more[name].data == expected
