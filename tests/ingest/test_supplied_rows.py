"""Supplied rows as people have them: each costs itself at most, with its line; a file itself when nothing is left."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from support.synthesis import context, frozen
from viper.errors import InputError
from viper.evaluation.questions import load_questions
from viper.methods.stages import INGEST_SAMPLES
from viper.stage.context import Row
from viper.tasks.external.ingest import ingest_samples
from viper.training.cold_start import read_samples

LONG = "x" * 256 + ".png"
GOOD = {"prompt": "What is in it?", "images": ["ok.png"], "ground_truth": "A picture."}


def noise(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that rows name, good and bad."""
    root = tmp_path_factory.mktemp("supplied") / "data"
    (root / "images" / "folder.jpg").mkdir(parents=True)
    photo = noise(9, 640, 480)
    for name, data in {
        "ok.png": encoded(noise(1)),
        "two.png": encoded(noise(2)),
        "images/a b.png": encoded(noise(3)),
        "images/50%.png": encoded(noise(4)),
        "images/a:b.png": encoded(noise(5)),
        "images/é.png": encoded(noise(6)),
        "images/u\u0308.png": encoded(noise(10)),
        "one-colour.png": encoded(Image.new("RGB", (64, 64), "red")),
        "truncated.jpg": encoded(photo, "JPEG")[:9000],
        "truncated.png": encoded(photo)[:9000],
        "empty.png": b"",
        "page.jpg": b"<!DOCTYPE html><html>404</html>",
        "rows.jsonl": b"no image",
        "lfs.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400),
        "drawing.jpg": encoded(noise(7), "EPS"),
        "line.png": encoded(noise(8, 2000, 1)),
        "ribbon.png": encoded(noise(8, 40 * 201, 40)),
    }.items():
        (root / name).write_bytes(data)
    os.mkfifo(root / "pipe.jpg")
    (root / "loop.png").symlink_to("loop.png")
    (root / "round.png").symlink_to("trip.png")
    (root / "trip.png").symlink_to("round.png")
    (root / "nowhere.png").symlink_to("gone.png")
    (root / "device.png").symlink_to("/dev/zero")
    (root / "link.png").symlink_to("two.png")
    here = Path.cwd()
    os.chdir(root)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("socket.png")
    finally:
        os.chdir(here)
    return root


def ingested(folder: Path, data: bytes, name: str = "samples.jsonl") -> list[Row]:
    (folder / name).write_bytes(data)
    recipe = {
        "external": {"uri": str(folder / name)},
        "stages": "mixed",
        "partSize": 2,
        "validation": {"heldOutShare": 0.0},
    }
    ctx = context(folder.parent / uuid.uuid4().hex, INGEST_SAMPLES, frozen("file:///none", recipe))
    assert ingest_samples(ctx) is not None
    return list(ctx.rows(INGEST_SAMPLES, rejected=True))


def after_good(row: dict[str, Any] | str | bytes) -> bytes:
    """A good row, an empty line, and this one in line 3."""
    line = json.dumps(row).encode() if isinstance(row, dict) else row.encode() if isinstance(row, str) else row
    return json.dumps(GOOD).encode() + b"\n\n" + line + b"\n"


def only(folder: Path, row: dict[str, Any] | str | bytes) -> Row:
    first, second = ingested(folder, after_good(row))
    assert first["accepted"]
    assert second["source"] == "line 3"
    return second


