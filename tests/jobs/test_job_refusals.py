"""`viper-job` and `viper-freeze` with arguments that mean nothing, as a container or a person gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.refusals import refused
from viper_jobs.freeze import main as freeze
from viper_jobs.main import main as job

STAGE = "ingest-images"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: STAGE"),
        (["train"], "invalid choice"),
        ([STAGE], "required: --iteration"),
        ([STAGE, "--iteration", ""], "is not the URI of an iteration"),
        ([STAGE, "--iteration", "nonsense"], "is not the URI of an iteration"),
        ([STAGE, "--iteration", "iterations/"], "is not the URI of an iteration"),
        ([STAGE, "--iteration", "file:///s/iterations/"], "is not the URI of an iteration"),
        ([STAGE, "--iteration", "s3://[x/iterations/it"], "is not the URI of an iteration"),
        ([STAGE, "--iteration", "http://x/iterations/it"], "not a store URI"),
        ([STAGE, "--iteration", "s3://B/iterations/it"], "not a bucket name"),
        ([STAGE, "--iteration", "file:///none/iterations/it"], "/none"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", "1/0"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", "0/0"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", "2/2"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard=-1/2"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", "nan"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", "1.0/2"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", f"0/{'9' * 5000}"], "is not a shard"),
        ([STAGE, "--iteration", "file:///none/iterations/it", "--shard", ""], "is not a shard"),
    ],
)
def test_stages_that_cannot_be_run(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(job, argv, words, capsys)


@pytest.mark.parametrize("argv", [[], ["--no-such-option"], ["none.json"]])
def test_iterations_that_cannot_be_frozen(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    refused(freeze, argv, "", capsys)
