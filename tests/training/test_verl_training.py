"""The real trainer, without a GPU: a stage program in verl's environment takes GRPO steps with the reward service."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from training_fakes import png
from verl_jobs import STEPS, TRAINING, Job, completed, lines, points, stage

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.slow]

from viper.engines.base import Sampling, VlmRequest  # noqa: E402
from viper.engines.transformers_vlm import TransformersVlm  # noqa: E402
from viper.models import resolve_model  # noqa: E402
from viper.spec.stages import TRAIN_CAPTIONS  # noqa: E402
from viper.training.verl import checkpoints  # noqa: E402


def test_captions_killed_in_the_middle_with_a_damaged_checkpoint_end_in_the_next_generator(tmp_path: Path) -> None:
    ctx = stage(tmp_path, TRAIN_CAPTIONS, {"captions": {"training": TRAINING}})
    first = Job(ctx)
    first.until("step:3 -")
    first.kill()
    root = first.work_dir / "checkpoints"
    folders = {step: checkpoints.step_dir(root, step) for step in checkpoints.steps(root)}
    good = [step for step, folder in folders.items() if (folder / checkpoints.STATE).is_file()]
    assert len(good) == 2
    (folders[good[-1]] / "actor" / "model_world_size_1_rank_0.pt").unlink()

    second = Job(ctx)
    manifest = completed(ctx, second)
    assert any(f"Resuming from {folders[good[0]]}" in line for line in second.printed)
    outputs = manifest.outputs
    assert (outputs["steps"], outputs["samples"]) == (STEPS, {"train": 14, "held_out": 4})
    curves = lines(ctx, "curves.jsonl")
    assert [row["step"] for row in curves] == [1, 2, 3, 4]
    assert all("held_out/reward" in row for row in curves)
    assert any(row["grad_norm"] > 0 for row in curves)
    assert outputs["model"]["digest"] != ctx.frozen.generator.digest
    rollouts = lines(ctx, "rollouts/00000.jsonl")
    assert len(rollouts) == STEPS * 4 * 3
    assert {row["generator"] for row in rollouts} == {"sha256:0"}
    assert {row["sample_id"] for row in rollouts} <= {f"sample-{i}" for i in range(20)}
    assert points(ctx) == [1, 2, 3, 4]

    model = resolve_model(outputs["model"]["uri"], ctx.store)
    assert model.digest == outputs["model"]["digest"]
    engine = TransformersVlm(Path(model.uri.removeprefix("file://")))
    picture = Image.open(io.BytesIO(png(1)))
    assert engine.generate([VlmRequest((picture,), "Describe the image.")], Sampling(max_tokens=8))[0].text
