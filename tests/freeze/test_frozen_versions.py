"""Every program that meets a frozen iteration of a later release refuses it by name; none of them changes anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import world
from fakes.registry import MemoryRegistry
from viper import __version__
from viper.errors import InputError, NewerFormError
from viper.iteration.freeze import freeze
from viper.lineage.archive import open_iteration
from viper.modelcache.pull import of_stage
from viper.modelcache.resolve import model_dir
from viper.report.collect import collect_iteration
from viper.stage import FrozenIteration, ResolvedModel, StageContext, load_frozen, open_stage
from viper.store import DirectoryStore, child_uri, upload_directory
from viper_jobs.main import main as viper_job

NEEDED = "77.0.0"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """With an iteration that a later release froze for itself, of a shape that this one cannot even guess."""
    made = DirectoryStore(tmp_path / "store")
    content = {"schemaVersion": 1, "minVersion": NEEDED, "iteration": {"kind": "Unheard"}, "generator": []}
    made.put("iterations/it/iteration.json", json.dumps(content).encode())
    return made


DOORS: dict[str, Callable[[DirectoryStore, Path], Any]] = {
    "reading it": lambda store, _: load_frozen(store, "it"),
    "a stage": lambda store, work: open_stage(store.uri, "it", "ingest-images", work),
    "freezing": lambda store, _: freeze(world.iteration("it"), store, MemoryRegistry()),  # type: ignore[arg-type]
    "the report": lambda store, _: collect_iteration(store, "it"),
    "lineage": lambda store, _: open_iteration(f"{store.uri}/iterations/it"),
    "the models of a stage": lambda store, _: of_stage(f"{store.uri}/iterations/it", "evaluate"),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_it_is_refused_with_the_release_that_is_needed(
    store: DirectoryStore, tmp_path: Path, door: Callable[[DirectoryStore, Path], Any]
) -> None:
    before = [(o.key, store.get(o.key)) for o in store.list()]
    with pytest.raises(NewerFormError, match=rf"needs viper 77\.0\.0; this is viper {__version__}") as error:
        door(store, tmp_path / "work")
    assert error.value.where.endswith("iterations/it/iteration.json")
    assert [(o.key, store.get(o.key)) for o in store.list()] == before


def test_a_stage_program_ends_with_a_status_that_no_further_attempt_would_change(
    store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "termination.json"
    argv = ["evaluate", "--iteration", f"{store.uri}/iterations/it", "--termination-log", str(log)]
    assert viper_job(argv) == NewerFormError.exit_code == 11
    assert json.loads(log.read_text("utf-8"))["reason"] == "NewerFormError"
    assert f"needs viper {NEEDED}" in capsys.readouterr().err


def test_a_generator_is_found_in_the_store_that_it_was_moved_with(tmp_path: Path) -> None:
    registry, before = MemoryRegistry(), DirectoryStore(tmp_path / "before")
    digests = upload_directory(before, "iterations/a/stages/train-captions/model", world.model(tmp_path / "model"))
    uri = child_uri(before.uri, "iterations/a/stages/train-captions/model")
    registry.register("m", uri, digests.digest)
    registry.promote("m", "generator", 1, expected=None)
    (tmp_path / "before").rename(tmp_path / "after")
    after = DirectoryStore(tmp_path / "after")
    made = freeze(world.iteration("it"), after, registry).iteration  # type: ignore[arg-type]
    assert made.generator.uri == child_uri(after.uri, "iterations/a/stages/train-captions/model")
    assert (made.generator.digest, made.generator.version) == (digests.digest, 1)
    context = StageContext(made, after, "synthesize-captions", tmp_path)
    gone = made.generator.model_copy(update={"uri": uri})
    assert model_dir(context, gone) == tmp_path / "after" / "iterations/a/stages/train-captions/model"


@pytest.mark.parametrize("uri", ["file:///nowhere/models/m", "file:///nowhere/iterations/a/stages/s/model"])
def test_other_content_under_the_same_key_is_not_taken_for_it(tmp_path: Path, uri: str) -> None:
    store = DirectoryStore(tmp_path / "store")
    for key in ("models/m", "iterations/a/stages/s/model"):
        upload_directory(store, key, world.model(tmp_path / key))
    with pytest.raises(InputError, match="no such directory"):
        model_dir(
            StageContext(world.frozen("it"), store, "synthesize-captions", tmp_path),
            ResolvedModel(uri=uri, digest="sha256:" + "0" * 64),
        )


def test_what_is_frozen_names_the_least_release_and_its_models_by_their_key(tmp_path: Path) -> None:
    store, folder = DirectoryStore(tmp_path / "store"), world.model(tmp_path / "store" / "models" / "m")
    one = world.iteration("it", generator={"alias": "generator", "initialUri": folder.as_uri()})
    made = freeze(one, store, MemoryRegistry()).iteration  # type: ignore[arg-type]
    content = json.loads(store.get("iterations/it/iteration.json"))
    assert (content["schemaVersion"], content["minVersion"]) == (FrozenIteration.FORM, "0.2.0")
    assert content["generator"]["uri"] == "models/m"
    assert made.generator.uri == folder.as_uri()
    assert load_frozen(store, "it") == made
