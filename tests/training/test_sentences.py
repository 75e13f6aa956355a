"""How an output is taken apart."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.reward.sentences import (
    MAX_CHARACTERS,
    MAX_SEQUENCES,
    normalise,
    parse_output,
    split_sentences,
)

THOUGHT = "<think>I look.</think>"


@pytest.mark.parametrize(
    ("answer", "sentences"),
    [
        ("A red ball. Two dogs!", ("A red ball.", "Two dogs!")),
        ("a red ball. two dogs", ("a red ball.", "two dogs")),
        ("It is 3.5 m wide, e.g. a car. Yes", ("It is 3.5 m wide, e.g. a car.", "Yes")),
        ('He says "Stop!" Then he goes.', ('He says "Stop!"', "Then he goes.")),
        ("- one\n* two\n• three\n4. four\n(5) five\n\n", ("one", "two", "three", "four", "five")),
        ("# Flaws\n1) first", ("Flaws", "first")),
        ("红色的球。蓝色的方块！", ("红色的球。", "蓝色的方块！")),
        ("Café  au\tlait", ("Café au lait",)),
        ("Cafe\u0301", ("Café",)),
        ("...\n—\n!", ()),
        ("", ()),
        ('{"refinement": ["A. B is one item", "two"]}', ("A. B is one item", "two")),
        ('["one", ["two"], 3, null, "  "]', ("one", "two")),
        ('{"analysis": "long talk.", "refinement": ["only this"]}', ("only this",)),
        ('{"entity_to_edit": "ball", "editing_instruction": "Remove it."}', ("ball", "Remove it.")),
        ('Here you are:\n```json\n["one", "two"]\n```\nGood luck.', ("one", "two")),
        ('```\n["draft"]\n```\n```json\n["final"]\n```', ("final",)),
        ('The flaws are {"refinement": ["one"]} as asked.', ("one",)),
        ("The ball [3] is red.", ("The ball [3] is red.",)),
        ('{"refinement": ["cut of', ('{"refinement": ["cut of',)),
        ('{"refinement": []}', ()),
        # What a short answer means stays: signs, numbers, letters of choices, LaTeX.
        ("-5", ("-5",)),
        ("–7", ("–7",)),
        ("+3", ("+3",)),
        ("- 5", ("- 5",)),
        ("-0.5 m.", ("-0.5 m.",)),
        ("-.5", ("-.5",)),
        ("-x", ("-x",)),
        ("-$x$", ("-$x$",)),
        ("-infinity", ("-infinity",)),
        ("-∞", ("-∞",)),
        ("∞", ("∞",)),
        ("·5", ("·5",)),
        ("*5", ("*5",)),
        ("--all", ("--all",)),
        ("#7", ("#7",)),
        ("# 7", ("# 7",)),
        ("#  7", ("# 7",)),
        ("#ff0000 is red.", ("#ff0000 is red.",)),
        ("A. red", ("A. red",)),
        ("B) red. C) no.", ("B) red.", "C) no.")),
        ("7. Maria", ("7. Maria",)),
        ("3. red. And blue.", ("3. red.", "And blue.")),
        ("(5)", ("(5)",)),
        ("1.", ("1.",)),
        ("(0, 1]", ("(0, 1]",)),
        ("$\\boxed{3}$ or $\\boxed{4}$", ("$\\boxed{3}$ or $\\boxed{4}$",)),
        ("$^{}_{92}U$", ("$^{}_{92}U$",)),
        ("x[] and y{}", ("x[] and y{}",)),
        ("\\frac{1}{2} " * 20 + '["one"]', ("one",)),
        # Markers are dropped where they mark items.
        ("-5\n-6", ("-5", "-6")),
        ("- 5\n- 6", ("5", "6")),
        ("- The ball\n- 3 cats", ("The ball", "3 cats")),
        ("-The ball is red.\n-the box is blue.", ("The ball is red.", "the box is blue.")),
        ("-红色的球", ("红色的球",)),
        ("+ one\n— two", ("one", "two")),
        ("a) one\nb) two", ("one", "two")),
        ("A. red\nB. blue", ("red", "blue")),
        ("1. one", ("one",)),
        ("1. one\n1. two", ("one", "two")),
        ("1. one\n\nText.\n2. two", ("one", "Text.", "two")),
        ("8. one\n9. two\n10. three", ("one", "two", "three")),
        ("## Flaws", ("Flaws",)),
    ],
)
def test_an_answer_splits_into(answer: str, sentences: tuple[str, ...]) -> None:
    assert split_sentences(answer) == sentences


@pytest.mark.parametrize(
    ("output", "answer", "in_form"),
    [
        (THOUGHT + "The ball is red.", "The ball is red.", True),
        (f"  {THOUGHT}\n\nThe ball is red.", "The ball is red.", True),
        (THOUGHT + '{"refinement": []}', '{"refinement": []}', True),
        (THOUGHT + "[]", "[]", True),
        ("The ball is red.", "The ball is red.", False),
        (THOUGHT, "", False),
        (THOUGHT + "?!", "?!", False),
        ("<think>never closed", "", False),
        ("no opening</think>The ball.", "The ball.", False),
        (THOUGHT + THOUGHT + "Twice.", "Twice.", False),
        ("Before. " + THOUGHT + "After.", "After.", False),
        ("<think>a<think>b</think>c</think>d", "d", False),
        ("", "", False),
    ],
)
def test_only_one_leading_closed_think_block_and_an_answer_is_the_form(output: str, answer: str, in_form: bool) -> None:
    parsed = parse_output(output)
    assert (parsed.answer, parsed.has_expected_form) == (answer, in_form)
    assert bool(parsed.problem) != in_form


def test_reasoning_is_never_a_sentence() -> None:
    parsed = parse_output("<think>The ball is red. The box is blue.</think>The cat is black.")
    assert parsed.sentences == ("The cat is black.",)
    assert parsed.reasoning == "The ball is red. The box is blue."


def test_excess_sentences_count_as_one_that_keeps_their_length() -> None:
    many = [f"Object {i} is red." for i in range(1000)]
    sentences = split_sentences("\n".join(many))
    assert len(sentences) == MAX_SEQUENCES
    assert sentences[:-1] == tuple(many[: MAX_SEQUENCES - 1])
    assert sentences[-1] == " ".join(many[MAX_SEQUENCES - 1 :])


@pytest.mark.parametrize("text", ["x" * 10**6, "[" * 10**5, "{" * 10**5, "1" * 10**5, "```" * 10**4, "a. " * 10**5])
def test_a_very_long_output_is_read_in_bounds(text: str) -> None:
    sentences = parse_output(THOUGHT + text).sentences
    assert len(sentences) <= MAX_SEQUENCES
    assert sum(map(len, sentences)) <= MAX_CHARACTERS


@given(st.text(alphabet=st.sampled_from('aA. !?\n{}[]"`:,<think>/\\-1é。\u0301\x00'), max_size=300) | st.text())
def test_any_text_is_parsed_into_trimmed_sentences_with_a_letter_or_digit(text: str) -> None:
    parsed = parse_output(text)
    assert all(s == normalise(s) and any(c.isalnum() for c in s) for s in parsed.sentences)


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,9}( [a-z]{3,9}){0,5}[.!?]", fullmatch=True), min_size=1, max_size=20))
def test_lines_a_paragraph_and_json_give_the_same_sentences(sentences: list[str]) -> None:
    expected = tuple(sentences)
    assert split_sentences("\n".join(f"- {s}" for s in sentences)) == expected
    assert split_sentences(" ".join(sentences)) == expected
    assert split_sentences(json.dumps({"refinement": sentences})) == expected
    assert split_sentences(f"```json\n{json.dumps(sentences, indent=2)}\n```") == expected
