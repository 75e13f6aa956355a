"""The checks: each takes facts and what is wanted, and says what it finds. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from viper.doctor.facts import GB, GIB, EngineMemory, Facts, Finding, Level, MeasuredMemory, Place, Volume, Wanted
from viper.text import without_credentials

#: Least driver of a CUDA major version (NVIDIA: CUDA toolkit release notes, minor version compatibility).
DRIVERS = {"11": 450, "12": 525, "13": 580}
#: PyTorch's workers pass tensors through /dev/shm; containers get 64 MB unless told otherwise.
SHM, LEAST_SHM = "/dev/shm", GIB  # noqa: S108
LEAST_WORK, LEAST_CACHE = 10 * GB, GB
_PRODUCT_MEMORY = re.compile(r"(?<!\d)(\d{1,9})GB")

Check = Callable[[Facts, Wanted], Iterator[Finding]]


def gpus(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Number, memory and kind of GPUs."""
    need = (
        f"{wanted.gpus} GPU{'s' * (wanted.gpus > 1)}" if wanted.gpus else "a GPU" if wanted.device == "cuda" else "none"
    )
    if not facts.gpus:
        level: Level = "fail" if wanted.device == "cuda" or wanted.gpus else "ok"
        fix = "run it where the GPUs are: a pod with `gpus` of the profile, or a machine with NVIDIA's driver"
        yield Finding("GPUs", level, facts.nvidia_smi or "none", need, fix if level == "fail" else "")
        return
    kinds = ", ".join(sorted({g.name for g in facts.gpus}))
    found = f"{len(facts.gpus)} × {kinds}"
    if len(facts.gpus) < wanted.gpus:
        yield Finding(
            "GPUs", "fail", found, need, "set `gpus` of the stages to what a node has, or choose larger nodes"
        )
    else:
        yield Finding("GPUs", "ok", found, need)
    if wanted.gpu_product and any(g.name.replace(" ", "-") != wanted.gpu_product for g in facts.gpus):
        yield Finding("GPU kind", "warn", kinds, wanted.gpu_product, "the profile is made for another GPU; check it")
    least = min(facts.gpus, key=lambda g: g.memory)
    floor = wanted.gpu_memory or _memory_of(wanted.gpu_product)
    # What a product is called is more than what it offers: 80 GB are 79.6 GiB of which the driver takes some.
    if least.memory < 0.93 * floor:
        yield Finding(
            "GPU memory",
            "fail",
            _gib(least.memory),
            _gib(floor),
            "choose GPUs with more memory, or set `gpuMemory` of the profile to what they have and engines to offload",
        )
    elif least.free < 0.9 * least.memory:
        yield Finding(
            "GPU memory",
            "warn",
            f"{_gib(least.free)} of {_gib(least.memory)} free",
            "an idle GPU",
            "end what else runs on it (nvidia-smi)",
        )
    else:
        yield Finding("GPU memory", "ok", _gib(least.memory), _gib(floor) if floor else "")


