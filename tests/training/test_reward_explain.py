"""`viper reward explain` as a person types it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from viper.cli import main
from viper.engines import factory

OUTPUT = "<think>I look.</think>The ball is red. The box is green."


class Words:
    """Cosine of bags of words, as binary vectors over what it has seen."""

    engine_id = "words/1"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        vocabulary = sorted({w for s in sentences for w in s.split()})
        rows = np.array([[float(w in s.split()) for w in vocabulary] for s in sentences], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "similarity", lambda name, *_: {"words": Words()}[name])


def explain(*arguments: str) -> int:
    return main(["reward", "explain", "--similarity", "words", *arguments])


def test_the_table_derives_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain("--output", OUTPUT, "--ground-truth", "The ball is red.", "--ground-truth", "The cat is away.") == 0
    text = capsys.readouterr().out
    assert "hit   1.000   16  The ball is red." in text
    assert "miss  0.500   17  The box is green." in text
    assert "not reached: The cat is away." in text
    assert "R_format  = 1\n" in text
    assert "R_correct = (1/2) · (16/33) = 0.2424" in text
    assert "R = 0.05 · 1 + 0.95 · 0.2424 = 0.2803" in text
    assert "recall 0.500, items 2, duplicates 0.000" in text


def test_long_sentences_wrap_inside_their_column(capsys: pytest.CaptureFixture[str]) -> None:
    explain("--output", "<think>t</think>" + "word " * 40, "--ground-truth", "truth " * 40)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


def test_json_carries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    explain("--output", OUTPUT, "--ground-truth", "The ball is red.", "--tau", "0.4", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["reward"] == pytest.approx(1.0)
    assert found["parameters"]["tau"] == 0.4
    assert [s["hit"] for s in found["sentences"]] == [True, True]
    assert found["similarity"] == "words/1"


def test_files_hold_output_and_ground_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out.txt").write_text(OUTPUT)
    (tmp_path / "flaws.json").write_text('{"refinement": ["The ball is red.", "The box is green."]}')
    (tmp_path / "flaws.txt").write_text("The ball is red.\n\nThe box is green.\n")
    for truth in ("flaws.json", "flaws.txt"):
        assert explain("--output", str(tmp_path / "out.txt"), "--ground-truth", str(tmp_path / truth)) == 0
        assert "= 1.0000" in capsys.readouterr().out


def test_a_rollout_row_brings_its_own_ground_truth_and_whether_it_was_cut_off(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"output": "x"}, {"output": OUTPUT, "finished": False, "ground_truth": ["The ball is red."]}]
    path = tmp_path / "rollouts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert explain("--rollout", str(path), "--row", "2") == 0
    assert "R_format  = 0  (the output was cut off at the token limit)" in capsys.readouterr().out


def test_an_output_without_sentences_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    explain("--output", '<think>t</think>{"refinement": []}', "--ground-truth", "The ball is red.")
    text = capsys.readouterr().out
    assert "N = 0, so R_correct = 0" in text
    assert "R = 0.05 · 1 + 0.95 · 0.0000 = 0.0500" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x"], "no ground truth"),
        (["--output", "x", "--ground-truth", "[1"], "not JSON"),
        (["--output", "x", "--ground-truth", "{}"], "expected a list of sentences"),
        (["--rollout", "/nowhere/rollouts.jsonl"], "cannot be read"),
        (["--rollout", "{file}", "--row", "9"], "no line 9"),
        (["--rollout", "{file}", "--row", "2"], "not JSON"),
        (["--rollout", "{file}", "--row", "3"], "no rollout"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text('{"output": "x"}\nnonsense\n{"step": 1}\n')
    assert explain(*(a.replace("{file}", str(path)) for a in arguments)) == 3
    assert message in capsys.readouterr().err
