"""The real trainer loses what it stands on: its reward service in the middle of a step, then one of Ray's workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from verl_jobs import STEPS, TRAINING, Job, completed, lines, pids, points, stage

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

from viper.spec.stages import TRAIN_OPERATIONS  # noqa: E402
from viper.training.verl import process  # noqa: E402


def test_operations_lose_their_reward_service_and_a_worker_and_end_in_a_model(tmp_path: Path) -> None:
    recipe = {"stages": "operations", "operations": {"training": {**TRAINING, "select": "heldOutReward"}}}
    ctx = stage(tmp_path, TRAIN_OPERATIONS, recipe)
    job = Job(ctx)
    job.until("step:1 -")
    service = pids("viper.reward_service", parent=job.pid)
    assert len(service) == 1
    os.kill(service[0], signal.SIGKILL)
    job.until("step:2 -")
    assert pids("viper.reward_service", parent=job.pid) != service
    workers = pids("ray::WorkerDict", mark=process.mark_of(job.work_dir))
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    manifest = completed(ctx, job)
    assert any("it goes on from step" in line for line in job.printed)
    curves = lines(ctx, "curves.jsonl")
    assert [row["step"] for row in curves] == [1, 2, 3, 4]
    best, scores = manifest.outputs["best_step"], {row["step"]: row["held_out/reward"] for row in curves}
    assert best == 0 or scores[best] == max(scores.values())
    assert (manifest.outputs["model"]["digest"] == ctx.frozen.generator.digest) == (best == 0)
    assert len(lines(ctx, "rollouts/00000.jsonl")) == STEPS * 4 * 3
    assert points(ctx) == [1, 2, 3, 4]
