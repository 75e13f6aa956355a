"""Shards that are killed with SIGKILL: the rerun ends in the same manifest, and repeats at most the part in flight."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.shard import Death, run_shard
from support.synthesis import context, frozen
from viper.ingest.stage import ingest
from viper.stage import Manifest, load_manifest
from viper.store import directory_digest, open_store

PARTS = 6  # of two images each
Calls = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    return folder


def prepared(root: Path, stage: str, model: Path) -> None:
    """An iteration whose images are ingested and whose VLM is the counting fake."""
    engines = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")
    recipe = {"partSize": 2, "stages": "operations" if stage == "synthesize-operations" else "both"}
    it = frozen(
        "smallworld:scenes?count=12&seed=3",
        recipe | {"captions": {"reconstructionSize": 96}},
        engines=engines | {"vlm": "support.synthesis:CountingVlm", "editor": "support.synthesis:FakeEditor"},
    )
    theta0 = it.generator.model_copy(update={"uri": model.as_uri(), "digest": directory_digest(model)})
    it = it.model_copy(update={"generator": theta0, "critic": theta0})
    store = open_store(str(root / "store"))
    store.put("iterations/it/iteration.json", it.model_dump_json(by_alias=True).encode())
    assert ingest(context(root, "ingest-images", it)) is not None


def calls(root: Path) -> Calls:
    """(template, requests, seed) of every batch that any process asked for."""
    lines = (root / "calls.jsonl").read_text().splitlines()
    return [tuple(json.loads(line)[1:]) for line in lines]


def manifest(root: Path, stage: str) -> Manifest | None:
    return load_manifest(open_store(str(root / "store")), "iterations/it", stage)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> tuple[Manifest, Calls]:
    root = tmp_path_factory.mktemp("undisturbed")
    prepared(root, "synthesize-captions", model)
    assert [run_shard(root, "synthesize-captions", (i, 2)) for i in (0, 1)] == [0, 0]
    found = manifest(root, "synthesize-captions")
    assert found is not None
    return found, calls(root)


@pytest.mark.parametrize(
    ("death", "repeated"),
    [
        (Death(calls=1), (1,)),
        (Death(calls=5), (2,)),
        # What was being stored, and the chunk that may have been at work meanwhile.
        (Death(put="before phases/00002/caption/0000.parquet"), (1, 2)),
        (Death(put="before parts/00002.parquet"), (0,)),
        (Death(put="before parts/00002.json"), (0,)),
        (Death(put="after parts/00002.json"), (0,)),
    ],
    ids=[
        "first call",
        "inside a chunk",
        "before its drafts",
        "before its rows",
        "before its record",
        "at the boundary",
    ],
)
def test_a_killed_shard_is_run_again_and_nothing_but_its_chunks_in_flight_is_repeated(
    tmp_path: Path, model: Path, undisturbed: tuple[Manifest, Calls], death: Death, repeated: tuple[int, ...]
) -> None:
    prepared(tmp_path, "synthesize-captions", model)
    assert run_shard(tmp_path, "synthesize-captions", (0, 2), death) == -signal.SIGKILL
    assert run_shard(tmp_path, "synthesize-captions", (1, 2)) == 0
    assert manifest(tmp_path, "synthesize-captions") is None, "not done while a part is missing"
    assert run_shard(tmp_path, "synthesize-captions", (0, 2)) == 0
    whole, once = undisturbed
    found = manifest(tmp_path, "synthesize-captions")
    assert found is not None
    assert found.content_digest == whole.content_digest
    assert len(calls(tmp_path)) - len(once) in repeated
    assert set(calls(tmp_path)) == set(once), "a repeated chunk asks with the same seeds"


def test_a_shard_that_dies_between_the_last_part_and_the_manifest_asks_no_model_again(
    tmp_path: Path, model: Path
) -> None:
    prepared(tmp_path, "synthesize-operations", model)
    death = Death(put="before manifest.json")
    assert run_shard(tmp_path, "synthesize-operations", (1, 2), death) == -signal.SIGKILL
    before = calls(tmp_path)
    assert len(before) == PARTS * 2
    assert run_shard(tmp_path, "synthesize-operations", (0, 2)) == 0
    assert manifest(tmp_path, "synthesize-operations") is not None
    assert calls(tmp_path) == before
