"""Question files: read row by row, with errors that name the line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_fakes import question_file

from viper.errors import InputError
from viper.evaluation.questions import load_questions, sample, set_digest


def edit(path: Path, line: int, **fields: object) -> None:
    lines = path.read_text("utf-8").splitlines()
    lines[line - 1] = json.dumps({**json.loads(lines[line - 1]), **fields})
    path.write_text("\n".join(lines), "utf-8")


@pytest.mark.parametrize("form", ["path", "uri"])
def test_a_file_is_read_in_order_with_its_images(tmp_path: Path, form: str) -> None:
    path = question_file(tmp_path / "q")
    questions = load_questions(str(path) if form == "path" else path.as_uri())
    assert [q.question_id for q in questions] == [f"q{i}" for i in range(6)]
    assert questions[3].load().getpixel((0, 0)) == (60, 0, 0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"answer": ""}, "line 2, answer: String should have at least 1 character"),
        ({"answer": 3}, "line 2, answer: Input should be a valid string"),
        ({"colour": "red"}, "line 2, colour: Extra inputs are not permitted"),
        ({"image": "gone.png"}, "line 2: there is no image 'gone.png' beside the file"),
        ({"image": "../secret.png"}, "line 2: image '../secret.png': not a valid object key"),
        ({"image": "questions.jsonl"}, "line 2: the image 'questions.jsonl' cannot be read"),
        ({"question_id": "q0"}, "line 2: the id 'q0' is there twice"),
        ({"set": "validation"}, "line 2, set: Input should be 'selection' or 'test'"),
        ({"answer": " "}, "the answer is empty"),
        ({"answer": "\u200b"}, "the answer is empty"),
        ({"question": "\n"}, "the prompt is empty"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, fields: dict[str, object], words: str) -> None:
    path = question_file(tmp_path)
    edit(path, 2, **fields)
    with pytest.raises(InputError) as error:
        load_questions(str(path))
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_all_bad_rows_are_told_but_not_without_end(tmp_path: Path) -> None:
    path = question_file(tmp_path, count=9)
    path.write_text("\n".join("{" for _ in range(9)), "utf-8")
    with pytest.raises(InputError, match=r"line 1: .*(?s:.)*line 5: (?s:.)*and 4 more"):
        load_questions(str(path))


def test_a_missing_or_empty_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load_questions(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n\n", "utf-8")
    with pytest.raises(InputError, match="there is no test question"):
        load_questions(str(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match="there is no such question set"):
        load_questions("smallworld:riddles")


def test_test_questions_never_serve_for_selection(tmp_path: Path) -> None:
    path = question_file(tmp_path)
    with pytest.raises(InputError, match='"set": "selection"'):
        load_questions(str(path), "selection")
    edit(path, 1, set="selection")
    assert [q.question_id for q in load_questions(str(path), "selection")] == ["q0"]
    assert "q0" not in {q.question_id for q in load_questions(str(path))}


def test_a_limit_draws_by_id_whatever_the_order(tmp_path: Path) -> None:
    questions = load_questions(str(question_file(tmp_path, count=10)))
    drawn = sample(questions, 4)
    assert {q.question_id for q in drawn} == {q.question_id for q in sample(questions[::-1], 4)}
    assert [q.question_id for q in drawn] == sorted(q.question_id for q in drawn)
    assert sample(questions, 40) == questions


def test_the_digest_of_a_set_follows_questions_answers_and_pixels(tmp_path: Path) -> None:
    path = question_file(tmp_path)
    before = set_digest(load_questions(str(path)))
    assert set_digest(load_questions(str(path))) == before
    edit(path, 1, image="1.png")
    moved = set_digest(load_questions(str(path)))
    edit(path, 1, answer="colour seven")
    assert len({before, moved, set_digest(load_questions(str(path)))}) == 3


def test_the_small_worlds_sets_share_no_question() -> None:
    test, selection = (load_questions("smallworld:questions", name, 20) for name in ("test", "selection"))
    assert len(test) == len(selection) == 20
    assert not {q.image_digest for q in test} & {q.image_digest for q in selection}
    assert test[0].load().size == (96, 96)
