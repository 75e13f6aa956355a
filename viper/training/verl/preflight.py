"""Whether a model can be trained on this machine at all, said before GPU-hours are spent. Lower bounds, never guesses.

With P weights and N processes (FSDP, float32 weights, AdamW): a process holds 4P/N bytes of weights, 4P/N of gradients
and 8P/N of optimiser state; while sampling, the rollout engine takes its share of the GPU beside what is not offloaded,
and holds 2P/T of bfloat16 weights on T GPUs. Host memory takes what is offloaded and, on the node that converts a
checkpoint, the whole model in float32 and in bfloat16. A checkpoint has shards (4P), optimiser (8P) and model (4P).
Activations, logits and caches come on top: what passes here may still not fit, what fails here cannot.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

from viper.errors import InputError
from viper.spec.engines import VerlSettings
from viper.training.verl.checkpoints import KEPT
from viper.training.verl.config import VerlHardware

_FIX_GPU = "more GPUs, engines.training.optimizerOffload or paramOffload, or a smaller rolloutMemoryShare"


@dataclass(frozen=True)
class Machine:
    """What one node has, in bytes; None where it is not known. `gpu` is the memory of one GPU."""

    gpu: int | None
    host: int | None
    disk: int | None


UNKNOWN = Machine(None, None, None)


@dataclass(frozen=True)
class Needs:
    """Bytes that are needed at least: per GPU while updating and while sampling, per node in memory and on disk.

    `sampler` is what the rollout engine needs for weights alone, of its share `sampler_share`.
    """

    updating: int
    resident: int
    sampler: int
    host: int
    disk: int


def weights_of(model: Path) -> int:
    """Number of weights in a directory's safetensors, from their headers; 0 when there are none."""
    total = 0
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        total += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return total


def needs(weights: int, hardware: VerlHardware, engine: VerlSettings, *, candidates: bool) -> Needs:
    """The lower bounds for a model; `candidates`: a step's weights may be kept beside the checkpoints."""
    per_process, local = weights / hardware.processes, hardware.gpus_per_node
    offloaded = (4 if engine.param_offload else 0) + (8 if engine.optimizer_offload else 0)
    return Needs(
        updating=round(per_process * (8 if engine.optimizer_offload else 16)),
        resident=round(per_process * (12 - offloaded)),
        sampler=round(2 * weights / engine.rollout_tensor_parallel),
        host=round(offloaded * per_process * local + 6 * weights),
        disk=round(weights * (16 * (KEPT + 1) + (8 if candidates else 0))),
    )


def check(found: Needs, machine: Machine, share: float) -> None:
    """Raises `InputError` naming the first bound that the machine does not meet.

    Args:
        share: of a GPU's memory that the rollout engine takes.
    """
    if machine.gpu is not None:
        _at_least(found.updating, machine.gpu, "a GPU's memory while weights are updated", _FIX_GPU)
        _at_least(found.sampler, machine.gpu * share, "the rollout engine's share of a GPU for its weights", _FIX_GPU)
        sampling = found.resident + machine.gpu * share
        _at_least(sampling, machine.gpu, "a GPU's memory while outputs are sampled", _FIX_GPU)
    if machine.host is not None:
        _at_least(found.host, machine.host, "a node's memory", "more memory per node, or less offloading")
    if machine.disk is not None:
        _at_least(found.disk, machine.disk, "the work directory's disk", "a larger volume (profile workSize)")


def host_memory(root: Path = Path("/")) -> int | None:
    """Memory that this container may use, in bytes: the least of its limit and what the machine has."""
    found = []
    try:
        text = (root / "proc/meminfo").read_text("utf-8")
        found.append(int(text.split("MemTotal:", 1)[1].split()[0]) * 1024)
    except (OSError, IndexError, ValueError):
        pass
    for limit in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int((root / limit).read_text("utf-8")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(found, default=None)


def _at_least(needed: float, there: float, what: str, fix: str) -> None:
    if needed > there:
        raise InputError(
            f"this model needs at least {needed / 2**30:.1f} GiB of {what}, of which there are {there / 2**30:.1f}",
            where="spec.engines.training and the stage's profile",
            fix=fix,
        )
