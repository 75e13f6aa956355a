"""What the conformance suite needs of an executor, the local one, and the operator."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from fakes import world
from fakes.cluster import Cluster
from fakes.local import run_here
from servers.kube import eventually
from viper.local import RunDirectory
from viper.methods.stages import FREEZE
from viper.plan import Condition, Plan, StageStatus, State
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


def profile(shards: int, deadline: int | None) -> dict[str, Any]:
    """The profile that the options stand for."""
    defaults: dict[str, Any] = {"retries": 2, "backoffSeconds": 0}
    stages: dict[str, Any] = {}
    if shards > 1:
        stages["synthesize-captions"] = {**defaults, "shards": shards}
    if deadline is not None:
        stages["evaluate"] = {**defaults, "retries": 20, "deadlineSeconds": deadline}
    return {"defaults": defaults, "stages": stages}


class Local:
    """Processes on this machine."""

    def __init__(self, path: Path, *, shards: int = 1, deadline: int | None = None) -> None:
        self.path, self.options = path, {"shards": shards, "deadline": deadline}
        self.store = open_store(path / "store")
        self.frozen = world.frozen("it", profile=profile(shards, deadline))
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


class Jobs:
    """The operator on a real API server. Its stages are Jobs, whose pods the kubelet of the fakes runs.

    What Kubernetes does otherwise: pauses between attempts are the Job controller's (10 s, 20 s, …), and a stage's
    processes outlive the executor.
    """

    def __init__(
        self, cluster: Callable[[Path], Cluster], path: Path, *, shards: int = 1, deadline: int | None = None
    ) -> None:
        self.path, self.options, self._make = path, {"shards": shards, "deadline": deadline}, cluster
        self.cluster = cluster(path)
        self.store = self.cluster.store
        fields = {"profile": profile(shards, deadline)}
        self.manifest = world.iteration("it", **fields).model_dump(mode="json", by_alias=True, exclude_none=True)
        # The same models as those of the local executor, so that manifests can be compared.
        self.frozen = world.frozen("it", **fields)
        world.write(self.store, self.frozen)
        # What an earlier release began has the names and settings of its time.
        there = json.loads(self.store.get("iterations/it/iteration.json"))["iteration"]["spec"]
        self.manifest["spec"] |= {name: there[name] for name in ("engines", "promotion") if name in there}

    def run(self, *, suspend: bool = False) -> Plan:
        self._apply(suspend=suspend)
        if suspend:
            return _plan(self.cluster.until(lambda s: s.get("outcome") == "Suspended"))
        return _plan(self.cluster.finished(patience_s=400))

    def crash(self) -> None:
        self._apply(suspend=False)
        operator = self.cluster.operator
        assert operator is not None
        assert operator.wait(120) == -9
        self.cluster.operator = None
        eventually(lambda: not self.cluster.kubelet.running)

    def twin(self) -> Jobs:
        return Jobs(self._make, self.path.with_name(self.path.name + "-twin"), **self.options)

    def _apply(self, *, suspend: bool) -> None:
        if self.cluster.operator is None:
            self.cluster.start()
        self.cluster.apply({**self.manifest, "spec": {**self.manifest["spec"], "suspend": suspend}})


def _plan(status: dict[str, Any]) -> Plan:
    """What the operator says, in the brain's words; freezing is no stage of the suite's."""
    found = [Condition(c["type"], c["status"], c["reason"], c["message"]) for c in status["conditions"]]
    stages = [
        StageStatus(s["name"], State(s["state"]), s.get("reason", ""), s.get("message", "")) for s in status["stages"]
    ]
    kept = tuple(s for s in stages if s.name != FREEZE)
    return Plan((), tuple(found), kept, status["outcome"].lower())
