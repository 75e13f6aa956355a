"""Checkpoints outlive the machine where the store does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_fakes import FakeTrainer, Killed, Verified, model_directory, open_stage, tools

from viper.errors import StoreError
from viper.models import model_dir
from viper.spec.stages import TRAIN_CAPTIONS
from viper.stage import StageContext
from viper.store import DirectoryStore, ObjectStore
from viper.training.mirror import NoMirror, StoreMirror, mirror_for
from viper.training.stage import train


class RemoteStore(DirectoryStore):
    """A directory that counts as remote: what is said to be far away is mirrored to."""

    down = False

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        if self.down and "/checkpoints/" in key:
            raise StoreError("is down")
        super().put_file(key, path, if_absent=if_absent, sha256=sha256)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    monkeypatch.setattr("viper.training.attempt.mirror_for", StoreMirror)
    return RemoteStore(tmp_path / "store")


def stage(store: RemoteStore, folder: Path, work: str) -> StageContext:
    return open_stage(store, folder / work, TRAIN_CAPTIONS, model_directory(folder / "theta0"))


def steps(store: RemoteStore, ctx: StageContext) -> set[str]:
    return {i.key.removeprefix(f"{ctx.prefix}/checkpoints/").split("/")[0] for i in store.list(f"{ctx.prefix}/check")}


def test_only_a_remote_store_is_mirrored_to(tmp_path: Path) -> None:
    assert isinstance(mirror_for(DirectoryStore(tmp_path), "p", tmp_path), NoMirror)


def test_another_machine_goes_on_from_the_stored_checkpoint(store: RemoteStore, tmp_path: Path) -> None:
    first = stage(store, tmp_path, "machine-1")
    with pytest.raises(Killed):
        train(first, tools(FakeTrainer(kill_at=5)))
    assert steps(store, first) == {"000004"}
    trainer, second = FakeTrainer(), stage(store, tmp_path, "machine-2")
    manifest = train(second, tools(trainer))
    assert trainer.computed == [5]
    assert manifest is not None
    curves = store.get(f"{second.prefix}/{manifest.outputs['curves']}").splitlines()
    assert len(curves) == 5


def test_stored_checkpoints_go_when_the_stage_is_done(store: RemoteStore, tmp_path: Path) -> None:
    ctx = stage(store, tmp_path, "machine")
    train(ctx, tools(FakeTrainer()))
    assert steps(store, ctx) == set()


def test_a_work_directory_that_is_ahead_is_left_alone(store: RemoteStore, tmp_path: Path) -> None:
    ctx = stage(store, tmp_path, "machine")
    with pytest.raises(Killed):
        train(ctx, tools(FakeTrainer(kill_at=3)))  # checkpoint 2 is stored
    work = ctx.work_dir / "grpo"
    (work / "checkpoints" / "step-000002").rename(work / "checkpoints" / "step-000004")
    assert StoreMirror(store, ctx.prefix, work).restore() is None


def test_an_interrupted_restore_is_begun_again(
    store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Killed):
        train(stage(store, tmp_path, "machine-1"), tools(FakeTrainer(kill_at=5)))
    second = stage(store, tmp_path, "machine-2")
    really = Path.replace

    def die(self: Path, target: Path) -> Path:
        if self.name == "checkpoints":
            raise Killed
        return really(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Killed):
        train(second, tools(FakeTrainer()))
    monkeypatch.undo()
    monkeypatch.setattr("viper.training.attempt.mirror_for", StoreMirror)
    trainer = FakeTrainer()
    assert train(second, tools(trainer)) is not None
    assert trainer.computed == [5]


def test_a_stop_in_order_stores_the_checkpoint_written_on_the_way_out(store: RemoteStore, tmp_path: Path) -> None:
    ctx = stage(store, tmp_path, "machine")
    with pytest.raises(SystemExit):
        train(ctx, tools(FakeTrainer(stop_at=4)))
    assert steps(store, ctx) == {"000004"}


def test_a_store_that_is_down_does_not_stop_training(store: RemoteStore, tmp_path: Path) -> None:
    store.down = True
    ctx, trainer = stage(store, tmp_path, "machine"), FakeTrainer()
    assert train(ctx, tools(trainer)) is not None
    assert trainer.computed == [1, 2, 3, 4, 5]


def test_candidates_and_cut_logs_travel_with_the_checkpoint(store: RemoteStore, tmp_path: Path) -> None:
    work = tmp_path / "work"
    checkpoint, candidate = work / "checkpoints" / "step-000002", work / "candidates" / "step-000001"
    for folder in (checkpoint, candidate):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(folder.name.encode())
    (checkpoint / "state.json").write_text('{"step": 2, "metrics": 4, "rollouts": 2}', "utf-8")
    (work / "metrics.jsonl").write_text("1\n2\n3\n", "utf-8")
    (work / "rollouts.jsonl").write_text("a\nb\n", "utf-8")
    StoreMirror(store, "stage", work).save()
    shutil.rmtree(work)
    work.mkdir()
    assert StoreMirror(store, "stage", work).restore() == 2
    assert (work / "metrics.jsonl").read_text("utf-8") == "1\n2\n"
    assert (work / "rollouts.jsonl").read_text("utf-8") == "a\n"
    assert (candidate / "model.safetensors").read_bytes() == b"step-000001"


@pytest.mark.server
def test_on_minio_another_machine_goes_on_and_the_model_is_read_back(
    minio_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPER_CACHE", str(tmp_path / "cache"))
    theta0 = model_directory(tmp_path / "theta0")
    with pytest.raises(Killed):
        train(open_stage(minio_store, tmp_path / "1", TRAIN_CAPTIONS, theta0), tools(FakeTrainer(kill_at=5)))
    trainer, verify = FakeTrainer(), Verified()
    ctx = open_stage(minio_store, tmp_path / "2", TRAIN_CAPTIONS, theta0)
    manifest = train(ctx, tools(trainer, verify))
    assert trainer.computed == [5]
    assert manifest is not None
    assert verify.calls[0][0] == b"weights of step 5"
    assert model_dir(ctx, TRAIN_CAPTIONS).is_relative_to(tmp_path / "cache")
    assert not list(minio_store.list(f"{ctx.prefix}/checkpoints/"))
