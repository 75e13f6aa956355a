"""The stage `evaluate`: every checkpoint the same questions, each model asked once, whatever is interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluation_fakes import FakeVlm, Opener, question_file

from viper.evaluation.stage import Checkpoint, evaluate
from viper.methods.stages import COLD_START, EVALUATE, TRAIN_CAPTIONS, TRAIN_OPERATIONS
from viper.stage import Manifest, ResolvedModel

# θ0 knows 0 and 1, θ1 knows 1 and 2, θ2 knows 0 to 3; of six questions, even ones coarse, odd ones fine.
KNOWN = {"theta0": (0, 1), "theta1": (1, 2), "theta2": (0, 1, 2, 3), "base": (5,), "coldStart": (4,)}


class Loader:
    """Opens fakes and remembers which; fails at the model called `broken`."""

    def __init__(self, broken: str = "") -> None:
        self.opened: list[str] = []
        self.broken = broken

    def __call__(self, checkpoint: Checkpoint) -> FakeVlm:
        if checkpoint.name == self.broken:
            raise KeyboardInterrupt
        self.opened.append(checkpoint.name)
        return FakeVlm({f"number {i}?": f"colour {i}" for i in KNOWN[checkpoint.name]})


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    return {"evaluation": {"questions": str(question_file(folder / "q")), "batch": 4, **more}}


def test_checkpoints_are_scored_and_compared(tmp_path: Path, open_context: Opener) -> None:
    loader = Loader()
    manifest = evaluate(open_context(EVALUATE, **settings(tmp_path)), loader)
    assert manifest is not None
    assert loader.opened == ["theta0", "theta1", "theta2"]
    outputs = manifest.outputs
    assert [p.rows for p in manifest.parts] == [6, 6, 6]
    assert {m: s["overall"]["correct"] for m, s in outputs["scores"].items()} == {"theta0": 2, "theta1": 2, "theta2": 4}
    assert outputs["scores"]["theta2"]["fine"] | {"low": 0, "high": 0} == {
        "n": 3,
        "correct": 2,
        "accuracy": pytest.approx(2 / 3),
        "low": 0,
        "high": 0,
    }
    assert list(outputs["comparisons"]) == ["theta1-theta0", "theta2-theta0", "theta2-theta1"]
    change = outputs["comparisons"]["theta1-theta0"]["overall"]
    assert (change["wins"], change["losses"], change["difference"]) == (1, 1, 0)
    assert outputs["comparisons"]["theta2-theta0"]["fine"]["wins"] == 1
    assert outputs["final"] == "theta2"
    assert set(manifest.inputs) == {TRAIN_CAPTIONS, TRAIN_OPERATIONS}


def test_rows_tell_what_was_asked_expected_and_said(tmp_path: Path, open_context: Opener) -> None:
    ctx = open_context(EVALUATE, **settings(tmp_path))
    evaluate(ctx, Loader())
    rows = list(ctx.rows(EVALUATE))
    first = {k: rows[0][k] for k in ("model", "question_id", "domain", "expected", "prediction", "correct")}
    assert first == {
        "model": "theta0",
        "question_id": "q0",
        "domain": "coarse",
        "expected": "colour 0",
        "prediction": "colour 0",
        "correct": True,
    }
    assert rows[5]["prediction"] == ""


def test_an_interrupted_evaluation_goes_on_with_the_next_model(tmp_path: Path, open_context: Opener) -> None:
    spec = settings(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(open_context(EVALUATE, **spec), Loader(broken="theta2"))
    loader = Loader()
    resumed = evaluate(open_context(EVALUATE, **spec), loader)
    assert loader.opened == ["theta2"]
    whole = evaluate(open_context(EVALUATE, name="other", **spec), Loader())
    assert isinstance(resumed, Manifest)
    assert isinstance(whole, Manifest)
    assert resumed.outputs == whole.outputs
    assert [p.digest for p in resumed.parts] == [p.digest for p in whole.parts]


def test_a_model_that_was_asked_in_an_earlier_iteration_is_not_asked_again(
    tmp_path: Path, open_context: Opener
) -> None:
    spec = settings(tmp_path)
    first = open_context(EVALUATE, name="it-1", models={TRAIN_OPERATIONS: "sha256:222"}, **spec)
    before = evaluate(first, Loader())
    second = open_context(
        EVALUATE,
        name="it-2",
        models={TRAIN_CAPTIONS: "sha256:333", TRAIN_OPERATIONS: "sha256:444"},
        generator=ResolvedModel(uri="file:///models/2", digest="sha256:222"),
        base=ResolvedModel(uri="file:///models/0", digest="sha256:000"),
        **spec,
    )
    loader = Loader()
    after = evaluate(second, loader)
    assert loader.opened == ["theta1", "theta2"]
    assert before is not None
    assert after is not None
    assert after.outputs["scores"]["theta0"] == before.outputs["scores"]["theta2"]
    assert after.outputs["scores"]["base"] == before.outputs["scores"]["theta0"]


def test_other_questions_or_longer_answers_are_asked_anew(tmp_path: Path, open_context: Opener) -> None:
    evaluate(open_context(EVALUATE, name="a", **settings(tmp_path)), Loader())
    loader = Loader()
    evaluate(open_context(EVALUATE, name="b", **settings(tmp_path, maxTokens=5)), loader)
    evaluate(open_context(EVALUATE, name="c", **settings(tmp_path, limit=3)), loader)
    assert loader.opened == ["theta0", "theta1", "theta2"] * 2


def test_a_damaged_cache_is_not_believed(tmp_path: Path, open_context: Opener) -> None:
    spec = settings(tmp_path)
    ctx = open_context(EVALUATE, name="a", **spec)
    evaluate(ctx, Loader())
    for info in list(ctx.store.list("evaluations/")):
        ctx.store.put(info.key, b"torn")
    loader = Loader()
    evaluate(open_context(EVALUATE, name="b", **spec), loader)
    assert loader.opened == ["theta0", "theta1", "theta2"]


def test_without_questions_there_are_no_scores(open_context: Opener) -> None:
    manifest = evaluate(open_context(EVALUATE), Loader())
    assert manifest is not None
    assert (manifest.outputs["scores"], manifest.outputs["comparisons"], manifest.parts) == ({}, {}, ())


@pytest.mark.parametrize(
    ("recipe", "names"),
    [
        ({"stages": "captions"}, ["theta0", "theta1"]),
        ({"stages": "operations"}, ["theta0", "theta2"]),
        ({"stages": "mixed"}, ["theta0", "theta2"]),
        ({"coldStart": {"samplesUri": "x.jsonl"}}, ["theta0", "coldStart", "theta1", "theta2"]),
    ],
)
def test_what_is_evaluated_follows_the_recipe(
    tmp_path: Path, open_context: Opener, recipe: dict[str, Any], names: list[str]
) -> None:
    manifest = evaluate(open_context(EVALUATE, recipe=recipe, **settings(tmp_path)), Loader())
    assert manifest is not None
    assert list(manifest.outputs["scores"]) == names
    assert manifest.outputs["final"] == names[-1]
    assert (COLD_START in manifest.inputs) == ("coldStart" in names)


def test_two_shards_share_the_models_and_the_last_one_writes_the_manifest(tmp_path: Path, open_context: Opener) -> None:
    spec = settings(tmp_path)
    first, second = open_context(EVALUATE, **spec), open_context(EVALUATE, **spec)
    first.shards = second.shards = 2
    second.shard = 1
    loader = Loader()
    assert evaluate(first, loader) is None
    assert loader.opened == ["theta0", "theta2"]
    assert evaluate(second, loader) is not None
