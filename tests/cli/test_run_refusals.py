"""`viper run` and whatever is given to it: refused before anything is made or remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes import world
from support.bad_resources import BAD, TEXT
from support.refusals import refused
from viper.cli import main
from viper.errors import EngineError
from viper.local import LocalRun
from viper.store import DirectoryStore

SOME = list(BAD)[2::5]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a resource; whatever would run says so."""

    def run(_self: LocalRun) -> None:
        raise EngineError("it would run")

    monkeypatch.setattr(LocalRun, "run", run)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "it.yaml").write_text(TEXT)
    (tmp_path / "file").write_text("x")
    return tmp_path


@pytest.mark.parametrize("case", SOME)
def test_what_is_no_resource_is_refused_and_leaves_nothing(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, words = BAD[case]
    (folder / "it.yaml").write_bytes(content)
    refused(main, ["run", "it.yaml"], words, capsys)
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: FILE"),
        (["none.yaml"], "there is no such file"),
        (["."], "is a folder"),
        (["it.yaml", "--dir", "file"], "is a file"),
        (["it.yaml", "--dir", "file/run"], "is a file"),
        (["it.yaml", "--dir", "nul\0"], "null byte"),
        (["it.yaml", "--store", ""], "not a store URI"),
        (["it.yaml", "--store", "s3:/bucket"], "not an S3 URI"),
        (["it.yaml", "--store", "http://minio:9000/bucket"], "not a store URI"),
        (["it.yaml", "--store", "minio:9000/bucket"], "not a store URI"),
        (["it.yaml", "--store", "s3://B/x"], "not a bucket name"),
        (["it.yaml", "--store", "s3://bucket?endpoint=http://"], "not an S3 endpoint"),
        (["it.yaml", "--store", "s3://bucket?region=eu"], "not an S3 URI"),
        (["it.yaml", "--store", "s3://[x"], "not a store URI"),
        (["it.yaml", "--store", "~nobody-of-that-name/s"], "its home directory is not known"),
        (["it.yaml", "--store", "file"], "is a file"),
        (["it.yaml", "--store", "file/below"], "is a file"),
        (["it.yaml", "--tracking-uri", ""], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "mlflow.db"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "mysql://host/db"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "sqlite://mlflow.db"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "databricks"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "http://"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "http://[x"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "http://host:port"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "sqlite:///"], "not a tracking URI"),
        (["it.yaml", "--tracking-uri", "http://ana:secret@host"], "http://…@host: holds credentials"),
        (["it.yaml", "--tracking-uri", "https://host/?token=secret"], "holds credentials or a query"),
        (["it.yaml", "--dir", "runs/why?1"], "holds one of ? # %"),
        (["it.yaml", "--dir", "feature%2Flogin/run"], "holds one of ? # %"),
        (["it.yaml", "--dir", "runs/#1"], "holds one of ? # %"),
        (["it.yaml", "--dir", "runs/a\nb"], "holds one of ? # %"),
        (["it.yaml", "--tracking-uri", "sqlite:///nul\0"], "not a tracking URI"),
        (["it.yaml", "--parallel", "0"], "is no number of processes"),
        (["it.yaml", "--parallel", "-1"], "is no number of processes"),
        (["it.yaml", "--parallel", "two"], "is no number of processes"),
        (["it.yaml", "--parallel", "nan"], "is no number of processes"),
        (["it.yaml", "--parallel", "1e3"], "is no number of processes"),
        (["it.yaml", "--parallel", "9" * 400], "is no number of processes"),
    ],
)
def test_options_that_mean_nothing_are_refused_and_not_remembered(
    argv: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "secret" not in refused(main, ["run", *argv], words, capsys)
    assert not (folder / "runs" / "first" / "run.json").exists()
    assert main(["run", "it.yaml"]) == EngineError.exit_code  # what was refused is no part of the next


def test_a_place_that_was_a_slip_is_forgotten_while_nothing_has_begun(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def recorded() -> list[str]:
        record = json.loads((folder / "runs" / "first" / "run.json").read_text())
        return [record["store"], record["tracking"]]

    assert main(["run", "it.yaml", "--store", "stroe", "--tracking-uri", "sqlite:////tmp/mlfolw.db"]) == 8
    assert recorded() == [(folder / "stroe").as_uri(), "sqlite:////tmp/mlfolw.db"]
    assert main(["run", "it.yaml", "--store", "store", "--tracking-uri", "sqlite:////tmp/mlflow.db"]) == 8
    assert recorded() == [(folder / "store").as_uri(), "sqlite:////tmp/mlflow.db"]
    assert main(["run", "it.yaml"]) == 8
    assert recorded() == [(folder / "store").as_uri(), "sqlite:////tmp/mlflow.db"]
    world.write(DirectoryStore(folder / "store"), world.frozen("first"))
    refused(main, ["run", "it.yaml", "--store", "other"], "this run was started with --store", capsys)


def test_a_store_that_nobody_reaches_is_not_remembered(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from viper.retries import ONCE
    from viper.store import minio

    # The default waits for half a minute, as a server that restarts needs it.
    monkeypatch.setattr(
        minio.MinioStore.__init__,
        "__kwdefaults__",
        {**(minio.MinioStore.__init__.__kwdefaults__ or {}), "patience": ONCE},
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    refused(main, ["run", "it.yaml", "--store", "s3://bucket/x?endpoint=http://127.0.0.1:1"], "127.0.0.1:1", capsys)
    assert not (folder / "runs" / "first" / "run.json").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"store": 1}'], ids=str)
def test_a_record_that_is_none_is_never_overwritten(
    content: bytes, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "run.json").write_bytes(content)
    refused(main, ["run", "it.yaml"], "is not the record of a run", capsys)
    assert (folder / "runs" / "first" / "run.json").read_bytes() == content


def test_what_has_run_is_not_forgotten_where_its_store_is_not_mounted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "it.yaml", "--store", "store"]) == 8
    log = folder / "runs" / "first" / "logs" / "first" / "ingest-images-1.log"
    log.parent.mkdir(parents=True)
    log.write_text("x")
    before = (folder / "runs" / "first" / "run.json").read_bytes()
    refused(main, ["run", "it.yaml", "--store", "other"], "this run was started with --store", capsys)
    assert (folder / "runs" / "first" / "run.json").read_bytes() == before