@pytest.mark.parametrize(
    "name",
    [
        "./ok.png",
        "././ok.png",
        ".//ok.png",
        "images//a b.png",
        "images/./a b.png",
        "images/50%.png",
        "images/a:b.png",
        "images/é.png",
        "images/e\u0301.png",
        "images/u\u0308.png",
        "images/ü.png",
        "link.png",
        "one-colour.png",
    ],
)
def test_names_below_the_files_folder_are_read(folder: Path, name: str) -> None:
    row = only(folder, {**GOOD, "prompt": "And here?", "images": [name]})
    assert (row["accepted"], row["reason"], row["detail"]) == (True, "", "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../ok.png", "leads out"),
        ("images/../../ok.png", "leads out"),
        ("..", "leads out"),
        ("/etc/passwd", "absolute"),
        ("/ok.png", "absolute"),
        ("~/ok.png", "absolute"),
        ("C:\\ok.png", "absolute"),
        ("D:/ok.png", "absolute"),
        ("images\\a.png", "backslash"),
        ("ok.png\0.jpg", "control character"),
        ("ok\n.png", "control character"),
        ("ok\x7f.png", "control character"),
        ("http://host/ok.png", "URL"),
        ("https://host/ok.png?w=2", "URL"),
        ("s3://bucket/ok.png", "URL"),
        ("file:///ok.png", "URL"),
        ("data:image/png;base64,iVBORw0KGgo=", "encoded data"),
        ("iVBORw0KGgo" + "A" * 4000 + "==", "encoded data"),
        (LONG, "longer than 255 bytes"),
        ("é" * 130 + ".png", "longer than 255 bytes"),
        ("é" * 120 + ".png", "no image"),
        ("a/" * 500 + "ok.png", "more than 900"),
        (".viper-tmp/ok.png", "reserved"),
        (".", "names no file"),
        ("images/", "names a folder"),
        ("images", "no image"),
        ("images/folder.jpg", "no image"),
        ("ok.png/x.png", "no image"),
        ("OK.PNG", "no image"),
        ("nowhere.png", "no image"),
        ("loop.png", "symbolic links"),
        ("round.png", "symbolic links"),
        ("pipe.jpg", "no regular file"),
        ("device.png", "no regular file"),
        ("socket.png", ""),
        ("truncated.jpg", "truncated"),
        ("truncated.png", "PNG"),
        ("page.jpg", "web page"),
        ("lfs.png", "git lfs pull"),
        ("phone.heic", "HEIC"),
        ("drawing.jpg", "PostScript"),
        ("rows.jsonl", "text"),
    ],
)
def test_an_image_that_cannot_be_had_costs_its_row(folder: Path, name: str, words: str) -> None:
    row = only(folder, {**GOOD, "images": [name]})
    assert (row["accepted"], row["reason"]) == (False, "unreadable-image")
    assert words in row["detail"]
    assert len(row["detail"]) < 300
    assert row["images"] == []


@pytest.mark.parametrize(
    ("images", "reason", "words"),
    [
        (None, "no-image", ""),
        ([], "no-image", ""),
        ("", "no-image", ""),
        ({}, "no-image", ""),
        ([""], "unreadable-image", "image 1 is empty"),
        (["ok.png", None], "unreadable-image", "image 2 is null"),
        (["ok.png", 3], "unreadable-image", "a number"),
        ([True], "unreadable-image", "a boolean"),
        ([{"url": "http://host/x"}], "unreadable-image", "image 1 is an object"),
        (7, "unreadable-image", "a number"),
        (["ok.png", "two.png", "ok.png"], "too-many-images", "3 images"),
        (["empty.png"], "empty-file", ""),
        (["line.png"], "too-small", "2000×1"),
        (["ribbon.png"], "too-narrow", "200 times"),
    ],
)
def test_images_of_another_form_cost_their_row(folder: Path, images: Any, reason: str, words: str) -> None:
    row = only(folder, {**GOOD, "images": images})
    assert row["reason"] == reason
    assert words in row["detail"]


@pytest.mark.parametrize(
    ("truth", "read"),
    [
        ("-5", ["-5"]),
        (-5, ["-5"]),
        (3.10, ["3.1"]),
        (True, ["true"]),
        (["One.", 2], ["One.", "2"]),
        ([0], ["0"]),
    ],
)
def test_numbers_and_booleans_are_answers(folder: Path, truth: Any, read: list[str]) -> None:
    row = only(folder, {**GOOD, "ground_truth": truth})
    assert (row["accepted"], row["ground_truth"]) == (True, read)


@pytest.mark.parametrize("number", ["3.10", "1e400", "9" * 5000, "-0", "12345678901234567890123"])
def test_a_number_is_the_answer_as_it_is_written(folder: Path, number: str) -> None:
    row = only(folder, '{"prompt": "How many?", "images": ["ok.png"], "ground_truth": ' + number + ', "id": 1e999}')
    assert (row["accepted"], row["ground_truth"]) == (True, [number])


