"""Words of reasoning: what is counted, what is an operation, and the cloud that is drawn of it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viper.analysis import cloud
from viper.analysis.cloud import HEIGHT, WIDTH, layout
from viper.analysis.reasoning import OPERATIONS, Reasoning, Words, count_words, reasoning_of
from viper.analysis.records import KEY, keep_reasoning, load_reasoning
from viper.stage import Manifest
from viper.store import DirectoryStore


def think(text: str) -> str:
    return f"<think>{text}</think>the answer scans"


@pytest.mark.parametrize(
    ("text", "operation"),
    [
        ("I scan the image.", "scan"),
        ("Scanning from left to right", "scan"),
        ("Let me zoom in.", "zoom in"),
        ("zooming further into the corner", "zoom in"),
        ("Zoom out again", "zoom out"),
        ("focusing on the cup", "focus on"),
        ("we focus closely on it", "focus on"),
        ("look closely", "look closely"),
        ("take a closer look", "look closely"),
        ("look carefully at the sky", "look at"),
        ("re-examine the text", "examine"),
        ("comparing both", "compare"),
        ("double-check the colour", "check"),
        ("identified a dog", "identify"),
    ],
)
def test_operations_are_found_in_all_their_forms(text: str, operation: str) -> None:
    assert count_words([think(text)]).operations == {operation: 1}


@pytest.mark.parametrize("text", ["a checked shirt", "a scanner", "the focus is good", "in the zoo", "a lookout"])
def test_words_that_only_look_like_operations_are_words(text: str) -> None:
    assert count_words([think(text)]).operations == {}


def test_only_the_reasoning_counts_and_small_words_stay_out_of_the_cloud() -> None:
    words = count_words([think("The red ring is at the top. I'm sure: RED."), "no thoughts", "<think>open"])
    assert words.words == {"red": 2, "open": 1, "ring": 1, "sure": 1, "top": 1}
    assert (words.outputs, words.tokens, words.operations) == (3, 11, {})


def test_rates_are_per_thousand_words() -> None:
    words = count_words([think("scan a b c d e f g h i")])
    assert words.per_thousand("scan") == words.operation_rate == 100.0
    assert Words(0, 0, {}, {}).operation_rate == 0.0


def row(step: int, text: str) -> bytes:
    return json.dumps({"step": step, "output": think(text)}).encode()


def test_the_first_step_is_compared_with_the_last_one() -> None:
    rows = [row(1, "red"), row(1, "blue"), row(2, "green"), b"torn {", row(3, "scan left"), row(3, "zoom in")]
    found = reasoning_of(rows)
    assert found is not None
    assert (found.first_step, found.last_step) == (1, 3)
    assert (found.before.words, found.before.operations) == ({"blue": 1, "red": 1}, {})
    assert (found.after.words, found.after.operations) == ({"left": 1}, {"scan": 1, "zoom in": 1})


@pytest.mark.parametrize("rows", [[], [row(1, "one step only")], [b"[]", b"{}"]])
def test_without_two_steps_there_is_nothing_to_compare(rows: list[bytes]) -> None:
    assert reasoning_of(rows) is None


def test_counts_are_kept_beside_the_manifest_and_read_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("s/rollouts/00000.jsonl", b"\n".join([row(1, "red"), row(2, "scan")]) + b"\n")
    manifest = Manifest(stage="train-captions", iteration="it", identity="", outputs={"rollouts": "rollouts/"})
    kept = keep_reasoning(store, "s", manifest)
    assert kept is not None
    store.delete("s/rollouts/00000.jsonl")
    assert load_reasoning(store, "s", manifest) == kept
    assert Reasoning.load(json.dumps(kept.dump())) == kept
    later = {**kept.dump(), "more": 1, "before": {**vars(kept.before), "more": 1}}
    assert Reasoning.load(json.dumps(later)) == kept


def test_rollouts_of_an_earlier_version_are_counted_when_they_are_looked_at(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    manifest = Manifest(stage="train-captions", iteration="it", identity="", outputs={"rollouts": "rollouts/"})
    assert load_reasoning(store, "s", manifest) is None
    store.put("s/rollouts/00000.jsonl", b"\n".join([row(1, "red"), row(2, "scan")]) + b"\n")
    store.put(f"s/{KEY}", b"not what it should be")
    found = load_reasoning(store, "s", manifest)
    assert found is not None
    assert found.after.operations == {"scan": 1}


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=18), st.integers(1, 500), min_size=1, max_size=60))
def test_words_of_a_cloud_never_overlap_nor_leave_it(counts: dict[str, int]) -> None:
    words = Words(1, 1, counts, {"scan": 3})
    placed = layout(cloud.entries(words))
    boxes = [(p.x, p.y, 0.3 * p.size * len(p.text), 0.5 * p.size) for p in placed]
    for i, (x, y, w, h) in enumerate(boxes):
        assert w <= x <= WIDTH - w
        assert h <= y <= HEIGHT - h
        assert all(abs(x - x2) >= w + w2 or abs(y - y2) >= h + h2 for x2, y2, w2, h2 in boxes[:i])
    assert placed
    assert placed[0].count == max(*counts.values(), 3)
    sizes = [p.size for p in placed]
    assert sizes == sorted(sizes, reverse=True)


def test_a_cloud_marks_operations_and_escapes_what_a_model_said() -> None:
    drawn = cloud.svg(Words(1, 9, {'<b>"': 2}, {"zoom in": 3}), 'of "it"')
    assert [t.get("class") for t in ElementTree.fromstring(drawn)] == ["op", "word"]  # noqa: S314 (our own)
    assert "<b>" not in drawn
    assert ">zoom in</text>" in drawn
    page = cloud.page("t & u", [("before", Words(0, 0, {}, {})), ("after", Words(1, 2, {"x": 1}, {"scan": 1}))])
    assert "t &amp; u" in page
    assert "500.0 operations in a thousand" in page


def test_every_operation_finds_its_own_name() -> None:
    for name in OPERATIONS:
        assert count_words([think(name)]).operations == {name: 1}, name
