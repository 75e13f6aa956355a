"""A similarity model is measured, and warned of, before it carries the reward."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from viper.cli import main
from viper.errors import InputError
from viper.reward.calibration import CalibrationLimits, Pair, calibrate, read_pairs
from viper.smallworld.pairs import small_world_pairs
from viper.smallworld.similarity import SmallWorldSimilarity


class AtAngles:
    """A fake: unit vectors in the plane, at the angle whose cosine with `truth` is given for each sentence."""

    engine_id = "at-angles/1"

    def __init__(self, cosines: Mapping[str, float]) -> None:
        self.cosines = dict(cosines) | {"truth": 1.0}

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        angles = np.arccos([self.cosines[s] for s in sentences])
        return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


class WordsInAnyOrder:
    """A fake: counts of words. It cannot tell who is left of whom."""

    engine_id = "words/1"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        words = sorted({word for s in sentences for word in s.lower().strip(".").split()})
        counts = np.array([[s.lower().strip(".").split().count(w) for w in words] for s in sentences], np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def pairs_of(cosines: Mapping[str, Sequence[float]]) -> tuple[AtAngles, list[Pair]]:
    named = {f"{kind} {i}": (kind, c) for kind, values in cosines.items() for i, c in enumerate(values)}
    model = AtAngles({name: cosine for name, (_, cosine) in named.items()})
    return model, [Pair("truth", name, kind) for name, (kind, _) in named.items()]


def test_shares_separation_and_the_best_threshold_by_hand() -> None:
    model, pairs = pairs_of({"paraphrase": [0.95, 0.9, 0.8, 0.7], "relation": [0.92, 0.6], "object": [0.1, 0.2]})
    found = calibrate(model, pairs, tau=0.85)
    measured = {k.kind: k for k in found.kinds}
    assert {kind: k.hits for kind, k in measured.items()} == {"paraphrase": 0.5, "relation": 0.5, "object": 0.0}
    # Of 4 · 2 pairings, the paraphrase is nearer in 1 (over 0.92) and in 4 (over 0.6).
    assert measured["relation"].separation == pytest.approx(5 / 8)
    assert measured["object"].separation == 1.0
    assert measured["paraphrase"].separation is None
    assert measured["relation"].median == pytest.approx(0.76, abs=1e-5)
    # From 0.7 on all paraphrases hit and half of the relations do: nothing leaves more room.
    assert found.best_tau == pytest.approx(0.7, abs=1e-5)
    assert (found.best_paraphrases, found.best_counterfactuals) == (1.0, 0.5)


def test_a_threshold_that_would_do_is_named() -> None:
    model, pairs = pairs_of(
        {"paraphrase": list(np.linspace(0.75, 0.83, 30)), "relation": list(np.linspace(0.1, 0.5, 30))}
    )
    warnings = calibrate(model, pairs, tau=0.85).warnings
    assert [text.split(":")[0] for text in warnings] == [
        "0% of the paraphrases reach τ = 0.85, fewer than 80%",
        "τ = 0.750 would do",
    ]


def test_few_pairs_are_said_to_say_little() -> None:
    model, pairs = pairs_of({"paraphrase": [0.9] * 30, "relation": [0.1]})
    assert calibrate(model, pairs).warnings == ("only 1 pair of the kind 'relation': its figures say little",)


def test_limits_decide_what_is_warned_of() -> None:
    model, pairs = pairs_of({"paraphrase": [0.9] * 30, "relation": [0.9] * 3 + [0.1] * 27})
    assert calibrate(model, pairs, limits=CalibrationLimits(counterfactuals=0.2)).warnings == ()
    assert any("10% of the sentences with one relation" in text for text in calibrate(model, pairs).warnings)


@pytest.mark.torch
def test_the_small_worlds_similarity_tells_every_kind_of_change() -> None:
    found = calibrate(SmallWorldSimilarity(), small_world_pairs(150, seed=3))
    assert found.warnings == ()
    assert {k.kind for k in found.kinds} == {"paraphrase", "attribute", "relation", "object"}


def test_a_model_that_counts_words_is_warned_of() -> None:
    found = calibrate(WordsInAnyOrder(), small_world_pairs(60))
    relation = next(k for k in found.kinds if k.kind == "relation")
    assert relation.hits > 0.5
    assert any("one relation changed" in text for text in found.warnings)
    assert any(text.startswith("no τ separates") for text in found.warnings)


def test_pairs_of_the_small_world_differ_in_one_value_and_are_the_same_each_time() -> None:
    pairs = small_world_pairs(40, seed=1)
    assert pairs == small_world_pairs(40, seed=1) != small_world_pairs(40, seed=2)
    assert [sum(p.kind == kind for p in pairs) for kind in ("paraphrase", "attribute", "relation", "object")] == [
        40
    ] * 4
    assert all(p.truth != p.said for p in pairs if p.kind != "paraphrase")


def test_without_both_sorts_of_pairs_there_is_nothing_to_measure() -> None:
    model, pairs = pairs_of({"paraphrase": [0.9]})
    with pytest.raises(InputError, match="pairs of both sorts"):
        calibrate(model, pairs)


def test_a_row_that_is_no_pair_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"truth": "a", "said": "b", "kind": "relation"}\n\n{"truth": "a", "kind": "relation"}\n')
    with pytest.raises(InputError, match=r"pairs\.jsonl:3.*under truth, said and kind"):
        read_pairs(path)


@pytest.mark.torch
def test_the_command_warns_by_its_status_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reward", "calibrate", "--count", "40"]) == 0
    assert "separation" in capsys.readouterr().out
    path = tmp_path / "pairs.jsonl"
    rows = [("paraphrase", "The ring is red."), ("relation", "The ring is red.")]
    path.write_text(
        "".join(json.dumps({"truth": "The ring is red.", "said": s, "kind": k}) + "\n" for k, s in rows), "utf-8"
    )
    assert main(["reward", "calibrate", "--pairs", str(path), "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["kinds"][1]["hits"] == 1.0
    assert any("100% of the sentences with one relation changed" in text for text in said["warnings"])
