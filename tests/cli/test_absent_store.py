"""A store that is not there is not an empty one: what opens a run directory says so and writes nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fakes import world
from viper.cli import main
from viper.local import RunDirectory
from viper.store import open_store


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory in which an iteration has run, with its store on another volume."""
    directory = RunDirectory(tmp_path / "run")
    (tmp_path / "it.yaml").write_text(yaml.safe_dump(world.iteration().dump()), "utf-8")
    store = tmp_path / "volume" / "store"
    directory.open(world.iteration(), str(store), None)
    world.write(open_store(store), world.frozen())
    directory.next_log("it", "ingest-images", 0, 1).write_text("…", "utf-8")
    (directory.path / "report").mkdir()
    (directory.path / "report" / "index.html").write_text("what was", "utf-8")
    return directory.path


def unmounted(run: Path) -> None:
    (run.parent / "volume").rename(run.parent / "elsewhere")


def mount_point_is_empty(run: Path) -> None:
    shutil.rmtree(run.parent / "volume" / "store")
    (run.parent / "volume" / "store").mkdir()


def another_volume(run: Path) -> None:
    mount_point_is_empty(run)
    world.write(open_store(run.parent / "volume" / "store"), world.frozen("another"))


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "status": lambda run: ["status", str(run)],
    "status --json": lambda run: ["status", str(run), "--json"],
    "report": lambda run: ["report", str(run)],
    "run": lambda run: ["run", str(run.parent / "it.yaml"), "--dir", str(run)],
}


def files(folder: Path) -> dict[str, bytes]:
    kept = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


@pytest.mark.parametrize("absent", [unmounted, mount_point_is_empty, another_volume])
@pytest.mark.parametrize("command", COMMANDS)
def test_absence_is_not_new(
    run: Path, command: str, absent: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    absent(run)
    before = files(run.parent)
    assert main(COMMANDS[command](run)) == 4
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert "the store is gone" in said.err or "the iteration it has run in" in said.err
    assert "mount" in said.err
    assert files(run.parent) == {**before, **{k: v for k, v in files(run.parent).items() if k == "run/run.json"}}


@pytest.mark.parametrize("writer", ["this release", "0.1.0"])
@pytest.mark.parametrize("left", ["nothing", "its store", "its database"])
def test_a_directory_that_was_moved_is_read_with_what_it_took_along(
    tmp_path: Path, writer: str, left: str, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = RunDirectory(tmp_path / "old"), tmp_path / "new"
    record = old.open(world.iteration(), None, None)
    world.write(open_store(record.store), world.frozen())
    old.next_log("it", "ingest-images", 0, 1)
    (old.path / "mlflow.db").touch()
    if writer == "0.1.0":
        content = {**json.loads((old.path / "run.json").read_bytes()), "store": record.store}
        content |= {"tracking": record.tracking}
        del content["schemaVersion"], content["minVersion"]
        (old.path / "run.json").write_text(json.dumps(content))
    old.path.rename(new)
    if left != "nothing":
        kept = {"its store": "store", "its database": "mlflow.db"}[left]
        old.path.mkdir()
        (new / kept).rename(old.path / kept)
    status = main(["status", str(new)])
    said = capsys.readouterr()
    if left == "its store" and writer == "0.1.0":
        assert status == 0, "it says where its store is, and there it is"
    elif left == "its store" or (left == "its database" and writer == "0.1.0"):
        assert status == 4
        assert "the store is gone" in said.err
    else:
        assert status == 0, said.err
        assert "ingest-images" in said.out
        found = RunDirectory(new).record()
        assert found is not None
        assert (found.store, found.tracking) == ((new / "store").as_uri(), f"sqlite:///{new}/mlflow.db")


def test_a_store_that_is_there_is_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run)]) == 0
    assert "ingest-images" in capsys.readouterr().out
