"""The reward by hand, by property, and at its edges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from viper.errors import StageError
from viper.reward.equations import RewardParameters, score_batch
from viper.reward.sentences import parse_output

THOUGHT = "<think>t</think>"


class Vectors:
    """Embeds sentences as written in a table; anything else gets an axis of its own. Counts its calls."""

    engine_id = "vectors"

    def __init__(self, table: dict[str, Sequence[float]] | None = None) -> None:
        self.table = table or {}
        self.calls: list[list[str]] = []

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(sentences))
        rows = np.zeros((len(sentences), 64 + len(sentences)), np.float32)
        for i, sentence in enumerate(sentences):
            known = self.table.get(sentence)
            if known is None:
                rows[i, 64 + i] = 1
            else:
                rows[i, : len(known)] = known
        return rows


def test_equations_5_to_7_on_a_case_worked_by_hand() -> None:
    # sim(s1, g1) = 0.9, sim(s2, g1) = 0.84, s3 = g2 exactly: hits 1, 0, 1 of lengths 10, 20, 5.
    model = Vectors(
        {
            "aaaaaaaaa.": (0.9, np.sqrt(1 - 0.81)),
            "bbbbbbbbbbbbbbbbbbb.": (0.84, np.sqrt(1 - 0.84**2)),
            "gold.": (0, 0, 1),
            "first": (1,),
        }
    )
    output = THOUGHT + "aaaaaaaaa. bbbbbbbbbbbbbbbbbbb. gold."
    (reward,) = score_batch([output], [["first", "gold.", "never"]], model)
    assert [s.hit for s in reward.sentences] == [True, False, True]
    assert [s.length for s in reward.sentences] == [10, 20, 5]
    assert [s.best_ground_truth for s in reward.sentences] == ["first", "first", "gold."]
    assert reward.hit_share == pytest.approx(2 / 3)
    assert reward.length_share == pytest.approx(15 / 35)
    assert reward.correctness == pytest.approx(2 / 3 * 15 / 35)
    assert reward.reward == pytest.approx(0.05 + 0.95 * 2 / 3 * 15 / 35)
    assert (reward.recall, reward.items, reward.duplicate_share) == (pytest.approx(2 / 3), 3, 0)
    assert reward.missed == ("never",)


def test_the_threshold_itself_hits() -> None:
    model = Vectors({"s.": (0.75, np.sqrt(1 - 0.5625)), "g": (1,)})
    for tau, hit in ((0.75, True), (0.7501, False)):
        (reward,) = score_batch([THOUGHT + "s."], [["g"]], model, RewardParameters(tau=tau))
        assert reward.sentences[0].hit is hit


@pytest.mark.parametrize(
    ("output", "truth", "expected"),
    [
        (THOUGHT + "Gold.", ["Gold."], 1.0),
        ("Gold.", ["Gold."], 0.95),
        (THOUGHT + "Lead.", ["Gold."], 0.05),
        ("Lead.", ["Gold."], 0.0),
        (THOUGHT, ["Gold."], 0.0),
        ("", ["Gold."], 0.0),
        (THOUGHT + '{"refinement": []}', ["Gold."], 0.05),
        (THOUGHT + '```json\n{"refinement": ["Gold."]}\n```', ["Gold."], 1.0),
        (THOUGHT + "Gold.", [], 0.05),
        (THOUGHT + "[]", [], 0.05),
        (THOUGHT + "Gold.", ["", "  "], 0.05),
        ("<think>Gold.", ["Gold."], 0.0),
        (THOUGHT + "Cafe\u0301.", ["Caf\u00e9."], 1.0),
        (THOUGHT + "红色的球。", ["红色的球。"], 1.0),
        (THOUGHT + "Gold. " * 20_000, ["Gold."], 0.05 + 0.95 * 255 / 256 * 255 * 5 / 65_535),
    ],
)
def test_edge_cases_are_decided(output: str, truth: list[str], expected: float) -> None:
    (reward,) = score_batch([output], [truth], Vectors())
    assert reward.reward == pytest.approx(expected, abs=1e-4)


def test_an_output_that_was_cut_off_has_neither_format_nor_answer() -> None:
    whole, cut = score_batch([THOUGHT + "Gold."] * 2, [["Gold."]] * 2, Vectors(), finished=[True, False])
    assert (whole.reward, cut.reward) == (pytest.approx(1.0), 0.0)
    assert (cut.items, cut.sentences) == (0, ())
    assert "cut off" in cut.format_problem


def test_repeats_count_in_the_shadow_and_not_in_the_reward() -> None:
    (reward,) = score_batch([THOUGHT + "Gold. gold! Gold."], [["Gold.", "gold!"]], Vectors())
    assert reward.reward == pytest.approx(1.0)
    assert reward.duplicate_share == pytest.approx(2 / 3)


def test_a_batch_embeds_once_and_every_distinct_sentence_once() -> None:
    model = Vectors()
    outputs = [THOUGHT + "Gold. Lead.", THOUGHT + "Lead. Iron.", "Unscored.", THOUGHT]
    score_batch(outputs, [["Gold."], ["Gold.", "Iron."], [], ["Tin."]], model)
    assert len(model.calls) == 1
    assert sorted(model.calls[0]) == ["Gold.", "Iron.", "Lead."]


def test_nothing_to_compare_needs_no_embedding() -> None:
    model = Vectors()
    assert score_batch([], [], model) == []
    score_batch([THOUGHT], [["Gold."]], model)
    assert model.calls == []


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="2 outputs, 1 ground truths"):
        score_batch(["a", "b"], [["c"]], Vectors())


@pytest.mark.parametrize("wrong", [np.full((2, 3), np.nan), np.ones((1, 3)), np.ones(2)])
def test_a_broken_similarity_model_is_named(wrong: NDArray[np.float64]) -> None:
    class Broken:
        engine_id = "broken/1"

        def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
            return wrong.astype(np.float32)

    with pytest.raises(StageError, match="broken/1"):
        score_batch([THOUGHT + "Gold."], [["Lead."]], Broken())


class Letters:
    """Bag of letters: similar words are similar, so that hits and misses both happen."""

    engine_id = "letters"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[s.lower().count(c) for c in "abcdefghij"] + [0.1] for s in sentences], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


WORDS = st.text("abcdefghij", min_size=1, max_size=6)
SENTENCES = st.lists(st.lists(WORDS, min_size=1, max_size=3).map(lambda w: " ".join(w) + "."), max_size=5)
BATCH = st.lists(st.tuples(st.booleans(), SENTENCES, SENTENCES), max_size=6)


def _output(thinks: bool, sentences: list[str]) -> str:
    return (THOUGHT if thinks else "") + "\n".join(sentences)


@given(BATCH)
def test_a_batch_scores_as_equations_5_to_7_written_out_sentence_by_sentence(
    batch: list[tuple[bool, list[str], list[str]]],
) -> None:
    outputs, truths = [_output(f, s) for f, s, _ in batch], [g for _, _, g in batch]
    model = Letters()
    for reward, output, truth in zip(score_batch(outputs, truths, model), outputs, truths, strict=True):
        parsed, correct = parse_output(output), 0.0
        if parsed.sentences and truth:
            hit = [
                max(float(model.embed([s])[0] @ model.embed([g])[0]) for g in truth) >= 0.85 for s in parsed.sentences
            ]
            length = [len(s) for s in parsed.sentences]
            correct = sum(hit) / len(hit) * sum(h * n for h, n in zip(hit, length, strict=True)) / sum(length)
        assert reward.reward == pytest.approx(0.05 * parsed.has_expected_form + 0.95 * correct, abs=1e-6)
        assert 0 <= reward.reward <= 1 + 1e-9
        assert 0 <= reward.recall <= 1
        assert 0 <= reward.duplicate_share < 1


@given(BATCH, st.randoms())
def test_a_reward_does_not_depend_on_its_neighbours(
    batch: list[tuple[bool, list[str], list[str]]], random: object
) -> None:
    outputs, truths = [_output(f, s) for f, s, _ in batch], [g for _, _, g in batch]
    together = score_batch(outputs, truths, Letters())
    alone = [score_batch([o], [g], Letters())[0] for o, g in zip(outputs, truths, strict=True)]
    assert [r.reward for r in together] == pytest.approx([r.reward for r in alone])
    assert [[s.hit for s in r.sentences] for r in together] == [[s.hit for s in r.sentences] for r in alone]


@given(SENTENCES.filter(bool), SENTENCES)
def test_copying_the_ground_truth_scores_one_and_adding_misses_never_helps(right: list[str], more: list[str]) -> None:
    (best,) = score_batch([_output(True, right)], [right], Letters())
    (less,) = score_batch([_output(True, right + more)], [right], Letters())
    assert best.reward == pytest.approx(1.0)
    assert best.recall == 1.0
    assert less.reward <= best.reward + 1e-9
