"""A manifest counts when it proves that its stage is done, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes import world
from viper.iteration.observe import StoreObserver, manifest_problem
from viper.methods.stages import stage_graph
from viper.plan import headline
from viper.stage import Manifest, PartRecord, ProgressRecord
from viper.store import open_store

FROZEN = world.frozen("it")
NODES = {n.name: n for n in stage_graph(FROZEN.iteration.spec.recipe)}
MODEL = {"model": {"uri": "file:///m", "digest": "sha256:1"}, "steps": 3}
PART = PartRecord(index=0, key="parts/00000.parquet", digest="d", rows=2, accepted=2)


def manifest(stage: str, **fields: Any) -> Manifest:
    content = {"stage": stage, "iteration": "it", "identity": FROZEN.identity, **fields}
    return Manifest.model_validate(content)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (manifest("ingest-images", parts=(PART,), accepted=2), ""),
        (manifest("ingest-images", iteration="other"), "belongs to ingest-images of other"),
        (manifest("ingest-images", identity="x"), "another frozen iteration"),
        (manifest("ingest-images", parts=(PART.model_copy(update={"index": 1}),), accepted=2), "lacks parts"),
        (manifest("ingest-images", parts=(PART,), accepted=3), "not those of its parts"),
        (manifest("synthesize-captions", inputs={"ingest-images": "new"}), ""),
        (manifest("synthesize-captions", inputs={"ingest-images": "old"}), "another version of ingest-images"),
        (manifest("train-captions", outputs=MODEL), ""),
        (manifest("train-captions", outputs={"steps": 3}), "names no model"),
        (manifest("train-captions", outputs={**MODEL, "steps": 0}), "no step was trained"),
        (manifest("evaluate", outputs={"scores": {}}), ""),
        (manifest("evaluate"), "has no scores"),
        (manifest("promote", outputs={"decision": "held"}), ""),
        (manifest("promote", outputs={"decision": "maybe"}), "has no decision"),
    ],
)
def test_a_manifest_is_believed_for_what_it_says(found: Manifest, problem: str) -> None:
    said = manifest_problem(NODES[found.stage], found, FROZEN, {"ingest-images": "new"})
    assert (said == "") is (problem == "")
    assert problem in said


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (manifest("promote", outputs={"decision": "promoted", "version": 4}), "promoted, version 4"),
        (manifest("train-captions", outputs=MODEL), "3 steps"),
        (manifest("evaluate", outputs={"scores": {"theta2": {"overall": {"accuracy": 0.5}}}}), "accuracy theta2 50.0%"),
        (
            manifest("ingest-images", parts=(PART,), accepted=2, rejected={"a": 1, "b": 3}),
            "2 of 6 accepted (b 3, a 1)",
        ),
    ],
)
def test_a_stage_says_in_a_few_words_what_it_made(found: Manifest, text: str) -> None:
    assert headline(found) == text


def test_an_unreadable_manifest_is_a_problem_with_its_place(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    store.put("iterations/it/stages/ingest-images/manifest.json", b"{}")
    stage = StoreObserver(store, FROZEN).observe().stages["ingest-images"]
    assert stage.done is None
    assert "ingest-images/manifest.json" in stage.problem


def test_progress_of_several_shards_is_added_up(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    for shard, (done, left) in enumerate([(10, 5.0), (20, 9.0)]):
        record = ProgressRecord(phase="p", done=done, total=50, rate=2.0, eta_seconds=left, updated=float(shard))
        key = f"iterations/it/stages/ingest-images/progress/{shard}-of-3.json"
        store.put(key, record.model_dump_json(by_alias=True).encode())
    total = StoreObserver(store, FROZEN).progress("ingest-images", 3)
    assert total is not None
    assert (total.done, total.total, total.rate, total.eta_seconds) == (30, 100, 4.0, 9.0)


def test_a_stage_that_has_not_reported_has_no_progress(tmp_path: Path) -> None:
    assert StoreObserver(open_store(tmp_path / "store"), FROZEN).progress("ingest-images", 2) is None
