"""The facts of this machine or pod, gathered without importing torch."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import distributions, requires
from pathlib import Path

from viper.doctor.facts import Gpu, Volume

MIB = 2**20
_QUERY = ("--query-gpu=name,memory.total,memory.free,driver_version", "--format=csv,noheader,nounits")
_TIMEOUT_S = 30
#: Locks beside the code: of our images, then of a checkout.
LOCKS = (Path("/opt/viper/share/build/requirements.lock"), Path(__file__).parents[2] / "requirements.lock")
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)
#: What makes numbers and pictures; a difference in the others is seldom what is wrong.
LIBRARIES = (
    "accelerate",
    "datasets",
    "diffusers",
    "huggingface-hub",
    "minio",
    "mlflow",
    "numpy",
    "open-clip-torch",
    "peft",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tokenizers",
    "torch",
    "torchvision",
    "transformers",
    "trl",
    "vllm",
)


def nvidia() -> tuple[tuple[Gpu, ...], str, str]:
    """GPUs, driver version, and why there are none (empty when there are)."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return (), "", "no nvidia-smi: NVIDIA's driver is not here"
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return (), "", f"nvidia-smi does not answer: {error}"
    if done.returncode != 0:
        return (), "", f"nvidia-smi fails: {(done.stdout + done.stderr).strip()[:200]}"
    return read_nvidia(done.stdout)


def read_nvidia(text: str) -> tuple[tuple[Gpu, ...], str, str]:
    """The answer of nvidia-smi: `name, MiB, MiB, driver` in every line. Memory that it does not tell counts as 0."""
    found, driver = [], ""
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 3)]
        if len(parts) == 4:
            total, free = (int(p) * MIB if p.isdigit() else 0 for p in parts[1:3])
            found.append(Gpu(parts[0], total, free))
            driver = parts[3]
    return tuple(found), driver, "" if found else "nvidia-smi sees no GPU"


def volume(path: Path) -> Volume:
    """The file system of a folder that is there or would be made."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
        flags = os.statvfs(place).f_flag
    except OSError as error:
        return Volume(str(path), problem=str(error.strerror or error))
    writable = os.access(place, os.W_OK | os.X_OK) and not flags & os.ST_RDONLY
    return Volume(str(path), usage.total, usage.free, writable)


def memory(read: Callable[[str], str | None] | None = None) -> int:
    """Bytes of RAM: the machine's, or the limit of this container where that is less."""
    read = _read if read is None else read
    found = re.search(r"MemTotal:\s+(\d+) kB", read("/proc/meminfo") or "")
    total = int(found[1]) * 1024 if found else 0
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = (read(path) or "").strip()
        if limit.isdigit() and 0 < int(limit) < (total or 2**60):
            return int(limit)
    return total


def cpus(read: Callable[[str], str | None] | None = None) -> int:
    """CPU threads that this process may use, by affinity and by the container's quota."""
    read = _read if read is None else read
    there = len(os.sched_getaffinity(0))
    quota = (read("/sys/fs/cgroup/cpu.max") or "").split()
    if len(quota) == 2 and quota[0].isdigit():
        return max(1, min(there, int(quota[0]) // int(quota[1])))
    return there


def torch_cuda() -> str:
    """The CUDA that the installed torch was built for, from its version file; empty without torch or CUDA."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    text = _read(str(Path(spec.origin).parent / "version.py")) or ""
    found = re.search(r"^cuda\b[^=\n]*=[ \t]*'([\d.]+)'", text, re.MULTILINE)
    return found[1] if found else ""


def installed() -> dict[str, str]:
    """Versions of the libraries that decide what comes out."""
    return {n: d.version for d in distributions() if (n := normalized(str(d.metadata["Name"]))) in LIBRARIES}


def locked(path: Path | None = None) -> tuple[dict[str, tuple[str, ...]], str]:
    """Pinned versions and where they are from: a given lock, the image's, the checkout's, or the package's own pins.

    A lock for several Pythons has several versions of a library.
    """
    for lock in (path,) if path is not None else LOCKS:
        text = _read(str(lock))
        if text is not None:
            return _pins(text), str(lock)
    if path is not None:
        return {}, str(path)
    return _pins("\n".join(requires("viper") or ())), "viper's extras"


def _pins(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for written, version in _PIN.findall(text):
        name = normalized(written)
        found[name] = (*found.get(name, ()), version)
    return found


def normalized(name: str) -> str:
    """As PEP 503 writes names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return None


def settings(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Store and MLflow as the environment names them."""
    named = {"store": environment.get("VIPER_STORE", ""), "tracking": environment.get("MLFLOW_TRACKING_URI", "")}
    return {key: value for key, value in named.items() if value}
