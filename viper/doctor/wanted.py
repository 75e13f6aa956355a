"""What the pods of a profile get. Pure."""

from __future__ import annotations

from collections.abc import Callable

from viper.doctor.facts import Wanted
from viper.spec.pods import amount
from viper.spec.profile import Profile, StageResources

PRODUCT = "nvidia.com/gpu.product"


def wanted_by(profile: Profile, stage: str | None = None) -> Wanted:
    """The most that any stage of a profile asks for, or what one stage does."""
    pods = [profile.of(stage)] if stage else [profile.defaults, *profile.stages.values()]

    def most(value: Callable[[StageResources], float]) -> float:
        return max(map(value, pods))

    caches = [pod.model_cache for pod in pods if pod.model_cache is not None]
    return Wanted(
        device=profile.device.partition(":")[0],
        gpus=int(most(lambda pod: pod.gpus)),
        gpu_memory=int(most(lambda pod: _amount(pod.gpu_memory))),
        gpu_product=next((p.node_selector[PRODUCT] for p in pods if PRODUCT in p.node_selector), ""),
        cpus=most(lambda pod: max(pod.threads, _amount(pod.resources.requests.get("cpu")))),
        memory=int(most(lambda pod: _amount(pod.resources.requests.get("memory")))),
        shm=int(most(lambda pod: _amount(pod.shm_size))),
        work=int(most(lambda pod: _amount(pod.work_size))),
        cache_read_only=bool(caches) and all(cache.read_only for cache in caches),
    )


def _amount(quantity: str | None) -> float:
    return 0.0 if quantity is None else float(amount(quantity))
