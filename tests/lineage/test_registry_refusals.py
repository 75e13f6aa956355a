"""`viper lineage`, `promote`, `rollback` and `viper-registry` on references, databases and servers that are none."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from lineage_builders import NAME, Ancestry

from fakes import world
from support.refusals import refused
from viper.cli import main
from viper.local import RunDirectory
from viper.registry import Registry
from viper.retries import ONCE
from viper_jobs.registry import main as registry_program


@pytest.fixture(autouse=True)
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No half minutes of waiting, and no run of this machine's."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr("viper.retries.DATABASE", ONCE)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("", "says nothing of the model"),
        ("0", "says nothing of the model"),
        ("models:/", "says nothing of the model"),
        ("models:/x", "says nothing of the model"),
        (f"models:/{NAME}", "says nothing of the model"),
        (f"models:/{NAME}/", "says nothing of the model"),
        (f"models:/{NAME}/3/4", "says nothing of the model"),
        (f"{NAME}/-1", "says nothing of the model"),
        (f"{NAME}/abc", "says nothing of the model"),
        (f"{NAME}/3@generator", "says nothing of the model"),
        (f"{NAME}@", "says nothing of the model"),
        (f"{NAME}/0", "names no version"),
        (f"{NAME}/9", "names no version"),
        (f"{NAME}/{'9' * 30}", "names no version"),
        (f"{NAME}/{'9' * 5000}", "names no version"),
        (f"{NAME}/²", "no"),
        (f"{NAME}@none", "names no version"),
        (f"{NAME}@gen erator", "Invalid alias name"),
        (f"{NAME}@'; drop table x; --", "Invalid alias name"),
        (f"{NAME}@π", "names no version"),
        (f"{NAME}@a\0b", "Invalid alias name"),
        (f"{NAME}@{'a' * 5000}", "exceeds the maximum length"),
        ("nobody/1", "names no version of nobody"),
        ("it's/1", "must not have quotes"),
        ("a`b/1", "1"),
        ("a\udc80/1", "1"),
        ("../x/1", "says nothing of the model"),
    ],
)
def test_a_reference_that_names_no_version(
    asked: str, words: str, ancestors: Ancestry, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(main, ["lineage", asked, "--tracking-uri", ancestors.registry.uri], words, capsys)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: VERSION"),
        (["3"], "there is no run here"),
        (["3", "--dir", "none"], "nothing was started in this directory"),
        (["3", "--dir", "file"], "is a file"),
        (["3", "--dir", "nul\0"], "null byte"),
        ([f"{NAME}/3", "--tracking-uri", ""], "not a tracking URI"),
        ([f"{NAME}/3", "--tracking-uri", "mysql://host/db"], "not a tracking URI"),
        ([f"{NAME}/3", "--tracking-uri", "sqlite:///none.db"], "there is no such database"),
        ([f"{NAME}/3", "--tracking-uri", "sqlite:///"], "not a tracking URI"),
        ([f"{NAME}/3", "--tracking-uri", "http://[x"], "not a tracking URI"),
        ([f"{NAME}/3", "--tracking-uri", "http://127.0.0.1:1"], "the MLflow server does not answer"),
        ([f"{NAME}/3", "--sample", ""], "sample"),
        ([f"{NAME}/3", "--sample", "zz"], "no iteration of this lineage has such a sample"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    argv: list[str],
    words: str,
    tmp_path: Path,
    ancestors: Ancestry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("x")
    where = (
        [] if {"--tracking-uri", "--dir"} & set(argv) or len(argv) < 2 else ["--tracking-uri", ancestors.registry.uri]
    )
    refused(main, ["lineage", *argv, *where], words, capsys)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_bytes(b"this is not a database, but long enough to look like one" * 100)


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("create table notes (text)")


def _version(number: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with sqlite3.connect(path) as database:
            database.execute("update alembic_version set version_num = ?", (number,))

    return change


def _table(name: str) -> Callable[[Path], None]:
    def drop(path: Path) -> None:
        with sqlite3.connect(path) as database:
            database.execute(f"drop table {name}")

    return drop


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("command", ["lineage", "promote"])
@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (_gone, "there is no such database"),
        (_folder, "there is no such database"),
        (_empty, "holds nothing of MLflow"),
        (_text, "is not an SQLite database"),
        (_half, "the database is damaged"),
        (_other, "holds nothing of MLflow"),
        (_version("ffffffffffff"), "schema"),
        (_version("0a8213491aaa"), "schema"),
        (_table("model_versions"), "migration in unexpected state"),
        (_table("registered_model_aliases"), "no such table"),
    ],
)
def test_a_database_that_is_none(
    command: str,
    break_it: Callable[[Path], None],
    words: str,
    *,
    tmp_path: Path,
    ancestors: Ancestry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    database = ancestors.registry.connection.database
    assert database is not None
    copy = tmp_path / "copy.db"
    shutil.copyfile(database, copy)
    uri = f"sqlite:///{copy}"
    RunDirectory(tmp_path / "run").open(world.iteration(model=NAME), ancestors.store.uri, uri)
    break_it(copy)
    argv = ["lineage", f"{NAME}/3", "--tracking-uri", uri] if command == "lineage" else ["promote", "run", "3"]
    assert str(copy) in refused(main, argv, words, capsys)


class Answer(BaseHTTPRequestHandler):
    """A server that is not MLflow's."""

    answers: tuple[int, bytes] = (200, b"")

    def do_GET(self) -> None:
        status, body = self.answers
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Answer) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b""),
        (200, b"[]"),
        (200, b"null"),
        (200, b"3"),
        (200, b'{"model_version": 3}'),
        (200, b'{"model_version": {"name": 1, "version": "abc"}}'),
        (200, b'{"model_version": {"name": "m"}}'),
        (200, b"\xff\xfe"),
        (401, b"who are you"),
        (403, b"{}"),
        (404, b"<html>nothing here</html>"),
        (500, b"boom"),
        (302, b""),
    ],
)
def test_a_server_that_is_not_mlflow(
    status: int, body: bytes, server: HTTPServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Answer, "answers", (status, body))
    uri = f"http://127.0.0.1:{server.server_port}"
    refused(main, ["lineage", "m@generator", "--tracking-uri", uri], "", capsys)


