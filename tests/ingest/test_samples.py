"""Supplied samples: what is read, which rows are left out and why, and what the training makes of them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.synthesis import context, frozen, interrupt_after
from viper.errors import InputError, StageError
from viper.methods.stages import INGEST_SAMPLES, TRAIN_MIXED, stage_graph
from viper.prompts import PromptSet
from viper.stage import Manifest, StageContext
from viper.tasks.external.ingest import drawn, ingest_samples
from viper.training.data import training_data


def picture(number: int, side: int = 64) -> bytes:
    image = Image.new("RGB", (side, side), ((37 * number) % 256, (91 * number) % 256, 120))
    image.putpixel((number % side, 0), (255, 255, 255))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def rows(folder: Path, count: int = 6) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (folder / f"{i}.png").write_bytes(picture(i))
    return [
        {"prompt": f"<image>What is {i}?", "images": [f"{i}.png"], "ground_truth": f"It is {i}."} for i in range(count)
    ]


def jsonl(folder: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "samples.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in items), "utf-8")
    return path


def stage(root: Path, uri: object, **external: Any) -> StageContext:
    recipe = {
        "external": {"uri": str(uri), **external},
        "stages": "mixed",
        "partSize": 2,
        "validation": {"heldOutShare": 0.0},
    }
    return context(root, INGEST_SAMPLES, frozen("file:///none", recipe))


def done(ctx: StageContext) -> Manifest:
    manifest = ingest_samples(ctx)
    assert manifest is not None
    return manifest


def test_every_row_becomes_a_sample(tmp_path: Path) -> None:
    ctx = stage(tmp_path, jsonl(tmp_path / "data", rows(tmp_path / "data")))
    manifest = done(ctx)
    assert (manifest.accepted, manifest.counters["train"], len(manifest.parts)) == (6, 6, 3)
    assert manifest.outputs["rows"] == 6
    found = list(ctx.rows(INGEST_SAMPLES))
    assert [r["prompt"] for r in found] == [f"What is {i}?" for i in range(6)]
    assert [r["ground_truth"] for r in found] == [[f"It is {i}."] for i in range(6)]
    assert [r["source"] for r in found] == [f"line {i + 1}" for i in range(6)]
    assert len({r["sample_id"] for r in found}) == 6
    passport = json.loads(found[0]["passport"])
    assert (passport["task"], passport["models"], passport["image_id"]) == ("external", {}, found[0]["image_id"])


def test_training_gets_the_question_its_images_and_its_sentences(tmp_path: Path) -> None:
    items = rows(tmp_path / "data")
    items[1] |= {"images": ["1.png", "2.png"], "ground_truth": ["One.", "Two."]}
    items[2]["ground_truth"] = "First. Second."
    ctx = stage(tmp_path, jsonl(tmp_path / "data", items))
    done(ctx)
    recipe = ctx.frozen.iteration.spec.recipe
    node = next(n for n in stage_graph(recipe) if n.name == TRAIN_MIXED)
    assert node.data == (INGEST_SAMPLES,)
    prompts = PromptSet.load(recipe.prompts)
    data = training_data(ctx, node, prompts)
    assert [s.extra["task"] for s in data.train] == ["external"] * 6
    assert data.train[0].prompt == prompts.render("question", question="What is 0?")
    assert [len(s.images) for s in data.train] == [1, 2, 1, 1, 1, 1]
    assert [s.ground_truth for s in data.train[:3]] == [("It is 0.",), ("One.", "Two."), ("First.", "Second.")]


@pytest.mark.parametrize("form", ["paths", "bytes", "huggingface"])
def test_parquet_is_read_in_anybodys_columns(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "data"
    items = rows(folder, 5)
    images: list[Any] = {
        "paths": [r["images"] for r in items],
        "bytes": [picture(i) for i in range(5)],
        "huggingface": [[{"bytes": picture(i), "path": f"{i}.png"}] for i in range(5)],
    }[form]
    table = pa.table(
        {
            "question": [r["prompt"] for r in items],
            "answer": [rf"\boxed{{{i}}}" for i in range(5)],
            "image": images,
            "PassRate": [0.5] * 5,
        }
    )
    pq.write_table(table, folder / "virl.parquet", row_group_size=2)
    columns = {"prompt": "question", "images": "image", "groundTruth": "answer"}
    ctx = stage(tmp_path, (folder / "virl.parquet").as_uri(), columns=columns)
    assert done(ctx).accepted == 5
    found = list(ctx.rows(INGEST_SAMPLES))
    assert [r["ground_truth"] for r in found] == [[str(i)] for i in range(5)]
    assert [r["source"] for r in found] == [f"row {i + 1}" for i in range(5)]
    assert [r["images"][0] for r in found] == [picture(i) for i in range(5)]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"images": []}, "no-image", "no image"),
        ({"images": ["0.png", "1.png", "2.png"]}, "too-many-images", "3 images"),
        ({"images": ["nowhere.png"]}, "unreadable-image", "'nowhere.png'"),
        ({"images": ["samples.jsonl"]}, "unreadable-image", "not an image"),
        ({"images": ["small.png"]}, "too-small", ""),
        ({"ground_truth": ""}, "no-ground-truth", "no answer"),
        ({"ground_truth": []}, "no-ground-truth", "no answer"),
        ({"prompt": "What is 0?", "images": ["0.png"], "ground_truth": "It is 0."}, "duplicate-sample", ""),
    ],
)
def test_a_row_that_cannot_be_used_costs_itself(
    tmp_path: Path, change: dict[str, Any], reason: str, detail: str
) -> None:
    folder = tmp_path / "data"
    items = rows(folder)
    (folder / "small.png").write_bytes(picture(1, side=8))
    items[3] |= change
    ctx = stage(tmp_path, jsonl(folder, items))
    manifest = done(ctx)
    assert (manifest.accepted, manifest.rejected) == (5, {reason: 1})
    (left_out,) = [r for r in ctx.rows(INGEST_SAMPLES, rejected=True) if not r["accepted"]]
    assert left_out["source"] == "line 4"
    assert detail in left_out["detail"]
    assert left_out["images"] == []


def test_a_wrong_column_name_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    table = pa.table({"question": ["q"], "answer": ["a"]})
    pq.write_table(table, tmp_path / "virl.parquet")
    with pytest.raises(
        InputError, match="has no column prompt, images, ground_truth; its columns are question, answer"
    ):
        ingest_samples(stage(tmp_path, tmp_path / "virl.parquet"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.jsonl", None, "there is no such file"),
        ("empty.jsonl", b"\n", "there is no sample"),
        ("latin.jsonl", b"\xff\xfe", "is not UTF-8"),
        ("torn.parquet", b"PAR1 torn", "is not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        ingest_samples(stage(tmp_path, tmp_path / name))


def test_as_many_rows_are_drawn_as_are_wanted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "data", rows(tmp_path / "data"))
    ctx = stage(tmp_path, path, samples=3)
    manifest = done(ctx)
    assert (manifest.accepted, manifest.rejected) == (3, {})
    chosen = [r["source"] for r in ctx.rows(INGEST_SAMPLES)]
    assert chosen == sorted(set(chosen))
    # A file is often sorted by where its rows come from: the draw is from all of it, and another one with another seed.
    assert drawn(1000, 500, seed=1) != drawn(1000, 500, seed=2)
    assert 200 < len(drawn(1000, 500, seed=1) & set(range(500))) < 300
    assert drawn(6, None, seed=1) == drawn(6, 9, seed=1) == set(range(6))


def test_an_interrupted_stage_ends_in_the_same_manifest(tmp_path: Path) -> None:
    items = rows(tmp_path / "data")
    items[5] = dict(items[0])  # known to be one only by those before it
    path = jsonl(tmp_path / "data", items)
    undisturbed = done(stage(tmp_path / "a", path))
    ctx = stage(tmp_path / "b", path)
    interrupt_after(ctx, 2)
    with pytest.raises(KeyboardInterrupt):
        ingest_samples(ctx)
    resumed = done(stage(tmp_path / "b", path))
    assert resumed.content_digest == undisturbed.content_digest
    assert resumed.rejected == {"duplicate-sample": 1}


def test_a_file_that_changes_meanwhile_stops_the_stage(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "data", rows(tmp_path / "data"))
    ctx = stage(tmp_path, path)
    interrupt_after(ctx, 1)
    with pytest.raises(KeyboardInterrupt):
        ingest_samples(ctx)
    jsonl(tmp_path / "data", rows(tmp_path / "data", 7))
    with pytest.raises(StageError, match="has changed since the stage began"):
        ingest_samples(stage(tmp_path, path))
