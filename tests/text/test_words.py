"""A number meets its noun in one place, and a message is one line without stray stops."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from viper.words import duration, in_brackets, joined, own_time, plural, probability, took

ROOT = Path(__file__).parents[2]
#: What messages count.
NOUNS = (
    "attempt",
    "benchmark",
    "candidate",
    "caption",
    "chunk",
    "edit",
    "image",
    "item",
    "iteration",
    "node",
    "output",
    "part",
    "pod",
    "problem",
    "question",
    "record",
    "retry",
    "row",
    "sample",
    "shard",
    "stage",
    "step",
    "version",
)


@pytest.mark.parametrize(
    ("number", "noun", "form", "expected"),
    [
        (1, "step", "", "1 step"),
        (24, "step", "", "24 steps"),
        (0, "stage", "", "0 stages"),
        (1, "retry", "", "1 retry"),
        (3, "retry", "", "3 retries"),
        (2, "day", "", "2 days"),
        (2, "box", "", "2 boxes"),
        (2, "loss", "", "2 losses"),
        (2, "failed attempt", "", "2 failed attempts"),
        (1, "accepted training sample", "", "1 accepted training sample"),
        (2, "category", "", "2 categories"),
        (12000, "image", ",", "12,000 images"),
    ],
)
def test_a_number_and_its_noun_agree(number: int, noun: str, form: str, expected: str) -> None:
    assert plural(number, noun, form) == expected


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["version 8, p = 0.000366).", "promote done"], "version 8, p = 0.000366); promote done"),
        (["promote done", "version 8 (p = 0.1)."], "promote done; version 8 (p = 0.1)."),
        (["one"], "one"),
        (["", "one.", "", "two"], "one; two"),
        (["what is wrong\n  → what to do", "more"], "what is wrong → what to do; more"),
        ([], ""),
    ],
)
def test_texts_are_joined_in_one_line_without_stops_between(texts: list[str], expected: str) -> None:
    assert joined(texts) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("no GPU", "running (no GPU)"),
        ("Acceptance: ingest-images 1 of 3.", "running (Acceptance: ingest-images 1 of 3)"),
        ("what is wrong\n  → what to do", "running (what is wrong → what to do)"),
    ],
)
def test_what_stands_in_brackets_has_no_stop_before_the_last(text: str, expected: str) -> None:
    assert f"running{in_brackets(text)}" == (expected or "running")


@pytest.mark.parametrize(
    ("wall", "work", "what", "expected"),
    [
        (75.0, 15.6, "24 steps", "1 min 15 s, of which 15.6 s in 24 steps"),
        (75.0, 15.6, "", "1 min 15 s, of which 15.6 s in the work itself"),
        (75.0, 70.0, "24 steps", "1 min 15 s"),
        (15.9, 15.6, "24 steps", "15.9 s"),
        (1.2, 0.5, "24 steps", "1.2 s"),
        (75.0, 80.0, "24 steps", "1 min 15 s"),
        (75.0, None, "", "1 min 15 s"),
        (75.0, 0.0, "", "1 min 15 s"),
    ],
    ids=["both", "no-name", "nearly-all", "short", "under-a-second", "of-earlier-attempts", "unknown", "none"],
)
def test_the_whole_and_the_work_are_both_told_when_they_differ(
    wall: float, work: float | None, what: str, expected: str
) -> None:
    assert took(wall, work, what) == expected
    assert bool(own_time(wall, work)) is (", of which" in expected)


@pytest.mark.parametrize(
    ("seconds", "decimals", "expected"),
    [
        (0.04, 0, "0 s"),
        (15.64, 1, "15.6 s"),
        (59.6, 0, "1 min 00 s"),
        (723, 1, "12 min 03 s"),
        (19200, 0, "5 h 20 min"),
    ],
)
def test_a_duration_has_the_units_that_fit(seconds: float, decimals: int, expected: str) -> None:
    assert duration(seconds, decimals) == expected


@pytest.mark.parametrize(("p", "expected"), [(1.0, "1.00"), (0.000366, "0.000366"), (0.04, "0.04"), (0.5, "0.5")])
def test_a_probability_does_not_read_as_a_count(p: float, expected: str) -> None:
    assert probability(p) == expected


def _counts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Numbers in f-strings before a noun in the plural; constants are what they are."""
    after = re.compile(rf" (?:[a-z-]+ )?({'|'.join(plural(2, noun)[2:] for noun in NOUNS)})\b")
    for node in ast.walk(tree):
        for value, text in zip(node.values, node.values[1:], strict=False) if isinstance(node, ast.JoinedStr) else ():
            if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                found, name = after.match(text.value), ast.unparse(value.value)
                if found and not name.rpartition(".")[2].isupper():
                    yield node.lineno, f"{{{name}}}{found[0]}"


#: What is said only where there are several, or where the text counts in another way.
SEVERAL = {
    "{len(matching)} samples",
    "{len(problems)} supplied files",
    "{len(outputs)} outputs",
    "{resources.nodes} nodes",
    "{args.nodes} nodes",
    # Columns of a table.
    "{'recall'} items",
}


def test_no_message_counts_without_the_rule() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {said}"
        for folder in ("viper", "jobs", "operator")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, said in _counts(ast.parse(path.read_text("utf-8")))
        if said not in SEVERAL
    ]
    assert found == [], "write plural(number, noun)"
