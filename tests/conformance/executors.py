"""What the conformance suite needs of an executor, and the local one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from fakes import world
from fakes.local import run_here
from viper.local import RunDirectory
from viper.plan import Plan
from viper.stage import FrozenIteration
from viper.store import ObjectStore, open_store


class Executor(Protocol):
    """Runs one frozen iteration of fake stages that is in `store`."""

    frozen: FrozenIteration
    store: ObjectStore

    def run(self, *, suspend: bool = False) -> Plan:
        """Carries out plans until the iteration is finished or suspended; returns the last plan."""
        ...

    def crash(self) -> None:
        """Runs until a fault kills the executor itself, and until its programs are gone."""
        ...

    def twin(self) -> Executor:
        """The same iteration in a place of its own."""
        ...


class Local:
    """Processes on this machine."""

    def __init__(self, path: Path, *, shards: int = 1, deadline: int | None = None) -> None:
        self.path, self.options = path, {"shards": shards, "deadline": deadline}
        self.store = open_store(path / "store")
        defaults: dict[str, Any] = {"retries": 2, "backoffSeconds": 0}
        stages: dict[str, Any] = {}
        if shards > 1:
            stages["synthesize-captions"] = {**defaults, "shards": shards}
        if deadline is not None:
            stages["evaluate"] = {**defaults, "retries": 20, "deadlineSeconds": deadline}
        self.frozen = world.frozen("it", profile={"defaults": defaults, "stages": stages})
        world.write(self.store, self.frozen)
        self.parallel = shards

    def run(self, *, suspend: bool = False) -> Plan:
        return run_here(self.path, suspend=suspend, parallel=self.parallel)

    def crash(self) -> None:
        command = [sys.executable, "-m", "fakes.runner", str(self.path)]
        ended = subprocess.run(command, check=False, timeout=120)
        assert ended.returncode == -9
        with RunDirectory(self.path).lock():  # granted when the programs are gone
            pass

    def twin(self) -> Local:
        return Local(self.path.with_name(self.path.name + "-twin"), **self.options)
