"""One real iteration of the small world, undisturbed and with its stages killed at random moments."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import world
from viper.methods.stages import stage_graph
from viper.registry import Registry
from viper.spec import ViperIteration, parse_resource
from viper.stage import load_frozen
from viper.store import open_store

KILLS = 20
ROOT = Path(__file__).parents[2]
SMALL_TRAINING = {"steps": 3, "batchPrompts": 4, "miniBatchPrompts": 4, "saveEvery": 1, "select": "last"}


def iteration() -> dict[str, Any]:
    """The demo's first iteration, made small, with retries enough for every kill."""
    demo = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text("utf-8"))
    spec = demo["spec"]["template"]
    spec["images"]["limit"] = 24
    spec["evaluation"]["limit"] = 24
    spec["profile"] = {"defaults": {"retries": KILLS, "backoffSeconds": 0, "threads": 1}}
    recipe = spec["recipe"]
    recipe["partSize"] = 8
    recipe["operations"]["editsPerImage"] = 1
    recipe["validation"]["heldOutShare"] = 0
    for task in ("captions", "operations"):
        recipe[task]["training"] = {**recipe[task]["training"], **SMALL_TRAINING}
    return {**demo, "kind": "ViperIteration", "metadata": {"name": "it"}, "spec": spec}


def stages() -> list[str]:
    resource = parse_resource(iteration())
    assert isinstance(resource, ViperIteration)
    return [n.name for n in stage_graph(resource.spec.recipe)]


def run(file: Path, path: Path) -> None:
    """Runs the iteration in a process of its own (MLflow keeps databases open that have moved)."""
    tests = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "end_to_end.runner", "end_to_end.killing:program", str(file), str(path)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": tests})


def result(path: Path) -> tuple[dict[str, str | None], int]:
    """Content digests of all manifests, and how many versions the registry has."""
    store = open_store(path / "store")
    frozen = load_frozen(store, "it")
    assert frozen is not None
    versions = Registry(f"sqlite:///{path}/mlflow.db").versions(frozen.iteration.spec.model)
    return world.manifests(store, frozen), len(versions)


#: Phases that the log of a stage tells, each from its beginning to its end.
PHASES = {
    "ingest-images": ("ingest",),
    "synthesize-captions": ("caption (1 of 3)", "reconstruct (2 of 3)", "critique (3 of 3)"),
    "validate-captions": ("check",),
    "train-captions": ("train",),
    "synthesize-operations": ("propose (1 of 2)", "edit (2 of 2)"),
    "validate-operations": ("clip (1 of 2)", "judge (2 of 2)"),
    "train-operations": ("train",),
    "evaluate": ("evaluate",),
    "promote": ("register", "decide"),
}


def logs_tell_what_happened(path: Path) -> None:
    """The log of every stage alone says what begins, in which phase it is, and what it ended with, in plain lines."""
    for stage, phases in PHASES.items():
        text = (path / "logs" / "it" / f"{stage}-1.log").read_text("utf-8")
        said = [line[11:] for line in text.splitlines() if re.match(r"\d\d:\d\d:\d\dZ  ", line)]
        assert said[0].startswith(f"{stage} of it begins"), text
        assert said[-1].startswith(f"{stage} of it is done: "), text
        told = [line for line in said if re.match(r"[a-z]+( \(\d of \d\))? (begins|ends after)\b", line)]
        expected = [(phase, what) for phase in phases for what in ("begins", "ends")]
        assert len(told) == len(expected), text
        assert all(line.startswith(f"{phase} {what}") for line, (phase, what) in zip(told, expected, strict=True)), text
        assert not re.search(r"[\r\x1b]", text), f"control codes in {stage}: {text!r}"


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_iteration_whose_stages_are_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump(iteration()), "utf-8")
    # At the same place one after the other: the place is part of what an iteration is made from.
    path, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    run(file, path)
    path.rename(undisturbed)
    logs_tell_what_happened(undisturbed)

    chance = random.Random(3)
    for number in range(KILLS):
        stage = stages()[number % len(stages())]
        world.fault(open_store(path / "store"), stage, "killed", chance.randint(1, 4), after=chance.random() < 0.5)
    run(file, path)
    # How often progress is written depends on the clock, so a kill can fall on the last operation of a stage and spare
    # it the kills behind; and a process that ends before its time is up is not killed. Most are.
    assert len(world.pending_faults(open_store(path / "store"))) <= KILLS // 4
    kills = len(list((path / "logs" / "it").glob("*.log"))) - len(stages())
    assert kills >= KILLS // 2
    assert result(path) == result(undisturbed)
