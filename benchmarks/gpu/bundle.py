"""What the other machine lacks, as wheels in a folder that git ignores: fetched here, unpacked there.

There, Python, torch, torchvision, transformers, Triton, accelerate, pandas and pyarrow are taken as they are, and so is
everything else that is installed and new enough. Needs nothing but Python.
"""

from __future__ import annotations

import compileall
import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks/gpu/bundle"
LOCK = ROOT / "requirements.lock"
#: Together with the repository, in bytes.
MOST = 64 * 2**20
#: What is brought along, and the least version that will do where it is installed already.
BROUGHT = {
    # viper itself
    "annotated-types": "0.6",
    "certifi": "",
    "minio": "7.2",
    "argon2-cffi": "",
    "argon2-cffi-bindings": "",
    "cffi": "",
    "pycparser": "",
    "pycryptodome": "",
    "pydantic": "2.12",
    "pydantic-core": "",
    "pyyaml": "6.0",
    "typing-extensions": "4.14",
    "typing-inspection": "0.4",
    "urllib3": "2.2",
    # diffusion
    "diffusers": "0.37",
    "importlib-metadata": "",
    "zipp": "",
    # CLIP
    "open-clip-torch": "3.0",
    "timm": "1.0.17",
    "ftfy": "",
    "wcwidth": "",
    # the trainer
    "trl": "1.0",
    "datasets": "4.7",
    "dill": "",
    "multiprocess": "",
    "xxhash": "",
    "jinja2": "",
    "markupsafe": "",
    # sentence embeddings; without scikit-learn, at whose sight transformers wants scipy
    "flagembedding": "1.3",
    "peft": "0.17",
    "sentencepiece": "",
    "protobuf": "",
}
#: Only together, as each asks for just one version of the other.
_PAIRS = (("pydantic", "pydantic-core"), ("argon2-cffi", "argon2-cffi-bindings"))
_PLATFORMS = ("manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in (28, 27, 26, 24, 17, 12, 5)))
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)


def pins(lock: str, python: str) -> dict[str, str]:
    """Versions by name that a lock has for a Python on Linux."""
    from packaging.markers import Marker

    there = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    there |= {"platform_machine": "x86_64", "platform_system": "Linux", "os_name": "posix"}
    return {
        normalized(name): pinned
        for name, pinned, marker in _PIN.findall(lock)
        if not marker or Marker(marker).evaluate(there)
    }


def normalized(name: str) -> str:
    """As PEP 503 writes names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def prepare(folder: Path, python: str) -> int:
    """Fetches the wheels by the versions of the lock; says how large they are. 1 when they are too large."""
    locked = pins(LOCK.read_text("utf-8"), python)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run([sys.executable, "-m", "venv", scratch], check=True)
        shutil.rmtree(folder, ignore_errors=True)
        platforms = [argument for name in _PLATFORMS for argument in ("--platform", name)]
        subprocess.run(
            [
                *(f"{scratch}/bin/python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp"),
                *(*platforms, "--dest", str(folder), *(f"{name}=={locked[name]}" for name in BROUGHT)),
            ],
            check=True,
        )
    wheels = sum(file.stat().st_size for file in folder.glob("*.whl"))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    files = sum((ROOT / name).stat().st_size for name in listed.split("\0") if name and (ROOT / name).is_file())
    print(f"{folder}: {len(list(folder.glob('*.whl')))} wheels, {wheels / 2**20:.1f} MiB")
    print(f"with the repository's {files / 2**20:.1f} MiB: {(wheels + files) / 2**20:.1f} of {MOST / 2**20:.0f} MiB")
    return int(wheels + files > MOST)


def activate(folder: Path) -> Iterator[str]:
    """Unpacks what is not installed, or too old, and puts it first on the path; says what it does.

    Nothing that is installed is changed.
    """
    wheels = {normalized(file.name.split("-")[0]): file for file in sorted(folder.glob("*.whl"))}
    wanted = {name for name in wheels if not installed(name, BROUGHT.get(name, ""))}
    wanted |= {name for pair in _PAIRS if wanted & set(pair) for name in pair if name in wheels}
    unfit = sorted(name for name in wanted if not runs_here(wheels[name]))
    chosen = sorted(wanted - set(unfit))
    if unfit:
        yield f"not for this Python: {', '.join(unfit)}"
    if chosen:
        site = Path(tempfile.mkdtemp(prefix="gpu-kit-site-"))
        for name in chosen:
            with zipfile.ZipFile(wheels[name]) as wheel:
                wheel.extractall(site)
        if (os.cpu_count() or 1) >= 8:  # first imports from source take half a minute
            compileall.compile_dir(site, quiet=2, workers=0)
        sys.path.insert(0, str(site))
        importlib.invalidate_caches()
        yield f"from {folder}: {', '.join(chosen)}"


def installed(name: str, least: str) -> bool:
    """Whether a library is there, in at least this version."""
    with contextlib.suppress(PackageNotFoundError):
        return _numbers(version(name)) >= _numbers(least)
    return False


def _numbers(text: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(n) for n in found[0].split(".")) if found else ()


def runs_here(wheel: Path) -> bool:
    """Whether a wheel's tags fit this Python: pure, of its very version, or of the stable interface."""
    python, interface, _ = wheel.stem.rsplit("-", 3)[-3:]
    here = "{}{}".format(*sys.version_info)
    return bool({"py3", f"py{here}", f"cp{here}"} & set(python.split("."))) or interface == "abi3"
