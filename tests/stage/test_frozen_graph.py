"""The graph of an iteration is data: what is stored is what is read, and what was stored without one gets viper's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.fakes.world import ENGINES, frozen
from viper.errors import StageError, StoreError
from viper.methods.stages import Stage, StageNode, stage_graph
from viper.stage.frozen import FrozenIteration


def test_the_graph_comes_back_as_it_was_frozen_without_its_programs() -> None:
    one = frozen()
    made = one.model_copy(update={"graph": stage_graph(one.iteration.spec.recipe)})
    read = FrozenIteration.read(made.to_bytes())
    assert b"program" not in made.to_bytes()
    assert read.nodes == tuple(replace(n, stage=replace(n.stage, program="")) for n in made.graph)
    assert read.identity == made.identity != one.identity


def test_one_that_was_frozen_without_a_graph_gets_vipers() -> None:
    one = FrozenIteration.read(frozen().to_bytes())
    assert one.graph == ()
    assert one.nodes == stage_graph(one.iteration.spec.recipe)


def test_stages_that_this_release_never_heard_of_are_read() -> None:
    first = StageNode(Stage("gather", "images", "images"))
    node = StageNode(Stage("rewrite-questions", "rows", "questions", splittable=True), ("gather",))
    content = json.loads(frozen().model_copy(update={"graph": (first, node)}).to_bytes())
    content["iteration"]["spec"]["profile"]["stages"] = {"rewrite-questions": {"shards": 4}}
    content["graph"][1]["stage"]["since"] = "a field of a later release"
    read = FrozenIteration.read(json.dumps(content).encode())
    assert read.node("rewrite-questions") == node
    assert read.iteration.spec.profile.of("rewrite-questions").shards == 4
    assert json.loads(read.to_bytes()) == content
    with pytest.raises(StageError, match="no stage evaluate"):
        read.node("evaluate")


MAKE, USE = Stage("make", "rows", "rows"), Stage("use", "samples", "rows")
BAD = {
    "twice": ((StageNode(MAKE), StageNode(MAKE)), {}, "two stages are called make"),
    "freezing": ((StageNode(Stage("freeze", "rows", "rows")),), {}, "two stages are called freeze"),
    "no name": (
        (StageNode(Stage("Make_it", "rows", "rows")),),
        {},
        "'Make_it' cannot be the name of a stage; use at most 50",
    ),
    "too many": (tuple(StageNode(Stage(f"s{i}", "rows", "rows")) for i in range(32)), {}, "at most 31 items"),
    "not there": ((StageNode(USE, ("make",)),), {}, "use needs make, which must come before it"),
    "in a circle": ((StageNode(MAKE, ("use",)), StageNode(USE, ("make",))), {}, "make needs use, which must come"),
    "data of none": ((StageNode(USE, data=("make",)),), {}, "use needs make, which must come before it"),
    "model of none": ((StageNode(USE, model="make"),), {}, "use needs make, which must come before it"),
    "not split": ((StageNode(MAKE),), {"shards": 2}, "profile.stages.make.shards must be 1"),
    "one node": ((StageNode(MAKE),), {"nodes": 2, "workClaim": "w"}, "profile.stages.make.nodes must be 1"),
}


@pytest.mark.parametrize(("graph", "resources", "said"), BAD.values(), ids=BAD)
def test_a_graph_that_cannot_be_carried_out_is_refused(
    graph: tuple[StageNode, ...], resources: dict[str, Any], said: str
) -> None:
    content = json.loads(frozen(engines={**ENGINES, "trainer": "verl"}).model_copy(update={"graph": graph}).to_bytes())
    content["iteration"]["spec"]["profile"]["stages"] = {"make": resources}
    with pytest.raises(StoreError, match=f"is not a frozen iteration: .*{said}"):
        FrozenIteration.read(json.dumps(content).encode())
