"""`viper lineage`: what a person and a program read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lineage_builders import NAME, Ancestry

from fakes import world
from viper.cli import main
from viper.errors import InputError, RegistryError
from viper.local import RunDirectory


@pytest.fixture
def uri(ancestors: Ancestry) -> str:
    return ancestors.registry.uri


@pytest.mark.parametrize("asked", [f"models:/{NAME}@generator", f"models:/{NAME}/3", f"{NAME}@generator", f"{NAME}/3"])
def test_a_version_is_named_as_in_mlflow(uri: str, asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", asked, "--tracking-uri", uri]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"{NAME} version 3 @generator  promoted: not worse"
    assert [line for line in out if line.startswith(NAME)][1:] == [
        f"{NAME} version 2  promoted: not worse",
        f"{NAME} version 1  the base",
    ]
    (line,) = [line for line in out if "train-operations " in line and "demo" not in line][:1]
    assert "trained θ1 of train-captions" in line


def test_the_tree_says_who_wrote_what(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lineage", f"{NAME}/3", "--tracking-uri", uri])
    lines = {
        line.lstrip("│├└─ ").split(" ")[0]: line
        for line in capsys.readouterr().out.split("from version 2")[0].splitlines()
    }
    assert "by θ0 = version 2; critic θ0" in lines["synthesize-captions"]
    assert "by θ1 of train-captions" in lines["synthesize-operations"]
    assert "judge base" in lines["validate-operations"]


def test_the_run_directory_says_model_and_registry(
    tmp_path: Path, ancestors: Ancestry, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    one = world.iteration(model=NAME)
    RunDirectory(tmp_path).open(one, ancestors.store.uri, uri)
    assert main(["lineage", "generator", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME} version 3")


def test_the_environment_says_where_mlflow_is(
    uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["lineage", f"{NAME}/2"]) == 0
    assert capsys.readouterr().out.startswith(f"{NAME} version 2")


def test_json_holds_the_chain_and_the_samples(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", f"{NAME}/3", "--tracking-uri", uri, "--samples", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], found["parent"]["version"], found["parent"]["parent"]["origin"]) == (3, 2, "base")
    stages = {s["name"]: s for s in found["iteration"]["stages"]}
    trained = {k: len([s for s in found["samples"] if s["stage"] == k]) for k in stages}
    assert trained["validate-captions"] == stages["validate-captions"]["accepted"]
    assert {s["author"]["name"] for s in found["samples"]} == {"θ0", "θ1"}


def test_the_samples_are_listed_with_their_scores(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", f"{NAME}/3", "--tracking-uri", uri, "--samples"]) == 0
    out = capsys.readouterr().out
    assert "6 of them with rollouts" in out
    scored = [line for line in out.splitlines() if "0.20 → 0.20" in line]
    assert len(scored) == 2


def test_one_sample_is_shown_whole(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lineage", f"{NAME}/3", "--tracking-uri", uri, "--samples", "--json"])
    sample = json.loads(capsys.readouterr().out)["samples"][0]
    assert main(["lineage", f"{NAME}/3", "--tracking-uri", uri, "--sample", sample["sample_id"][:16]]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"sample {sample['sample_id']}")
    assert sample["texts"]["caption"] in out
    assert "written by θ0 = version 2" in out
    assert "scene-" in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([f"{NAME}/9"], RegistryError.exit_code, f"9 names no version of {NAME}"),
        ([f"{NAME}@none"], RegistryError.exit_code, "aliases: @generator → 3"),
        (["3"], InputError.exit_code, "says nothing of the model"),
        ([f"{NAME}/3", "--sample", "zz"], InputError.exit_code, "no iteration of this lineage has such a sample"),
    ],
)
def test_what_cannot_be_found_is_said(
    uri: str, arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lineage", *arguments, "--tracking-uri", uri]) == status
    assert words in capsys.readouterr().err


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = f"sqlite:///{tmp_path}/mlflow.db"
    assert main(["lineage", f"{NAME}/3", "--tracking-uri", wrong]) == RegistryError.exit_code
    assert "there is no such database" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
