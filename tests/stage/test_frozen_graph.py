"""The graph of an iteration is data: what is stored is what is read, and what was stored without one gets viper's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.fakes.world import frozen
from viper.errors import StageError
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
    node = StageNode(Stage("rewrite-questions", "rows", "questions", splittable=True), ("gather",))
    content = json.loads(frozen().model_copy(update={"graph": (node,)}).to_bytes())
    content["graph"][0]["stage"]["since"] = "a field of a later release"
    read = FrozenIteration.read(json.dumps(content).encode())
    assert read.node("rewrite-questions") == node
    assert json.loads(read.to_bytes()) == content
    with pytest.raises(StageError, match="no stage evaluate"):
        read.node("evaluate")
