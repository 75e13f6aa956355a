"""The recipe in verl's words: every key that verl 0.9.1 is given, and the arguments of `verl.trainer.main_ppo`.

Pure. docs/verl.md has the table from paper to recipe to key; tests/training/test_verl_configuration.py reads the
numbers back out of verl's own resolved configuration, and fails for a key that verl does not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from viper.errors import SpecError
from viper.words import plural

if TYPE_CHECKING:
    from viper.spec.engines import VerlSettings
    from viper.training.settings import GrpoSettings

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"

#: A bound on the ratio that is never met: verl clamps |log ratio| to 20, and e²⁰ < 1e9.
NO_DUAL_CLIP: Final = 1e9
#: Keys that verl reads but whose YAML does not have them: Hydra wants a plus sign before these.
ADDED: Final = (
    "actor_rollout_ref.actor.fsdp_config.mixed_precision",
    "actor_rollout_ref.model.override_config.attn_implementation",
    "ray_kwargs.ray_init.address",
    "ray_kwargs.ray_init.include_dashboard",
    "ray_kwargs.ray_init.num_gpus",
    "reward.custom_reward_function.reward_kwargs",
    "trainer.v1.sampler.sampler_kwargs.folder",
    "trainer.v1.sampler.sampler_kwargs.group_size",
    "trainer.v1.sampler.sampler_kwargs.model",
)
#: Ray counts as many processors where verl trains on them: its actors ask for more than small machines have.
_CPU_SLOTS = 16
#: `main_ppo` takes these without a word and reads none of them (other entry points and engines do).
_IGNORED = (
    "custom_reward_function.",
    "reward_model.",
    "sandbox_fusion.",
    "actor_rollout_ref.actor.grad_clip",
    "trainer.balance_batch",
)


@dataclass(frozen=True)
class VerlPaths:
    """Where a run of verl reads and writes.

    Args:
        model: directory of the model the run starts from.
        train, held_out: parquet files in verl's schema (`viper.training.verl.parquet`).
        checkpoints: verl writes `global_step_N/` under it and continues from the newest.
        sampled: what was sampled, by step (`viper.training.verl.sampler`).
        reward_url: of the reward service.
    """

    model: Path
    train: Path
    held_out: Path
    checkpoints: Path
    sampled: Path
    reward_url: str


@dataclass(frozen=True)
class VerlHardware:
    """`gpus_per_node` processes on each of `nodes` nodes train; `device` is `cuda`, or `cpu` with a plug-in of verl's.

    `ray_address` names a Ray cluster that is there already; without it verl starts one on this node.
    """

    nodes: int = 1
    gpus_per_node: int = 1
    device: str = "cuda"
    ray_address: str | None = None

    @property
    def processes(self) -> int:
        """Processes that share a mini-batch."""
        return self.nodes * self.gpus_per_node


def verl_config(
    settings: GrpoSettings,
    paths: VerlPaths,
    hardware: VerlHardware,
    engine: VerlSettings,
    *,
    steps: int,
    validate: bool = False,
    validate_first: bool = False,
) -> dict[str, Value]:
    """verl's keys (dotted) and their values for one stage.

    The rows of `paths.train` are those of `steps` batches in the order in which they are to be taken.

    Args:
        steps: batches of rollouts.
        validate: measure the held-out rows, greedily, at every checkpoint.
        validate_first: and before the first step.

    Raises:
        SpecError: sizes that verl cannot divide among the processes, or an override that contradicts the specification.
    """
    config: dict[str, Value] = {
        **_data(settings, paths, engine),
        **_actor(settings, paths, hardware, engine),
        **_rollout(settings, hardware, engine),
        **_reward(paths, engine),
        **_trainer(settings, paths, hardware),
        "trainer.total_training_steps": steps,
        "trainer.test_freq": settings.save_every if validate else -1,
        "trainer.val_before_train": validate_first,
    }
    for key, text in engine.overrides.items():
        _check_override(key, config)
        config[key] = Override(text)
    return config


def arguments(config: Mapping[str, Value]) -> list[str]:
    """Hydra's overrides for a configuration, one argument each; strings are quoted.

    Raises:
        SpecError: a string that Hydra would take for an interpolation.
    """
    return [f"{'+' if key in ADDED else ''}{key}={_text(value, key)}" for key, value in config.items()]


class Override(str):
    """A value in Hydra's own words, passed on as it is."""

    __slots__ = ()


