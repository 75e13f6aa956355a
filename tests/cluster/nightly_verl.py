"""Training by verl in pods for real: the operator runs an iteration on the one-node cluster, on one node and on two.

`make nightly` (too long for every run of the tests). Operator, Jobs, pods, Ray, verl and its two processes that share
the gradients are the real ones. What is not here: GPUs, an image with verl (its environment is mounted from this
machine, which has it already), a volume of a network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from end_to_end.test_small_world import iteration
from fakes.cluster import OperatorProcess
from servers.node import OneNode
from support.verl_environment import ROOT, verl_python
from viper.methods.stages import TRAIN_CAPTIONS
from viper.stage import Manifest, load_frozen
from viper.store import open_store
from viper_operator.crd import definitions

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]

STEPS = 3
TRAINING = {
    "batchPrompts": 4,
    "miniBatchPrompts": 2,
    "groupSize": 3,
    "microBatch": 3,
    "maxPromptTokens": 512,
    "maxResponseTokens": 16,
    "saveEvery": 1,
    "steps": STEPS,
    "learningRate": 1e-3,
    "select": "last",
}
#: As verl's own tests here set it for a CPU (tests/training/verl_jobs.py).
VERL = {"rollout": "hf_cpu", "attention": "eager", "dtype": "float32", "workers": 1, "stallSeconds": 600}
#: Where pods find Python, verl's packages, this repository and the programs of an image.
PYTHON, PACKAGES, SOURCES, PROGRAMS = "/opt/python", "/opt/packages", "/opt/sources", "/opt/programs"


class Place:
    """A folder of this machine that all pods see at the same path, and what of the machine they see besides."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = Path(verl_python())
        run = [python, "-c", "import sys, sysconfig; print(sys.base_prefix); print(sysconfig.get_path('purelib'))"]
        prefix, packages = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        self.programs = folder / "programs"
        self.programs.mkdir()
        (folder / "shared").mkdir()
        (folder / "shared").chmod(0o777)
        interpreter = f"{PYTHON}/bin/python3.11"
        for name, module in (("viper-job", "viper_jobs.main"), ("viper-freeze", "viper_jobs.freeze"), ("python3", "")):
            file = self.programs / name
            file.write_text(f'#!/bin/sh\nexec {interpreter} {f"-m {module} " if module else ""}"$@"\n')
            file.chmod(0o755)
        for path in (folder, self.programs):
            path.chmod(0o755)
        self.mounts = {PYTHON: prefix, PACKAGES: packages, SOURCES: str(ROOT), PROGRAMS: str(self.programs)}
        self.store = open_store(folder / "shared" / "store")
        self.tracking = f"sqlite:///{folder}/shared/mlflow.db"

    def pod(self) -> dict[str, Any]:
        """`podTemplate` of the profile."""
        shared = str(self.folder / "shared")
        places = [(f"from-node-{i}", inside, outside) for i, (inside, outside) in enumerate(self.mounts.items())]
        mounts = [{"name": name, "mountPath": inside, "readOnly": True} for name, inside, _ in places]
        volumes = [{"name": name, "hostPath": {"path": outside}} for name, _, outside in places]
        mounts.append({"name": "shared", "mountPath": shared})
        volumes.append({"name": "shared", "hostPath": {"path": shared}})
        return {"spec": {"containers": [{"name": "stage", "volumeMounts": mounts}], "volumes": volumes}}


def variables() -> list[dict[str, str]]:
    sources = (SOURCES, f"{SOURCES}/jobs", f"{SOURCES}/operator", f"{SOURCES}/tests/training/verl_cpu", PACKAGES)
    found = {
        "PATH": f"{PROGRAMS}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join(sources),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": f"{PYTHON}/lib",  # where Python is a library of its own
        "USER": "viper",
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "1",
        "RAY_local_fs_capacity_threshold": "1",
    }
    return [{"name": name, "value": value} for name, value in found.items()]


def resource(place: Place, image: str, nodes: int) -> dict[str, Any]:
    """The small world's iteration, captions only, trained by verl."""
    made = iteration()
    spec = made["spec"]
    spec["engines"] |= {"trainer": "verl", "training": VERL}
    spec["recipe"]["stages"] = "captions"
    spec["recipe"]["captions"]["training"] = TRAINING
    spec["promotion"] = {"policy": "Manual"}
    spec["profile"] = {
        "defaults": {"retries": 2, "threads": 1, "image": image, "env": variables(), "podTemplate": place.pod()},
        "stages": {TRAIN_CAPTIONS: {"nodes": nodes, "workClaim": "training" if nodes > 1 else None}},
    }
    return made


CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "training"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}},
}


@pytest.fixture
def namespace(one_node: OneNode) -> Iterator[str]:
    """One that lets pods mount folders of the node."""
    one_node.apply(*definitions())
    names = [f"crd/{d['metadata']['name']}" for d in definitions()]
    one_node.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
    made = one_node.namespace("nodes", enforce="privileged")
    one_node.apply(CLAIM, namespace=made)
    yield made
    one_node.kubectl("delete", "namespace", made, "--timeout=180s")


@pytest.mark.parametrize("nodes", [1, 2])
def test_verl_trains_in_the_operators_pods_and_goes_on_when_one_of_two_is_lost(
    one_node: OneNode, namespace: str, tmp_path_factory: pytest.TempPathFactory, nodes: int
) -> None:
    folder = Path(tmp_path_factory.mktemp("nodes"))
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # pods are not root
    place = Place(folder)
    image = one_node.images("operator")["operator"]
    operator = OperatorProcess(
        one_node.kubeconfig,
        namespace,
        place.store.uri,
        folder / "operator.log",
        VIPER_TRACKING=place.tracking,
        VIPER_STAGE_IMAGE=image,
        VIPER_CREDENTIALS_SECRET="",
        VIPER_POD_TEMPLATES="unrestricted",  # folders of the node are mounted
    )

    def kubectl(*arguments: str) -> str:
        return one_node.kubectl("-n", namespace, *arguments)

    def pods() -> dict[str, str]:
        """Phases of the training's pods by name and uid."""
        lines = kubectl(
            *("get", "pods", "-l", f"viper.dev/stage={TRAIN_CAPTIONS}", "-o"),
            'jsonpath={range .items[*]}{.metadata.name} {.status.phase}{"\\n"}{end}',
        )
        return dict(line.split() for line in lines.splitlines())

    def outcome() -> str:
        assert operator.alive, (folder / "operator.log").read_text()[-3000:]
        return kubectl("get", "viperiteration", "it", "-o", "jsonpath={.status.outcome}")

    def work() -> list[Path]:
        """Shards of the weights that the second process has saved: in the claim's volume, a folder of this machine."""
        volume = kubectl("get", "pvc", "training", "-o", "jsonpath={.spec.volumeName}")
        if not volume:  # no pod has needed it yet
            return []
        path = one_node.kubectl("get", "pv", volume, "-o", "jsonpath={.spec.local.path}")
        return sorted(Path(path).glob("it/**/model_world_size_2_rank_1.pt"))

    def until(look: Callable[[], Any]) -> None:
        """Looks every few seconds: each look starts a kubectl or two."""
        for _ in range(360):
            if look():
                return
            with suppress(subprocess.CalledProcessError):
                kubectl("wait", "viperiteration/it", "--for=condition=Succeeded", "--timeout=5s")
        raise TimeoutError(kubectl("get", "viperiteration", "it", "-o", "yaml"))

    try:
        one_node.apply(resource(place, image, nodes), namespace=namespace)

        def saved() -> list[Path]:
            assert outcome() != "Failed", kubectl("get", "viperiteration", "it", "-o", "yaml")
            return work()

        if nodes > 1:
            until(saved)
            running = pods()
            assert sorted(running.values()) == ["Running", "Running"], running
            other = next(name for name in running if name.startswith(f"it-{TRAIN_CAPTIONS}-1-"))
            kubectl("delete", "pod", other, "--grace-period=5")
        ended = ("Registered", "Held", "Promoted", "Failed")
        until(lambda: outcome() in ended)
        assert outcome() != "Failed", kubectl("get", "viperiteration", "it", "-o", "yaml")
        job = kubectl("get", "job", f"it-{TRAIN_CAPTIONS}", "-o", "jsonpath={.status.conditions[*].type}")
        assert "Complete" in job
        if nodes > 1:
            assert other not in pods()
    except BaseException as error:
        for name in pods():
            error.add_note(f"{name}:\n{kubectl('logs', name, '--tail=60')}")
        raise
    finally:
        if operator.alive:
            operator.kill()
    frozen = load_frozen(place.store, "it")
    assert frozen is not None
    key = f"{frozen.prefix}/stages/{TRAIN_CAPTIONS}/manifest.json"
    manifest = Manifest.read(place.store.get(key))
    assert manifest.outputs["steps"] == STEPS
    shutil.rmtree(folder / "shared", ignore_errors=True)
