"""The real model of the small world writes captions and critiques in two shards, one of which is killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from support.shard import Death, preload, run_shard
from support.synthesis import context, frozen
from viper.images import decode
from viper.ingest.stage import ingest
from viper.modelcache.resolve import resolve_model
from viper.stage import FrozenIteration, Manifest, StageContext, load_manifest
from viper.store import open_store

STAGE = "synthesize-captions"
pytestmark = [pytest.mark.torch, pytest.mark.slow]
preload("support.counting")


def prepared(root: Path, models: Path) -> StageContext:
    """Eight scenes, four parts, the starter model."""
    pytest.importorskip("torch")
    engines = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld")
    captions = {
        "reconstructionSize": 96,
        "captioning": {"maxTokens": 96},
        "critique": {"temperature": 0, "maxTokens": 160},
    }
    it: FrozenIteration = frozen(
        "smallworld:scenes?count=8&seed=3",
        {"partSize": 2, "captions": captions, "validation": {"nearDuplicateDistance": -1}},
        engines=engines | {"vlm": "support.counting:CountingTransformersVlm"},
    )
    starter = resolve_model("smallworld:starter", open_store(models))
    it = it.model_copy(update={"generator": starter, "critic": starter})
    open_store(root / "store").put("iterations/it/iteration.json", it.model_dump_json(by_alias=True).encode())
    ctx = context(root, "ingest-images", it)
    assert ingest(ctx) is not None
    return ctx


def calls(root: Path) -> list[str]:
    return (root / "calls.jsonl").read_text().splitlines()


def manifest(root: Path) -> Manifest | None:
    return load_manifest(open_store(root / "store"), "iterations/it", STAGE)


def test_two_shards_of_which_one_is_killed_in_its_second_part_end_in_the_same_manifest(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    prepared(whole, tmp_path / "models")
    assert run_shard(whole, STAGE, (0, 1)) == 0
    ctx = prepared(killed, tmp_path / "models")
    assert run_shard(killed, STAGE, (0, 2), Death(put="before parts/00002.parquet")) == -signal.SIGKILL
    before = len(calls(killed))
    assert run_shard(killed, STAGE, (1, 2)) == 0
    other = len(calls(killed)) - before
    assert manifest(killed) is None
    assert run_shard(killed, STAGE, (0, 2)) == 0
    found, undisturbed = manifest(killed), manifest(whole)
    assert found is not None
    assert undisturbed is not None
    assert found.content_digest == undisturbed.content_digest
    assert len(calls(killed)) - before - other < before, "the finished part was not asked for again"
    assert len(set(calls(killed))) == len(set(calls(whole))) == len(calls(whole))
    assert set(calls(killed)) == set(calls(whole))
    rows = list(ctx.rows(STAGE, rejected=True))
    assert len(rows) == 8
    assert found.accepted >= 6, "the starter writes readable critiques"
    for row in ctx.rows(STAGE):
        assert "background" in row["caption"]
        assert decode(row["reconstruction"]).size == (96, 96)
        assert json.loads(row["passport"])["engines"]["vlm"].startswith("transformers/")