def micro_batch(outputs: int, limit: int) -> int:
    """The largest divisor of `outputs` up to `limit`: verl wants passes of equal size, and size is memory only."""
    return max(d for d in range(1, min(outputs, limit) + 1) if outputs % d == 0)


def _data(s: GrpoSettings, paths: VerlPaths, engine: VerlSettings) -> dict[str, Value]:
    return {
        "data.train_files": str(paths.train),
        "data.val_files": str(paths.held_out),
        "data.train_batch_size": s.batch_prompts,
        "data.max_prompt_length": s.max_prompt_tokens,
        "data.shuffle": False,  # the file has the order
        "data.validation_shuffle": False,
        "data.filter_overlong_prompts": False,  # a prompt that is too long is an error, never a sample less
        "data.truncation": "error",
        "data.image_patch_size": None,  # the processor's own; verl's default of 14 resizes other models' images
        "data.dataloader_num_workers": 0 if engine.workers == 1 else engine.workers,
    }


def _actor(s: GrpoSettings, paths: VerlPaths, hardware: VerlHardware, engine: VerlSettings) -> dict[str, Value]:
    outputs = s.mini_batch_prompts * s.group_size
    if outputs % hardware.processes or (s.batch_prompts * s.group_size) % hardware.processes:
        raise SpecError(
            f"{plural(outputs, 'output')} per optimiser step cannot be divided among {hardware.processes} processes",
            where="spec.recipe.*.training.miniBatchPrompts",
            fix="choose miniBatchPrompts × groupSize as a multiple of nodes × gpus",
        )
    passes = micro_batch(outputs // hardware.processes, s.micro_batch)
    actor, fsdp = "actor_rollout_ref.actor.", "actor_rollout_ref.actor.fsdp_config."
    model, optimizer = "actor_rollout_ref.model.", "actor_rollout_ref.actor.optim."
    short = {"bfloat16": "bf16", "float32": "fp32"}[engine.dtype]
    compiled = hardware.device != "cpu"
    sizes: dict[str, Value] = {f"{actor}ppo_micro_batch_size_per_gpu": passes, f"{actor}use_dynamic_bsz": False}
    if engine.tokens_per_gpu is not None:
        sizes = {f"{actor}ppo_max_token_len_per_gpu": engine.tokens_per_gpu, f"{actor}use_dynamic_bsz": True}
    return {
        f"{model}path": str(paths.model),
        f"{model}trust_remote_code": False,
        f"{model}enable_gradient_checkpointing": engine.gradient_checkpointing,
        f"{model}use_remove_padding": engine.attention == "flash_attention_2",
        f"{model}override_config.attn_implementation": engine.attention,
        f"{actor}strategy": engine.strategy,
        f"{fsdp}strategy": engine.strategy,
        f"{fsdp}model_dtype": "fp32",
        f"{fsdp}dtype": engine.dtype,
        f"{fsdp}mixed_precision": {"param_dtype": short, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        f"{fsdp}param_offload": engine.param_offload,
        f"{fsdp}optimizer_offload": engine.optimizer_offload,
        f"{fsdp}use_torch_compile": compiled,
        f"{fsdp}seed": s.seed,
        f"{actor}use_torch_compile": compiled,
        # Equation 8: mean over outputs of each output's token mean, decoupled clip, no KL, no entropy bonus.
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": True,
        "algorithm.use_kl_in_reward": False,
        "algorithm.filter_groups.enable": False,
        f"{actor}policy_loss.loss_mode": "vanilla",
        f"{actor}loss_agg_mode": "seq-mean-token-mean",
        f"{actor}clip_ratio": s.clip_low,
        f"{actor}clip_ratio_low": s.clip_low,
        f"{actor}clip_ratio_high": s.clip_high,
        f"{actor}clip_ratio_c": NO_DUAL_CLIP if engine.dual_clip is None else engine.dual_clip,
        f"{actor}use_kl_loss": False,
        f"{actor}entropy_coeff": 0,
        f"{actor}ppo_mini_batch_size": s.mini_batch_prompts,
        f"{actor}ppo_epochs": 1,
        f"{actor}shuffle": False,
        **sizes,
        f"{optimizer}optimizer": "AdamW",
        f"{optimizer}lr": s.learning_rate,
        f"{optimizer}lr_scheduler_type": "constant",
        f"{optimizer}lr_warmup_steps": s.warmup_steps,
        f"{optimizer}lr_warmup_steps_ratio": 0.0,
        f"{optimizer}weight_decay": s.weight_decay,
        f"{optimizer}clip_grad": s.max_grad_norm,
        # `hf_model`: the whole model as safetensors beside the shards, so that any checkpoint can be taken as it is.
        f"{actor}checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
        f"{actor}checkpoint.load_contents": ["model", "optimizer", "extra"],
    }


def _rollout(s: GrpoSettings, hardware: VerlHardware, engine: VerlSettings) -> dict[str, Value]:
    rollout = "actor_rollout_ref.rollout."
    longest = s.max_prompt_tokens + s.max_response_tokens
    sizes: dict[str, Value] = {
        f"{rollout}log_prob_micro_batch_size_per_gpu": micro_batch(
            s.batch_prompts * s.group_size // hardware.processes, s.micro_batch
        )
    }
    if engine.tokens_per_gpu is not None:
        sizes = {f"{rollout}log_prob_max_token_len_per_gpu": engine.tokens_per_gpu}
    return {
        f"{rollout}name": engine.rollout,
        f"{rollout}n": s.group_size,
        f"{rollout}temperature": s.temperature,
        f"{rollout}top_p": 1.0,
        f"{rollout}top_k": -1,
        f"{rollout}seed": s.seed,
        f"{rollout}prompt_length": s.max_prompt_tokens,
        f"{rollout}response_length": s.max_response_tokens,
        f"{rollout}max_model_len": longest,
        f"{rollout}max_num_batched_tokens": max(8192, longest),
        f"{rollout}dtype": engine.dtype,
        f"{rollout}gpu_memory_utilization": engine.rollout_memory_share,
        f"{rollout}tensor_model_parallel_size": engine.rollout_tensor_parallel,
        f"{rollout}free_cache_engine": hardware.device != "cpu",
        f"{rollout}agent.num_workers": engine.workers,
        f"{rollout}val_kwargs.do_sample": False,
        f"{rollout}val_kwargs.temperature": 0,
        f"{rollout}val_kwargs.n": 1,
        **sizes,
    }


def _reward(paths: VerlPaths, engine: VerlSettings) -> dict[str, Value]:
    ours = "pkg://viper.training.verl."
    return {
        "reward.num_workers": engine.workers,
        "reward.custom_reward_function.path": f"{ours}reward_function",
        "reward.custom_reward_function.name": "compute_score",
        "reward.custom_reward_function.reward_kwargs": {"url": paths.reward_url},
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.name": "FinishedRewardManager",
        "reward.reward_manager.module.path": f"{ours}reward_manager",
        "reward.reward_model.enable": False,
    }


def _trainer(s: GrpoSettings, paths: VerlPaths, hardware: VerlHardware) -> dict[str, Value]:
    sampler, init = "trainer.v1.sampler.", "ray_kwargs.ray_init."
    # Without an address Ray would join whatever cluster this machine last started, alive or not.
    ray: dict[str, Value] = {f"{init}address": hardware.ray_address or "local"}
    if hardware.ray_address is None:
        ray[f"{init}include_dashboard"] = False
        if hardware.device == "cpu":
            ray |= {f"{init}num_cpus": _CPU_SLOTS, f"{init}num_gpus": hardware.gpus_per_node}
    if hardware.device == "cpu":
        ray["transfer_queue.backend.SimpleStorage.num_data_storage_units"] = 1
    return {
        "trainer.device": hardware.device,
        "trainer.nnodes": hardware.nodes,
        "trainer.n_gpus_per_node": hardware.gpus_per_node,
        "trainer.use_v1": True,
        "trainer.v1.trainer_mode": "sync",
        "trainer.logger": ["console", "file"],
        "trainer.project_name": "viper",
        "trainer.experiment_name": paths.checkpoints.parent.name,
        "trainer.total_epochs": 1,
        "trainer.save_freq": s.save_every,
        "trainer.resume_mode": "auto",
        "trainer.default_local_dir": str(paths.checkpoints),
        "trainer.max_actor_ckpt_to_keep": None,  # pruned by viper: verl forgets what it wrote before a restart
        "trainer.critic_warmup": 0,
        # A batch that lacks an output ends the run; verl would pad it and go on.
        f"{sampler}custom_sampler.path": "pkg://viper.training.verl.sampler",
        f"{sampler}custom_sampler.name": "CompleteGroups",
        f"{sampler}sampler_kwargs.model": str(paths.model),
        f"{sampler}sampler_kwargs.folder": str(paths.sampled),
        f"{sampler}sampler_kwargs.group_size": s.group_size,
        "hydra.run.dir": str(paths.checkpoints.parent / "hydra"),
        "hydra.output_subdir": None,
        **ray,
    }


def _check_override(key: str, config: Mapping[str, Value]) -> None:
    plain = key.lstrip("+")
    where = f"spec.engines.training.overrides[{key}]"
    decided = [known for known in config if _overlap(plain, known)]
    if decided:
        raise SpecError(
            f"{decided[0]} is decided by the specification",
            where=where,
            fix="change the recipe's or the engine's field instead (docs/verl.md has the table)",
        )
    if plain.startswith(_IGNORED):
        raise SpecError("verl takes this key and ignores it", where=where, fix="see docs/verl.md for the one it reads")
    if not plain or not all(part.isidentifier() for part in plain.split(".")):
        raise SpecError("this is no key of verl's configuration", where=where, fix="write it with dots: a.b.c")
    if plain in known_keys():
        if key.startswith("+") and not key.startswith("++"):
            raise SpecError("verl's configuration has this key already", where=where, fix="leave out the plus sign")
    elif not key.startswith("+"):
        near = get_close_matches(plain, known_keys(), 1)
        raise SpecError(
            "verl's configuration does not have this key",
            where=where,
            fix=f"{f'did you mean {near[0]}? ' if near else ''}a key that only verl's code knows takes a plus sign",
        )


@cache
def known_keys() -> frozenset[str]:
    """The keys of verl's own configuration, and the sections that they lie in (tests/training/verl_resolve.py)."""
    keys = resources.files(__package__).joinpath("keys.txt").read_text("utf-8").split()
    return frozenset(key.rsplit(".", depth)[0] for key in keys for depth in range(key.count(".") + 1))


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _text(value: Value, key: str) -> str:
    if isinstance(value, Override):
        return str(value)
    if isinstance(value, str):
        return _quoted(value, key)
    if isinstance(value, list):
        return f"[{','.join(_text(v, key) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{_text(v, key)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def _quoted(text: str, key: str) -> str:
    r"""A quoted value of Hydra's grammar: `\'` stands for a quote, and backslashes double where a quote follows."""
    if "${" in text:
        raise SpecError("Hydra would take ${ for an interpolation", where=f"{key}: {text}", fix="use another name")
    made, backslashes = [], 0
    for character in text:
        if character == "'":
            made.append("\\" * (backslashes + 1))
        made.append(character)
        backslashes = backslashes + 1 if character == "\\" else 0
    return "'" + "".join(made) + "\\" * backslashes + "'"
