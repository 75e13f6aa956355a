"""MLflow down, a database that is locked, damaged or in a bad place: bounded waiting, clear errors, nothing lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.running import MlflowServer
from viper.errors import RegistryError
from viper.registry import Registry, sqlite_uri
from viper.retries import Policy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One retry instead of half a minute of them."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setattr("viper.retries.DATABASE", Policy((0.01,), tries=3))


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A server that the test may kill."""
    with MlflowServer(tmp_path / "own") as server:
        yield server


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_server_that_dies_in_the_middle_of_a_stage_loses_nothing(own_server: MlflowServer) -> None:
    registry = Registry(own_server.url)
    rows = [{"step": step, "reward": step / 10} for step in range(50)]
    iteration = registry.iteration_run("m", "turn-1", "uid")
    stage = registry.stage_run(iteration, "train-captions")
    registry.log_curve(stage, rows[:20])
    own_server.kill()

    for operation in (
        lambda: registry.log_curve(stage, rows),
        lambda: registry.register("m", "s3://b/model", "sha256:aa", run=iteration),
        lambda: registry.get_alias("m", "generator"),
    ):
        with pytest.raises(RegistryError, match="the MLflow server does not answer") as error:
            operation()
        assert error.value.where == own_server.url
        assert "run the same command again" in error.value.fix

    own_server.start()
    assert registry.stage_run(registry.iteration_run("m", "turn-1", "uid"), "train-captions") == stage
    assert registry.log_curve(stage, rows) == 30
    version = registry.register("m", "s3://b/model", "sha256:aa", run=iteration)
    registry.promote("m", "generator", version, expected=None)
    assert registry.get_alias("m", "generator") == version


@pytest.mark.parametrize("uri", ["", "mlruns", "postgres://x", "file:///mlruns"])
def test_what_is_no_tracking_uri_is_refused_before_mlflow_is_imported(uri: str) -> None:
    with pytest.raises(RegistryError, match="not a tracking URI"):
        Registry(uri)


@pytest.mark.process
def test_the_registry_is_imported_and_made_without_mlflow() -> None:
    program = "import sys; from viper.registry import Registry; Registry('http://x'); print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.process
@pytest.mark.usefixtures("impatient")
def test_a_database_that_another_process_keeps_locked_is_named(tmp_path: Path) -> None:
    registry = Registry(sqlite_uri(tmp_path))
    experiment = registry.experiment("m")
    lock = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('begin exclusive'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", lock, str(tmp_path / "mlflow.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        def do_not_wait(_connection: object, cursor: object, statement: str, *_: object) -> None:
            if "busy_timeout" in statement:
                cursor.execute("PRAGMA busy_timeout = 10")  # type: ignore[attr-defined]

        event.listen(Engine, "after_cursor_execute", do_not_wait)
        try:
            with pytest.raises(RegistryError, match="another process keeps the database locked"):
                registry.iteration_run("m", "t", "u")
        finally:
            event.remove(Engine, "after_cursor_execute", do_not_wait)
            holder.communicate(b"\n")
    assert registry.experiment("m") == experiment
    registry.iteration_run("m", "t", "u")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, but long enough to look like one" * 100)
    with pytest.raises(RegistryError, match="not an SQLite database") as error:
        Registry(sqlite_uri(tmp_path)).experiment("m")
    assert "mlflow.db" in error.value.where


def test_a_place_that_cannot_hold_a_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegistryError) as error:
        Registry(sqlite_uri(tmp_path / "file")).experiment("m")
    assert str(tmp_path / "file") in error.value.where


@pytest.mark.process
@pytest.mark.slow
def test_a_new_database_is_silent(tmp_path: Path) -> None:
    program = f"from viper.registry import Registry; Registry({sqlite_uri(tmp_path)!r}).experiment('m')"
    environment = {**os.environ, "VIPER_CACHE": str(tmp_path / "cache")}  # no template: all migrations
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_a_deleted_experiment_is_not_used_silently(tmp_path: Path) -> None:
    registry = Registry(sqlite_uri(tmp_path))
    registry.connection.call("delete_experiment", registry.experiment("m"))
    with pytest.raises(RegistryError, match="was deleted"):
        registry.experiment("m")
