"""What `viper doctor` looks at: facts about the machine, what a profile and a file want, and what was found. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Level = Literal["ok", "warn", "fail"]
GB = 10**9
GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi names it; bytes."""

    name: str
    memory: int
    free: int


@dataclass(frozen=True)
class Volume:
    """A folder's file system; bytes. `problem`: why it could not be looked at."""

    path: str
    total: int = 0
    free: int = 0
    writable: bool = True
    problem: str = ""


@dataclass(frozen=True)
class Place:
    """A server or model that a stage reaches for. `problem`: empty when it is there. `fix`: what to do about it."""

    what: str
    where: str
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True)
class EngineMemory:
    """Planned memory of one engine in bytes; None when it does not say, `problem` when it could not be asked."""

    role: str
    engine: str
    setting: str
    bytes: int | None = None
    problem: str = ""
    fix: str = ""
    #: As in `spec.engines`, and what of `bytes` weights take; None when the engine does not say.
    interface: str = ""
    weights: int | None = None


@dataclass(frozen=True)
class MeasuredMemory:
    """The most memory of a figure of the kit (`viper.costs.device`), in bytes.

    `kept`: with what the allocator keeps beside it. `planned`: by the engine, for the same settings. `weights`: taken
    before any work. `tiny`: shapes of a trial run.
    """

    name: str
    device: str
    interface: str
    engine: str
    bytes: int
    kept: int
    weights: int = 0
    planned: int | None = None
    tiny: bool = False


@dataclass(frozen=True)
class Facts:
    """The machine or pod that this runs on.

    `nvidia_smi`: why there is no answer from it, empty when there is one. `memory`: of the pod's limit or the machine.
    `torch_cuda`: the CUDA that torch was built for, empty for none. `locked`: versions
    by name that `lock` allows.
    """

    cpus: int
    memory: int
    shm: Volume
    work: Volume
    cache: Volume
    nvidia_smi: str = ""
    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    torch_cuda: str = ""
    libraries: dict[str, str] = field(default_factory=dict)
    locked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lock: str = ""
    servers: tuple[Place, ...] = ()
    models: tuple[Place, ...] = ()
    phases: tuple[EngineMemory, ...] = ()
    measured: tuple[MeasuredMemory, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What the largest pod of a profile gets; 0 where the profile does not say. Bytes."""

    device: str = "cpu"
    gpus: int = 0
    gpu_memory: int = 0
    gpu_product: str = ""
    cpus: float = 0
    memory: int = 0
    shm: int = 0
    work: int = 0
    cache_read_only: bool = False


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was found, what is wanted, and, unless it is ok, what to change."""

    check: str
    level: Level
    found: str
    wanted: str = ""
    fix: str = ""
