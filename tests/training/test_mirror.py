"""Checkpoints outlive the machine where the store does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_fakes import FakeTrainer, Killed, Verified, model_directory, open_stage, tools

from viper.errors import StoreError
from viper.methods.stages import TRAIN_CAPTIONS
from viper.modelcache.resolve import model_dir
from viper.stage import StageContext
from viper.store import DirectoryStore, ObjectStore, upload_directory
from viper.training.mirror import NoMirror, StoreMirror, mirror_for
from viper.training.settings import GrpoResult, StepMetrics
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
    monkeypatch.setattr("viper.training.publishing.mirror_for", StoreMirror)
    return RemoteStore(tmp_path / "store")


def stage(store: RemoteStore, folder: Path, work: str) -> StageContext:
    return open_stage(store, folder / work, TRAIN_CAPTIONS, model_directory(folder / "theta0"))


def steps(store: RemoteStore, ctx: StageContext) -> set[str]:
    return {i.key.removeprefix(f"{ctx.prefix}/checkpoints/").split("-")[0] for i in store.list(f"{ctx.prefix}/check")}


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
    monkeypatch.setattr("viper.training.publishing.mirror_for", StoreMirror)
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


def test_a_checkpoint_that_was_stored_in_vain_is_stored_before_the_process_ends(
    store: RemoteStore, tmp_path: Path
) -> None:
    ctx = stage(store, tmp_path, "machine")

    class ComesBack(FakeTrainer):
        """The store is down while the steps are taken, and back when the process is told to stop."""

        def __call__(self, *arguments: Any, on_step: Callable[[StepMetrics], None], **more: Any) -> GrpoResult:
            def told(step: StepMetrics) -> None:
                store.down = True
                on_step(step)
                store.down = False

            return super().__call__(*arguments, on_step=told, **more)

    with pytest.raises(SystemExit):
        train(ctx, tools(ComesBack(stop_at=3)))
    assert steps(store, ctx) == {"000002"}


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


def checkpoint(folder: Path, step: int, weights: str) -> Path:
    """A work directory with the checkpoint of a step."""
    place = folder / "checkpoints" / f"step-{step:06d}"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(weights.encode())
    (place / "state.json").write_text(f'{{"step": {step}}}', "utf-8")
    return folder


def restored(store: ObjectStore, folder: Path) -> str | None:
    """The weights that a new machine goes on with."""
    folder.mkdir()
    step = StoreMirror(store, "stage", folder).restore()
    if step is None:
        return None
    return (folder / "checkpoints" / f"step-{step:06d}" / "model.safetensors").read_text("utf-8")


def interrupted(store: RemoteStore, monkeypatch: pytest.MonkeyPatch, at: int, meanwhile: Callable[[], object]) -> None:
    """Does something at the store's write number `at` from here, before it."""
    left = [at]
    for name in ("put", "put_file", "delete"):
        really = getattr(store, name)

        def write(*args: Any, really: Callable[..., None] = really, **options: Any) -> None:
            left[0] -= 1
            if left[0] == 0:
                meanwhile()
            really(*args, **options)

        monkeypatch.setattr(store, name, write)


@pytest.mark.parametrize("other", [2, 4, 6])
@pytest.mark.parametrize("at", range(1, 6))
def test_at_every_write_of_a_checkpoint_another_attempt_may_store_one(
    store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, other: int
) -> None:
    StoreMirror(store, "stage", checkpoint(tmp_path / "earlier", 1, "of both")).save()
    mine, theirs = checkpoint(tmp_path / "mine", 4, "mine"), checkpoint(tmp_path / "theirs", other, "theirs")
    interrupted(store, monkeypatch, at, lambda: StoreMirror(store, "stage", theirs).save())
    StoreMirror(store, "stage", mine).save()
    monkeypatch.undo()
    found = restored(store, tmp_path / "new")
    assert found in ({2: ["mine"], 4: ["mine", "theirs"], 6: ["theirs"]}[other] if at <= 3 else ["mine", "theirs"])


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("torn", "older"),
        ("lost", "older"),
        ("its digests torn", "older"),
        ("both torn", None),
        ("foreign names", "newer"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(
    store: RemoteStore, tmp_path: Path, what: str, expected: str | None
) -> None:
    older, newer = checkpoint(tmp_path / "a", 2, "older"), checkpoint(tmp_path / "b", 4, "newer")
    StoreMirror(store, "stage", newer).save()
    StoreMirror(store, "stage", older).save()
    for info in list(store.list("stage/checkpoints/")):
        place, weights = info.key.split("/")[2], info.key.endswith("model.safetensors")
        if what == "foreign names":
            for name in ("latest", "000009-x", "-1", "9999999999999999999999"):
                store.put(f"stage/checkpoints/{name}/digests.json", b"{}")
        elif weights and (what == "both torn" or (what == "torn" and place.startswith("000004"))):
            store.put(info.key, b"torn!")
        elif weights and what == "lost" and place.startswith("000004"):
            store.delete(info.key)
        elif what == "its digests torn" and place.startswith("000004") and info.key.endswith("digests.json"):
            store.put(info.key, b"{")
    assert restored(store, tmp_path / "new") == expected


def test_a_checkpoint_from_before_they_were_called_by_their_content_is_restored(
    store: RemoteStore, tmp_path: Path
) -> None:
    upload_directory(store, "stage/checkpoints/000004", checkpoint(tmp_path / "old", 4, "old"))
    assert restored(store, tmp_path / "new") == "old"
    StoreMirror(store, "stage", checkpoint(tmp_path / "next", 6, "next")).save()
    assert restored(store, tmp_path / "newer") == "next"
    assert not list(store.list("stage/checkpoints/000004"))


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
