"""Every command line that takes an address refuses one that holds credentials, and repeats none of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from fakes import world
from support.bad_resources import TEXT
from viper.cli import main as viper
from viper.spec.packed import pack, variables
from viper_jobs.freeze import main as freeze
from viper_jobs.main import main as job
from viper_jobs.registry import main as registry

MOVE = ["promote", "--model", "m", "--alias", "a", "--version", "1", "--by", "me"]
PIECE = ["models", "pull", "models:/m/1"]
TRACKING: dict[str, Callable[[str], tuple[Callable[[Sequence[str]], int], list[str]]]] = {
    "viper run": lambda uri: (viper, ["run", "it.yaml", "--dir", "runs", "--tracking-uri", uri]),
    "viper doctor": lambda uri: (viper, ["doctor", "--tracking-uri", uri]),
    "viper models": lambda uri: (viper, [*PIECE, "--tracking-uri", uri]),
    "viper lineage": lambda uri: (viper, ["lineage", "models:/m/1", "--tracking-uri", uri]),
    "viper-registry": lambda uri: (registry, [*MOVE, "--tracking", uri]),
    "viper-freeze": lambda uri: (freeze, ["--store", "file:///{folder}/store", "--tracking", uri]),
}
STORE: dict[str, Callable[[str], tuple[Callable[[Sequence[str]], int], list[str]]]] = {
    "viper run": lambda uri: (viper, ["run", "it.yaml", "--dir", "runs", "--store", uri]),
    "viper doctor": lambda uri: (viper, ["doctor", "--store", uri]),
    "viper-job": lambda uri: (job, ["ingest-images", "--iteration", "/iterations/it?".join([*uri.split("?"), ""][:2])]),
    "viper-registry": lambda uri: (registry, [*MOVE, "--tracking", "sqlite:///none.db", "--store", uri]),
    "viper-freeze": lambda uri: (freeze, ["--store", uri, "--tracking", "sqlite:///none.db"]),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with a resource, which is also what the operator would give to freezing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIPER_CACHE", str(tmp_path / "own"))
    (tmp_path / "it.yaml").write_text(TEXT)
    for variable, piece in variables("VIPER_ITERATION", pack(json.dumps(world.iteration().dump()), "it")).items():
        monkeypatch.setenv(variable, piece)
    return tmp_path


def hidden(uri: str) -> str:
    """Names of tests become those of folders, which are shown."""
    return uri.replace("PASS1", "")


def said(command: tuple[Callable[[Sequence[str]], int], list[str]], capfd: pytest.CaptureFixture[str]) -> str:
    run, argv = command
    assert run(argv) != 0
    return "".join(capfd.readouterr())


@pytest.mark.parametrize("name", TRACKING)
@pytest.mark.parametrize(
    "uri",
    [
        "http://ana:PASS1@mlflow:5000",
        "https://PASS1@mlflow:5000",
        "HTTP://ana%3APASS1%40mlflow:5000",
        "https://mlflow:5000/?token=PASS1",
        "https://mlflow:5000/#token=PASS1",
        "postgresql://ana:PASS1@database/mlflow",
        "ana:PASS1@mlflow:5000",
        "//ana:PASS1@mlflow:5000",
    ],
    ids=hidden,
)
def test_of_mlflow(uri: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = said(TRACKING[name](uri), capfd)
    assert "PASS1" not in text
    assert "tracking URI" in text


@pytest.mark.parametrize("name", STORE)
@pytest.mark.parametrize(
    "uri",
    ["s3://ana:PASS1@bucket/x", "s3://bucket/x?endpoint=http://ana:PASS1@minio:9000", "s3://PASS1@bucket/x"],
    ids=hidden,
)
def test_of_the_store(uri: str, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = said(STORE[name](uri), capfd)
    assert "PASS1" not in text
    assert "credentials" in text or "not an S3 endpoint" in text
