"""What `verl.trainer.main_ppo` will be given for a training stage, as far as it is known before the data exists."""

from __future__ import annotations

from pathlib import Path

from viper.methods.stages import declared, stage_graph
from viper.spec import IterationSpec
from viper.training.stage import grpo_settings
from viper.training.verl.config import VerlHardware, VerlPaths, arguments, verl_config

#: Stands where the address of the reward service will be, and the directory of the model.
_SERVICE, _MODEL = "http://127.0.0.1:PORT", "MODEL"


def check(spec: IterationSpec) -> None:
    """Raises `SpecError` for what a training stage would refuse, so that it is told before anything is synthesised."""
    for node in (n for n in stage_graph(spec.recipe) if n.stage.distributed):
        planned_arguments(spec, node.name, Path("/"))


def planned_steps(spec: IterationSpec, stage: str) -> int | None:
    """Batches of rollouts if validation accepts the recipe's quotas and holds back their held-out share.

    None where that depends on the size of data that comes from outside.
    """
    nodes = {node.name: node for node in stage_graph(spec.recipe)}
    settings = grpo_settings(spec, nodes[stage].stage)
    quotas = [quota for source in nodes[stage].data if (quota := nodes[source].stage.quota)]
    if settings.steps is None and len(quotas) < len(nodes[stage].data):
        return None
    quota = sum(spec.value_at(path) for path in quotas)
    return settings.total_steps(round(quota * (1 - spec.recipe.validation.held_out_share)))


def planned_arguments(spec: IterationSpec, stage: str, work_dir: Path) -> list[str]:
    """The arguments, one each. `work_dir` is the stage's.

    Raises:
        SpecError: sizes that verl cannot divide among the GPUs, or an override that contradicts the specification.
    """
    resources, directory = spec.profile.of(stage), work_dir / "grpo"
    settings, held_out = grpo_settings(spec, declared(stage)), spec.recipe.validation.held_out_share > 0
    paths = VerlPaths(
        model=Path(_MODEL),
        train=directory / "data" / "train.parquet",
        held_out=directory / "data" / "held_out.parquet",
        checkpoints=directory / "checkpoints",
        sampled=directory / "sampled",
        reward_url=_SERVICE,
    )
    hardware = VerlHardware(
        nodes=resources.nodes,
        gpus_per_node=max(1, resources.gpus),
        device=spec.profile.device.partition(":")[0],
        ray_address="auto" if resources.nodes > 1 else None,
    )
    config = verl_config(
        settings,
        paths,
        hardware,
        spec.engines.training,
        steps=planned_steps(spec, stage) or 1,
        validate=held_out,
        validate_first=held_out and settings.select != "last",
    )
    return arguments(config)
