"""At every write of a small iteration a second, older attempt wakes up and goes on with other bits.

What a record or manifest names never changes. Once the stage is finished, manifests, model and registry end as if the
older attempt had died where it slept; before, one of the two decides, and all that there is belongs to it.
`VIPER_CHAOS=full` takes every pair of writes of every stage (`make nightly`), else a sample.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.executors import Executor, Jobs, Local
from fakes import older, world
from fakes.cluster import Cluster, install_definitions
from viper.methods.stages import stage_graph
from viper.stage import FrozenIteration, Manifest, load_manifest
from viper.store import ObjectStore, open_store

FULL = os.environ.get("VIPER_CHAOS") == "full"
STAGES = [n.name for n in stage_graph(world.frozen().iteration.spec.recipe)]
#: Never: the newer attempt has ended before.
NEVER = 99
#: Writes at which the older one sleeps, and at which the newer one wakes it, in the sample.
SAMPLE = [(1, 1), (2, 3), (2, NEVER), (3, 2), (3, NEVER), (5, NEVER)]


def undertake(store: ObjectStore, frozen: FrozenIteration, stages: Sequence[str]) -> None:
    """Stages one after the other."""
    for stage in stages:
        assert older.main([stage, "--iteration", f"{store.uri}/{frozen.prefix}"]) == 0


def found(store: ObjectStore, frozen: FrozenIteration) -> dict[str, Manifest]:
    """The manifests, each whole: with the bytes that it names, and recorded as it is."""
    made: dict[str, Manifest] = {}
    for stage in STAGES:
        manifest = load_manifest(store, frozen.prefix, stage)
        assert manifest is not None
        prefix = f"{frozen.prefix}/stages/{stage}"
        for part in manifest.parts:
            assert hashlib.sha256(store.get(f"{prefix}/{part.key}")).hexdigest() == part.digest
        assert manifest.inputs == {need: made[need].content_digest for need in manifest.inputs}
        for name in ("curves", "rollouts", "card"):
            if name in manifest.outputs:
                assert store.stat(f"{prefix}/{manifest.outputs[name]}") is not None
        recorded = [o.key.rpartition("/")[2] for o in store.list(f"registry/recorded/{stage}/")]
        assert recorded == [manifest.content_digest]
        made[stage] = manifest
    bits = {stage: older.weights(store, made[stage]) for stage in STAGES if stage.startswith("train")}
    assert all(said in {f"{stage} with bits {n}" for n in (0, 1)} for stage, said in bits.items())
    return made


def registry(store: ObjectStore, made: dict[str, Manifest]) -> dict[str, Any]:
    """Versions, their tags and the alias; they are what the manifests say."""
    there = {o.key: store.get(o.key).decode() for o in store.list("registry/versions/")}
    versions = {key: json.loads(text.replace(store.uri, "file:///store")) for key, text in there.items()}
    promoted = made["promote"].outputs
    assert len(versions) == 2
    assert (promoted["decision"], promoted["version"], int(store.get("registry/alias"))) == ("promoted", 2, 2)
    last = versions["registry/versions/2"]
    assert last["digest"] == made["train-operations"].outputs["model"]["digest"]
    assert last["tags"]["viper.decision"] == "promoted"
    tags = {stage: last["tags"][f"viper.manifest.{stage}"] for stage in STAGES if stage != "promote"}
    assert tags == {stage: manifest.content_digest for stage, manifest in made.items() if stage != "promote"}
    return versions


Ends = Callable[[], tuple[dict[str, Manifest], dict[str, Any]]]


def judge(store: ObjectStore, frozen: FrozenIteration, stage: str, expected: Ends) -> dict[str, Any]:
    """Checks what two attempts of a stage left; what the older one says of itself.

    `expected`: manifests and registry of the iteration in which the older one died.
    """
    made = found(store, frozen)
    versions = registry(store, made)
    assert store.get(older.ENDED) == b"0", "a late attempt ends well"
    before = json.loads(store.get(older.BEFORE))
    assert {key: store.sha256(key) for key in before} == before
    finished = f"{frozen.prefix}/stages/{stage}/manifest.json" in before
    if finished:
        manifests, without = expected()
        assert {n: m.content_digest for n, m in made.items()} == {n: m.content_digest for n, m in manifests.items()}
        assert versions == without
    woke: dict[str, Any] = json.loads(store.get(older.WOKE))
    assert finished or woke["woken by"] != "the end"
    return woke


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power here, so that nothing has to reach the disk."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


class Sweep:
    """Runs of the iteration in which an older attempt of one stage comes back."""

    def __init__(self, folder: Path, stage: str) -> None:
        self.folder, self.stage, self.frozen = folder, stage, world.frozen()
        self._dead: dict[int, tuple[dict[str, Manifest], dict[str, Any]]] = {}
        # What comes before the stage is the same each time. Objects are replaced, never changed: links will do.
        before = open_store(folder / "before")
        older.prepare(before)
        world.write(before, self.frozen)
        undertake(before, self.frozen, STAGES[: STAGES.index(stage)])

    def run(self, sleeps: int, wakes: int) -> dict[str, Any]:
        """What became of an older attempt that sleeps and wakes at these writes."""
        store = self._run(sleeps, wakes)
        return judge(store, self.frozen, self.stage, lambda: self.dead(sleeps))

    def dead(self, sleeps: int) -> tuple[dict[str, Manifest], dict[str, Any]]:
        """Manifests and registry where it died instead."""
        if sleeps not in self._dead:
            store = self._run(sleeps, older.DIES)
            made = found(store, self.frozen)
            self._dead[sleeps] = made, registry(store, made)
        return self._dead[sleeps]

    def _run(self, sleeps: int, wakes: int) -> ObjectStore:
        place = self.folder / f"{sleeps}-{wakes}" / "store"
        shutil.copytree(self.folder / "before", place, copy_function=os.link)
        store = open_store(place)
        store.put(older.OLDER, json.dumps({"stage": self.stage, "sleeps": sleeps, "wakes": wakes}).encode())
        undertake(store, self.frozen, STAGES[STAGES.index(self.stage) :])
        return store


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("stage", STAGES)
def test_an_older_attempt_that_wakes_up_leaves_one_attempts_work_whole(tmp_path: Path, stage: str) -> None:
    sweep = Sweep(tmp_path, stage)
    assert sum(sweep.run(*pair)["slept"] for pair in SAMPLE) >= 5


@pytest.mark.skipif(not FULL, reason="VIPER_CHAOS=full takes every pair of writes")
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("stage", STAGES)
def test_every_pair_of_writes(tmp_path: Path, stage: str) -> None:
    sweep, pairs = Sweep(tmp_path, stage), 0
    for sleeps in itertools.count(1):
        for wakes in itertools.count(1):
            woke = sweep.run(sleeps, wakes)
            pairs += 1
            if woke["woken by"] == "the end":
                break
        if not woke["slept"]:
            break
    assert pairs > 5, "a stage writes at least three times"


CLUSTER = pytest.param("cluster", marks=[pytest.mark.kube, pytest.mark.slow])
#: On the executors: a stage of parts, a training; and, where there is time, more of both and the promotion.
POINTS = [("validate-captions", 3, 2), ("train-captions", 3, NEVER)]
POINTS += [("synthesize-operations", 4, NEVER), ("train-operations", 6, 2), ("promote", 2, NEVER)] if FULL else []


@pytest.mark.parametrize("point", POINTS, ids=lambda p: f"{p[0]} {p[1]} {p[2]}")
@pytest.mark.parametrize("kind", ["local", CLUSTER])
def test_on_an_executor(tmp_path: Path, request: pytest.FixtureRequest, kind: str, point: tuple[str, int, int]) -> None:
    stage, sleeps, wakes = point
    made: list[Cluster] = []

    def cluster(folder: Path) -> Cluster:
        made.append(Cluster(request.getfixturevalue("kube_api"), folder))
        return made[-1]

    if kind == "cluster":
        install_definitions(request.getfixturevalue("kube_api"))
    try:
        run: Executor = Local(tmp_path / "run") if kind == "local" else Jobs(cluster, tmp_path / "run")
        older.prepare(run.store, stage, sleeps, wakes)
        assert run.run().outcome == "promoted"
        without = open_store(tmp_path / "without")
        older.prepare(without, stage, sleeps, older.DIES)
        world.write(without, run.frozen)
        undertake(without, run.frozen, STAGES)
        expected = found(without, run.frozen)
        versions = registry(without, expected)
        woke = judge(run.store, run.frozen, stage, lambda: (expected, versions))
        assert woke["slept"]
        assert (woke["woken by"] == "the end") == (wakes == NEVER)
    finally:
        for one in made:
            one.__exit__()
