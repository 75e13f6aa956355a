"""Releases beside each other: what one began another ends, or refuses by name; nothing that is finished changes."""

from __future__ import annotations

import json
import shutil
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from conformance.executors import Executor
from fakes import later, world
from fakes.program import FakeStage
from support.golden import GOLDEN, expected
from viper.errors import NewerFormError
from viper.iteration.observe import StoreObserver
from viper.plan import plan
from viper.stage import FrozenIteration, StageContext, load_frozen
from viper.store import DirectoryStore
from viper.stored import release

BEGUN = ("ingest-images", "synthesize-captions", "validate-captions")


@cache
def copy() -> Path:
    """The later release, once for all tests of this process."""
    return later.build(Path(mkdtemp(prefix="viper-later-")))


@pytest.fixture(scope="module", autouse=True)
def _no_copy_is_left() -> Any:
    yield
    if copy.cache_info().currsize:
        shutil.rmtree(copy())


def earlier(version: str, folder: Path) -> None:
    """What an earlier release began."""
    shutil.copytree(GOLDEN / version / "begun" / "store", folder)


def begun_later(folder: Path, *options: str) -> None:
    """What a later release began; what it says of it lies beside."""
    folder.mkdir(parents=True)
    said = later.carry_out(copy(), DirectoryStore(folder), "begin", *options)
    folder.with_name("said.json").write_text(json.dumps(said), "utf-8")


def patient(folder: Path) -> None:
    """The same with a field that only the later release can carry out."""
    begun_later(folder, "--patient")


def frozen_of(executor: Executor) -> FrozenIteration:
    found = load_frozen(executor.store, "it")
    assert found is not None
    return found


def stored(executor: Executor) -> dict[str, bytes]:
    """Everything there is of the stages that were finished."""
    keys = [o.key for o in executor.store.list("iterations/")]
    return {k: executor.store.get(k) for k in keys if any(f"/{s}/" in k for s in BEGUN) or k.endswith("iteration.json")}


@pytest.mark.parametrize("executor", [{"before": partial(earlier, "0.1.0")}], indirect=True)
def test_an_iteration_that_an_earlier_release_began_ends_under_this_one(executor: Executor) -> None:
    said, before = expected("0.1.0")["begun"], stored(executor)
    made = executor.run()
    assert (made.outcome, made.summary.status) == ("promoted", "True")
    assert stored(executor) == before
    frozen = frozen_of(executor)
    assert frozen.identity == said["identity"]
    digests = world.manifests(executor.store, frozen)
    assert {s: digests[s] for s in BEGUN} == said["manifests"]
    assert all(digests.values())
    assert not [part for part in world.made(executor.store) if part.startswith(BEGUN)], "nothing is made again"


@pytest.mark.process
@pytest.mark.parametrize("executor", [{"before": begun_later}], indirect=True)
def test_an_iteration_that_a_later_release_began_ends_under_this_one(executor: Executor, tmp_path: Path) -> None:
    said, before = json.loads((tmp_path / "run" / "said.json").read_text("utf-8")), stored(executor)
    assert all(b'"device"' in data for key, data in before.items() if key.endswith("manifest.json"))
    made = executor.run()
    assert (made.outcome, made.summary.status) == ("promoted", "True")
    assert stored(executor) == before
    frozen = frozen_of(executor)
    assert frozen.identity == said["identity"]
    assert {s: world.manifests(executor.store, frozen)[s] for s in BEGUN} == {s: said["digests"][s] for s in BEGUN}


@pytest.mark.process
@pytest.mark.parametrize("executor", [{"before": patient}], indirect=True)
def test_an_iteration_that_only_a_later_release_can_carry_out_is_refused_and_left_alone(executor: Executor) -> None:
    before = stored(executor)
    try:
        made = executor.run()
        words, outcome = made.summary.message, made.outcome
        assert (outcome, made.summary.reason) == ("failed", "NewerFormError")
    except NewerFormError as error:
        words = str(error)
    assert f"needs viper {later.VERSION}" in words
    assert stored(executor) == before
    assert not [part for part in world.made(executor.store) if not part.startswith(BEGUN)], "nothing is begun"


@pytest.mark.process
def test_an_iteration_that_this_release_began_ends_under_a_later_one_and_is_read_here(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    frozen = world.frozen("it")
    world.write(store, frozen)
    for stage in BEGUN:
        FakeStage()(StageContext(frozen, store, stage, tmp_path))
    before = world.manifests(store, frozen)
    said = later.carry_out(copy(), store, "end")
    assert (said["identity"], said["outcome"]) == (frozen.identity, "promoted")
    assert {s: said["digests"][s] for s in BEGUN} == {s: before[s] for s in BEGUN}
    assert b'"device"' in store.get("iterations/it/stages/evaluate/manifest.json")
    again = load_frozen(store, "it")
    assert again is not None
    assert world.manifests(store, again) == said["digests"]
    made = plan(again.iteration.spec, StoreObserver(store, again).observe(), 0.0)
    assert made.outcome == "promoted"


def test_a_manifest_in_a_form_to_come_stops_the_iteration_and_is_left_alone(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    earlier("0.1.0", store.root)
    key = "iterations/it/stages/synthesize-captions/manifest.json"
    content = {**json.loads(store.get(key)), "schemaVersion": 2, "minVersion": "0.4.0"}
    store.put(key, json.dumps(content).encode())
    frozen = load_frozen(store, "it")
    assert frozen is not None
    with pytest.raises(NewerFormError, match=r"is a manifest that needs viper 0\.4\.0") as error:
        StoreObserver(store, frozen).observe()
    assert error.value.where.endswith(key)


def test_the_later_release_is_later() -> None:
    import viper

    assert release(later.VERSION) > release(viper.__version__)
