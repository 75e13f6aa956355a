"""The run directory: one runner at a time, and it remembers where its store is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fakes import world
from viper.errors import BusyError, InputError, NewerFormError, NotFoundError, SpecError
from viper.local import RunDirectory
from viper.store import open_store


def test_a_second_run_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).lock():
        with pytest.raises(BusyError) as error, RunDirectory(tmp_path).lock():
            pass
        assert f"process {os.getpid()} on " in str(error.value)
        assert f"kill {os.getpid()}" in error.value.fix
        assert error.value.exit_code == 6


def test_the_directory_is_free_again_after_a_run(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).lock():
        assert RunDirectory(tmp_path).busy()
    assert not RunDirectory(tmp_path).busy()
    with RunDirectory(tmp_path).lock():
        pass


def test_looking_whether_a_run_is_there_does_not_disturb_it(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    assert not directory.busy()
    assert not (tmp_path / ".lock").exists()


def test_a_directory_that_cannot_be_made_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="run directory"), RunDirectory(tmp_path / "file").lock():
        pass


def test_store_and_tracking_lie_in_the_directory_by_default(tmp_path: Path) -> None:
    record = RunDirectory(tmp_path).open(world.iteration(), None, None)
    assert record.store == (tmp_path / "store").as_uri()
    assert record.tracking == f"sqlite:///{tmp_path}/mlflow.db"
    assert RunDirectory(tmp_path).record() == record


def test_a_run_keeps_the_locations_it_was_started_with(tmp_path: Path) -> None:
    first = RunDirectory(tmp_path).open(world.iteration(), "s3://bucket/run", "http://mlflow:5000")
    assert RunDirectory(tmp_path).open(world.iteration(), None, None) == first
    with pytest.raises(SpecError, match="started with --store s3://bucket/run") as error:
        RunDirectory(tmp_path).open(world.iteration(), "s3://bucket/other", None)
    assert "choose another --dir" in error.value.fix


@pytest.mark.parametrize(
    "more", [{"parallel": 3}, {"notes": {"a": [1, None, "ü"]}}, {"more_words": None, "moreWords": 1}]
)
def test_what_a_later_release_recorded_is_kept_when_the_run_goes_on(tmp_path: Path, more: dict[str, object]) -> None:
    RunDirectory(tmp_path).open(world.iteration(), None, None)
    path = tmp_path / "run.json"
    later = {**json.loads(path.read_text("utf-8")), **more}
    path.write_text(json.dumps(later), "utf-8")
    for _ in range(2):
        RunDirectory(tmp_path).open(world.iteration(), None, None)
        assert json.loads(path.read_text("utf-8")) == later


def test_a_relative_store_means_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunDirectory(tmp_path / "run").path == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert RunDirectory(tmp_path / "run").open(world.iteration(), "data", None).store == (tmp_path / "data").as_uri()


@pytest.mark.parametrize(
    ("ran", "stored", "gone"),
    [
        ([], [], None),
        (["it"], ["it"], None),
        (["it", "older"], ["it", "older", "of another directory"], None),
        (["it"], [], "it"),
        (["it", "older"], ["it"], "older"),
    ],
    ids=["nothing ran", "as it should be", "several", "an empty store", "one of two"],
)
def test_what_has_run_and_is_not_in_its_store_is_not_new(
    tmp_path: Path, ran: list[str], stored: list[str], gone: str | None
) -> None:
    directory, store = RunDirectory(tmp_path / "run"), open_store(tmp_path / "mounted")
    for name in stored:
        store.put(f"iterations/{name}/iteration.json", b"{}")
    for name in ran:
        directory.next_log(name, "ingest-images", 0, 1)
    (tmp_path / "run" / "logs" / "never started").mkdir(parents=True)
    if gone is None:
        directory.check(store)
        return
    with pytest.raises(NotFoundError, match=f"the iteration {gone} has run in .* and is not in its store") as error:
        directory.check(store)
    assert "mount the store's volume" in error.value.fix


def test_a_damaged_record_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json"):
        RunDirectory(tmp_path).record()


def test_what_lies_in_the_directory_moves_with_it(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "before").open(world.iteration(), None, None)
    text = (tmp_path / "before" / "run.json").read_text("utf-8")
    assert str(tmp_path) not in text
    (tmp_path / "before").rename(tmp_path / "after")
    record = RunDirectory(tmp_path / "after").record()
    assert record is not None
    assert record.store == (tmp_path / "after" / "store").as_uri()
    assert record.tracking == f"sqlite:///{tmp_path}/after/mlflow.db"
    assert RunDirectory(tmp_path / "after").open(world.iteration(), record.store, record.tracking) == record


@pytest.mark.parametrize("place", ["s3://bucket/run", "file:///elsewhere/store"])
def test_what_lies_elsewhere_stays_where_it_is(tmp_path: Path, place: str) -> None:
    RunDirectory(tmp_path / "before").open(world.iteration(), place, "sqlite:////elsewhere/mlflow.db")
    (tmp_path / "before").rename(tmp_path / "after")
    record = RunDirectory(tmp_path / "after").record()
    assert record is not None
    assert (record.store, record.tracking) == (place, "sqlite:////elsewhere/mlflow.db")


def test_a_record_of_a_later_release_is_read_as_far_as_it_is_known_and_refused_when_it_must_be(tmp_path: Path) -> None:
    record = RunDirectory(tmp_path).open(world.iteration(), None, None)
    content = json.loads((tmp_path / "run.json").read_text("utf-8"))
    content["resource"]["spec"]["recipe"]["later"] = content["later"] = 1
    (tmp_path / "run.json").write_text(json.dumps(content), "utf-8")
    found = RunDirectory(tmp_path).record()
    assert found is not None
    assert (found.store, found.resource) == (record.store, record.resource)
    (tmp_path / "run.json").write_text(json.dumps({**content, "minVersion": "99.0.0"}), "utf-8")
    with pytest.raises(NewerFormError, match=r"needs viper 99\.0\.0"):
        RunDirectory(tmp_path).record()