@pytest.mark.parametrize("command", ["promote", "rollback"])
@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: DIR"),
        (["none"], "nothing was started in this directory"),
        (["file"], "is a file"),
        (["run", "0"], "is no version"),
        (["run", "-1"], ""),
        (["run", "abc"], "is no version"),
        (["run", "1.0"], "is no version"),
        (["run", "²"], "is no version"),
        (["run", "9" * 30], "is no version"),
        (["run", "99"], "99"),
        (["run", "3", "4"], "unrecognized arguments"),
    ],
)
def test_moves_that_mean_nothing_are_refused(
    command: str,
    argv: list[str],
    words: str,
    *,
    tmp_path: Path,
    ancestors: Ancestry,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("x")
    RunDirectory(tmp_path / "run").open(world.iteration(model=NAME), ancestors.store.uri, ancestors.registry.uri)
    refused(main, [command, *argv], words, capsys)
    assert Registry(ancestors.registry.uri).get_alias(NAME, "generator") == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--version": "0"}, "is no version"),
        ({"--version": "-1"}, "is no version"),
        ({"--version": "abc"}, "is no version"),
        ({"--version": "99"}, "99"),
        ({"--tracking": ""}, "not a tracking URI"),
        ({"--tracking": "mysql://x/y"}, "not a tracking URI"),
        ({"--tracking": "http://127.0.0.1:1"}, "does not answer"),
        ({"--model": "nobody"}, "nobody"),
        ({"--model": ""}, ""),
        ({"--alias": "a b", "--version": "3"}, ""),
        ({"--alias": "", "--version": "3"}, ""),
    ],
    ids=str,
)
def test_the_program_that_moves_an_alias_refuses_as_well(
    change: dict[str, str], words: str, ancestors: Ancestry, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = {"--tracking": ancestors.registry.uri, "--model": NAME, "--alias": "generator", "--by": "jane", **change}
    argv = ["promote", *(word for pair in wish.items() for word in pair)]
    refused(registry_program, argv, words, capsys)
    assert Registry(ancestors.registry.uri).get_alias(NAME, "generator") == 3


def test_a_person_without_a_name_is_known_by_uid(
    tmp_path: Path, own_ancestors: Ancestry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(_uid: int) -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    run = RunDirectory(tmp_path / "run")
    run.open(world.iteration(model=NAME), own_ancestors.store.uri, own_ancestors.registry.uri)
    assert main(["promote", "run", "2"]) == 0
    assert capsys.readouterr().out == f"{NAME}@generator: version 3 → version 2\n"
    notes = own_ancestors.registry.get(NAME, 2).tags
    assert any("promoted by uid 12345" in note for key, note in notes.items() if key.startswith("viper.alias_move"))
