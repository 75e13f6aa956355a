"""A run of verl that is watched: what is believed, what is tried again, where it ends. verl itself is a fake here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from training_fakes import Verified, open_stage, png

np = pytest.importorskip("numpy")
pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from safetensors.numpy import load_file, save_file  # noqa: E402

from viper.errors import RegistryError, SpecError, StageError, StoreError  # noqa: E402
from viper.methods.stages import TRAIN_CAPTIONS  # noqa: E402
from viper.spec.engines import VerlSettings  # noqa: E402
from viper.stage import Manifest, ResolvedModel, StageContext  # noqa: E402
from viper.store import open_store  # noqa: E402
from viper.store.transfer import directory_digest  # noqa: E402
from viper.training.data import EncodedSample, RlDataset  # noqa: E402
from viper.training.mirror import StoreMirror  # noqa: E402
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics  # noqa: E402
from viper.training.stage import Tools  # noqa: E402
from viper.training.stage import train as stage_train  # noqa: E402
from viper.training.verl import process, run  # noqa: E402
from viper.training.verl.config import VerlHardware  # noqa: E402

SETTINGS = GrpoSettings(
    steps=6, batch_prompts=2, mini_batch_prompts=2, group_size=3, save_every=2, collapse_steps=3, select="heldOutReward"
)


class FakeRewardServer:
    """Stands for the reward service; dies when told."""

    url = "http://127.0.0.1:9"

    def __init__(self) -> None:
        self.dead, self.restarts = False, 0

    def alive(self) -> bool:
        return not self.dead

    def restart(self) -> None:
        self.dead, self.restarts = False, self.restarts + 1


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeRewardServer:
    made = FakeRewardServer()

    @contextmanager
    def running(*_: object, **__: object) -> Iterator[FakeRewardServer]:
        yield made

    monkeypatch.setattr(run, "reward_service", running)
    monkeypatch.setattr(run, "POLL_SECONDS", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "fake_verl"), prepend=":")
    monkeypatch.syspath_prepend(Path(__file__).parent / "fake_verl")
    return made


def sample(number: int) -> EncodedSample:
    return EncodedSample(f"s{number}", "Find flaws", (png(number, 28),), ("a flaw",), "captions", f"i{number}", "sha:g")


def start_model(folder: Path) -> Path:
    model = folder / "theta0"
    model.mkdir(exist_ok=True)
    save_file({"w": np.zeros((2, 3), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text('{"model_type": "fake"}', "utf-8")
    return model


def train(folder: Path, settings: GrpoSettings = SETTINGS, **trainer: Any) -> tuple[GrpoResult, list[int]]:
    seen: list[int] = []

    def on_step(step: StepMetrics) -> None:
        seen.append(step.step)

    engine = VerlSettings(rollout="hf_cpu", workers=1, stall_seconds=30)
    made = run.VerlTrainer(engine, VerlHardware(device="cpu"), "smallworld", "cpu", **trainer)
    result = made(
        start_model(folder),
        RlDataset([sample(i) for i in range(5)]),
        RlDataset([sample(i) for i in range(10, 13)]),
        settings,
        folder / "work",
        on_step=on_step,
        evaluate=None,
    )
    return result, seen


def faults(monkeypatch: pytest.MonkeyPatch, *planned: tuple[str, int]) -> None:
    monkeypatch.setenv("FAKE_VERL", json.dumps([{"fault": kind, "at": at} for kind, at in planned]))


def starts(folder: Path) -> list[int]:
    """The checkpoint that each start of verl went on from."""
    found: list[int] = json.loads((folder / "work" / "fake-starts.json").read_text("utf-8"))
    return found


def weight(result: GrpoResult) -> float:
    return float(load_file(result.model_dir / "model.safetensors")["w"][0, 0])


def test_every_step_is_recorded_and_the_best_ones_weights_are_the_model(
    tmp_path: Path, server: FakeRewardServer
) -> None:
    result, seen = train(tmp_path)
    assert seen == [1, 2, 3, 4, 5, 6]
    scores = {int(row["step"]): row["held_out/reward"] for row in result.history if "held_out/reward" in row}
    assert sorted(scores) == [2, 4, 6]
    assert result.best_step == max(scores, key=lambda s: scores[s])
    assert weight(result) == result.best_step
    assert (result.model_dir / "config.json").read_text("utf-8") == '{"model_type": "fake"}'
    rows = [json.loads(line) for line in (tmp_path / "work" / "rollouts.jsonl").open(encoding="utf-8")]
    assert len(rows) == 6 * 2 * 3
    assert {row["sample_id"] for row in rows} <= {f"s{i}" for i in range(5)}
    assert {row["generator"] for row in rows} == {"sha:g"}
    assert {"reward", "advantage", "recall", "items", "format", "correct", "finished", "ground_truth"} <= rows[0].keys()


def test_a_finished_run_is_not_started_again(tmp_path: Path, server: FakeRewardServer) -> None:
    first, _ = train(tmp_path)
    second, seen = train(tmp_path)
    assert (seen, starts(tmp_path)) == ([], [0])
    assert second.history == first.history


@pytest.mark.parametrize(
    ("fault", "resumed"),
    [
        (("die", 5), 4),  # a worker is lost
        (("unlogged", 4), 2),  # killed between checkpoint and log: the step would be missing for ever
        (("shard", 4), 2),  # a shard of the newest checkpoint is not there
        (("leave", 3), 2),  # status 0, but the steps are not there
    ],
)
def test_a_run_that_ended_early_goes_on_from_its_last_good_checkpoint(
    tmp_path: Path,
    server: FakeRewardServer,
    monkeypatch: pytest.MonkeyPatch,
    fault: tuple[str, int],
    resumed: int,
) -> None:
    faults(monkeypatch, fault)
    if fault[0] == "shard":
        with pytest.raises(StageError, match=r"checkpoint of step 4 lacks .*optim_world_size_1_rank_0"):
            train(tmp_path)
    result, seen = train(tmp_path)
    assert starts(tmp_path) == [0, resumed]
    assert seen[-(6 - resumed) :] == list(range(resumed + 1, 7))
    assert [row["step"] for row in result.history] == [1, 2, 3, 4, 5, 6]
    (tmp_path / "other").mkdir()
    monkeypatch.delenv("FAKE_VERL")
    undisturbed, _ = train(tmp_path / "other")
    assert (result.best_step, weight(result)) == (undisturbed.best_step, weight(undisturbed))
    assert result.history == undisturbed.history


def test_a_shard_that_vanished_costs_one_save_interval(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("nan", 5))
    with pytest.raises(StageError):
        train(tmp_path)
    (tmp_path / "work/checkpoints/global_step_4/actor/model_world_size_1_rank_0.pt").unlink()
    result, _ = train(tmp_path)
    assert starts(tmp_path) == [0, 2]
    assert len(result.history) == 6


def test_a_resume_that_would_take_no_step_takes_none_and_is_no_failure(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "export_model", die)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    result, seen = train(tmp_path)
    assert (seen, starts(tmp_path)) == ([], [0])
    assert len(result.history) == 6


def test_twice_without_a_new_checkpoint_is_a_failure_that_says_why(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("die", 3), ("die", 3), ("die", 4))
    with pytest.raises(StageError, match=r"status 1 at step 3 of 6 .*from step 2\): .*ActorDiedError"):
        train(tmp_path)
    assert starts(tmp_path) == [0, 2, 2]


def test_a_step_whose_loss_is_not_finite_ends_the_run_and_keeps_the_checkpoint_before(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("nan", 4))
    with pytest.raises(StageError, match=r"step 4: the policy diverged \(loss nan\)"):
        train(tmp_path)
    assert (tmp_path / "work/checkpoints/global_step_4").is_dir()
    _, seen = train(tmp_path)
    assert starts(tmp_path) == [0, 2]
    assert seen == [3, 4, 5, 6]


def test_equal_rewards_everywhere_end_the_run(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("equal", 0))
    with pytest.raises(StageError, match="same reward for 3 steps"):
        train(tmp_path)


def test_an_output_that_is_missing_ends_the_run(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("missing", 3))
    with pytest.raises(StageError, match="recorded 5 of 6 outputs"):
        train(tmp_path)


def test_a_full_disk_is_told_and_costs_no_checkpoint(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("full", 4))
    with pytest.raises(StoreError, match="the disk is full"):
        train(tmp_path)
    result, _ = train(tmp_path)
    assert starts(tmp_path) == [0, 2]
    assert len(result.history) == 6


def test_a_run_that_stands_still_leaves_its_stacks_and_goes_on(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults(monkeypatch, ("stall", 3))
    kept: list[str] = []
    monkeypatch.setattr(run, "verdict", _impatient(run.verdict))
    result, _ = train(tmp_path, on_stall=lambda folder: kept.extend(p.read_text("utf-8") for p in folder.iterdir()))
    assert any("verl.trainer.main_ppo" in text for text in kept)
    assert starts(tmp_path) == [0, 2]
    assert len(result.history) == 6


def _impatient(verdict: Any) -> Any:
    return lambda signs, _: verdict(signs, 3.0)


def test_a_reward_service_that_died_is_started_again_and_the_run_goes_on(
    tmp_path: Path, server: FakeRewardServer
) -> None:
    server.dead = True
    result, _ = train(tmp_path)
    assert (server.restarts, starts(tmp_path), len(result.history)) == (1, [0], 6)


def test_nothing_that_verl_started_outlives_it(tmp_path: Path, server: FakeRewardServer) -> None:
    with pytest.raises(RuntimeError, match="stop"):
        _stop_in_the_middle(tmp_path)
    assert process.marked(process.mark_of(tmp_path / "work")) == []


def _stop_in_the_middle(folder: Path) -> None:
    def stop(_: StepMetrics) -> None:
        raise RuntimeError("stop")

    trainer = run.VerlTrainer(VerlSettings(workers=1), VerlHardware(device="cpu"), "smallworld", "cpu")
    data = RlDataset([sample(i) for i in range(5)])
    trainer(start_model(folder), data, data, SETTINGS, folder / "work", on_step=stop, evaluate=None)


def test_what_it_cannot_select_by_is_told(tmp_path: Path, server: FakeRewardServer) -> None:
    from dataclasses import replace

    with pytest.raises(SpecError, match="held-out perception"):
        train(tmp_path, replace(SETTINGS, select="heldOutPerception"))


def test_an_environment_without_verl_is_told(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_spec", lambda _: None)
    with pytest.raises(SpecError, match="verl is not installed"):
        train(tmp_path)


def test_another_runs_directory_is_refused(tmp_path: Path, server: FakeRewardServer) -> None:
    from dataclasses import replace

    train(tmp_path)
    with pytest.raises(StageError, match="other settings"):
        train(tmp_path, replace(SETTINGS, learning_rate=1e-3))


def test_without_mlflow_the_stage_is_not_done_and_nothing_is_trained_twice(
    tmp_path: Path, server: FakeRewardServer
) -> None:
    down, trained = True, start_model(tmp_path)
    sent: list[int] = []

    def send(rows: Sequence[Mapping[str, float]]) -> None:
        if down:
            raise RegistryError("MLflow is down")
        sent.extend(int(row["step"]) for row in rows)

    def attempt() -> Manifest | None:
        theta0 = ResolvedModel(uri=trained.as_uri(), digest=directory_digest(trained))
        engines = dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "fake")
        ctx = open_stage(
            open_store(tmp_path / "store"),
            tmp_path / "stage",
            TRAIN_CAPTIONS,
            theta0,
            engines={**engines, "trainer": "verl"},
        )
        ctx.recorder = lambda manifest: send(curves(ctx, manifest))
        made = run.VerlTrainer(VerlSettings(workers=1), VerlHardware(device="cpu"), "smallworld", "cpu")
        return stage_train(ctx, lambda: Tools(made, Verified(), None, send, "global_step_{}"))

    with pytest.raises(RegistryError):
        attempt()
    down = False
    manifest = attempt()
    assert manifest is not None
    assert (manifest.outputs["steps"], sent) == (5, [1, 2, 3, 4, 5])
    assert manifest.outputs["samples"] == {"train": 14, "held_out": 4}


def curves(ctx: StageContext, manifest: Manifest) -> list[dict[str, float]]:
    return [json.loads(line) for line in ctx.store.get(f"{ctx.prefix}/{manifest.outputs['curves']}").splitlines()]


def test_the_newest_checkpoint_survives_the_machine(
    tmp_path: Path, server: FakeRewardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    mirror = StoreMirror(store, "stage", tmp_path / "work", "global_step_{}")
    faults(monkeypatch, ("nan", 5))
    with pytest.raises(StageError):
        train(tmp_path)
    mirror.save()
    steps = {key.split("/")[2] for key in (info.key for info in store.list("stage/checkpoints/"))}
    assert [name[:7] for name in steps] == ["000004-"]
    (tmp_path / "other").mkdir()
    monkeypatch.delenv("FAKE_VERL")
    (tmp_path / "other" / "work").mkdir()
    assert StoreMirror(store, "stage", tmp_path / "other" / "work", "global_step_{}").restore() == 4
    result, seen = train(tmp_path / "other")
    assert (seen, starts(tmp_path / "other")) == ([5, 6], [4])
    assert [row["step"] for row in result.history] == [1, 2, 3, 4, 5, 6]
