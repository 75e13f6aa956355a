"""Whole GRPO runs on a model of a few thousand weights: what they leave behind, and what a kill cannot change."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_qwen import SharedWords, samples

from viper.engines.base import RlSample
from viper.errors import InputError, StageError, StoreError
from viper.training.local.grpo import GrpoSettings, StepMetrics, train_grpo
from viper.training.settings import data_order

pytestmark = pytest.mark.torch

DATA = samples(10)
TRAIN, HELD_OUT = DATA[:7], DATA[7:]
SETTINGS = GrpoSettings(
    steps=5,
    batch_prompts=4,
    mini_batch_prompts=2,
    group_size=4,
    micro_batch=6,
    max_prompt_tokens=100,
    max_response_tokens=6,
    learning_rate=0.02,
    save_every=2,
    tau=0.4,
    threads=1,
)


def digest(directory: Path) -> str:
    return hashlib.sha256(b"".join(f.read_bytes() for f in sorted(directory.glob("*.safetensors")))).hexdigest()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("undisturbed")
    train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, work_dir)
    return work_dir


def same_run(first: Path, second: Path) -> bool:
    logs = ("metrics.jsonl", "rollouts.jsonl")
    return digest(first / "model") == digest(second / "model") and all(
        (first / log).read_bytes() == (second / log).read_bytes() for log in logs
    )


def test_a_run_leaves_a_changed_model_that_loads_and_one_row_per_step_and_output(
    undisturbed: Path, tiny_model: Path
) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(undisturbed / "model")
    processor = AutoProcessor.from_pretrained(undisturbed / "model")
    assert model.config.get_text_config().vocab_size == len(processor.tokenizer)
    assert digest(undisturbed / "model") != digest(tiny_model)
    metrics, rollouts = rows(undisturbed / "metrics.jsonl"), rows(undisturbed / "rollouts.jsonl")
    assert [r["step"] for r in metrics] == [1, 2, 3, 4, 5]
    assert [r["step"] for r in rollouts] == [s for s in range(1, 6) for _ in range(16)]
    order = [TRAIN[i].sample_id for i in data_order(7, 0, 20, SETTINGS.seed)]
    assert [r["sample_id"] for r in rollouts[::4]] == order
    assert [i for i, r in enumerate(metrics, 1) if "held_out/reward" in r] == [2, 4, 5]
    for i, row in enumerate(metrics):
        batch = rollouts[16 * i : 16 * i + 16]
        assert row["reward/mean"] == pytest.approx(np.mean([r["reward"] for r in batch]))
        assert row["shadow/recall"] == pytest.approx(np.mean([r["recall"] for r in batch]))
        groups = [{r["reward"] for r in batch[g : g + 4]} for g in range(0, 16, 4)]
        assert row["groups/signal"] == sum(len(g) > 1 for g in groups) / 4
        assert 0 < row["output/entropy"] < np.log(30)
        assert np.isfinite(list(row.values())).all()


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the trainer sees it."""


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_run_that_dies_after_any_step_continues_to_the_same_bits(
    undisturbed: Path, tiny_model: Path, tmp_path: Path, step: int
) -> None:
    def die(metrics: StepMetrics) -> None:
        if metrics.step == step:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, tmp_path, on_step=die)
    seen: list[int] = []
    train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, tmp_path, on_step=lambda m: seen.append(m.step))
    assert same_run(undisturbed, tmp_path)
    assert seen == list(range((step - 1) // 2 * 2 + 1, 6))  # from the last checkpoint before the death


PROGRAM = """
import sys
from pathlib import Path
from test_grpo import HELD_OUT, SETTINGS, TRAIN, SharedWords, train_grpo
train_grpo(Path(sys.argv[1]), TRAIN, HELD_OUT, SharedWords(), SETTINGS, Path(sys.argv[2]),
           on_step=lambda m: print(m.step, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signalled_process_continues_to_the_same_bits(
    undisturbed: Path, tiny_model: Path, tmp_path: Path, number: int, status: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tiny_model), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "3":
                process.send_signal(number)
        assert process.wait() == status
    done = sorted(p.name for p in (tmp_path / "checkpoints").glob("step-*"))
    assert done <= ["step-000005"]
    assert number == signal.SIGKILL or done >= ["step-000003"]  # a polite signal saves where it stopped
    train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, tmp_path)
    assert same_run(undisturbed, tmp_path)


def test_a_finished_run_is_returned_and_not_repeated(undisturbed: Path, tiny_model: Path) -> None:
    def fail(_: StepMetrics) -> None:
        raise AssertionError("a step was computed")

    result = train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, undisturbed, on_step=fail)
    assert (result.steps, result.best_step, result.model_dir) == (5, 5, undisturbed / "model")
    assert [r["step"] for r in result.history] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("what", ["settings", "samples", "model"])
def test_a_work_directory_of_another_run_is_refused(undisturbed: Path, tiny_model: Path, what: str) -> None:
    settings = replace(SETTINGS, learning_rate=0.1) if what == "settings" else SETTINGS
    train = TRAIN[1:] if what == "samples" else TRAIN
    model = undisturbed / "model" if what == "model" else tiny_model
    with pytest.raises(StageError, match="other settings, data or starting model"):
        train_grpo(model, train, HELD_OUT, SharedWords(), settings, undisturbed)


@pytest.mark.parametrize(
    ("scores", "best"), [([0.3, 0.1, 0.2], 0), ([0.1, 0.3, 0.3, 0.2], 2), ([0.1, 0.2, 0.3, 0.4], 5)]
)
def test_the_step_with_the_best_held_out_perception_is_chosen_the_start_included(
    tiny_model: Path, tmp_path: Path, scores: list[float], best: int
) -> None:
    steps = [0, 2, 4, 5][: len(scores)]
    settings = replace(SETTINGS, steps=steps[-1], select="heldOutPerception")
    measured: dict[int, str] = {}
    remaining: Iterator[float] = iter(scores)

    def evaluate(directory: Path) -> float:
        measured[steps[len(measured)]] = digest(directory)
        return next(remaining)

    result = train_grpo(tiny_model, TRAIN, [], SharedWords(), settings, tmp_path, evaluate=evaluate)
    assert result.best_step == best
    assert digest(result.model_dir) == measured[best]
    assert [r.get("held_out/perception") for r in result.history if r["step"] in steps] == scores[1:]


def test_a_resumed_selection_remembers_the_scores_before_the_kill(tiny_model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, select="heldOutPerception")
    calls: list[str] = []

    def evaluate(directory: Path) -> float:
        calls.append(directory.name)
        return {"step-000002": 1.0}.get(directory.name, 0.0)

    def die(metrics: StepMetrics) -> None:
        if metrics.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), settings, tmp_path, on_step=die, evaluate=evaluate)
    kept = digest(tmp_path / "candidates" / "step-000002")
    result = train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), settings, tmp_path, evaluate=evaluate)
    assert calls == ["step-000000", "step-000002", "step-000004", "step-000005"]
    assert result.best_step == 2
    assert digest(result.model_dir) == kept


@pytest.mark.parametrize("write", [1, 4, 7, 12])
def test_a_full_disk_is_said_and_the_run_continues_when_there_is_room(
    undisturbed: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    calls = iter(range(1, 1000))
    real = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("viper.training.local.checkpoints.os.fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, tmp_path)
    train_grpo(tiny_model, TRAIN, HELD_OUT, SharedWords(), SETTINGS, tmp_path)
    assert same_run(undisturbed, tmp_path)


class Constant:
    """Nothing is ever similar to anything."""

    engine_id = "constant"

    def embed(self, sentences: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return np.eye(len(sentences), dtype=np.float32)


def test_groups_that_are_all_equal_for_long_stop_the_run_and_say_why(tiny_model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, collapse_steps=3, format_weight=0.0)
    with pytest.raises(StageError, match=r"same reward for 3 steps \(mean 0.000\)"):
        train_grpo(tiny_model, TRAIN, [], Constant(), settings, tmp_path)
    assert len(rows(tmp_path / "metrics.jsonl")) == 3


def test_a_diverged_policy_stops_the_run_and_keeps_the_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate=1e38, save_every=1, steps=20)
    with pytest.raises(StageError, match=r"diverged|not finite"):
        train_grpo(tiny_model, TRAIN, [], SharedWords(), settings, tmp_path)


def test_micro_batches_change_rounding_only(undisturbed: Path, tiny_model: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=1, micro_batch=1)
    one = train_grpo(tiny_model, TRAIN, [], SharedWords(), settings, tmp_path).history[0]
    many = rows(undisturbed / "metrics.jsonl")[0]
    assert one == {k: pytest.approx(v, rel=1e-3, abs=1e-5) for k, v in many.items()}


@pytest.mark.parametrize(
    ("train", "change", "message"),
    [
        ([], {}, "no samples"),
        (TRAIN, {"mini_batch_prompts": 3}, "multiple"),
        (TRAIN, {"group_size": 1}, "two outputs"),
        (TRAIN, {"select": "heldOutReward"}, "held-out samples"),
        (TRAIN, {"select": "heldOutPerception"}, "evaluation"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    tmp_path: Path, train: list[RlSample], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train_grpo(tmp_path, train, [], SharedWords(), replace(SETTINGS, **change), tmp_path / "work")
