"""The lineage of a version that an iteration of another method made: stages that nobody here has heard of."""

from __future__ import annotations

from pathlib import Path

import pytest
from lineage_builders import NAME

from report import other_method
from report.report_builders import model
from viper.cli import main
from viper.evaluation.promotion import lineage
from viper.lineage.archive import Records
from viper.lineage.samples import find_sample, samples
from viper.lineage.walk import walk
from viper.registry import Registry, sqlite_uri
from viper.registry.tags import BASE_VERSION
from viper.stage import StageContext
from viper.store import DirectoryStore


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Version 1, the base, and version 2, which the iteration made."""
    root: Path = tmp_path_factory.mktemp("other")
    registry, store = Registry(sqlite_uri(root)), DirectoryStore(root / "store")
    registry.register(NAME, model("v1").uri, model("v1").digest, tags={BASE_VERSION: 1})
    frozen = other_method.build(store, root / "work")
    tags = lineage(StageContext(frozen, store, "choose", root / "work"))
    registry.register(NAME, model("v2").uri, model("v2").digest, run="r", tags=tags)
    return registry


def test_stages_and_checkpoints_are_those_of_its_own_graph(registry: Registry) -> None:
    found = walk(Records(registry), registry.resolve(NAME, "2"))
    assert found.problems == ()
    assert found.scores.keys() == {"theta0", "solver", "tell-jokes"}
    assert found.iteration is not None
    stages = {s.name: s for s in found.iteration.stages}
    assert list(stages) == [node.name for node in other_method.GRAPH]
    assert {s.state for s in stages.values() if s.name != "choose"} == {"as recorded"}
    made = {name: s.made.name for name, s in stages.items() if s.made is not None}
    assert made == {"solve-riddles": "solver", "tell-jokes": "tell-jokes"}
    authors = {name: s.author.name for name, s in stages.items() if s.author is not None}
    assert authors == {"solve-riddles": "θ0", "tell-jokes": "solver", "ask": "tell-jokes", "choose": "tell-jokes"}
    assert {name: s.second for name, s in stages.items() if s.critic} == {
        "write-riddles": "judge",
        "drop-easy": "critic",
    }


def test_samples_have_the_texts_that_their_stage_declares(registry: Registry) -> None:
    found = walk(Records(registry), registry.resolve(NAME, "2"))
    assert found.iteration is not None
    listed = samples(found.iteration)
    riddle = {"riddle": "What is picture 1?", "answer": "a <ball>"}
    assert [(s.stage, list(s.texts)) for s in listed] == [
        *[("drop-easy", ["riddle", "answer"])] * 3,
        *[("supply-jokes", ["riddle"])] * 2,
    ]
    assert listed[0].texts == riddle
    assert [(r.stage, r.reward) for r in listed[0].rollouts] == [("solve-riddles", 0.5)]
    assert find_sample(found, listed[0].sample_id).image_source == "picture-1"
    assert find_sample(found, listed[3].sample_id).image_source == ""


def test_the_command_prints_them(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", f"models:/{NAME}/2", "--samples", "--tracking-uri", registry.uri]) == 0
    text = capsys.readouterr().out
    for said in (
        "write-riddles",
        "→ solver",
        "→ tell-jokes",
        "trained solver of solve-riddles",
        "critic θ0",
        "5 samples",
    ):
        assert said in text, said
