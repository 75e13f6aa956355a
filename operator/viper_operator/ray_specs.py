"""Stages on several nodes: KubeRay's RayJob where its definition is installed, else the pods of a Job that make a Ray
cluster by themselves (`viper_jobs.ray_node`). Pure.
"""

from __future__ import annotations

import shlex
from typing import Any

from viper.spec import StageResources
from viper.stage.termination import JOB_UID, OTHER_NODE_WENT
from viper_operator.names import JOB, RAY

#: Ray in images/training, as KubeRay has to be told.
RAY_VERSION = "2.60.0"
RAY_GROUP, RAY_GROUP_VERSION = "ray.io", "v1"
_STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
#: Where Ray's agent on every node says how that is.
_AGENT_PORT = 52365
_UID_LABEL = "metadata.labels['batch.kubernetes.io/controller-uid']"
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
    codes = {"containerName": container, "operator": "In", "values": [OTHER_NODE_WENT]}
    return {"action": "Ignore", "onExitCodes": codes}


def one_of_several(
    template: dict[str, Any], job: str, service: str, resources: StageResources, gpus: int
) -> dict[str, Any]:
    """The pod template of a stage, made that of one of several nodes. The stage's container comes first in it.

    Ray counts a trainer process as one GPU also where there is none.
    """
    stage, *others = template["spec"]["containers"]
    arguments = ["--nodes", str(resources.nodes), "--node", _INDEX, "--head", f"{job}-0.{service}"]
    arguments += ["--gpus", str(max(1, gpus)), "--grace", str(resources.termination_grace_period_seconds)]
    arguments += ["--termination-log", stage["terminationMessagePath"], "--"]
    stage = {
        **stage,
        "command": ["python3", "-m", "viper_jobs.ray_node"],
        "args": [*arguments, *stage["command"], *stage["args"]],
        "env": [*stage["env"], {"name": JOB_UID, "valueFrom": {"fieldRef": {"fieldPath": _UID_LABEL}}}],
    }
    labels = {**template["metadata"]["labels"], RAY: "true", JOB: job}
    pod = {**template["spec"], "subdomain": service, "containers": [stage, *others]}
    return {**template, "metadata": {**template["metadata"], "labels": labels}, "spec": pod}


def ray_job(metadata: dict[str, Any], template: dict[str, Any], resources: StageResources, gpus: int) -> dict[str, Any]:
    """The RayJob of a stage from the pod template that it would have on one node.

    KubeRay makes the cluster, gives it a token, runs the program on its head, and takes the cluster away. It makes no
    further attempts: it would repeat errors that no attempt changes.
    """
    container, *others = template["spec"]["containers"]
    program = [*container["command"], *container["args"]]
    node = {k: v for k, v in container.items() if k not in ("command", "args")}
    # How long Ray waits after SIGTERM before it kills the program of a job that is stopped; 3 s by default.
    node["env"] = [*node["env"], {"name": _STOP_WAIT, "value": str(resources.termination_grace_period_seconds)}]
    # KubeRay's own needs wget.
    look = (
        f"import urllib.request as u; u.urlopen('http://localhost:{_AGENT_PORT}/api/local_raylet_healthz', timeout=5)"
    )
    probe = {"exec": {"command": ["python3", "-c", look]}, "periodSeconds": 10, "timeoutSeconds": 10}
    node |= {"livenessProbe": {**probe, "initialDelaySeconds": 60, "failureThreshold": 12}, "readinessProbe": probe}
    labels = {**template["metadata"]["labels"], RAY: "true", JOB: metadata["name"]}
    spec = {k: v for k, v in template["spec"].items() if k != "activeDeadlineSeconds"}
    pod = {
        **template,
        "metadata": {**template["metadata"], "labels": labels},
        "spec": {**spec, "containers": [node, *others]},
    }
    start = {"num-gpus": str(max(1, gpus)), "dashboard-agent-listen-port": str(_AGENT_PORT)}
    count = resources.nodes - 1
    workers = {"groupName": "nodes", "replicas": count, "minReplicas": count, "maxReplicas": count}
    job: dict[str, Any] = {
        "entrypoint": shlex.join(program),
        "submissionMode": "HTTPMode",
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "authOptions": {"mode": "token"},
            "headGroupSpec": {"rayStartParams": {**start, "dashboard-host": "0.0.0.0"}, "template": pod},  # noqa: S104
            "workerGroupSpecs": [{**workers, "rayStartParams": start, "template": pod}],
        },
    }
    if resources.deadline_seconds is not None:
        job["activeDeadlineSeconds"] = resources.deadline_seconds
    return {"apiVersion": f"{RAY_GROUP}/{RAY_GROUP_VERSION}", "kind": "RayJob", "metadata": metadata, "spec": job}
