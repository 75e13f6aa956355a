"""The real tools of the training stages; imports the deep-learning libraries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from viper.engines import factory
from viper.errors import InputError, StoreError
from viper.evaluation.questions import load_questions
from viper.evaluation.runner import accuracy, ask
from viper.modelcache.stage import local_spec
from viper.prompts import PromptSet
from viper.registry import Registry
from viper.spec.pods import amount
from viper.spec.profile import StageResources
from viper.stage import StageContext
from viper.training.data import RlDataset
from viper.training.live import CurveRow, Send
from viper.training.local.grpo import train_grpo
from viper.training.mirror import FOLDERS
from viper.training.settings import GrpoResult, GrpoSettings, StepMetrics
from viper.training.stage import Tools, Trainer, training_settings
from viper.training.verify import verify_model
from viper.training.verl.config import VerlHardware
from viper.training.verl.preflight import Machine, host_memory

VERL_CHECKPOINTS = "global_step_{}"
SELECTION_QUESTIONS = 540
"""Most questions asked at a checkpoint when steps are selected by held-out perception (the small world has as many)."""


def grpo_tools(ctx: StageContext) -> Tools:
    """The recipe's trainer with its reward and, when steps are selected by it, perception."""
    verl = ctx.frozen.iteration.spec.engines.trainer == "verl"
    return Tools(
        train=_verl(ctx) if verl else _trl(ctx),
        verify=verify_model,
        perception=None if verl else held_out_perception(ctx),
        send_curves=live_curves(ctx),
        checkpoints=VERL_CHECKPOINTS if verl else FOLDERS,
    )


def _trl(ctx: StageContext) -> Trainer:
    similarity = factory.similarity(local_spec(ctx.frozen, "similarity"))

    def run(
        model_dir: Path,
        samples: RlDataset,
        held_out: RlDataset,
        settings: GrpoSettings,
        work_dir: Path,
        *,
        on_step: Callable[[StepMetrics], None],
        evaluate: Callable[[Path], float] | None,
    ) -> GrpoResult:
        return train_grpo(
            model_dir, samples, held_out, similarity, settings, work_dir, on_step=on_step, evaluate=evaluate
        )

    return run


def _verl(ctx: StageContext) -> Trainer:
    from viper.training.verl.run import VerlTrainer

    spec = local_spec(ctx.frozen, "similarity")
    resources = spec.profile.of(ctx.stage)

    def keep(stacks: Path) -> None:
        """Where they are found when the machine is gone."""
        with suppress(StoreError):
            for file in sorted(stacks.iterdir()):
                ctx.keep_file(f"stalls/{stacks.name}/{file.name}", file)

    return VerlTrainer(
        engine=spec.engines.training,
        hardware=VerlHardware(
            nodes=resources.nodes,
            gpus_per_node=max(1, resources.gpus),
            device=spec.profile.device.partition(":")[0],
            ray_address="auto" if "RAY_ADDRESS" in os.environ else None,
        ),
        similarity=spec.engines.similarity,
        device=spec.profile.device,
        machine=Machine(
            gpu=_gpu_memory(resources, spec.profile.device),
            host=host_memory(),
            disk=shutil.disk_usage(ctx.work_dir).free,
        ),
        on_stall=keep,
    )


def _gpu_memory(resources: StageResources, device: str) -> int | None:
    """What the profile says of one GPU, else what the device says; None without a GPU."""
    if resources.gpu_memory is not None:
        return int(amount(resources.gpu_memory))
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def held_out_perception(ctx: StageContext) -> Callable[[Path], float] | None:
    """Accuracy of a model directory on the `selection` questions (never the test questions).

    None unless the stage selects its step by it; raises `InputError` when there are no such questions.
    """
    spec = ctx.frozen.iteration.spec
    if training_settings(spec, ctx.frozen.node(ctx.stage).stage).select != "heldOutPerception":
        return None
    if not spec.evaluation.questions:
        raise InputError(
            "selecting steps by held-out perception needs questions",
            where="spec.evaluation.questions",
            fix="name a question set with selection questions, or select by heldOutReward or last",
        )
    questions = load_questions(spec.evaluation.questions, "selection", SELECTION_QUESTIONS)
    prompts = PromptSet.load(spec.recipe.prompts)

    def measure(model_dir: Path) -> float:
        vlm = factory.vision_language_model(local_spec(ctx.frozen, "vlm"), model_dir)
        settings = spec.evaluation
        return accuracy(ask(vlm, questions, prompts, max_tokens=settings.max_tokens, batch=settings.batch))

    return measure


def live_curves(ctx: StageContext) -> Send:
    """Sends rows to the stage's run in MLflow; the run is made with the first ones.

    Once another attempt has finished the stage its curve stands: no row is taken any more.
    """
    tracking = ctx.frozen.tracking

    @cache
    def run() -> tuple[Registry, str]:
        registry = Registry(tracking.uri)
        return registry, registry.stage_run(tracking.parent_run, ctx.stage)

    def send(rows: Sequence[CurveRow]) -> None:
        ctx.give_way()
        registry, number = run()
        registry.log_curve(number, rows)

    return send