def driver(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Whether the driver can run the CUDA that torch was built for."""
    if not facts.driver:
        return
    least = DRIVERS.get(facts.torch_cuda.partition(".")[0])
    if not facts.torch_cuda or least is None:
        level: Level = "fail" if wanted.device == "cuda" and facts.libraries.get("torch") else "warn"
        yield Finding(
            "driver",
            level,
            f"{facts.driver}; torch has {'CUDA ' + facts.torch_cuda if facts.torch_cuda else 'no CUDA'}",
            "a torch with CUDA",
            "use an image for GPUs in the profile's `image`",
        )
    elif int(facts.driver.partition(".")[0]) < least:
        yield Finding(
            "driver",
            "fail",
            facts.driver,
            f"{least} or later for CUDA {facts.torch_cuda}",
            "update NVIDIA's driver on the node, or use an image with an older CUDA",
        )
    else:
        yield Finding("driver", "ok", facts.driver, f"{least} or later for CUDA {facts.torch_cuda}")


def phases(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Whether each engine fits into a GPU on its own: phases follow one another."""
    there = _memory_there(facts, wanted)
    for planned in facts.phases:
        phase, how = corrected(planned, facts.measured)
        name = f"memory of {phase.role}"
        if phase.problem:
            yield Finding(name, "warn", phase.problem, "", phase.fix)
        elif not phase.bytes:
            yield Finding(name, "ok", f"{phase.engine} plans none")
        elif not there or wanted.device == "cpu":
            yield Finding(name, "ok", f"{_gib(phase.bytes)} {how}")
        elif phase.bytes > there:
            fix = f"set {phase.setting}.offload: model or a smaller batch, or choose GPUs with more memory"
            yield Finding(name, "fail", f"{_gib(phase.bytes)} {how}", f"up to {_gib(there)}", fix)
        else:
            yield Finding(name, "ok", f"{_gib(phase.bytes)} {how}", f"up to {_gib(there)}")


def corrected(phase: EngineMemory, measured: Sequence[MeasuredMemory]) -> tuple[EngineMemory, str]:
    """A phase with what the kit says of its work in place of the engine's estimate, and how it is known.

    Weights are known from the files. Of the rest, the share counts that was really taken where the kit measured this
    engine, with a plan of like size.
    """
    fit = [
        m
        for m in measured
        if (m.interface, m.engine) == (phase.interface, phase.engine) and not m.tiny and (m.planned or 0) > m.weights
    ]
    if not phase.bytes or phase.weights is None or phase.problem or not fit:
        return phase, "planned"
    planned = phase.bytes
    near = min(fit, key=lambda m: abs(math.log((m.planned or 1) / planned)))
    share = max(0, near.bytes - near.weights) / ((near.planned or 0) - near.weights)
    needed = phase.weights + int(share * max(0, planned - phase.weights))
    return replace(phase, bytes=needed), f"by what was measured on {near.device}, {_gib(planned)} planned"


def measured(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """What the kit measured, against the GPU and against what the engine plans for the same settings."""
    there = _memory_there(facts, wanted)
    for figure in facts.measured:
        found = f"{_size(figure.bytes)} on {figure.device}" + (" (tiny shapes)" if figure.tiny else "")
        plan = "" if figure.planned is None else f"{_size(figure.planned)} planned"
        limit = f"up to {_size(there)}" if there else ""
        against = "; ".join(filter(None, (plan, limit)))
        if there and figure.kept > there:
            fix = "choose GPUs with more memory for it, or smaller settings"
            yield Finding(f"measured: {figure.name}", "warn", found, against, fix)
        elif figure.planned is not None and figure.bytes > figure.planned and not figure.tiny:
            fix = f"the plan of {figure.engine} is {_size(figure.bytes - figure.planned)} short: leave as much room"
            yield Finding(f"measured: {figure.name}", "warn", found, against, fix)
        else:
            yield Finding(f"measured: {figure.name}", "ok", found, against)


def _memory_there(facts: Facts, wanted: Wanted) -> int:
    """Bytes of the smallest GPU here, or of what the profile says where that is less; 0 when nobody knows."""
    there = min((g.memory for g in facts.gpus), default=0)
    return min(there, wanted.gpu_memory) if there and wanted.gpu_memory else there or wanted.gpu_memory


def processors(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """CPU threads: decoding images for a vision-language model is what they are for."""
    short = facts.cpus < wanted.cpus
    fix = "lower `resources.requests.cpu` and `threads`, or choose larger nodes: few CPUs keep a GPU waiting"
    yield Finding(
        "CPU threads",
        "warn" if short else "ok",
        f"{facts.cpus}",
        f"{wanted.cpus:g}" if wanted.cpus else "",
        fix * short,
    )


def memory(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """RAM: of the machine, or of the pod where that is less."""
    short = facts.memory < wanted.memory
    fix = "lower `resources.requests.memory` of the profile, or choose nodes with more"
    yield Finding(
        "RAM", "fail" if short else "ok", _gib(facts.memory), _gib(wanted.memory) if wanted.memory else "", fix * short
    )


def shared_memory(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Shared memory."""
    if facts.shm.problem:
        yield Finding(SHM, "fail", facts.shm.problem, "", "mount a tmpfs there")
        return
    need = wanted.shm or LEAST_SHM
    if facts.shm.total >= 0.95 * need:
        yield Finding(SHM, "ok", _gib(facts.shm.total), _gib(need))
    else:
        fix = "set `shmSize` of the profile; in Docker --shm-size; on a machine: mount -o remount,size=… /dev/shm"
        yield Finding(SHM, "fail" if wanted.shm else "warn", _gib(facts.shm.total), _gib(need), fix)


def disks(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Scratch and model cache."""
    yield _disk("work directory", facts.work, wanted.work or LEAST_WORK, wanted.work > 0, "`workSize`, or --work-dir")
    cache = facts.cache
    if wanted.cache_read_only or (not cache.writable and not cache.problem):
        how = (
            "the profile mounts it read-only: nothing is downloaded" if wanted.cache_read_only else "cannot be written"
        )
        yield Finding("model cache", "ok" if wanted.cache_read_only else "warn", f"{cache.path}: {how}")
    else:
        yield _disk("model cache", cache, LEAST_CACHE, False, "the claim of `modelCache`, or VIPER_MODEL_CACHE")


def libraries(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Versions against the lock: only libraries that are installed, and in one line each that differs."""
    if not facts.locked:
        yield Finding("libraries", "warn", "no lock to compare with", "", "give --lock FILE")
        return
    common = sorted(facts.locked.keys() & facts.libraries.keys())
    other = [n for n in common if facts.libraries[n] not in facts.locked[n]]
    for name in other:
        yield Finding(
            "libraries",
            "warn",
            f"{name} {facts.libraries[name]}",
            f"{name} {' or '.join(facts.locked[name])}",
            f"install what {facts.lock} says: other versions are not what was tested",
        )
    if not other:
        yield Finding("libraries", "ok", f"{len(common)} as in {facts.lock}")


def servers(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Store, MLflow, endpoints."""
    yield from map(_place, facts.servers)


def models(facts: Facts, wanted: Wanted) -> Iterator[Finding]:
    """Models in the cache."""
    yield from map(_place, facts.models)


CHECKS: tuple[Check, ...] = (
    gpus,
    driver,
    phases,
    measured,
    processors,
    memory,
    shared_memory,
    disks,
    libraries,
    servers,
    models,
)


def examine(facts: Facts, wanted: Wanted) -> list[Finding]:
    """All checks in order."""
    return [finding for check in CHECKS for finding in check(facts, wanted)]


def _place(place: Place) -> Finding:
    where = without_credentials(place.where)
    if place.problem:
        return Finding(place.what, "fail", f"{where}: {place.problem}", "", place.fix)
    return Finding(place.what, "ok", where)


def _disk(name: str, volume: Volume, need: int, asked: bool, where: str) -> Finding:
    if volume.problem:
        return Finding(name, "fail", f"{volume.path}: {volume.problem}", "", f"choose another place: {where}")
    found = f"{volume.path}: {volume.free / GB:.1f} GB free"
    if not volume.writable:
        return Finding(name, "fail", f"{volume.path} cannot be written", "", f"choose another place: {where}")
    if volume.free < need:
        level: Level = "fail" if asked else "warn"
        return Finding(name, level, found, f"{need / GB:.0f} GB", f"free some space, or enlarge {where}")
    return Finding(name, "ok", found, f"{need / GB:.0f} GB")


def _memory_of(product: str) -> int:
    """`NVIDIA-A100-SXM4-80GB` → 80 GiB; 0 when the name does not tell."""
    found = _PRODUCT_MEMORY.search(product)
    return int(found[1]) * GIB if found else 0


def _gib(amount: int) -> str:
    return f"{amount / GIB:.1f} GiB"


def _size(amount: int) -> str:
    return _gib(amount) if amount >= GIB else f"{amount / 2**20:.1f} MiB"
