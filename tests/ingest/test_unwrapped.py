"""Supplied answers without what they are wrapped in for verifiers, and with all that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from viper.reward.sentences import split_sentences
from viper.spec.options import ExternalColumns
from viper.tasks.external.supplied import open_supplied
from viper.tasks.external.unwrapped import unwrapped


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A red ring.", "A red ring."),
        (" 5 ", "5"),
        ("\\boxed{3}", "3"),
        ("$\\boxed{3}$", "3"),
        ("$$\\boxed{3}$$.", "3"),
        ("\\(\\boxed{ -5 }\\)", "-5"),
        ("\\[\\boxed {\\frac{1}{2}}\\]", "\\frac{1}{2}"),
        ("\\fbox{B}", "B"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\boxed{3}}", "\\boxed{3}"),
        ("\\boxed{(0, 1]}", "(0, 1]"),
        ("$\\boxed{3}$ or $\\boxed{4}$", ("3", "4")),
        ("\\boxed{3}, \\boxed{4} and \\boxed{5}.", ("3", "4", "5")),
        ("$\\boxed{3} ; \\boxed{}$", "3"),
        ("**\\boxed{3}**", "3"),
        ("\\boxed{3}。", "3"),
        ("\\boxed{3}，\\boxed{4}", ("3", "4")),
        ("\\boxed{3} \\quad \\boxed{4}", ("3", "4")),
        ("$\\boxed{3}$ $\\text{ or }$ $\\boxed{4}$", ("3", "4")),
        ("\\boxed{3}*\\boxed{4}", "\\boxed{3}*\\boxed{4}"),
        ("-\\boxed{5}", "-\\boxed{5}"),
        ("\\boxed{5}\\%", "\\boxed{5}\\%"),
        ("\\boxed{}", ()),
        ("The sum is \\boxed{3}.", "The sum is \\boxed{3}."),
        ("\\boxed{3} or more", "\\boxed{3} or more"),
        ("\\boxed{3", "\\boxed{3"),
        ("\\boxed{3}}", "\\boxed{3}}"),
        ("\\boxed{a{b}", "\\boxed{a{b}"),
        ("3}$ or $\\boxed{4}$", "3}$ or $\\boxed{4}$"),
        ("$^{}_{92}U$", "$^{}_{92}U$"),
        ("{}", "{}"),
        ("<answer>B</answer>", "B"),
        ("<ANSWER>\n-5\n</ANSWER>", "-5"),
        ("<think>hm</think><answer>B</answer>", "B"),
        ("<think>hm</think>\n$\\boxed{3}$", "3"),
        ("<answer>\\boxed{3}</answer>", "3"),
        ("<answer>a</answer> or <answer>b</answer>", "<answer>a</answer> or <answer>b</answer>"),
        ("<answer>B", "<answer>B"),
        ("B</answer>", "B</answer>"),
        ("<answer></answer>", ""),
        ("<think>no end", ""),
        ("hm</think>B", "B"),
    ],
)
def test_the_answer_is_what_is_in_the_wrapping(text: str, answer: str | tuple[str, ...]) -> None:
    assert unwrapped(text) == answer


@pytest.mark.parametrize(
    ("truth", "sentences"),
    [
        ('"-5"', ("-5",)),
        ('"$^{}_{92}U$"', ("$^{}_{92}U$",)),
        ('"$\\\\boxed{3}$ or $\\\\boxed{4}$"', ("3", "4")),
        ('"<answer>B</answer>"', ("B",)),
        ('["\\\\boxed{1}", "-2", "\\\\boxed{3} and \\\\boxed{4}"]', ("1", "-2", "3", "4")),
        ('"A. red"', ("A. red",)),
        ('"half \\ud83d"', ("half \ufffd",)),
    ],
)
def test_what_is_supplied_keeps_its_meaning(tmp_path: Path, truth: str, sentences: tuple[str, ...]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = f'{{"prompt": "What?", "images": ["a.png"], "ground_truth": {truth}, "\\ud83d": ["\\udc00"]}}'
    (tmp_path / "rows.jsonl").write_text(row + "\n", "ascii")
    supplied = open_supplied(str(tmp_path / "rows.jsonl"), ExternalColumns(), tmp_path)
    (found,) = supplied.rows(0, 1)
    made = found.ground_truth
    assert (split_sentences(made) if isinstance(made, str) else made) == sentences