@pytest.mark.parametrize(
    ("row", "reason", "words"),
    [
        ({**GOOD, "ground_truth": None}, "no-ground-truth", "null"),
        ({**GOOD, "ground_truth": ""}, "no-ground-truth", "no answer"),
        ({**GOOD, "ground_truth": " \n"}, "no-ground-truth", "no answer"),
        ({**GOOD, "ground_truth": []}, "no-ground-truth", "no answer"),
        ({**GOOD, "ground_truth": ["a", None]}, "invalid-row", "ground_truth.1: is null"),
        ({**GOOD, "ground_truth": [["a"]]}, "invalid-row", "ground_truth.0: is a list"),
        ({**GOOD, "ground_truth": {"a": 1}}, "invalid-row", "is an object"),
        ({"prompt": "p", "images": ["ok.png"]}, "invalid-row", "ground_truth: is missing"),
        ({"images": ["ok.png"], "ground_truth": "g"}, "invalid-row", "prompt: is missing"),
        ({**GOOD, "prompt": 3}, "invalid-row", "prompt: is a number, not a text"),
        ({**GOOD, "prompt": None}, "invalid-row", "prompt: is null, not a text"),
        ({**GOOD, "prompt": ["What?"]}, "invalid-row", "prompt: is a list, not a text"),
        ({**GOOD, "prompt": " \t"}, "invalid-row", "prompt: is empty"),
        ({**GOOD, "prompt": "<image>"}, "invalid-row", "nothing but marks"),
        ('{"prompt": "p", "images": ["ok.png"], "ground_truth": NaN}', "no-ground-truth", "null"),
        ('{"prompt": "p"', "invalid-row", "Invalid JSON"),
        ("{'prompt': 'p'}", "invalid-row", "Invalid JSON"),
        (json.dumps(GOOD) + ",", "invalid-row", "Invalid JSON: Extra data"),
        ("[1]", "invalid-row", "is not a JSON object"),
        ('"text"', "invalid-row", "is not a JSON object"),
        ("null", "invalid-row", "is not a JSON object"),
        ('{"prompt": "p", "prompt": "q", "images": ["ok.png"]}', "invalid-row", "'prompt' is there twice"),
        ('{"deep": ' + "[" * 100_000 + "]" * 100_000 + "}", "invalid-row", "nested too deeply"),
        (b'{"prompt": "caf\xe9", "images": ["ok.png"], "ground_truth": "g"}', "invalid-row", "is not UTF-8"),
        (b"\x89PNG\r\x00\x00", "invalid-row", "is not UTF-8"),
    ],
)
def test_a_row_that_is_no_sample_costs_itself(
    folder: Path, row: dict[str, Any] | str | bytes, reason: str, words: str
) -> None:
    found = only(folder, row)
    assert (found["accepted"], found["reason"]) == (False, reason)
    assert words in found["detail"]


@pytest.mark.parametrize(
    ("prompt", "images", "read"),
    [
        ("<image>What is it?", 1, "What is it?"),
        ("<image>\nWhat is it?", 1, "What is it?"),
        ("What is it?\n<image>", 1, "What is it?"),
        ("What is it? <image>", 1, "What is it?"),
        ("Look:\n<image>\nWhat is it?", 1, "Look:\nWhat is it?"),
        ("<image_1><image_2>Which?", 2, "Which?"),
        ("<image 1>\n<image 2>\nWhich?", 2, "Which?"),
        ("<IMAGE> Which?", 1, "Which?"),
        ("<image>Which of both?", 2, "Which of both?"),
        ("<image>, what is it?", 1, "what is it?"),
        ("<image>: What is it?", 1, "What is it?"),
        ("See the picture. <image> What is it?", 1, "See the picture. What is it?"),
        ("What is it? <image 1>\n(A) a dog", 1, "What is it?\n(A) a dog"),
        ("Question:\n<image>What is it?", 1, "Question:\nWhat is it?"),
        ("这是一张图。<image>图中有什么？", 1, "这是一张图。 图中有什么？"),
        ("What do <s>, </s>, <b> and [1] mean in <html>?", 1, "What do <s>, </s>, <b> and [1] mean in <html>?"),
        ("Is [INSTALL] or <|> shown?", 1, "Is [INSTALL] or <|> shown?"),
        ("Is 3 < 4 or x<|y|?", 1, "Is 3 < 4 or x<|y|?"),
        ("What does <img src='x'> say?", 1, "What does <img src='x'> say?"),
    ],
)
def test_marks_of_images_are_taken_off(folder: Path, prompt: str, images: int, read: str) -> None:
    row = only(folder, {**GOOD, "prompt": prompt, "images": ["ok.png", "two.png"][:images]})
    assert (row["accepted"], row["prompt"]) == (True, read)


