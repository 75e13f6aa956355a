"""The GRPO stages: validated samples in, a verified model, its curves and its rollouts out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from viper.engines.names import check_trainer
from viper.errors import InputError, StageError
from viper.methods.stages import Stage
from viper.modelcache.resolve import model_dir, policy_of
from viper.prompts import PromptSet
from viper.seeds import derive
from viper.spec import IterationSpec, TrainingSettings
from viper.stage import Manifest, StageContext
from viper.training.data import RlDataset, training_data
from viper.training.live import Send
from viper.training.mirror import FOLDERS
from viper.training.publishing import (
    History,
    Verify,
    check_steps,
    following,
    forget,
    inputs_of,
    publish_curves,
    publish_model,
    trained_weights,
)
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics

ROLLOUTS = "rollouts/00000.jsonl"
_PROBES = 4


class Trainer(Protocol):
    """`viper.training.local.grpo.train_grpo` with its similarity model, or `viper.training.verl.run.VerlTrainer`."""

    def __call__(
        self,
        model_dir: Path,
        samples: RlDataset,
        held_out: RlDataset,
        settings: GrpoSettings,
        work_dir: Path,
        *,
        on_step: Callable[[StepMetrics], None],
        evaluate: Callable[[Path], float] | None,
    ) -> GrpoResult: ...


@dataclass(frozen=True)
class Tools:
    """What a GRPO stage works with besides its data.

    `checkpoints` is what the trainer calls the checkpoint of a step. `perception` measures a model directory on the
    selection questions; None unless steps are selected by it.
    `send_curves` records rows of the curves while training runs.
    """

    train: Trainer
    verify: Verify
    perception: Callable[[Path], float] | None
    send_curves: Send
    checkpoints: str = FOLDERS


def training_settings(spec: IterationSpec, stage: Stage) -> TrainingSettings:
    """What a stage trains with; raises `StageError` for one that does not say where that is set."""
    found = spec.value_at(stage.training) if stage.training else None
    if not isinstance(found, TrainingSettings):
        raise StageError(f"its settings {stage.training!r} are none of a training", where=stage.name)
    return found


def grpo_settings(spec: IterationSpec, stage: Stage) -> GrpoSettings:
    """The recipe in the trainer's words; raises `SpecError` when the trainer is not one this stage can run."""
    check_trainer(spec.engines.trainer)
    t, r = training_settings(spec, stage), spec.recipe.reward
    return GrpoSettings(
        **{name: getattr(t, name) for name in TrainingSettings.model_fields},
        tau=r.tau,
        format_weight=r.format_weight,
        correct_weight=r.correct_weight,
        seed=derive(spec.recipe.seed, stage.name) % 2**31,
        threads=spec.profile.of(stage.name).threads or None,
    )


def train(ctx: StageContext, open_tools: Callable[[], Tools]) -> Manifest | None:
    """Runs the stage. Killed at any point and run again it continues from its newest checkpoint.

    Only the first shard works (training is one process); the others return None.

    Raises:
        InputError: there is nothing to train on.
        StageError: what came out is not what was asked for: another number of steps, a model that does not load or
            does not agree with the trained weights.
    """
    if ctx.shard != 0:
        return None
    spec, node = ctx.frozen.iteration.spec, ctx.frozen.node(ctx.stage)
    settings = grpo_settings(spec, node.stage)
    data = training_data(ctx, node, PromptSet.load(spec.recipe.prompts))
    if not len(data.train):
        raise InputError("there is no sample to train on", where=f"{ctx.frozen.name}, {', '.join(node.data)}")
    start, tools, work_dir = model_dir(ctx, policy_of(ctx)), open_tools(), ctx.work_dir / "grpo"
    steps = settings.total_steps(len(data.train))
    with following(ctx, work_dir, tools.send_curves, steps, tools.checkpoints) as on_step:
        result = tools.train(
            start,
            data.train,
            data.held_out,
            settings,
            work_dir,
            on_step=on_step,
            evaluate=tools.perception,
        )
    check_steps(result.history, result.steps, steps, work_dir)
    model = publish_model(
        ctx,
        result.model_dir,
        trained_weights(start, work_dir, result.best_step, result.model_dir),
        data.train[:_PROBES],
        tokens=settings.max_prompt_tokens,
        verify=tools.verify,
    )
    curves = publish_curves(ctx, result.history)
    rollouts = None if result.rollouts is None else ctx.keep_file(ROLLOUTS, result.rollouts)
    manifest = ctx.finish(
        inputs_of(node),
        outputs={
            "model": model,
            "steps": result.steps,
            "best_step": result.best_step,
            "curves": curves,
            **({} if rollouts is None else {"rollouts": rollouts}),
            "samples": {"train": len(data.train), "held_out": len(data.held_out)},
            **_ends(result.history),
        },
    )
    forget(ctx, work_dir)
    return manifest


def _ends(history: History) -> dict[str, float]:
    """First and last reward, in training and held out."""
    found = {"first_reward": history[0]["reward/mean"], "last_reward": history[-1]["reward/mean"]}
    held_out = [row["held_out/reward"] for row in history if "held_out/reward" in row]
    return {**found, "first_held_out_reward": held_out[0], "last_held_out_reward": held_out[-1]} if held_out else found
