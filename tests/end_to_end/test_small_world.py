"""One real iteration of the small world, undisturbed and with its stages killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakes import world
from viper.cli.run import HELD
from viper.freeze import load_frozen
from viper.registry import Registry
from viper.store import open_store

KILLS = 20
ROOT = Path(__file__).parents[2]
SMALL_TRAINING = {"steps": 3, "batchPrompts": 4, "miniBatchPrompts": 4, "saveEvery": 1, "select": "last"}


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


def run(file: Path, path: Path) -> int:
    """Exit status of `viper run`."""
    command = [sys.executable, "-c", "import sys; from viper.cli import main; sys.exit(main())"]
    return subprocess.run([*command, "run", str(file), "--dir", str(path)], check=False).returncode


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
    file = tmp_path / "it.yaml"
    file.write_text(yaml.safe_dump(iteration()), "utf-8")
    # At the same place one after the other: the place is part of what an iteration is made from.
    path, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    status = run(file, path)
    assert status in (0, HELD)
    path.rename(undisturbed)

    killer = Killer(path / "logs", KILLS)
    killer.start()
    assert run(file, path) == status
    killer.over.set()
    killer.join()
    assert killer.left <= 0
    assert result(path) == result(undisturbed)