@pytest.mark.parametrize(
    ("prompt", "images", "reason"),
    [
        ("<image>\n<image>\nWhich has more dogs?", 1, "image-marks"),
        ("Is the dog of <image> also in <image>?", 1, "image-marks"),
        ("Is the dog of <image> also in <image>?", 2, "image-marks"),
        ("What is left in <image>?", 1, "image-marks"),
        ("Compare <image_1> with <image_2>.", 2, "image-marks"),
        ("<image><image><image>What?", 2, "image-marks"),
        ("Look at fig. <image> and say what it is.", 1, "image-marks"),
        ("Is this a cat? <image> Is this a dog? <image> Say yes.", 2, "image-marks"),
        ("<start_of_turn>user\nWhat?<end_of_turn>", 1, "chat-marks"),
        ("<start_of_image>What?", 1, "chat-marks"),
        ("<image_soft_token>What?", 1, "chat-marks"),
        ("<img><IMG_CONTEXT></img>What?", 1, "chat-marks"),
        ("[INST] What? [/INST]", 1, "chat-marks"),
        ("[IMG]What?", 1, "chat-marks"),
        ("<<SYS>>Be kind.<</SYS>>What?", 1, "chat-marks"),
        ("<｜User｜>What?<｜Assistant｜>", 1, "chat-marks"),
        ("<｜end▁of▁sentence｜>", 1, "chat-marks"),
        ("What?<end_of_utterance>", 1, "chat-marks"),
        ("<|vision_start|><|image_pad|><|vision_end|>What?", 1, "chat-marks"),
        ("What?<|im_end|>\n<|im_start|>assistant\nA ring.", 1, "chat-marks"),
        ("<|endoftext|>", 1, "chat-marks"),
        ("<|image|>What?", 1, "chat-marks"),
        ("<video>What happens?", 1, "chat-marks"),
        ("<audio>What is said?", 1, "chat-marks"),
    ],
)
def test_marks_that_do_not_match_or_are_no_text_cost_the_row(
    folder: Path, prompt: str, images: int, reason: str
) -> None:
    row = only(folder, {**GOOD, "prompt": prompt, "images": ["ok.png", "two.png"][:images]})
    assert (row["accepted"], row["reason"]) == (False, reason)


def test_half_a_character_is_replaced_and_costs_nothing(folder: Path) -> None:
    row = only(
        folder, '{"prompt": "What \\ud83d?\\u0000", "images": ["ok.png"], "ground_truth": "a \\ud83d", "\\ud83d": 1}'
    )
    assert (row["accepted"], row["prompt"], row["ground_truth"]) == (True, "What \ufffd?\ufffd", ["a \ufffd"])
    assert (
        only(folder, '{"prompt": "p", "images": ["\\ud83d.png"], "ground_truth": "g"}')["reason"] == "unreadable-image"
    )


def test_marks_of_a_chat_template_in_an_answer_cost_the_row(folder: Path) -> None:
    assert only(folder, {**GOOD, "ground_truth": "A ring.<|im_end|>"})["reason"] == "chat-marks"
    assert only(folder, {**GOOD, "ground_truth": ["A.", "<|image_pad|>"]})["reason"] == "chat-marks"


OTHER = {**GOOD, "prompt": "What else?"}
BOTH = [GOOD, OTHER]


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (json.dumps(BOTH).encode(), ["item 1, line 1", "item 2, line 1"]),
        (json.dumps(BOTH, indent=1).encode(), ["item 1, line 2", "item 2, line 9"]),
        (b"\xef\xbb\xbf" + json.dumps(BOTH).encode(), ["item 1, line 1", "item 2, line 1"]),
        (b"[\n" + json.dumps(GOOD).encode() + b",\n" + json.dumps(OTHER).encode() + b",\n]\n", None),
        (b"\xef\xbb\xbf" + b"\n".join(json.dumps(r).encode() for r in BOTH), ["line 1", "line 2"]),
        (b"\n".join(b"\xef\xbb\xbf" + json.dumps(r).encode() for r in BOTH), ["line 1", "line 2"]),
        (b"\r\n".join(json.dumps(r).encode() for r in BOTH) + b"\r\n", ["line 1", "line 2"]),
        (b"\r".join(json.dumps(r).encode() for r in BOTH), ["line 1", "line 2"]),
        (b"\n\n \n" + b"\n\t\n".join(json.dumps(r).encode() for r in BOTH), ["line 4", "line 6"]),
        (b"\n".join(json.dumps(r).encode() for r in BOTH).replace(b"What", b"Wh\tat"), ["line 1", "line 2"]),
    ],
)
def test_forms_of_a_file_that_are_read(folder: Path, data: bytes, places: list[str] | None) -> None:
    rows = ingested(folder, data)
    assert [r["accepted"] for r in rows] == [True, True]
    assert places is None or [r["source"] for r in rows] == places


