"""`viper reward` and whatever is given to it: a clear refusal or the right result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.refusals import refused
from viper.cli import main
from viper.engines import factory

OUTPUT = "<think>I look.</think>The ball is red."
TRUTH = ["--ground-truth", "The ball is red."]


class Equal:
    """Every sentence is like every other."""

    engine_id = "equal/1"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(sentences), 1), np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, and one engine that needs no model."""
    monkeypatch.chdir(tmp_path)
    real = factory.similarity
    monkeypatch.setattr(factory, "similarity", lambda name, *rest: Equal() if name == "equal" else real(name, *rest))
    (tmp_path / "folder").mkdir()
    return tmp_path


def explain(*arguments: str) -> list[str]:
    return ["reward", "explain", "--similarity", "equal", *arguments]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "one of the arguments --output --rollout is required"),
        (["--output", OUTPUT], "there is no ground truth"),
        (["--output", OUTPUT, "--ground-truth", ""], "there is no ground truth"),
        (["--output", OUTPUT, "--ground-truth", " \n "], "there is no ground truth"),
        (["--output", OUTPUT, "--ground-truth", "[]"], "there is no ground truth"),
        (["--output", OUTPUT, "--ground-truth", "[1]"], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", "[null]"], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '["a", ""]'], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '[["a"]]'], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '{"refinement": "The ball is blue."}'], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '{"refinement": null}'], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '{"flaws": ["a"]}'], "expected a list of sentences"),
        (["--output", OUTPUT, "--ground-truth", '["a",'], "this is not JSON"),
        (["--output", OUTPUT, "--ground-truth", "[" * 100_000], "nested too deeply"),
        (["--output", OUTPUT, "--ground-truth", "[" + "9" * 5000 + "]"], "this is not JSON"),
        (["--output", OUTPUT, "--ground-truth", "flaws.json"], "--ground-truth flaws.json: there is no such file"),
        (["--output", OUTPUT, "--ground-truth", "/none/flaws"], "there is no such file"),
        (["--output", OUTPUT, "--ground-truth", "./flaws"], "there is no such file"),
        (["--output", OUTPUT, "--ground-truth", "./folder"], "is a folder"),
        (["--output", OUTPUT, "--ground-truth", "latin.txt"], "is not UTF-8 text"),
        (["--output", "answer.txt", *TRUTH], "--output answer.txt: there is no such file"),
        (["--output", "../answer.md", *TRUTH], "there is no such file"),
        (["--output", ".", *TRUTH], "is a folder"),
        (["--output", "latin.txt", *TRUTH], "is not UTF-8 text"),
        (["--output", "utf16.txt", *TRUTH], "is not UTF-8 text"),
        (["--output", "huge.txt", *TRUTH], "is larger than 16 MiB"),
        (["--output", OUTPUT, "--rollout", "rows.jsonl"], "not allowed with"),
        (["--output", OUTPUT, *TRUTH, "--tau", "nan"], "'nan' is no share: a number from 0 to 1"),
        (["--output", OUTPUT, *TRUTH, "--tau", "inf"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--tau", "-0.1"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--tau", "1.1"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--tau", "high"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--tau", "0,85"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--tau", ""], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--format-weight", "nan"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--correct-weight", "-1"], "is no share"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "none"], "there is no engine 'none'"),
        (["--output", OUTPUT, *TRUTH, "--similarity", ""], "there is no engine ''"),
        (["--output", OUTPUT, *TRUTH, "--similarity", ":"], "there is no engine ':'"),
        (["--output", OUTPUT, *TRUTH, "--similarity", ".x:Y"], "there is no engine '.x:Y'"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "no.such:Thing"], "cannot be imported"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "json:Nothing"], "cannot be imported"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "argparse:Namespace"], "is no engine of this kind"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "math:pi"], "is no engine of this kind"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "broken_engine:X"], "cannot be imported: division by zero"),
        (["--output", OUTPUT, *TRUTH, "--similarity", "bge-m3"], "cannot be made"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    (folder / "broken_engine.py").write_text("1 / 0\n")
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    (folder / "utf16.txt").write_bytes(OUTPUT.encode("utf-16"))
    (folder / "huge.txt").write_bytes(b"x" * (2**24 + 1))
    refused(main, explain(*arguments), words, capsys)


def _row(**fields: Any) -> bytes:
    return json.dumps({"output": OUTPUT, "ground_truth": ["The ball is red."], **fields}).encode()


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, [], "the rollout file cannot be read: No such file"),
        (b"", [], "there is no line 1"),
        (_row(), ["--row", "2"], "there is no line 2"),
        (_row(), ["--row", "0"], "is no line: a whole number from 1"),
        (_row(), ["--row", "-1"], "is no line"),
        (_row(), ["--row", "first"], "is no line"),
        (_row(), ["--row", "1.0"], "is no line"),
        (b"\n", [], "this is not JSON"),
        (b"nonsense\n", [], "this is not JSON"),
        (b"\xff\xfe", [], "is not UTF-8 text"),
        (b"[" * 50_000, [], "nested too deeply"),
        (b"[1]", [], "is no rollout"),
        (b"null", [], "is no rollout"),
        (b'"output"', [], "is no rollout"),
        (b'{"step": 1}', [], "is no rollout"),
        (_row(output=None), [], "its output is no text"),
        (_row(output=["a"]), [], "its output is no text"),
        (_row(output=3), [], "its output is no text"),
        (_row(ground_truth="The ball is blue."), [], "1 ground_truth: expected a list of sentences"),
        (_row(ground_truth={"refinement": ["a"]}), [], "expected a list of sentences"),
        (_row(ground_truth=[1, 2]), [], "expected a list of sentences"),
        (_row(ground_truth=None), [], "expected a list of sentences"),
        (_row(ground_truth=[]), [], "there is no ground truth"),
        (_row(ground_truth=[" "]), [], "expected a list of sentences"),
        (_row(finished="no"), [], "finished: is neither true nor false"),
        (_row(finished=0), [], "finished: is neither true nor false"),
    ],
)
def test_what_is_no_rollout_is_refused_with_file_and_line(
    content: bytes | None, arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "rows.jsonl").write_bytes(content)
    refused(main, explain("--rollout", "rows.jsonl", *arguments), words, capsys)


