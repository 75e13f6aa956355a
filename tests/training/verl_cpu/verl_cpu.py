"""Lets verl train where there is no accelerator: a platform `cpu`, its FSDP engine, and a rollout that needs no vLLM.

Test support. `VERL_USE_EXTERNAL_MODULES=verl_cpu` with this directory on PYTHONPATH loads it into verl's driver and
every Ray worker before anything of verl runs; verl's files stay as they are. Ray is told that there is one GPU (or, on
each of several nodes, as many as `trainer.n_gpus_per_node`), since verl places its workers by that resource.
"""

from __future__ import annotations

import contextlib
import os
import types
from collections.abc import Iterator
from typing import Any

import torch
import verl.plugin.platform.platform_manager as platforms
import verl.utils.distributed
import verl.workers.rollout.base as rollouts
from verl.plugin.platform.platform_base import PlatformBase
from verl.workers.rollout.replica import RolloutReplicaRegistry

ROLLOUT = "hf_cpu"


def _device_module() -> types.ModuleType:
    """`torch.cpu` with the functions that verl expects of `torch.cuda`."""
    module = types.ModuleType("torch_cpu_as_device")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(module, name, getattr(torch.cpu, name))
    values: dict[str, Any] = {
        **dict.fromkeys(("empty_cache", "ipc_collect", "reset_peak_memory_stats", "set_device", "synchronize")),
        **dict.fromkeys(("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"), 0),
        "is_available": True,
        "device_count": 1,
        "current_device": "cpu",
        "get_device_name": "cpu",
        "mem_get_info": (8 << 30, 16 << 30),
    }
    for name, value in values.items():
        setattr(module, name, lambda *_, _value=value, **__: _value)
    seeding: dict[str, Any] = {
        "manual_seed": torch.manual_seed,
        "manual_seed_all": torch.manual_seed,
        "get_rng_state": lambda *_, **__: torch.get_rng_state(),
        "set_rng_state": lambda state, *_, **__: torch.set_rng_state(state),
    }
    for name, function in seeding.items():
        setattr(module, name, function)
    return module


@platforms.PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    """No accelerator, gloo between processes."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: Any) -> None: ...

    def synchronize(self, device_index: Any = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"  # `ray_kwargs.ray_init.num_gpus` says there is one

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def rollout_env_vars(self) -> dict[str, str]:
        return {}

    def get_collective_module(self) -> None:
        return None

    def cudart(self) -> None:
        return None


def _initialize_process_group(timeout_second: int | None = None, backend: str | None = None) -> None:
    """verl's own, with gloo alone: `cpu:gloo,cpu:gloo` is no backend that torch knows."""
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device=["cpu"])(
        FSDPEngineWithLMHead
    )
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo",
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )


def _replica() -> type:
    from verl_cpu_rollout import GenerateReplica

    return GenerateReplica


platforms._current_platform = CpuPlatform()
verl.utils.distributed.initialize_global_process_group_ray = _initialize_process_group
rollouts._ROLLOUT_REGISTRY[(ROLLOUT, "async")] = "verl_cpu_rollout.WeightSender"
RolloutReplicaRegistry.register(ROLLOUT, _replica)
