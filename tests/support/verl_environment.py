"""verl's environment and how its interpreter is run."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from support.environments import interpreter

ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "tests" / "training"


def verl_python() -> str:
    """The interpreter with verl."""
    return interpreter("verl")


def without_gpu() -> dict[str, str]:
    """Environment in which verl trains on a CPU (tests/training/verl_cpu)."""
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{TRAINING / 'verl_cpu'}",
        "VERL_USE_EXTERNAL_MODULES": "viper.training.verl.equal_lengths,verl_cpu",
        "CUDA_VISIBLE_DEVICES": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_local_fs_capacity_threshold": "1",  # how full the disk is says nothing about verl
    }


class Answers:
    """A script of tests/training that answers one line of JSON at a time; a context manager."""

    def __init__(self, script: str, first: Any) -> None:
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the object
        self._process = subprocess.Popen(
            [verl_python(), TRAINING / script],
            env=without_gpu(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._write(first)
        while (line := self._read()) != "ready":
            assert line, self._trouble()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # it has nothing to put away
        self._process.communicate()

    def __call__(self, request: Any) -> Any:
        self._write(request)
        line = self._read()
        assert line, self._trouble()
        return json.loads(line)

    def _trouble(self) -> str:
        self._said.seek(0)
        return self._said.read()[-3000:]

    def _write(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value) + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


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
