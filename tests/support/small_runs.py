"""Real runs of the small world, made small: the demo's manifest with a few pictures, questions and steps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
TRAINING = {"steps": 1, "batchPrompts": 4, "miniBatchPrompts": 4, "saveEvery": 1, "select": "last"}


def small_demo(recipe: dict[str, Any] | None = None, images: int = 12) -> dict[str, Any]:
    """The template of `examples/demo.yaml` as the spec of one iteration; `recipe` overrides fields of the recipe."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text("utf-8"))["spec"]["template"]
    spec["images"]["limit"] = images
    spec["evaluation"]["limit"] = 6
    spec["profile"] = {"defaults": {"retries": 0, "backoffSeconds": 0, "threads": 1}}
    made = spec["recipe"]
    made["partSize"] = 8
    made["validation"]["heldOutShare"] = 0
    del made["analysis"]
    for task in ("captions", "operations"):
        made[task]["training"] = {**made[task]["training"], **TRAINING}
    made |= recipe or {}
    return spec


def run_small(folder: Path, resource: dict[str, Any]) -> Path:
    """`viper run` in a process of its own; returns the run directory."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(resource), "utf-8")
    command = [sys.executable, "-m", "viper", "run", str(file), "--dir", str(folder / "run")]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return folder / "run"


def loop(spec: dict[str, Any], iterations: int, name: str = "demo") -> dict[str, Any]:
    """A ViperLoop of this template."""
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {"name": name},
        "spec": {"iterations": iterations, "template": spec},
    }


def iteration(spec: dict[str, Any], name: str = "it") -> dict[str, Any]:
    """A ViperIteration with this spec."""
    return {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "metadata": {"name": name}, "spec": spec}
