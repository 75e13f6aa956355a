"""verl's environment and how its interpreter is run."""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "tests" / "training"


@functools.cache
def _installed() -> tuple[int, str, str]:
    made = subprocess.run([TRAINING / "verl_environment.sh"], capture_output=True, text=True, check=False)
    return made.returncode, made.stdout.strip(), made.stderr.strip()


def verl_python() -> str:
    """The interpreter with verl, installed when it is not there; the test is skipped where the disk has no room."""
    status, python, said = _installed()
    if status == 3:
        pytest.skip(said)
    assert status == 0, said
    return python


def without_gpu() -> dict[str, str]:
    """Environment in which verl trains on a CPU (tests/training/verl_cpu)."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{TRAINING / 'verl_cpu'}",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_local_fs_capacity_threshold": "1",  # how full the disk is says nothing about verl
    }


def ask(script: str, request: Any) -> Any:
    """Runs a script of tests/training with verl; JSON in, the JSON of its last line out."""
    made = subprocess.run(
        [verl_python(), TRAINING / script],
        input=json.dumps(request),
        env=without_gpu(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-3000:]
    return json.loads(made.stdout.splitlines()[-1])
