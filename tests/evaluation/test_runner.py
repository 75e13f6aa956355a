"""Answers are read after the reasoning and compared without regard to spelling."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_fakes import FakeVlm, question_file

from viper.evaluation.questions import load_questions
from viper.evaluation.runner import accuracy, answer_of, ask, normalise
from viper.prompts import PromptSet


@pytest.mark.parametrize(
    ("output", "answer"),
    [
        ("<think>it is red</think>red", "red"),
        ("<think>a</think> b </think> c ", "c"),
        ("red", "red"),
        ("<think>never closed, red", ""),
        ("", ""),
    ],
)
def test_the_answer_is_what_follows_the_reasoning(output: str, answer: str) -> None:
    assert answer_of(output) == answer


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Red.", "red", True),
        ("  top   left ", "Top left", True),
        ("“B”", "b", True),
        ("(C)", "c", True),
        ("ＴＷＯ", "two", True),
        ("Straße", "STRASSE", True),
        ("red ring", "red", False),
        ("not red", "red", False),
        ("", "red", False),
    ],
)
def test_answers_are_compared_by_normalised_exact_match(one: str, other: str, same: bool) -> None:
    assert (normalise(one) == normalise(other)) is same


def test_questions_are_asked_greedily_in_batches_and_answered_in_order(tmp_path: Path) -> None:
    questions = load_questions(str(question_file(tmp_path)))
    vlm = FakeVlm({"number 0": "Colour 0.", "number 4": "colour 4", "number 5": "blue"})
    counted: list[int] = []
    answered = ask(vlm, questions, PromptSet.load("smallworld"), max_tokens=9, batch=4, on_batch=counted.append)
    assert [a.correct for a in answered] == [True, False, False, False, True, False]
    assert [a.prediction for a in answered][::4] == ["Colour 0.", "colour 4"]
    assert vlm.batches == counted == [4, 2]
    assert {(s.temperature, s.max_tokens) for s in vlm.samplings} == {(0.0, 9)}
    assert accuracy(answered) == pytest.approx(1 / 3)
    assert accuracy([]) == 0
