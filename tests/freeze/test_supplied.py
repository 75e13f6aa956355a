"""What is supplied is read before an iteration is frozen: nothing is registered, recorded or trained before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import world
from fakes.registry import MemoryRegistry
from fakes.world import model
from viper.errors import InputError
from viper.iteration.freeze import freeze
from viper.stage import load_frozen
from viper.store import DirectoryStore


def rows(path: Path, items: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), "utf-8")
    return str(path)


def question(number: int, image: str = "ok.png", **fields: Any) -> dict[str, Any]:
    asked = {"question_id": f"q{number}", "domain": "d", "image": image, "question": "What?", "answer": "A ring."}
    return asked | fields


def lesson(image: str = "ok.png") -> dict[str, Any]:
    return {"prompt": "What is it?", "images": [image], "response": "<think>I look.</think>A ring."}


def sample(image: str = "ok.png") -> dict[str, Any]:
    return {"prompt": "What is it?", "images": [image], "ground_truth": "A ring."}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "supplied"
    found.mkdir()
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8))
    photo.save(found / "ok.png")
    photo.save(found / "torn.jpg", quality=95)
    (found / "torn.jpg").write_bytes((found / "torn.jpg").read_bytes()[:4000])
    Image.new("RGB", (2000, 1)).save(found / "line.png")
    photo.save(found / "drawing.jpg", "EPS")
    return found


Spec = Callable[[Path], dict[str, Any]]


def questions(*items: dict[str, Any]) -> Spec:
    return lambda folder: {"evaluation": {"questions": rows(folder / "q.jsonl", list(items))}}


def cold(*items: dict[str, Any]) -> Spec:
    return lambda folder: {"recipe": {"coldStart": {"samplesUri": rows(folder / "c.jsonl", list(items))}}}


def external(*items: dict[str, Any]) -> Spec:
    return lambda folder: {"recipe": {"external": {"uri": rows(folder / "e.jsonl", list(items))}}}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (questions(question(0), question(1, "torn.jpg")), ("spec.evaluation.questions", "q.jsonl", "line 2", "JPEG")),
        (questions(question(0), question(1, "line.png")), ("q.jsonl", "line 2", "2000×1")),
        (questions(question(0, "drawing.jpg")), ("q.jsonl", "line 1", "PostScript")),
        (questions(question(0, "gone.png")), ("q.jsonl", "line 1", "no image 'gone.png'")),
        (questions(question(0), question(0)), ("q.jsonl", "line 2", "twice")),
        (questions(question(0, question="<image><image>?")), ("q.jsonl", "line 1", "2 marks")),
        (questions(question(0, set="selection")), ("q.jsonl", "no test question")),
        (questions(question(0), question(1, domain=" ")), ("q.jsonl", "line 2", "domain: ' ' names nothing")),
        (questions(question(0, domain="overall")), ("q.jsonl", "line 1", "domain: 'overall'", "another word")),
        (lambda folder: {"evaluation": {"questions": str(folder / "none.jsonl")}}, ("none.jsonl", "no such file")),
        (cold(lesson(), lesson("torn.jpg")), ("spec.recipe.coldStart.samplesUri", "c.jsonl", "line 2", "JPEG")),
        (cold(lesson("line.png")), ("c.jsonl", "line 1", "2000×1")),
        (cold({**lesson(), "prompt": "<|image_pad|>What?"}), ("c.jsonl", "line 1", "chat template")),
        (cold(), ("c.jsonl", "no sample")),
        (external({"question": "q"}), ("spec.recipe.external.uri", "e.jsonl", "line 1", "prompt: is missing")),
        (external(), ("e.jsonl", "no sample")),
        (lambda folder: {"recipe": {"external": {"uri": str(folder / "x.parquet")}}}, ("x.parquet", "no such file")),
    ],
)
def test_what_cannot_be_used_is_told_with_file_and_line_before_anything_begins(
    tmp_path: Path, folder: Path, spec: Spec, words: tuple[str, ...]
) -> None:
    store, registry = DirectoryStore(tmp_path / "store"), MemoryRegistry()
    generator = {"alias": "generator", "initialUri": model(tmp_path / "model").as_uri()}
    with pytest.raises(InputError) as error:
        freeze(world.iteration(generator=generator, **spec(folder)), store, registry)
    for said in words:
        assert said in str(error.value)
    assert registry.calls == []
    assert load_frozen(store, "it") is None


def test_all_files_are_told_at_once(tmp_path: Path, folder: Path) -> None:
    spec = questions(question(0, "torn.jpg"))(folder) | cold(lesson("line.png"))(folder)
    with pytest.raises(
        InputError, match=r"(?s)2 supplied files.*q\.jsonl.*line 1.*c\.jsonl.*line 1.*nothing has begun"
    ):
        freeze(world.iteration(**spec), DirectoryStore(tmp_path / "store"), MemoryRegistry())


@pytest.mark.parametrize("spec", [questions(question(0)), cold(lesson()), external(sample(), sample("torn.jpg"))])
def test_what_can_be_used_is_frozen(tmp_path: Path, folder: Path, spec: Spec) -> None:
    generator = {"alias": "generator", "initialUri": model(tmp_path / "model").as_uri()}
    freeze(world.iteration(generator=generator, **spec(folder)), DirectoryStore(tmp_path / "store"), MemoryRegistry())


def test_questions_for_choosing_steps_have_to_be_there_when_steps_are_chosen_by_them(
    tmp_path: Path, folder: Path
) -> None:
    spec = questions(question(0))(folder) | {"recipe": {"captions": {"training": {"select": "heldOutPerception"}}}}
    with pytest.raises(InputError, match="no selection question"):
        freeze(world.iteration(**spec), DirectoryStore(tmp_path / "store"), MemoryRegistry())


@pytest.mark.parametrize(
    ("mounted", "evaluate"),
    [(False, {}), (True, {}), (True, {"image": "other"}), (False, {"image": "other"}), (False, {"workClaim": "data"})],
)
def test_a_folder_that_only_the_stage_may_have_is_left_to_it(
    tmp_path: Path, folder: Path, mounted: bool, evaluate: dict[str, Any]
) -> None:
    generator = {"alias": "generator", "initialUri": model(tmp_path / "model").as_uri()}
    uri = (folder if mounted else tmp_path / "elsewhere") / "none.jsonl"
    profile = {"stages": {"evaluate": evaluate}}
    iteration = world.iteration(generator=generator, evaluation={"questions": uri.as_uri()}, profile=profile)
    store = DirectoryStore(tmp_path / "store")
    if evaluate and not mounted:
        freeze(iteration, store, MemoryRegistry(), files_here=False)
        return
    with pytest.raises(InputError, match="no such file"):
        freeze(iteration, store, MemoryRegistry(), files_here=False)
