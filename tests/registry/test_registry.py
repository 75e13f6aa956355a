"""What the registry promises, checked on SQLite and on a real MLflow server."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from viper.errors import RegistryError
from viper.registry import DIGEST, AliasMovedError, MissingError, Registry, sqlite_uri

MODEL_NUMBER = iter(range(1000))


@pytest.fixture(scope="module")
def sqlite_registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(sqlite_uri(tmp_path_factory.mktemp("run dir") / "new"))


@pytest.fixture(scope="module", params=["sqlite", pytest.param("server", marks=pytest.mark.server)])
def registry(request: pytest.FixtureRequest) -> Registry:
    if request.param == "sqlite":
        found: Registry = request.getfixturevalue("sqlite_registry")
        return found
    return Registry(request.getfixturevalue("mlflow_server").url)


@pytest.fixture
def model() -> str:
    """A name no other test uses."""
    return f"small-world-{next(MODEL_NUMBER)}"


def run_of(registry: Registry, run: str) -> Any:
    return registry.connection.call("get_run", run)


def runs_of(registry: Registry, model: str) -> list[Any]:
    return list(registry.connection.call("search_runs", [registry.experiment(model)]))


def test_an_experiment_is_made_once(registry: Registry, model: str) -> None:
    assert registry.experiment(model) == registry.experiment(model)


def test_a_resumed_iteration_and_stage_go_on_in_their_first_runs(registry: Registry, model: str) -> None:
    iteration = registry.iteration_run(model, "turn-1", "uid-1", {"viper.profile": "laptop"})
    stage = registry.stage_run(iteration, "train-captions", {"viper.part": "1"})
    registry.finish_run(stage, "FAILED")
    registry.finish_run(iteration, "KILLED")
    assert run_of(registry, stage).info.status == "FAILED"

    assert registry.iteration_run(model, "turn-1", "uid-1") == iteration
    assert registry.stage_run(iteration, "train-captions", {"viper.part": "2"}) == stage
    assert run_of(registry, stage).info.status == "RUNNING"
    tags = run_of(registry, stage).data.tags
    assert tags["mlflow.parentRunId"] == iteration
    assert (tags["viper.iteration"], tags["viper.uid"], tags["viper.part"]) == ("turn-1", "uid-1", "2")
    registry.finish_run(stage)
    assert run_of(registry, stage).info.status == "FINISHED"
    assert len(runs_of(registry, model)) == 2


def test_stages_iterations_and_their_reruns_under_one_name_have_runs_of_their_own(
    registry: Registry, model: str
) -> None:
    first, other, again = (
        registry.iteration_run(model, name, uid) for name, uid in [("t1", "a"), ("t2", "b"), ("t1", "c")]
    )
    stages = {registry.stage_run(run, stage) for run in (first, other) for stage in ("synthesize-captions", "evaluate")}
    assert len({first, other, again}) == 3
    assert len(stages) == 4
    assert registry.find_stage_run(first, "evaluate") in stages
    assert registry.find_stage_run(again, "evaluate") is None


def test_processes_that_start_the_same_stage_at_once_share_one_run(sqlite_registry: Registry, model: str) -> None:
    iteration = sqlite_registry.iteration_run(model, "t", "u")

    def start(_: int) -> str:
        return Registry(sqlite_registry.uri).stage_run(iteration, "evaluate")

    with ThreadPoolExecutor(4) as pool:
        runs = set(pool.map(start, range(4)))
    assert len(runs) == 1
    assert {run.info.run_id for run in runs_of(sqlite_registry, model)} == {iteration, *runs}


def test_of_two_runs_made_for_one_stage_the_older_one_counts(registry: Registry, model: str) -> None:
    iteration = registry.iteration_run(model, "t", "u")
    create = registry.connection.client.create_run

    def create_twice(*args: Any, **kwargs: Any) -> Any:  # as after a lost answer
        create(*args, **kwargs)
        return create(*args, **kwargs)

    with mock.patch.object(registry.connection.client, "create_run", create_twice):
        stage = registry.stage_run(iteration, "evaluate")
    assert {run.info.run_id for run in runs_of(registry, model)} == {iteration, stage}
    assert registry.stage_run(iteration, "evaluate") == stage


def test_a_curve_sent_again_after_an_interruption_has_no_duplicates(registry: Registry, model: str) -> None:
    stage = registry.stage_run(registry.iteration_run(model, "t", "u"), "train-captions")
    rows = [{"step": step, "reward": step / 10, "recall": 0.5} for step in range(1200)]
    assert registry.log_curve(stage, rows[:700]) == 1400
    assert registry.log_curve(stage, rows) == 1000
    assert registry.log_curve(stage, rows) == 0
    history = registry.connection.call("get_metric_history", stage, "reward")
    assert [(m.step, m.value) for m in history] == [(row["step"], row["reward"]) for row in rows]


def test_values_that_are_no_finite_numbers_are_left_out_of_a_curve(registry: Registry, model: str) -> None:
    run = registry.iteration_run(model, "t", "u")
    registry.log_curve(run, [{"epoch": 3, "loss": math.nan, "kl": math.inf, "note": "x", "ok": True, "r": 1}], "epoch")  # type: ignore[dict-item]
    registry.log_curve(run, [{"accuracy": 0.25, "step": 7}])
    assert run_of(registry, run).data.metrics == {"r": 1.0, "accuracy": 0.25}


def test_parameters_may_be_recorded_again_but_not_changed(registry: Registry, model: str) -> None:
    run = registry.iteration_run(model, "t", "u")
    parameters = {f"recipe.p{number}": number for number in range(150)}
    registry.log_params(run, parameters)
    registry.log_params(run, {**parameters, "late": "x" * 7000})
    assert len(run_of(registry, run).data.params) == 151
    with pytest.raises(RegistryError, match=r"parameter recipe\.p3 is '3' there and would become '4'"):
        registry.log_params(run, {"recipe.p3": 4})


def test_a_dataset_is_an_input_of_its_run_once_with_its_whole_digest(registry: Registry, model: str) -> None:
    run = registry.iteration_run(model, "t", "u")
    digest = "sha256:" + "0123456789abcdef" * 4
    for _ in range(2):
        registry.log_dataset(run, "captions", "s3://bucket/manifest.json", digest, profile={"rows": 640})
    registry.log_dataset(run, "questions", "file:///data/q", digest, context="evaluation")
    inputs = {i.dataset.name: i for i in run_of(registry, run).inputs.dataset_inputs}
    assert len(run_of(registry, run).inputs.dataset_inputs) == 2
    assert json.loads(inputs["captions"].dataset.profile) == {"digest": digest, "rows": 640}
    assert json.loads(inputs["captions"].dataset.source) == {"uri": "s3://bucket/manifest.json"}
    assert [tag.value for tag in inputs["questions"].tags] == ["evaluation"]


def test_artifacts_are_kept_with_their_run(registry: Registry, model: str, tmp_path: Path) -> None:
    run = registry.iteration_run(model, "t", "u")
    (tmp_path / "report" / "assets").mkdir(parents=True)
    (tmp_path / "report" / "index.html").write_text("<html>")
    (tmp_path / "report" / "assets" / "a.svg").write_text("<svg>")
    registry.log_artifact(run, tmp_path / "report", "report")
    registry.log_artifact(run, tmp_path / "report" / "index.html")
    registry.log_text(run, "640 samples", "card.md")
    names = {item.path for item in registry.connection.call("list_artifacts", run)}
    assert names == {"report", "index.html", "card.md"}
    down = registry.connection.call("download_artifacts", run, "report", str(tmp_path))
    assert (Path(down) / "assets" / "a.svg").read_text() == "<svg>"


@pytest.mark.parametrize("uri", ["s3://bucket/it/model?endpoint=http://127.0.0.1:9000", "file:///data/my%20run/model"])
def test_a_model_is_registered_by_reference_once_per_digest(registry: Registry, model: str, uri: str) -> None:
    run = registry.iteration_run(model, "t", "u")
    version = registry.register(model, uri, "sha256:aa", run=run, tags={"viper.parent": 0, "score": 0.5})
    assert registry.register(model, uri, "sha256:aa", run=run, tags={"score": 0.75}) == version
    other = registry.register(model, uri + "2", "sha256:bb")
    assert [v.version for v in registry.versions(model)] == [version, other]
    found = registry.get(model, version)
    assert (found.source_uri, found.digest, found.run) == (uri, "sha256:aa", run)
    assert found.tags["viper.parent"] == "0"
    assert found.tags["score"] == "0.75"
    assert found.tags[DIGEST] == "sha256:aa"


def test_processes_that_register_the_same_model_at_once_end_in_one_version(registry: Registry, model: str) -> None:
    def register(_: int) -> int:
        return Registry(registry.uri).register(model, "s3://b/model", "sha256:aa")

    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(register, range(4)))
    assert [v.version for v in registry.versions(model)] == [min(versions)]


def test_nothing_is_known_about_a_model_that_is_not_registered(registry: Registry, model: str) -> None:
    assert registry.versions(model) == []
    assert registry.aliases(model) == {}
    assert registry.get_alias(model, "generator") is None
    with pytest.raises(MissingError, match="versions: none; aliases: none"):
        registry.resolve(model, "generator")


def test_promotion_moves_the_alias_only_from_where_it_is_expected(registry: Registry, model: str) -> None:
    one, two, three = (registry.register(model, f"s3://b/{n}", f"sha256:{n}") for n in range(3))
    assert registry.get_alias(model, "generator") is None
    registry.promote(model, "generator", one, expected=None)
    registry.promote(model, "generator", two, expected=one)
    registry.promote(model, "generator", two, expected=one)  # done already: a resumed promotion
    with pytest.raises(AliasMovedError, match=f"at version {two}, not at {one}"):
        registry.promote(model, "generator", three, expected=one)
    with pytest.raises(AliasMovedError, match="not at None"):
        registry.promote(model, "generator", three, expected=None)
    assert registry.get_alias(model, "generator") == two
    assert registry.aliases(model) == {"generator": two}
    with pytest.raises(MissingError):
        registry.promote(model, "generator", 99, expected=two)
    assert registry.get_alias(model, "generator") == two


def test_of_concurrent_promotions_on_this_machine_exactly_one_wins(sqlite_registry: Registry, model: str) -> None:
    base, *candidates = (sqlite_registry.register(model, f"s3://b/{n}", f"sha256:{n}") for n in range(5))
    sqlite_registry.promote(model, "generator", base, expected=None)

    def promote(version: int) -> bool:
        try:
            Registry(sqlite_registry.uri).promote(model, "generator", version, expected=base)
        except AliasMovedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = [version for version, ok in zip(candidates, pool.map(promote, candidates), strict=True) if ok]
    assert won == [sqlite_registry.get_alias(model, "generator")]


def test_a_version_is_found_by_alias_number_and_uri(registry: Registry, model: str) -> None:
    first = registry.register(model, "s3://b/first", "sha256:1")
    second = registry.register(model, "file:///b/second", "sha256:2")
    registry.promote(model, "generator", first, expected=None)
    for reference, version in {
        "generator": first,
        f"models:/{model}@generator": first,
        "s3://b/first": first,
        str(second): second,
        f"models:/{model}/{second}": second,
        "file:///b/second": second,
    }.items():
        assert registry.resolve(model, reference).version == version
    assert registry.resolve("another-model", f"models:/{model}/{first}").model == model


@pytest.mark.parametrize("reference", ["teacher", "99", "s3://b/unknown", "models:/nobody@generator"])
def test_an_unknown_version_is_refused_with_what_there_is(registry: Registry, model: str, reference: str) -> None:
    version = registry.register(model, "s3://b/first", "sha256:1")
    registry.promote(model, "generator", version, expected=None)
    with pytest.raises(MissingError, match="names no version of") as error:
        registry.resolve(model, reference)
    if "nobody" not in reference:
        assert f"@generator → {version}" in str(error.value)


def test_a_name_that_would_break_a_query_is_refused(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="quotes"):
        registry.versions("it's")
