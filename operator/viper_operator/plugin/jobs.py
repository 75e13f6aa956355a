"""The Job that moves an alias: built, started once, waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from viper_operator.job_specs import CONTAINER, SCRATCH
from viper_operator.names import COMPONENT, MANAGED_BY, MANAGER, MODEL, NAME
from viper_operator.plugin.api import EVENTS, FIELD_MANAGER, JOBS, PODS, Cluster, Object
from viper_operator.plugin.errors import ClusterError, ConflictError, ForbiddenError
from viper_operator.plugin.installation import Installation
from viper_operator.plugin.problems import last_told, problem, silent, termination
from viper_operator.restricted import TERMINATION_LOG, restricted_container, restricted_pod

#: Seconds that a finished Job and its log stay.
TTL = 3600
#: Seconds between two looks while nothing happens.
LOOK_AGAIN = 10


@dataclass(frozen=True)
class Wish:
    """Where an alias shall go. `version` None: back to what the present one was made from."""

    command: str
    model: str
    alias: str
    version: int | None


def registry_job(name: str, wish: Wish, operator: Installation, *, by: str, reason: str, request: str) -> Object:
    """The Job. Pure. `request`: identifies the wish, so that a pod that is replaced moves nothing twice."""
    settings = operator.settings
    arguments = [wish.command, "--tracking", settings.tracking, "--model", wish.model, "--alias", wish.alias]
    if wish.version is not None:
        arguments += ["--version", str(wish.version)]
    arguments += ["--by", by, "--request", request, "--termination-log", TERMINATION_LOG]
    if reason:
        arguments += ["--reason", reason]
    container: Object = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": operator.pull_policy,
        "command": ["viper-registry"],
        "args": [a.replace("$(", "$$(") for a in arguments],
        # As environment, not as argument: an image of an earlier release knows no such argument.
        "env": [{"name": "HOME", "value": SCRATCH}, {"name": "VIPER_STORE", "value": settings.store}, *operator.env],
        "resources": operator.resources,
        "volumeMounts": [{"name": "tmp", "mountPath": SCRATCH}],
        **restricted_container(settings),
    }
    pod: Object = {
        **restricted_pod(),
        "containers": [container],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        **operator.placement,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            # No stage of an iteration: the operator does not look at it.
            "labels": {NAME: "viper", COMPONENT: "registry", MANAGED_BY: FIELD_MANAGER},
            "annotations": {MODEL: wish.model, "viper.dev/requested-by": by},
        },
        "spec": {
            # The program itself waits for MLflow; beyond that the person decides whether to try again.
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "activeDeadlineSeconds": 600,
            "ttlSecondsAfterFinished": TTL,
            "template": {
                # As a stage's pod: the network policies let those, and nothing else, reach MLflow.
                "metadata": {
                    "labels": {**operator.labels, NAME: "viper", COMPONENT: "stage", MANAGED_BY: MANAGER},
                    **({"annotations": dict(operator.annotations)} if operator.annotations else {}),
                },
                "spec": pod,
            },
        },
    }


def start(cluster: Cluster, body: Object, tell: Callable[[str], object]) -> Object:
    """Creates the Job; joins one of the same name that still runs, and tells so; replaces one that has ended."""
    name = body["metadata"]["name"]
    for _ in range(3):
        try:
            return cluster.create(JOBS, body)
        except ConflictError:
            there = cluster.get(JOBS, name)
            if ended(there) is None:
                tell(f"job/{name} does the same already; waiting for it")
                return there
            cluster.delete(JOBS, name, uid=there["metadata"]["uid"])
    raise ConflictError("others keep making the same Job", where=f"jobs/{name}", fix="try again")


def ended(job: Object) -> str | None:
    """`Complete` or `Failed`; None while it runs."""
    conditions = job.get("status", {}).get("conditions", ())
    return next((c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"), None)


def wait(
    cluster: Cluster,
    job: Object,
    seconds: int,
    tell: Callable[[str], object],
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Waits for a Job and returns what its program printed; `tell` gets what keeps its pod from starting.

    Raises `ClusterError` with the program's own words when it failed, or when the time is over.
    """
    name, until, told = job["metadata"]["name"], clock() + seconds, ""
    # By uid: pods of a Job of the same name that was replaced may still be there.
    labels = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
    while True:
        end = ended(job)
        pods = sorted(cluster.items(PODS, labels=labels), key=lambda p: str(p["metadata"]["creationTimestamp"]))
        if end == "Complete":
            return _output(cluster, pods, name)
        if end == "Failed":
            raise _failure(cluster, pods, name)
        trouble = next((t for p in pods if (t := problem(p))), "") or _told(cluster, job, pods)
        if trouble and trouble != told:
            tell(f"waiting for job/{name}: {trouble}")
            told = trouble
        if clock() >= until:
            raise ClusterError(
                f"not done after {seconds} s" + (f": {trouble}" if trouble else ""),
                where=f"job/{name} in namespace {cluster.namespace}",
                fix="it goes on; the same command again waits for it (--timeout), "
                f"`kubectl delete job {name} -n {cluster.namespace}` withdraws it",
            )
        version = job["metadata"]["resourceVersion"]
        next(cluster.watch(JOBS, version, fields=f"metadata.name={name}", seconds=LOOK_AGAIN), None)
        job = cluster.get(JOBS, name)


def _told(cluster: Cluster, job: Object, pods: list[Object]) -> str:
    """What Events say of a pod that does not start, or of a Job that gets none (quota, admission); empty where they may
    not be read."""
    name = job["metadata"]["name"]
    try:
        for uid in silent(pods, {name: job["metadata"]["uid"]} if not pods else {}):
            if trouble := last_told(cluster.items(EVENTS, fields=f"involvedObject.uid={uid}"), uid):
                return trouble
    except ForbiddenError:
        pass
    return ""


def _output(cluster: Cluster, pods: list[Object], name: str) -> str:
    succeeded = [p for p in pods if p["status"].get("phase") == "Succeeded"]
    if not succeeded:
        return f"job/{name} is done; its pod is gone"
    try:
        lines = list(cluster.log(succeeded[-1]["metadata"]["name"], container=CONTAINER))
    except ClusterError as error:  # no right to read it, or its node is gone: it is done all the same
        return f"job/{name} is done; its output is not shown: {error.what}"
    return "\n".join(line for line in lines if line) or f"job/{name} is done"


def _failure(cluster: Cluster, pods: list[Object], name: str) -> ClusterError:
    for pod in reversed(pods):
        for container in pod.get("status", {}).get("containerStatuses", ()):
            end = container.get("state", {}).get("terminated", {})
            if end.get("exitCode"):
                reason, message = termination(end)
                what, _, fix = (message or reason).partition("\n  → ")
                return ClusterError(what, where=f"job/{name}", fix=fix)
    return ClusterError(
        "failed without a word of its pod",
        where=f"job/{name}",
        fix=f"`kubectl describe job {name} -n {cluster.namespace}`",
    )
