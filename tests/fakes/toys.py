"""A method that viper never heard of: its graph, its `viper-freeze` and its `viper-job`, all in the stage image.

`settings/toys` in the store says that an iteration is of this method.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from fakes import world
from fakes.program import FakeStage
from viper.methods.stages import THETA0, Stage, StageNode
from viper.spec import ViperIteration
from viper.spec.forms import STORED
from viper.stage import FrozenIteration
from viper.stage.context import open_stage
from viper.store import ObjectStore
from viper_jobs.freeze import _iteration as resource_in
from viper_jobs.main import exit_status, parse_shard, split_iteration_uri

TOYS = "settings/toys"
GATHER, ASK, SIFT, TEACH, GRADE, APPOINT = (
    "gather-pictures",
    "ask-questions",
    "sift-questions",
    "teach",
    "grade",
    "appoint",
)
SHARDS = 3
GRAPH = (
    StageNode(Stage(GATHER, "images", "pictures")),
    StageNode(Stage(ASK, "rows", "questions", task="questions", splittable=True), (GATHER,), THETA0),
    StageNode(Stage(SIFT, "samples", "questions", task="questions"), (ASK,)),
    StageNode(Stage(TEACH, "model", "steps"), (SIFT,), THETA0, (SIFT,)),
    StageNode(Stage(GRADE, "scores", "answers"), (TEACH,), TEACH),
    StageNode(Stage(APPOINT, "decision", "decisions"), (GRADE, TEACH), TEACH),
)


def frozen(one: ViperIteration) -> FrozenIteration:
    """The same, frozen by this method: with its graph, and what its stages need of the profile."""
    document = one.dump()
    profile = document["spec"]["profile"]
    profile["stages"][ASK] = {**profile["defaults"], "shards": SHARDS}
    resource = ViperIteration.model_validate(document, context=STORED)
    return world.frozen(one.metadata.name).model_copy(update={"iteration": resource, "graph": GRAPH})


def freeze(store: ObjectStore, environment: Mapping[str, str]) -> int:
    """`viper-freeze`."""
    world.write(store, frozen(resource_in(environment)))
    return 0


def main(argv: Sequence[str]) -> int:
    """`viper-job`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=[node.name for node in GRAPH])
    parser.add_argument("--iteration")
    parser.add_argument("--shard", type=parse_shard)
    parser.add_argument("--work-dir", type=Path)
    parser.add_argument("--termination-log", type=Path)
    given = parser.parse_args(argv)

    def work() -> None:
        store, name = split_iteration_uri(given.iteration)
        shard, shards = given.shard
        FakeStage()(open_stage(store, name, given.stage, given.work_dir, shard=shard, shards=shards))

    return exit_status(work, given.termination_log)
