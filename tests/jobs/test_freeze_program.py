"""`viper-freeze`: from the resource in the environment to iteration.json, however often it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from viper.errors import InputError
from viper.registry import Registry, sqlite_uri
from viper.spec.packed import pack, variables
from viper.stage import load_frozen
from viper.store import DirectoryStore
from viper_jobs.freeze import IN_A_POD, VARIABLE, main


@pytest.fixture
def source(tmp_path: Path) -> str:
    return world.model(tmp_path / "model").as_uri()


def resource(source: str, **spec: Any) -> dict[str, Any]:
    """What an API server would return."""
    one = world.iteration("first", generator={"alias": "generator", "initialUri": source}, **spec)
    dump = one.model_dump(mode="json", by_alias=True)
    dump["metadata"] |= {"namespace": "team", "uid": "1-2-3", "managedFields": []}
    return {**dump, "status": {"outcome": "Pending"}}


def run(tmp_path: Path, data: object) -> int:
    text = data if isinstance(data, str) else json.dumps(data)
    environment = variables(VARIABLE, pack(text, "it"))
    where = ["--store", (tmp_path / "store").as_uri(), "--tracking", sqlite_uri(tmp_path)]
    return main([*where, "--termination-log", str(tmp_path / "end.json")], environment=environment)


def ended(tmp_path: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((tmp_path / "end.json").read_text())
    return found


def test_it_resolves_and_writes_the_iteration(
    tmp_path: Path, source: str, directory_store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, resource(source)) == 0
    frozen = load_frozen(directory_store, "first")
    assert frozen is not None
    assert (frozen.generator.model, frozen.generator.version, frozen.alias_version) == ("m", 1, 1)
    assert frozen.tracking.uri == sqlite_uri(tmp_path)
    assert Registry(sqlite_uri(tmp_path)).get_alias("m", "generator") == 1
    printed = capsys.readouterr().out
    assert f"first is frozen: {directory_store.uri}/iterations/first/iteration.json" in printed
    assert f"m version 1, {source} ({frozen.generator.digest})" in printed
    assert not (tmp_path / "end.json").exists()


def test_a_second_run_changes_nothing_and_says_so(
    tmp_path: Path, source: str, directory_store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, resource(source)) == 0
    written = directory_store.get("iterations/first/iteration.json")
    assert run(tmp_path, resource(source)) == 0
    assert directory_store.get("iterations/first/iteration.json") == written
    assert "first was frozen before" in capsys.readouterr().out
    runs = Registry(sqlite_uri(tmp_path)).connection.client.search_runs(["1"])
    assert len(runs) == 1


def test_an_iteration_that_asks_nothing_is_warned_of(
    tmp_path: Path, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, resource(source, promotion={})) == 0
    assert "warning: evaluation.questions and evaluation.benchmarks.tasks ask nothing" in "".join(capfd.readouterr())


def test_another_spec_under_the_same_name_ends_with_the_status_of_a_wrong_specification(
    tmp_path: Path, source: str
) -> None:
    assert run(tmp_path, resource(source)) == 0
    assert run(tmp_path, resource(source, recipe={"seed": 2})) == 0, "there is no data yet"
    DirectoryStore(tmp_path / "store").put("iterations/first/r1/stages/ingest-images/manifest.json", b"{}")
    assert run(tmp_path, resource(source, recipe={"seed": 3})) == 2
    assert "spec.recipe.seed: it has 2, the resource 3" in ended(tmp_path)["message"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "is not a ViperIteration: Expecting"),
        ("[]", "is not a ViperIteration"),
        ({"kind": "ViperLoop"}, "is not a ViperIteration"),
        (
            {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "metadata": {"name": "x"}, "spec": {}},
            "spec.model",
        ),
    ],
)
def test_what_is_no_iteration_is_refused(tmp_path: Path, data: object, message: str) -> None:
    assert run(tmp_path, data) == 2
    assert ended(tmp_path)["reason"] == "SpecError"
    assert message in ended(tmp_path)["message"]


def test_without_an_iteration_it_says_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--store", str(tmp_path), "--tracking", sqlite_uri(tmp_path)], environment={}) == 2
    assert "VIPER_ITERATION_0: is not set" in capsys.readouterr().err


def test_a_profile_that_is_only_named_is_refused(tmp_path: Path, source: str) -> None:
    data = resource(source)
    del data["spec"]["profile"]
    data["spec"]["profileRef"] = "cpu-small"
    assert run(tmp_path, data) == 2
    assert "'cpu-small'" in ended(tmp_path)["message"]


def test_a_model_that_is_not_there_ends_with_the_status_of_wrong_input(tmp_path: Path) -> None:
    assert run(tmp_path, resource((tmp_path / "nothing").as_uri())) == 3
    assert ended(tmp_path)["reason"] == "InputError"


def test_what_an_operator_of_a_later_release_writes_out_is_read_when_this_one_can_carry_it_out(
    tmp_path: Path, source: str, directory_store: DirectoryStore
) -> None:
    data = resource(source)
    data["spec"]["recipe"]["later"] = {"of": "a later release"}
    assert run(tmp_path, data) == 2, "as a person would write it"
    assert "later: unknown field" in ended(tmp_path)["message"]
    assert run(tmp_path, {**data, "schemaVersion": 1, "minVersion": "0.2.0"}) == 0
    frozen = load_frozen(directory_store, "first")
    assert frozen is not None
    assert frozen.iteration.spec == world.iteration(generator={"alias": "generator", "initialUri": source}).spec


def test_what_only_a_later_release_can_carry_out_is_refused_with_its_name(
    tmp_path: Path, source: str, directory_store: DirectoryStore
) -> None:
    assert run(tmp_path, {**resource(source), "schemaVersion": 1, "minVersion": "0.9.0"}) == 11
    assert "VIPER_ITERATION: is an iteration that needs viper 0.9.0" in ended(tmp_path)["message"]
    assert load_frozen(directory_store, "first") is None


@pytest.mark.parametrize(
    ("places", "mounts", "said"),
    [
        (("/data/store", "http://m:5000"), (), "store.uri of the chart"),
        (("/tmp/store", "http://m:5000"), ("/tmp",), "no other pod sees"),
        (("/data/store", "sqlite:////mlflow.db"), ("/data",), "the tracking URI of the chart"),
        (("/data/store", "http://m:5000"), ("/data",), ""),
        (("/tmp/my data/store", "http://m:5000"), ("/tmp", "/tmp/my\\040data"), ""),
        (("/tmp/my data/store", "http://m:5000"), ("/tmp", "/tmp/my\\040dat"), "no other pod sees"),
        (("s3://bucket", "http://m:5000"), (), ""),
    ],
)
def test_what_only_this_pod_has_is_no_store_of_a_cluster(
    places: tuple[str, str], mounts: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"  # proc(5); all of one disk, as folders of a node are
    table.write_text("".join(f"9{i} 80 8:1 /x {m} rw - ext4 /dev/sda1 rw\n" for i, m in enumerate(("/", *mounts))))
    monkeypatch.setattr("viper_jobs.freeze._MOUNTS", table)
    store, tracking = places
    uri = store if "://" in store else Path(store).as_uri()
    log = tmp_path / "end.json"
    environment = {IN_A_POD: "10.0.0.1", **variables(VARIABLE, pack(json.dumps(world.iteration("it").dump()), "it"))}
    monkeypatch.setattr("viper_jobs.freeze.freeze", lambda *_, **__: (_ for _ in ()).throw(InputError("went on")))
    status = main(["--store", uri, "--tracking", tracking, "--termination-log", str(log)], environment=environment)
    assert status == (2 if said else 3)
    assert (said or "went on") in json.loads(log.read_text())["message"]
