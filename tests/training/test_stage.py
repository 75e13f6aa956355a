"""GRPO stages around a trainer that is not one: what is asked of it, what is believed, what survives a kill."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training_fakes import FakeTrainer, Killed, Verified, model_directory, open_stage, tools

from viper.errors import InputError, SpecError, StageError, StoreError, SupersededError
from viper.methods.stages import (
    TRAIN_CAPTIONS,
    TRAIN_MIXED,
    TRAIN_OPERATIONS,
    VALIDATE_CAPTIONS,
    VALIDATE_OPERATIONS,
    declared,
)
from viper.modelcache.resolve import model_dir
from viper.stage import Manifest, Progress, StageContext
from viper.store import directory_digests, open_store, stored_digests
from viper.store.transfer import MANIFEST
from viper.training.settings import GrpoResult, StepMetrics
from viper.training.stage import grpo_settings, train


def stage(folder: Path, name: str = TRAIN_CAPTIONS, work: str = "work", **more: object) -> StageContext:
    if name == TRAIN_OPERATIONS and "recipe" not in more:
        more["recipe"] = {"stages": "operations"}
    theta0 = model_directory(folder / "theta0")
    return open_stage(open_store(folder / "store"), folder / work, name, theta0, **more)  # type: ignore[arg-type]


def done(ctx: StageContext, trainer: FakeTrainer, verify: Verified | None = None) -> Manifest:
    manifest = train(ctx, tools(trainer, verify))
    assert manifest is not None
    return manifest


def telling(ctx: StageContext, said: list[str]) -> StageContext:
    """The same, with what it writes into its log."""
    ctx.tell, ctx.progress = said.append, Progress(tell=said.append)
    return ctx


def test_the_model_its_curves_and_its_rollouts_are_stored(tmp_path: Path) -> None:
    ctx = stage(tmp_path)
    manifest = done(ctx, FakeTrainer())
    outputs = manifest.outputs
    assert (outputs["steps"], outputs["best_step"], outputs["samples"]) == (5, 5, {"train": 14, "held_out": 4})
    assert (outputs["first_reward"], outputs["last_reward"]) == (0.1, 0.5)
    assert (outputs["first_held_out_reward"], outputs["last_held_out_reward"]) == (0.05, 0.25)
    curves = [json.loads(line) for line in ctx.store.get(f"{ctx.prefix}/{outputs['curves']}").splitlines()]
    assert [row["step"] for row in curves] == [1, 2, 3, 4, 5]
    rollouts = [info.key for info in ctx.store.list(f"{ctx.prefix}/{outputs['rollouts']}")]
    assert len(rollouts) == 1
    place = f"{ctx.prefix}/models/{outputs['model']['digest'].replace(':', '-')}"
    assert outputs["model"]["uri"] == f"{ctx.store.uri}/{place}"
    assert ctx.store.get(f"{place}/model.safetensors") == b"weights of step 5"
    assert set(manifest.inputs) == {VALIDATE_CAPTIONS}


def test_the_recipe_reaches_the_trainer(tmp_path: Path) -> None:
    ctx = stage(tmp_path, recipe={"seed": 5, "reward": {"tau": 0.9}})
    trainer = FakeTrainer()
    done(ctx, trainer)
    settings = trainer.seen["settings"]
    assert (settings.steps, settings.group_size, settings.learning_rate, settings.tau) == (5, 2, 1e-4, 0.9)
    spec = ctx.frozen.iteration.spec
    assert settings == grpo_settings(spec, declared(TRAIN_CAPTIONS))
    assert settings.seed != grpo_settings(spec, declared(TRAIN_OPERATIONS)).seed
    assert len(trainer.seen["samples"]) == 14


@pytest.mark.parametrize("path", ["", "recipe.captions", "recipe.coldStart", "recipe.seed"])
def test_a_stage_that_trains_with_no_settings_of_a_training_is_refused(tmp_path: Path, path: str) -> None:
    spec = stage(tmp_path).frozen.iteration.spec
    with pytest.raises(StageError, match=f"{TRAIN_CAPTIONS}: its settings '{path}' are none of a training"):
        grpo_settings(spec, replace(declared(TRAIN_CAPTIONS), training=path))


def test_the_second_stage_starts_from_the_first_ones_model(tmp_path: Path) -> None:
    first = done(stage(tmp_path), FakeTrainer()).outputs["model"]
    verify = Verified()
    manifest = done(stage(tmp_path, TRAIN_OPERATIONS, recipe={}), FakeTrainer(), verify)
    assert set(manifest.inputs) == {TRAIN_CAPTIONS, VALIDATE_OPERATIONS}
    assert verify.calls[0][1].as_uri() == first["uri"]


def test_mixed_training_reads_both_data_sets(tmp_path: Path) -> None:
    manifest = done(stage(tmp_path, TRAIN_MIXED, recipe={"stages": "mixed"}), FakeTrainer())
    assert set(manifest.inputs) == {VALIDATE_CAPTIONS, VALIDATE_OPERATIONS}
    assert manifest.outputs["samples"]["train"] == 28


@pytest.mark.parametrize("kill_at", [1, 2, 3, 5])
def test_killed_in_any_step_it_ends_in_the_manifest_of_an_undisturbed_run(tmp_path: Path, kill_at: int) -> None:
    with pytest.raises(Killed):
        train(stage(tmp_path), tools(FakeTrainer(kill_at=kill_at)))
    trainer, said = FakeTrainer(), list[str]()
    resumed = done(telling(stage(tmp_path), said), trainer)
    assert trainer.computed[0] == kill_at - (kill_at - 1) % 2
    before = trainer.computed[0] - 1
    reused = f", {before} of them from an earlier attempt" if before else ""
    assert [re.sub(r"[\d.]+ s:", "… s:", line) for line in said if line.startswith("train ")] == [
        "train begins: 5 steps",
        f"train ends after … s: 5 steps{reused}, reward 0.5, recall 0.5",
    ]
    assert (f"goes on after step {before}, from the checkpoint of an earlier attempt" in said) is bool(before)
    whole = done(stage(tmp_path / "other"), FakeTrainer())
    model, other = resumed.outputs.pop("model"), whole.outputs.pop("model")
    assert model["digest"] == other["digest"]
    assert resumed.outputs == whole.outputs


@pytest.mark.parametrize("where", ["recorder", "model", "curves"])
def test_killed_while_storing_it_trains_nothing_again(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    ctx = stage(tmp_path)
    if where == "recorder":
        ctx.recorder = die
    elif where == "curves":
        monkeypatch.setattr("viper.training.stage.publish_curves", die)
    verify = Verified() if where != "model" else die
    with pytest.raises(Killed):
        train(ctx, tools(FakeTrainer(), verify))  # type: ignore[arg-type]
    monkeypatch.undo()
    assert ctx.done() is None
    trainer = FakeTrainer()
    said: list[str] = []
    assert done(telling(stage(tmp_path), said), trainer).outputs["steps"] == 5
    assert trainer.computed == []
    assert any(re.fullmatch(r"train ends after .*: 5 steps, 5 of them from an earlier attempt", line) for line in said)


def test_a_model_from_before_they_lay_under_their_digest_is_left_as_it_is(tmp_path: Path) -> None:
    ctx = stage(tmp_path)
    ctx.store.put(f"{ctx.prefix}/model/model.safetensors", b"of an earlier attempt")
    ctx.store.put(f"{ctx.prefix}/model/config.json", b"{}")
    old = directory_digests(tmp_path / "store" / ctx.prefix / "model")
    ctx.store.put(f"{ctx.prefix}/model/{MANIFEST}", old.to_json())
    manifest = done(ctx, FakeTrainer())
    assert manifest.outputs["model"]["digest"] != old.digest
    assert stored_digests(ctx.store, f"{ctx.prefix}/model") == old
    place = manifest.outputs["model"]["uri"].removeprefix(f"{ctx.store.uri}/")
    assert ctx.store.get(f"{place}/model.safetensors") == b"weights of step 5"


def named(ctx: StageContext) -> dict[str, bytes]:
    """Everything of the stage but its progress."""
    keys = [info.key for info in ctx.store.list(f"{ctx.prefix}/")]
    return {key: ctx.store.get(key) for key in keys if "/progress/" not in key}


#: A second trainer with other weights comes back: when, and how many of its five steps it then takes.
COMES_BACK = {"before its first step": (1, 1), "in the midst": (3, 3), "before it stores its model": (0, 5)}


@pytest.mark.parametrize("when", COMES_BACK)
def test_a_second_trainer_that_comes_back_touches_nothing(tmp_path: Path, when: str) -> None:
    at, taken = COMES_BACK[when]
    finished: list[Manifest] = []
    before: dict[str, bytes] = {}

    def meanwhile() -> None:
        finished.append(done(stage(tmp_path, work="another machine"), FakeTrainer()))
        before.update(named(stage(tmp_path)))

    class Late(FakeTrainer):
        def __call__(self, *args: Any, on_step: Callable[[StepMetrics], None], **kwargs: Any) -> GrpoResult:
            def step(metrics: StepMetrics) -> None:
                if metrics.step == at:
                    meanwhile()
                on_step(metrics)

            result = super().__call__(*args, on_step=step, **kwargs)
            if not at:
                meanwhile()
            return result

    late, trainer = stage(tmp_path), Late(weights="other weights")
    late.recorder = lambda manifest: pytest.fail("recorded again")
    with nullcontext() if at == 0 else pytest.raises(SupersededError):
        assert train(late, tools(trainer)) == finished[0]
    assert len(trainer.computed) == taken
    after = named(late)
    assert {key: after[key] for key in before} == before
    assert (model_dir(late, TRAIN_CAPTIONS) / "model.safetensors").read_bytes() == b"weights of step 5"


def test_a_run_that_lost_a_step_is_not_believed(tmp_path: Path) -> None:
    ctx = stage(tmp_path)
    with pytest.raises(StageError, match=r"ended after 5 of 5 steps \(4 in its log\)"):
        train(ctx, tools(FakeTrainer(lose=3)))
    assert ctx.done() is None


@pytest.mark.parametrize(
    ("best", "reference", "weights"),
    [
        (5, "theta0", b"weights of step 5"),
        (2, "work/grpo/candidates/step-000002", b"weights of step 2"),
        (0, "work/grpo/candidates/step-000000", b"theta0"),
    ],
)
def test_the_stored_model_is_compared_with_the_trained_weights(
    tmp_path: Path, best: int, reference: str, weights: bytes
) -> None:
    verify = Verified()
    manifest = done(stage(tmp_path), FakeTrainer(best=best), verify)
    assert verify.calls == [(weights, tmp_path / reference, weights)]
    assert manifest.outputs["best_step"] == best


def test_a_model_that_does_not_agree_is_not_believed(tmp_path: Path) -> None:
    def disagree(*_: object) -> float:
        raise StageError("the stored model does not agree")

    ctx = stage(tmp_path)
    with pytest.raises(StageError, match="does not agree"):
        train(ctx, tools(FakeTrainer(), disagree))  # type: ignore[arg-type]
    assert ctx.done() is None


def test_scratch_is_removed_when_the_stage_is_done(tmp_path: Path) -> None:
    ctx = stage(tmp_path)
    done(ctx, FakeTrainer())
    assert list(ctx.work_dir.iterdir()) == []


def test_steps_reach_progress_and_mlflow(tmp_path: Path) -> None:
    ctx, sent = stage(tmp_path), list[int]()
    train(ctx, tools(FakeTrainer(), sent=sent))
    assert sent == [1, 2, 3, 4, 5]
    assert (ctx.progress.record.done, ctx.progress.record.total) == (5, 5)
    assert ctx.progress.record.detail == {"reward": 0.5, "recall": 0.5}


def test_a_full_disk_is_told_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    ctx = stage(tmp_path)
    monkeypatch.setattr(FakeTrainer, "_save", full)
    with pytest.raises(StoreError, match="the disk is full"):
        train(ctx, tools(FakeTrainer()))
    monkeypatch.undo()
    assert done(stage(tmp_path), FakeTrainer()).outputs["steps"] == 5


def test_another_shard_has_nothing_to_do(tmp_path: Path) -> None:
    ctx = stage(tmp_path)
    ctx.shard, ctx.shards = 1, 2
    trainer = FakeTrainer()
    assert train(ctx, tools(trainer)) is None
    assert trainer.computed == []


def test_no_sample_and_an_unknown_trainer_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sample to train on(?s:.)*") as error:
        train(stage(tmp_path, rows=0), tools(FakeTrainer()))
    assert "validate-captions" in error.value.where
    engines = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake") | {"trainer": "ppo"}
    with pytest.raises(SpecError, match="there is no trainer 'ppo'"):
        train(stage(tmp_path / "b", engines=engines), tools(FakeTrainer()))
