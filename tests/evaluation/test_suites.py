"""Questions and benchmarks in one stage: each checkpoint is opened once, and everything that is asked is compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import FakeVlm, Opener, question_file

from viper.engines.base import VisionLanguageModel
from viper.errors import StageError
from viper.evaluation import stage
from viper.evaluation.stage import Checkpoint, evaluate
from viper.evaluation.suites import AnswerRow, Result, describe, parquet
from viper.methods.stages import EVALUATE
from viper.spec import IterationSpec
from viper.stage.progress import Progress
from viper.store import DirectoryStore, ObjectStore, named_by_content
from viper.stored import enveloped

#: Right answers of each model to the fake benchmark's ten questions, by its digest's last character.
RIGHT = {"0": 5, "1": 6, "2": 9}
VERSIONS = {"now": "1"}


class FakeSuite:
    """A benchmark that needs no lmms-eval; the model's digest decides how many of ten questions are right."""

    def __init__(self, task: str, spec: IterationSpec, work_dir: Path) -> None:
        self.name = task

    def result(self, store: ObjectStore, model: str, vlm: Callable[[], VisionLanguageModel], to: Progress) -> Result:
        vlm()
        rows = [
            AnswerRow(
                suite=self.name,
                question_id=f"{self.name}/{i}",
                domain="even" if i % 2 == 0 else "odd",
                kind="",
                expected="A",
                prediction="A",
                output="A",
                note="",
                cluster="",
                groups=[],
                finished=i > 0,
                tokens=1,
                correct=i < RIGHT[model[-1]],
            )
            for i in range(10)
        ]
        return Result(rows, {"version": VERSIONS["now"], "dataset": "a/b", "data": "d", "metrics": {"m": 0.5}})


class Loader:
    """Opens fakes, and notes what is open."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []

    def __call__(self, checkpoint: Checkpoint) -> FakeVlm:
        assert len(self.opened) == len(self.closed), "another model is in memory"
        self.opened.append(checkpoint.name)
        vlm = FakeVlm({"number 1?": "colour 1"})
        vlm.close = lambda: self.closed.append(checkpoint.name)  # type: ignore[attr-defined]
        return vlm


@pytest.fixture(autouse=True)
def suites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "BenchmarkSuite", FakeSuite)
    monkeypatch.setitem(VERSIONS, "now", "1")


def spec(folder: Path, **more: Any) -> dict[str, Any]:
    benchmarks = {"tasks": {"mantis": {}, "mmstar": {}}, "datasets": "/data"}
    models = {"train-captions": "sha256:1", "train-operations": "sha256:2"}
    evaluation = {"questions": str(question_file(folder / "q")), "benchmarks": benchmarks}
    return {"models": models, "evaluation": evaluation, **more}


def test_a_checkpoint_is_opened_once_for_all_that_it_is_asked(tmp_path: Path, open_context: Opener) -> None:
    loader = Loader()
    manifest = evaluate(open_context(EVALUATE, **spec(tmp_path)), loader)
    assert manifest is not None
    assert loader.opened == loader.closed == ["theta0", "theta1", "theta2"]
    assert [p.rows for p in manifest.parts] == [6, 10, 10] * 3
    assert manifest.counters == {"truncated": 6}


def test_questions_and_benchmarks_stand_beside_each_other(tmp_path: Path, open_context: Opener) -> None:
    manifest = evaluate(open_context(EVALUATE, **spec(tmp_path)), Loader())
    assert manifest is not None
    outputs, found = manifest.outputs, manifest.outputs["benchmarks"]
    assert outputs["scores"]["theta2"]["overall"]["n"] == 6
    assert list(found["tasks"]) == ["mmstar", "mantis"]
    assert found["tasks"]["mantis"] == {"version": "1", "dataset": "a/b", "data": "d", "n": 10}
    assert {m: s["overall"]["score"] for m, s in found["scores"].items()} == pytest.approx(
        {"theta0": 0.5, "theta1": 0.6, "theta2": 0.9}
    )
    assert found["scores"]["theta2"]["mmstar"]["domains"]["odd"]["correct"] == 4
    assert found["scores"]["theta2"]["mmstar"]["truncated"] == 1
    assert found["metrics"]["theta1"]["mantis"] == {"m": 0.5}
    assert list(found["comparisons"]) == ["theta1-theta0", "theta2-theta0", "theta2-theta1"]
    assert found["comparisons"]["theta2-theta0"]["mmstar"]["mcnemar"]["wins"] == 4


def test_two_shards_share_checkpoints_and_benchmarks(tmp_path: Path, open_context: Opener) -> None:
    whole = evaluate(open_context(EVALUATE, name="whole", **spec(tmp_path)), Loader())
    first, second = (open_context(EVALUATE, **spec(tmp_path)) for _ in range(2))
    first.shards = second.shards = 2
    second.shard = 1
    assert evaluate(first, Loader()) is None
    shared = evaluate(second, Loader())
    assert whole is not None
    assert shared is not None
    assert shared.outputs == whole.outputs


def test_a_definition_that_changes_while_the_stage_runs_is_not_compared(tmp_path: Path, open_context: Opener) -> None:
    first, second = (open_context(EVALUATE, **spec(tmp_path)) for _ in range(2))
    first.shards = second.shards = 2
    second.shard = 1
    assert evaluate(first, Loader()) is None
    VERSIONS["now"] = "2"
    with pytest.raises(StageError, match="changed while the stage ran"):
        evaluate(second, Loader())


#: What may lie where a result is described, and what becomes of it: it counts, it stays and is left alone, or it goes.
DESCRIPTIONS: dict[str, tuple[str, str]] = {
    "the first one": ('{"rows": "%s", "about": {"who": "first"}}', "counts"),
    "with a field more": (
        '{"schemaVersion": 1, "rows": "%s", "about": {"who": "first"}, "x": 1}',
        "counts",
    ),
    "of a later form": ('{"schemaVersion": 9, "rows": "%s", "about": {}}', "stays"),
    "of a later release": ('{"schemaVersion": 1, "minVersion": "99.0.0", "rows": "%s", "about": {}}', "stays"),
    "torn": ('{"rows": "%s"', "goes"),
    "without rows": ('{"about": {}}', "goes"),
    "of other rows": ('{"rows": "0%s", "about": {}}', "goes"),
    "about nothing": ('{"rows": "%s", "about": []}', "goes"),
    "a list": ("[]", "goes"),
    "nothing": ("", "goes"),
}


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_of_two_results_the_first_counts_and_a_later_releases_is_left_alone(
    directory_store: DirectoryStore, what: str
) -> None:
    text, becomes = DESCRIPTIONS[what]
    rows = parquet([])
    digest = hashlib.sha256(rows).hexdigest()
    directory_store.put(named_by_content("r.parquet", digest), rows)
    before = text.replace("%s", digest).encode()
    directory_store.put("r.json", before)
    mine = json.dumps(enveloped({"rows": digest, "about": {"who": "second"}})).encode()
    counts = describe(directory_store, "r", mine)
    assert (counts.about if counts else None) == ({"who": "first"} if becomes == "counts" else None)
    assert directory_store.get("r.json") == (mine if becomes == "goes" else before)
