"""The judge is asked once for each answer, and never silently absent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from viper.engines.base import Sampling, VlmOutput, VlmRequest
from viper.errors import EngineError
from viper.evaluation.judge import Judge, judged_by
from viper.store import DirectoryStore


class FakeJudge:
    """Says what it was given, and counts."""

    engine_id = "fake"

    def __init__(self, output: VlmOutput) -> None:
        self.output, self.asked = output, 0

    def generate(self, requests: Sequence[VlmRequest], sampling: Sampling) -> list[VlmOutput]:
        self.asked += len(requests)
        return [self.output for _ in requests]


RIGHT = VlmOutput("<think>Hm.</think>correct", True, 3)


def test_a_verdict_is_asked_for_once_by_judge_and_prompt(directory_store: DirectoryStore) -> None:
    vlm = FakeJudge(RIGHT)
    for _ in range(2):
        assert Judge(vlm, "openai:http://a/v1#x", directory_store).says("is it so?") == "correct"
    Judge(vlm, "openai:http://a/v1#x", directory_store).says("or so?")
    Judge(vlm, "openai:http://a/v1#y", directory_store).says("is it so?")
    assert vlm.asked == 3


#: What may lie where a verdict is kept, and whether it stays.
THERE: dict[str, tuple[bytes, bool]] = {
    "nothing": (b"", False),
    "torn": (b'{"verdict": "wr', False),
    "a list": (b"[]", False),
    "no verdict": (b'{"prompt": "is it so?"}', False),
    "null": (b'{"verdict": null}', False),
    "an empty one": (b'{"verdict": ""}', False),
    "a number": (b'{"verdict": 1}', False),
    "of a later form": (b'{"schemaVersion": 9, "verdict": "wrong"}', True),
    "of a later release": (b'{"schemaVersion": 1, "minVersion": "99.0.0", "verdict": "wrong"}', True),
}


@pytest.mark.parametrize("what", THERE)
def test_what_is_no_verdict_is_replaced_and_a_later_releases_is_left_alone(
    directory_store: DirectoryStore, what: str
) -> None:
    data, stays = THERE[what]
    assert Judge(FakeJudge(RIGHT), "j", directory_store).says("is it so?") == "correct"
    key = next(info.key for info in directory_store.list(""))
    directory_store.put(key, data)
    vlm = FakeJudge(RIGHT)
    for _ in range(2):
        assert Judge(vlm, "j", directory_store).says("is it so?") == "correct"
    assert (directory_store.get(key) == data) == stays
    assert vlm.asked == (2 if stays else 1)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (VlmOutput("", False, 0, "the server refuses"), "the server refuses"),
        (VlmOutput("<think>still", False, 4096), "none within 4096 tokens"),
        (VlmOutput("", True, 0), "it gave no answer"),
    ],
)
def test_a_judge_without_an_answer_is_an_error(directory_store: DirectoryStore, output: VlmOutput, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        Judge(FakeJudge(output), "j", directory_store).says("is it so?")
    assert not list(directory_store.list(""))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A fake of the module of lmms-eval that judges: whatever goes wrong is `unclear`, as there."""
    module: Any = ModuleType("lmms_eval.tasks.hallusion_bench.utils")

    class Requests:
        def post(self, *_: Any, **__: Any) -> Any:
            raise OSError("no network")

    module.requests = Requests()

    def score(prompt: str) -> str:
        try:
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": 16}
            answer = module.requests.post("https://somewhere", headers={}, json=body, timeout=30)
            answer.raise_for_status()
            return str(answer.json()["choices"][0]["message"]["content"])
        except Exception:
            return "unclear"

    module.score = score
    package: Any = ModuleType("lmms_eval.tasks.hallusion_bench")
    package.utils = module
    for name, made in (
        ("lmms_eval", ModuleType("lmms_eval")),
        ("lmms_eval.tasks", ModuleType("lmms_eval.tasks")),
        ("lmms_eval.tasks.hallusion_bench", package),
        ("lmms_eval.tasks.hallusion_bench.utils", module),
    ):
        monkeypatch.setitem(sys.modules, name, made)
    return module


def test_the_benchmarks_calls_go_to_the_judge(directory_store: DirectoryStore, tmp_path: Path, benchmark: Any) -> None:
    before = benchmark.requests
    with judged_by(Judge(FakeJudge(RIGHT), "j", directory_store), tmp_path):
        assert benchmark.score("so?") == "correct"
    assert benchmark.requests is before


def test_a_judge_that_fails_is_not_taken_for_unclear(
    directory_store: DirectoryStore, tmp_path: Path, benchmark: Any
) -> None:
    judge = Judge(FakeJudge(VlmOutput("", False, 0, "it is overloaded")), "j", directory_store)
    with pytest.raises(EngineError, match="it is overloaded"), judged_by(judge, tmp_path):
        benchmark.score("so?")


def test_verdicts_that_another_model_left_behind_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "gpt_response").mkdir()
    (tmp_path / "gpt_response" / "hallusion_output_vd_model.json").write_text("[]", "utf-8")
    with judged_by(None, tmp_path):
        assert not (tmp_path / "gpt_response").exists()