@pytest.mark.parametrize("name", ["folder", "nul\0", "n" * 300])
def test_what_is_no_rollout_file_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(main, explain("--rollout", name), "the rollout file cannot be read", capsys)


@pytest.mark.parametrize(
    ("arguments", "sentences"),
    [
        (["--output", OUTPUT, *TRUTH], 1),
        (["--output", "", *TRUTH], 0),
        (["--output", "word " * 50_000, *TRUTH], 1),
        (["--output", "a\udc80b", *TRUTH], 1),
        (["--output", "[" * 50_000, *TRUTH], None),
        (["--output", OUTPUT, "--ground-truth", "Is it in answer.txt?"], 1),
        (["--output", OUTPUT, "--ground-truth", "folder"], 1),
        (["--output", OUTPUT, "--ground-truth", "and/or"], 1),
        (["--output", OUTPUT, "--ground-truth", "bom.json"], 1),
        (["--rollout", "rows.jsonl"], 1),
        (["--output", OUTPUT, *TRUTH, "--tau", "1e-4"], 1),
    ],
)
def test_what_is_odd_and_can_be_explained_is(
    arguments: list[str], sentences: int | None, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bom.json").write_bytes(b'\xef\xbb\xbf["The ball is red."]')
    (folder / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + _row() + b"\r\n")
    assert main([*explain(*arguments), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sentences is None or len(found["sentences"]) == sentences


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "is no number of pairs"),
        (["--count", "-5"], "is no number of pairs"),
        (["--count", "1e3"], "is no number of pairs"),
        (["--seed", "-1"], "is no seed"),
        (["--tau", "nan"], "is no share"),
        (["--least-paraphrases", "80"], "is no share"),
        (["--most-counterfactuals", "nan"], "is no share"),
        (["--device", "tpu"], "is no device: cpu, cuda or cuda:<number>"),
        (["--similarity", "none"], "there is no engine"),
        (["--pairs", "none.jsonl"], "cannot be read: No such file"),
        (["--pairs", "folder"], "cannot be read: Is a directory"),
        (["--pairs", "latin.txt"], "cannot be read"),
        (["--pairs", "empty.jsonl"], "pairs of both sorts are needed"),
        (["--pairs", "bad.jsonl"], "bad.jsonl:1: is not JSON"),
        (["--pairs", "text.jsonl"], "text.jsonl:1: expected texts under truth, said and kind"),
        (["--pairs", "one.jsonl"], "pairs of both sorts are needed"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    arguments: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "latin.txt").write_bytes("größer".encode("latin-1"))
    (folder / "empty.jsonl").write_bytes(b"\n\n")
    (folder / "bad.jsonl").write_bytes(b"[" * 50_000)
    (folder / "text.jsonl").write_bytes(b'"text"\n')
    (folder / "one.jsonl").write_text('{"truth": "a", "said": "b", "kind": "paraphrase"}\n')
    refused(main, ["reward", "calibrate", "--similarity", "equal", *arguments], words, capsys)
