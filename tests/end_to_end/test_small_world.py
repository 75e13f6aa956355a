"""One real iteration of the small world, undisturbed and with its stages killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from fakes import world
from viper.freeze import load_frozen
from viper.local import LocalRun, RunDirectory, RunResult
from viper.plan import Plan
from viper.registry import Registry
from viper.spec import ViperIteration, parse_resource
from viper.stage import FrozenIteration, ProgressRecord
from viper.store import open_store

KILLS = 20
ROOT = Path(__file__).parents[2]
SMALL_TRAINING = {"steps": 3, "batchPrompts": 4, "miniBatchPrompts": 4, "saveEvery": 1, "select": "last"}


class Quiet:
    """A listener that does nothing."""

    interval = 1.0

    def iteration(self, frozen: FrozenIteration, *, resumed: bool) -> None:
        pass

    def notice(self, text: str) -> None:
        pass

    def update(self, frozen: FrozenIteration, made: Plan, progress: Mapping[str, ProgressRecord]) -> None:
        pass


class Killer(threading.Thread):
    """Kills a stage process every now and then, until it has done so often enough or is told to stop."""

    def __init__(self, logs: Path, kills: int) -> None:
        super().__init__(daemon=True)
        self.logs, self.left, self.over = logs, kills, threading.Event()
        self._random = random.Random(3)

    def run(self) -> None:
        while self.left and not self.over.wait(self._random.uniform(0.2, 1.5)):
            for pid in stage_processes(self.logs):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.left -= 1


def stage_processes(logs: Path) -> list[int]:
    """Processes whose standard output is a log of this run."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "fd" / "1").readlink().is_relative_to(logs):
                found.append(int(process.name))
    return found


def iteration() -> ViperIteration:
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
    resource = parse_resource({**demo, "kind": "ViperIteration", "metadata": {"name": "it"}, "spec": spec})
    assert isinstance(resource, ViperIteration)
    return resource


def run(path: Path) -> RunResult:
    directory = RunDirectory(path)
    with directory.lock():
        return LocalRun(directory, directory.open(iteration(), None, None), Quiet()).run()


def result(path: Path) -> tuple[dict[str, str | None], int]:
    """Content digests of all manifests, and how many versions the registry has."""
    store = open_store(path / "store")
    frozen = load_frozen(store, "it")
    assert frozen is not None
    versions = Registry(f"sqlite:///{path}/mlflow.db").versions(frozen.iteration.spec.model)
    return world.manifests(store, frozen), len(versions)


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_an_iteration_whose_stages_are_killed_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    # At the same place one after the other: the place is part of what an iteration is made from.
    path = tmp_path / "run"
    assert run(path).last.outcome in ("promoted", "held")
    undisturbed = result(path)
    path.rename(tmp_path / "undisturbed")

    killer = Killer(path / "logs", KILLS)
    killer.start()
    disturbed = run(path)
    killer.over.set()
    killer.join()
    assert disturbed.last.outcome in ("promoted", "held"), disturbed.condition
    assert killer.left <= 0
    assert result(path) == undisturbed
