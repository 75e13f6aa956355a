"""What a cluster adds to an iteration: time that is not inside a stage's own work, against `viper run` here.

    python benchmarks/overhead.py examples/demo.yaml --namespace viper

FILE is a ViperIteration or a ViperLoop, of which the first iteration is taken. It is run twice, one after the other:
on this machine, in a temporary directory, and on the cluster of $KUBECONFIG, where the chart is installed
(`make cluster-demo`). A stage's own work is `seconds` of its manifest: what its parts and its training took, without
the start of a process or pod, imports, and reading what was made before. Machines are noisy: the ratios count.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from viper.spec import ViperLoop, load_resource


def resource(file: Path, name: str) -> dict[str, Any]:
    """The first iteration of a file, under a name of its own."""
    found = load_resource(file)
    one = found.iteration(1) if isinstance(found, ViperLoop) else found
    dump = one.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "apiVersion": dump["apiVersion"],
        "kind": "ViperIteration",
        "metadata": {"name": name},
        "spec": dump["spec"],
    }


def here(document: dict[str, Any]) -> tuple[float, dict[str, float]]:
    """Wall-clock time of `viper run`, and each stage's own work."""
    with tempfile.TemporaryDirectory() as folder:
        file, run = Path(folder) / "it.yaml", Path(folder) / "run"
        file.write_text(yaml.safe_dump(document), "utf-8")
        viper = [sys.executable, "-m", "viper"]
        started = time.monotonic()
        subprocess.run([*viper, "run", str(file), "--dir", str(run)], check=True, stdout=subprocess.DEVNULL)
        wall = time.monotonic() - started
        told = subprocess.run([*viper, "status", str(run), "--json"], check=True, capture_output=True, text=True)
    (iteration,) = json.loads(told.stdout)["iterations"]
    return wall, {stage["name"]: stage["seconds"] or 0.0 for stage in iteration["stages"]}


def on_the_cluster(document: dict[str, Any], namespace: str) -> tuple[float, dict[str, tuple[float, float]]]:
    """Time from creation to the end, and of each stage (its Job's time, its own work)."""
    name = document["metadata"]["name"]
    kubectl = ["kubectl", "-n", namespace]
    subprocess.run([*kubectl, "apply", "-f", "-"], input=yaml.safe_dump(document), text=True, check=True)
    wait = ["wait", f"viperiteration/{name}", "--for=condition=Succeeded", "--timeout=3h"]
    subprocess.run([*kubectl, *wait], check=True, stdout=subprocess.DEVNULL)
    told = subprocess.run([*kubectl, "get", f"viperiteration/{name}", "-o", "json"], check=True, capture_output=True)
    found = json.loads(told.stdout)
    status = found["status"]
    ended = next(c["lastTransitionTime"] for c in status["conditions"] if c["type"] == "Succeeded")
    stages = {
        stage["name"]: (between(stage["startedAt"], stage["finishedAt"]), stage.get("seconds") or 0.0)
        for stage in status["stages"]
    }
    return between(found["metadata"]["creationTimestamp"], ended), stages


def between(start: str, end: str) -> float:
    """Seconds between two times of the Kubernetes API."""
    first, last = (datetime.fromisoformat(moment) for moment in (start, end))
    return (last - first).total_seconds()


def main() -> None:
    """Runs both and prints the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, help="a ViperIteration or ViperLoop")
    parser.add_argument("--namespace", default="viper", help="where the chart is installed (default %(default)s)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    document = resource(given.file, f"overhead-{int(time.time())}")
    local_wall, local = here(document)
    wall, stages = on_the_cluster(document, given.namespace)
    print(f"{'stage':24}{'own work':>10}{'Job':>10}{'added':>10}{'own work here':>15}")
    for name, (job, own) in stages.items():
        print(f"{name:24}{own:10.1f}{job:10.1f}{job - own:10.1f}{local.get(name, 0.0):15.1f}")
    own, local_own = sum(own for _, own in stages.values()), sum(local.values())
    idle = wall - sum(job for job, _ in stages.values())
    print(f"{'between stages':24}{'':10}{idle:10.1f}{idle:10.1f}")
    print(f"{'in total':24}{own:10.1f}{wall:10.1f}{wall - own:10.1f}{local_own:15.1f}")
    print(f"viper run: {local_wall:.1f} s, of which {local_wall - local_own:.1f} s are not a stage's own work")
    print(f"outside the stages' work: {(wall - own) / wall:.0%} on the cluster, {1 - local_own / local_wall:.0%} here")
    if given.json is not None:
        figures = {"cluster": {"wall": wall, "stages": stages}, "here": {"wall": local_wall, "stages": local}}
        given.json.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
