"""Stages on several nodes: what makes the pods of a Job one Ray cluster (`viper_jobs.ray_node`). Pure."""

from __future__ import annotations

from typing import Any

from viper.spec import StageResources
from viper_operator.names import JOB, RAY

#: Exit status of a node that ends because another one went (sysexits.h EX_TEMPFAIL).
TEMPORARY = 75
#: Hosts of an Indexed Job's pods are called `<job>-<index>`.
_INDEX = "$(JOB_COMPLETION_INDEX)"


def headless_service(name: str, namespace: str, labels: dict[str, str], owner: dict[str, Any]) -> dict[str, Any]:
    """Gives the pods with these labels the names `<host>.<name>`, as soon as they have an address."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels},
    }


def left_by_others(container: str) -> dict[str, Any]:
    """Rule of a Job: pods that ended because another one did are made again and count as no failure."""
    codes = {"containerName": container, "operator": "In", "values": [TEMPORARY]}
    return {"action": "Ignore", "onExitCodes": codes}


def one_of_several(
    template: dict[str, Any], job: str, service: str, resources: StageResources, gpus: int
) -> dict[str, Any]:
    """The pod template of a stage, made that of one of several nodes. The stage's container comes first in it.

    Ray counts a trainer process as one GPU also where there is none.
    """
    stage, *others = template["spec"]["containers"]
    arguments = ["--nodes", str(resources.nodes), "--node", _INDEX, "--head", f"{job}-0.{service}"]
    arguments += ["--gpus", str(max(1, gpus)), "--termination-log", stage["terminationMessagePath"], "--"]
    stage = {
        **stage,
        "command": ["python3", "-m", "viper_jobs.ray_node"],
        "args": [*arguments, *stage["command"], *stage["args"]],
    }
    labels = {**template["metadata"]["labels"], RAY: "true", JOB: job}
    pod = {**template["spec"], "subdomain": service, "containers": [stage, *others]}
    return {**template, "metadata": {**template["metadata"], "labels": labels}, "spec": pod}