def test_one_list_of_one_row_and_one_list_with_a_bad_item(folder: Path) -> None:
    (row,) = ingested(folder, b"[\n" + json.dumps(GOOD).encode() + b"\n]\n")
    assert row["accepted"]
    assert [r["reason"] for r in ingested(folder, json.dumps([GOOD, 3, OTHER]).encode(), "b.json")] == [
        "",
        "invalid-row",
        "",
    ]


LINE = json.dumps(GOOD)


@pytest.mark.parametrize(
    ("data", "words", "fix"),
    [
        (LINE.encode("utf-16"), "is not UTF-8 but UTF-16", "iconv -f UTF-16"),
        (LINE.encode("utf-16-le"), "is not UTF-8 but UTF-16", "save the file as UTF-8"),
        (LINE.encode("utf-16-be"), "is not UTF-8 but UTF-16", "save the file as UTF-8"),
        (LINE.encode("utf-32"), "is not UTF-8 but UTF-32", "iconv -f UTF-32"),
        (b"", "there is no sample", "at least one row"),
        (b"\xef\xbb\xbf\n", "there is no sample", "at least one row"),
        (b"[]", "there is no sample", "at least one row"),
        (json.dumps(BOTH).encode()[:-30], "one JSON list that cannot be read", "one JSON object a line"),
        (b"[" + LINE.encode() + b" " + LINE.encode() + b"]", "a comma or the closing bracket is missing", "a line"),
        (json.dumps(BOTH).encode() + b"x", "something follows its end", "a line"),
        (b"[" * 200_000, "nested too deeply", "a line"),
        (json.dumps({"data": BOTH}).encode(), "prompt: is missing", "recipe.external.columns"),
        (json.dumps({"data": BOTH}, indent=1).encode(), "Invalid JSON", "each row has"),
        (json.dumps({"question": "q", "answer": "a"}).encode(), "prompt: is missing", "recipe.external.columns"),
        (json.dumps({"prompt": "p", "ground_truth": "g"}).encode(), "images: is missing", "columns"),
        (b"\x1f\x8b\x08\0" + bytes(40), "compressed with gzip", "each row has"),
        (b"PAR1" + b"\xff" * 40, "a Parquet file", "each row has"),
        (b"PK\x03\x04" + b"\xff" * 40, "a ZIP archive", "each row has"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull", "each row has"),
        (b"<!DOCTYPE html><html>404</html>", "a web page", "each row has"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error_that_says_what_to_do(
    folder: Path, data: bytes, words: str, fix: str
) -> None:
    with pytest.raises(InputError) as error:
        ingested(folder, data)
    assert words in str(error.value)
    assert fix in error.value.fix
    assert str(folder / "samples.jsonl") in str(error.value)


@pytest.mark.parametrize("truth", [None, "", []])
def test_a_file_of_one_row_without_an_answer_has_one_rejected_row(folder: Path, truth: Any) -> None:
    (row,) = ingested(folder, json.dumps({**GOOD, "ground_truth": truth}).encode())
    assert (row["accepted"], row["reason"], row["source"]) == (False, "no-ground-truth", "line 1")


def test_what_is_no_file_is_told(folder: Path) -> None:
    recipe = {"external": {"uri": str(folder / "pipe.jpg")}, "stages": "mixed"}
    with pytest.raises(InputError, match="no regular file"):
        ingest_samples(context(folder / "run", INGEST_SAMPLES, frozen("file:///none", recipe)))


def test_parquet_rows_cost_themselves_too(folder: Path) -> None:
    truths = [["A."], None, [], ["A.", None], ["B."]]
    images = [[{"bytes": encoded(noise(i)), "path": None}] for i in range(4)] + [[{"bytes": b"x", "path": None}]]
    pq.write_table(
        pa.table({"prompt": [f"What {i}?" for i in range(5)], "images": images, "ground_truth": truths}),
        folder / "rows.parquet",
    )
    reasons = [r["reason"] for r in ingested(folder, (folder / "rows.parquet").read_bytes(), "samples.parquet")]
    assert reasons == ["", "no-ground-truth", "no-ground-truth", "invalid-row", "unreadable-image"]


def test_numbers_null_and_broken_texts_of_a_parquet_column(folder: Path) -> None:
    good = pa.array([f"What {i}?" for i in range(3)])
    broken = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffb")]
    )
    images = pa.array([["ok.png"]] * 3)
    numbers = pa.array([3.0, float("nan"), None])
    pq.write_table(pa.table({"prompt": good, "images": images, "ground_truth": numbers}), folder / "n.parquet")
    found = ingested(folder, (folder / "n.parquet").read_bytes(), "samples.parquet")
    assert [(r["reason"], r["ground_truth"]) for r in found] == [
        ("", ["3.0"]),
        ("no-ground-truth", []),
        ("no-ground-truth", []),
    ]
    other = folder / "other"
    other.mkdir()
    (other / "ok.png").write_bytes(encoded(noise(1)))
    pq.write_table(pa.table({"prompt": good, "images": images, "ground_truth": broken}), other / "b.parquet")
    found = ingested(other, (other / "b.parquet").read_bytes(), "samples.parquet")
    assert [r["reason"] for r in found] == ["", "invalid-row", ""]


def test_a_damaged_parquet_file_is_told(folder: Path) -> None:
    table = pa.table({"prompt": ["p"] * 500, "images": [["ok.png"]] * 500, "ground_truth": ["g"] * 500})
    pq.write_table(table, folder / "rows.parquet")
    data = bytearray((folder / "rows.parquet").read_bytes())
    data[4:60] = b"\xff" * 56
    with pytest.raises(InputError, match="Parquet file"):
        ingested(folder, bytes(data), "samples.parquet")


QUESTION = {"question_id": "a", "domain": "d", "image": "ok.png", "question": "What is it?", "answer": "A ring."}
LESSON = {"prompt": "What is it?", "images": ["ok.png"], "response": "<think>I look.</think>A ring."}
#: What is wrong in a field of a question or of a cold-start sample, and what a person is told.
WRONG = [
    ("image", "truncated.jpg", "truncated"),
    ("image", "line.png", "2000×1"),
    ("image", "ribbon.png", "200 times"),
    ("image", "empty.png", "empty-file"),
    ("image", "phone.heic", "HEIC"),
    ("image", "drawing.jpg", "PostScript"),
    ("image", "pipe.jpg", "no regular file"),
    ("image", "loop.png", "symbolic links"),
    ("image", "http://host/ok.png", "URL"),
    ("image", "/ok.png", "absolute"),
    ("image", LONG, "longer than 255 bytes"),
    ("text", "<image><image>Which?", "2 marks"),
    ("text", "What is left in <image>?", "within a sentence"),
    ("text", "<|image_pad|>What?", "chat template"),
    ("answer", "A ring.<|im_end|>", "chat template"),
    ("answer", None, "valid string"),
    ("answer", 3, "valid string"),
]


@pytest.mark.parametrize(("field", "value", "words"), WRONG)
@pytest.mark.parametrize("kind", ["questions", "cold start"])
def test_where_every_row_counts_a_bad_one_is_an_error_with_its_line(
    folder: Path, kind: str, field: str, value: Any, words: str
) -> None:
    row: dict[str, Any] = dict(QUESTION if kind == "questions" else LESSON)
    if kind == "questions":
        row |= {"question_id": "b", {"text": "question"}.get(field, field): value}
    else:
        name = {"text": "prompt", "answer": "response", "image": "images"}[field]
        row[name] = [value] if field == "image" else value
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(QUESTION if kind == "questions" else LESSON) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(InputError) as error:
        load_questions(str(path)) if kind == "questions" else read_samples(str(path))
    assert "line 2" in str(error.value)
    assert words in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("form", ["lines", "list", "bom"])
def test_questions_and_cold_start_files_are_read_in_the_same_forms(folder: Path, form: str) -> None:
    def written(row: dict[str, Any]) -> str:
        text = json.dumps([row]) if form == "list" else json.dumps(row)
        (folder / "rows.jsonl").write_bytes((b"\xef\xbb\xbf" if form == "bom" else b"") + text.encode())
        return str(folder / "rows.jsonl")

    (question,) = load_questions(written({**QUESTION, "image": "./ok.png", "question": "<image>\nWhat is it?"}))
    assert (question.question, question.load().size) == ("What is it?", (64, 48))
    (lesson,) = read_samples(written({**LESSON, "images": ["./ok.png"], "prompt": "<image>What is it?"}))
    assert (lesson.prompt, [i.size for i in lesson.images]) == ("What is it?", [(64, 48)])


def test_a_photograph_of_a_phone_is_upright_in_questions_and_lessons(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "phone.jpg").write_bytes(encoded(noise(3, 80, 60), "JPEG", exif=exif))
    (folder / "plain.jpg").write_bytes(encoded(noise(3, 80, 60), "JPEG"))
    rows = [{**QUESTION, "question_id": n, "image": f"{n}.jpg"} for n in ("phone", "plain")]
    (folder / "q.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    phone, plain = load_questions(str(folder / "q.jsonl"))
    assert (phone.load().size, plain.load().size) == ((60, 80), (80, 60))
    # Answers that were given to the picture on its side are not taken for those to the upright one; others are.
    assert plain.image_digest == hashlib.sha256((folder / "plain.jpg").read_bytes()).hexdigest()
    assert phone.image_digest != hashlib.sha256((folder / "phone.jpg").read_bytes()).hexdigest()
    (folder / "c.jsonl").write_text(json.dumps({**LESSON, "images": ["phone.jpg"]}))
    assert read_samples(str(folder / "c.jsonl"))[0].images[0].size == (60, 80)


@pytest.mark.parametrize("name", ["samples.PARQUET", "samples.pq"])
def test_a_parquet_file_is_known_by_either_ending(folder: Path, name: str) -> None:
    pq.write_table(pa.table({"prompt": ["p"], "images": [["ok.png"]], "ground_truth": ["g"]}), folder / "rows.parquet")
    (row,) = ingested(folder, (folder / "rows.parquet").read_bytes(), name)
    assert row["accepted"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (json.dumps(GOOD, indent=2).encode(), "one object a line"),
        (b"\xef\xbb\xbf\r\n{ \r\n" + json.dumps(GOOD, indent=2)[2:].encode(), "one object a line"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip: unpack it"),
        (b"prompt,images,ground_truth\nWhat?,ok.png,A ring.\n", "line 1, Invalid JSON"),
    ],
)
def test_a_file_of_another_form_says_what_to_do(folder: Path, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ingested(folder, data)


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (pa.array([0.1, 3.0, None], pa.float32()), ["0.1", "3.0", "no-ground-truth"]),
        (pa.array(np.array([0.1, 3.0, -5.5], np.float16)), ["0.1", "3.0", "-5.5"]),
        (pa.array([2**62, 0, None], pa.timestamp("us")), ["invalid-row", "invalid-row", "no-ground-truth"]),
        (pa.array([0, 19_844, None], pa.date32()), ["1970-01-01", "2024-05-01", "no-ground-truth"]),
        (pa.array([2**30, 0, None], pa.date32()), ["invalid-row", "1970-01-01", "no-ground-truth"]),
        (pa.array([3_600, 0, None], pa.time32("s")), ["01:00:00", "00:00:00", "no-ground-truth"]),
    ],
    ids=["float32", "float16", "time beyond the calendar", "date", "date beyond the calendar", "time"],
)
def test_a_value_of_a_parquet_column_keeps_its_meaning_or_costs_its_row(
    folder: Path, column: pa.Array, found: list[str]
) -> None:
    table = pa.table({"prompt": list("abc"), "images": [["ok.png"]] * 3, "ground_truth": column})
    pq.write_table(table, folder / "v.parquet")
    rows = ingested(folder, (folder / "v.parquet").read_bytes(), "samples.parquet")
    assert [r["reason"] or r["ground_truth"][0] for r in rows] == found
