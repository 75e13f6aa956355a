"""What viper gives verl, and what verl makes of it: every number of the paper's table of training settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import viper.training.verl
from support.verl_environment import ask
from viper.errors import SpecError
from viper.methods.stages import declared
from viper.spec import ViperIteration, load_runnable
from viper.spec.engines import VerlSettings
from viper.training.settings import GrpoSettings
from viper.training.stage import grpo_settings
from viper.training.verl.config import (
    Value,
    VerlHardware,
    VerlPaths,
    arguments,
    known_keys,
    micro_batch,
    verl_config,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "qwen-viper-7b.yaml"
A100 = VerlHardware(nodes=1, gpus_per_node=8)
PATHS = VerlPaths(
    model=Path("/models/θ0, 'quoted' \\"),
    train=Path("/work/data with spaces/train.parquet"),
    held_out=Path("/work/a=b/[held]{out}.parquet"),
    checkpoints=Path("/work/checkpoints"),
    sampled=Path("/work/sampled"),
    reward_url="http://127.0.0.1:8000",
)
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
#: arXiv 2510.24285, training table and section on policy optimisation; DAPO's ε, which the paper does not print.
TABLE_3 = {
    "data.train_batch_size": 128,
    f"{ACTOR}.ppo_mini_batch_size": 64,
    f"{ACTOR}.ppo_micro_batch_size_per_gpu": 4,
    f"{ROLLOUT}.n": 5,
    f"{ROLLOUT}.temperature": 1.0,
    f"{ROLLOUT}.prompt_length": 10240,
    "data.max_prompt_length": 10240,
    f"{ROLLOUT}.response_length": 4096,
    f"{ACTOR}.optim.lr": 1e-6,
    f"{ACTOR}.use_kl_loss": False,
    "algorithm.use_kl_in_reward": False,
    "algorithm.adv_estimator": "grpo",
    "algorithm.norm_adv_by_std_in_grpo": True,
    f"{ACTOR}.loss_agg_mode": "seq-mean-token-mean",
    f"{ACTOR}.policy_loss.loss_mode": "vanilla",
    f"{ACTOR}.clip_ratio_low": 0.2,
    f"{ACTOR}.clip_ratio_high": 0.28,
    f"{ACTOR}.entropy_coeff": 0,
    "trainer.nnodes": 1,
    "trainer.n_gpus_per_node": 8,
}


def paper() -> ViperIteration:
    resource = load_runnable(EXAMPLE)
    assert isinstance(resource, ViperIteration)
    return resource


def config_of(
    settings: GrpoSettings | None = None, hardware: VerlHardware = A100, engine: VerlSettings | None = None
) -> dict[str, Value]:
    return verl_config(settings or GrpoSettings(), PATHS, hardware, engine or VerlSettings(), steps=300)


@pytest.fixture(scope="module", params=["train-captions", "train-operations"])
def answer(request: pytest.FixtureRequest) -> Any:
    """What verl resolves for a stage of the example."""
    spec = paper().spec
    config = verl_config(grpo_settings(spec, declared(request.param)), PATHS, A100, spec.engines.training, steps=300)
    return ask("verl_resolve.py", {"arguments": arguments(config), "validate": True})


@pytest.mark.slow
def test_verl_resolves_every_number_of_the_papers_table(answer: Any) -> None:
    assert {key: answer["resolved"][key] for key in TABLE_3} == TABLE_3


@pytest.mark.slow
def test_verl_reads_every_key_that_it_is_given(answer: Any) -> None:
    assert answer["unread"] == []


@pytest.mark.slow
def test_names_reach_verl_as_they_are(answer: Any) -> None:
    found = answer["resolved"]
    assert found["actor_rollout_ref.model.path"] == str(PATHS.model)
    assert found["data.train_files"] == str(PATHS.train)
    assert found["data.val_files"] == str(PATHS.held_out)
    assert found["reward.custom_reward_function.reward_kwargs.url"] == PATHS.reward_url


@pytest.mark.slow
def test_keys_that_verl_takes_and_ignores_are_noticed() -> None:
    ignored = {
        "custom_reward_function.path": "/reward.py",
        "reward_model.enable": False,
        "actor_rollout_ref.actor.grad_clip": 1.0,
        "trainer.balance_batch": False,
    }
    given = arguments({"actor_rollout_ref.rollout.name": "vllm", **ignored})
    assert ask("verl_resolve.py", {"arguments": given})["unread"] == list(ignored)


@pytest.mark.slow
def test_every_setting_of_the_engine_reaches_a_key_that_verl_reads() -> None:
    engine = VerlSettings(
        strategy="fsdp",
        dtype="float32",
        param_offload=True,
        optimizer_offload=True,
        gradient_checkpointing=False,
        attention="flash_attention_2",
        tokens_per_gpu=20000,
        rollout="sglang",
        rollout_memory_share=0.7,
        rollout_tensor_parallel=2,
        workers=3,
        dual_clip=None,
        overrides={"data.return_raw_chat": "True", "+ray_kwargs.ray_init._temp_dir": "/tmp/r"},
    )
    hardware = VerlHardware(nodes=2, gpus_per_node=4, ray_address="auto")
    found = ask("verl_resolve.py", {"arguments": arguments(config_of(None, hardware, engine))})
    assert found["unread"] == []
    wanted = {
        f"{ACTOR}.strategy": "fsdp",
        f"{ACTOR}.fsdp_config.mixed_precision.param_dtype": "fp32",
        f"{ACTOR}.fsdp_config.param_offload": True,
        f"{ACTOR}.fsdp_config.optimizer_offload": True,
        "actor_rollout_ref.model.enable_gradient_checkpointing": False,
        "actor_rollout_ref.model.override_config.attn_implementation": "flash_attention_2",
        "actor_rollout_ref.model.use_remove_padding": True,
        f"{ACTOR}.use_dynamic_bsz": True,
        f"{ACTOR}.ppo_max_token_len_per_gpu": 20000,
        f"{ROLLOUT}.log_prob_max_token_len_per_gpu": 20000,
        f"{ROLLOUT}.log_prob_use_dynamic_bsz": True,
        f"{ROLLOUT}.name": "sglang",
        f"{ROLLOUT}.gpu_memory_utilization": 0.7,
        f"{ROLLOUT}.tensor_model_parallel_size": 2,
        f"{ROLLOUT}.agent.num_workers": 3,
        f"{ACTOR}.clip_ratio_c": 1e9,
        "trainer.nnodes": 2,
        "ray_kwargs.ray_init.address": "auto",
        "ray_kwargs.ray_init.num_cpus": None,
        "ray_kwargs.ray_init._temp_dir": "/tmp/r",
    }
    assert {key: found["resolved"][key] for key in wanted} == wanted


@pytest.mark.slow
def test_a_key_that_verl_does_not_have_is_refused() -> None:
    config = {**config_of(), "actor_rollout_ref.actor.ppo_batch": 3}
    with pytest.raises(AssertionError, match="ppo_batch"):
        ask("verl_resolve.py", {"arguments": arguments(config)})


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("actor_rollout_ref.actor.clip_ratio_high", "decided"),
        ("+actor_rollout_ref.actor.clip_ratio_high", "decided"),
        ("actor_rollout_ref.actor.optim", "decided"),
        ("reward.custom_reward_function.reward_kwargs.url", "decided"),
        ("trainer.total_training_steps", "decided"),
        ("custom_reward_function.path", "ignores"),
        ("actor_rollout_ref.actor.grad_clip", "ignores"),
        ("--config-path", "no key"),
        ("data..x", "no key"),
        (
            "actor_rollout_ref.rollout.enable_prefix_cachin",
            r"did you mean actor_rollout_ref\.rollout\.enable_prefix_caching\?",
        ),
        ("+actor_rollout_ref.rollout.enable_prefix_caching", "leave out the plus sign"),
    ],
)
def test_an_override_may_not_contradict_or_do_nothing(key: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        config_of(engine=VerlSettings(overrides={key: "1"}))


@pytest.mark.parametrize(
    "key",
    [
        "actor_rollout_ref.rollout.enable_prefix_caching",
        "++actor_rollout_ref.rollout.enable_prefix_caching",
        "+actor_rollout_ref.rollout.engine_kwargs.vllm.swap_space",
        "actor_rollout_ref.rollout.engine_kwargs.vllm",
    ],
)
def test_other_keys_of_verls_can_be_set(key: str) -> None:
    assert str(config_of(engine=VerlSettings(overrides={key: "1"}))[key]) == "1"


@pytest.mark.slow
def test_the_list_of_keys_is_that_of_the_installed_verl() -> None:
    listed = Path(viper.training.verl.__file__).with_name("keys.txt").read_text("utf-8").split()
    assert listed == sorted(listed)
    assert set(listed) == set(ask("verl_resolve.py", {"arguments": []})["resolved"])
    assert set(listed) < known_keys()
    assert "actor_rollout_ref.rollout" in known_keys()


def test_a_name_that_hydra_would_read_is_refused() -> None:
    with pytest.raises(SpecError, match="interpolation"):
        arguments({"data.train_files": "/work/${oc.env:HOME}/x"})


def test_outputs_that_cannot_be_divided_among_the_gpus_are_refused() -> None:
    settings = replace(GrpoSettings(), mini_batch_prompts=3, batch_prompts=6, group_size=5)
    with pytest.raises(SpecError, match="8 processes"):
        config_of(settings)


def test_a_pass_has_at_most_as_many_outputs_as_the_recipe_allows_and_all_passes_are_equal() -> None:
    assert [micro_batch(40, limit) for limit in (1, 3, 4, 7, 39, 160)] == [1, 2, 4, 5, 20, 40]
    assert config_of(replace(GrpoSettings(), micro_batch=6))[f"{ACTOR}.ppo_micro_batch_size_per_gpu"] == 5


def test_verl_starts_a_ray_of_its_own_unless_it_is_told_of_one() -> None:
    def address(of: VerlHardware) -> Value:
        return config_of(hardware=of)["ray_kwargs.ray_init.address"]

    assert address(A100) == address(VerlHardware(device="cpu")) == "local"
    joined = VerlHardware(nodes=2, device="cpu", ray_address="auto")
    assert address(joined) == "auto"
    assert not any(key.startswith("ray_kwargs.ray_init.num_") for key in config_of(hardware=joined))


def test_without_held_out_samples_verl_does_not_validate() -> None:
    config = verl_config(GrpoSettings(save_every=7), PATHS, A100, VerlSettings(), steps=300)
    assert (config["trainer.test_freq"], config["trainer.val_before_train"]) == (-1, False)
    config = verl_config(
        GrpoSettings(save_every=7), PATHS, A100, VerlSettings(), steps=300, validate=True, validate_first=True
    )
    assert (config["trainer.test_freq"], config["trainer.val_before_train"]) == (7, True)
