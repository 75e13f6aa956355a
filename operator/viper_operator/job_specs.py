"""The Jobs of an iteration, built from its spec and the operator's settings. Pure: nothing is read or written here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from viper.methods.stages import DECLARED, Stage
from viper.modelcache.needs import engine_fields, stage_models
from viper.modelcache.uris import is_remote
from viper.plan import PERMANENT_EXIT_CODES
from viper.spec import Profile, StageResources, ViperIteration
from viper.spec.packed import pack, variables
from viper.spec.pods import EnvVar
from viper.store import child_uri
from viper.stored import MIN_VERSION, enveloped, least_version
from viper_operator.merge import merged
from viper_operator.names import (
    API_VERSION,
    GPUS,
    MODEL,
    NODES,
    QUEUE,
    RAY,
    SECONDS_BEFORE,
    STAGE,
    TRAINS,
    job_labels,
    job_name,
    pod_labels,
    service_name,
)
from viper_operator.ray_specs import headless_service, left_by_others, one_of_several, ray_job
from viper_operator.restricted import TERMINATION_LOG, restricted_container, restricted_pod
from viper_operator.settings import Settings

#: Name of the container that runs the stage program.
CONTAINER = "stage"
#: Name of the container that fills the model cache before it.
FILLER = "models"
WORK, SCRATCH = "/work", "/tmp"  # noqa: S108 (a volume of the pod's own)


@dataclass(frozen=True)
class JobRequest:
    """One Job to make.

    `retry`: a person's retries so far. `attempt`: the operator's own, from 1 (the Job controller's are not counted
    here). `seconds_before`: how long the stage has been active in earlier Jobs.
    """

    iteration: ViperIteration
    uid: str
    stage: Stage
    retry: int = 0
    attempt: int = 1
    seconds_before: float = 0.0

    @property
    def name(self) -> str:
        """Name of the Job."""
        return job_name(self.iteration.metadata.name, self.stage.name, retry=self.retry, attempt=self.attempt)

    @property
    def freezing(self) -> bool:
        """Whether it is the Job that freezes the iteration."""
        return self.stage.makes == "iteration"


def stage_job(request: JobRequest, settings: Settings) -> dict[str, Any]:
    """The Job of a stage, or of freezing, as the API server gets it; with KubeRay a RayJob on several nodes."""
    profile = request.iteration.spec.profile
    resources = profile.of(request.stage.name)
    shards, gpus, nodes = (1, 0, 1) if request.freezing else (resources.shards, resources.gpus, resources.nodes)
    pods = shards * nodes
    name = request.iteration.metadata.name
    labels = job_labels(name, request.stage.name, request.retry, request.attempt)
    if profile.queue_name is not None:
        labels[QUEUE] = profile.queue_name
    if nodes > 1:
        labels[NODES] = str(nodes)
    metadata: dict[str, Any] = {
        "name": request.name,
        "namespace": settings.namespace,
        "labels": labels,
        "annotations": {MODEL: request.iteration.spec.model, GPUS: str(gpus * pods)},
        "ownerReferences": [owner_reference("ViperIteration", name, request.uid)],
    }
    if request.seconds_before:
        metadata["annotations"][SECONDS_BEFORE] = f"{request.seconds_before:.0f}"
    # Jobs of earlier releases do not say it: their stages are ours.
    if request.stage.makes == "model" and request.stage.name not in DECLARED:
        metadata["annotations"][TRAINS] = "true"
    template = pod_template(request, resources, profile, settings, gpus=gpus)
    if nodes > 1 and settings.ray_jobs:
        return ray_job(metadata, template, resources, gpus)
    ours = [c for c in template["spec"].get("initContainers", ()) if c["name"] == FILLER]
    containers = [{"name": CONTAINER}, *ours]
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": pods,
        "parallelism": pods,
        # Not backoffLimitPerIndex: under it a failed pod keeps its finalizer until its successor is there, which in a
        # namespace that is being deleted never comes, so that the namespace stays for ever (Kubernetes 1.33 and later
        # delete pods first). That no shard has more attempts than the others is seen to in `shards_of`.
        "backoffLimit": resources.retries * shards,
        # A shard is never run twice at a time.
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {
            "rules": [
                # Preemption, eviction and loss of the node are no failures.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                *([left_by_others(CONTAINER)] if nodes > 1 else ()),
                *(_fails_for_good(c["name"]) for c in containers),
            ]
        },
        "template": template,
    }
    if nodes > 1:
        # The stage is node 0; the others have nothing of their own to complete.
        spec["successPolicy"] = {"rules": [{"succeededIndexes": "0"}]}
    if resources.ttl_seconds_after_finished is not None:
        spec["ttlSecondsAfterFinished"] = resources.ttl_seconds_after_finished
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def stage_service(request: JobRequest, settings: Settings) -> dict[str, Any] | None:
    """The Service that the nodes of a stage find each other by, which has to be there before its Job; None for one pod,
    and where KubeRay sees to it.

    It is the same for all stages of an iteration and goes with it.
    """
    nodes = request.iteration.spec.profile.of(request.stage.name).nodes
    if request.freezing or nodes == 1 or settings.ray_jobs:
        return None
    name = request.iteration.metadata.name
    labels = {k: v for k, v in pod_labels(name, request.stage.name).items() if k != STAGE} | {RAY: "true"}
    owner = owner_reference("ViperIteration", name, request.uid)
    return headless_service(service_name(name), settings.namespace, labels, owner)


def owner_reference(kind: str, name: str, uid: str) -> dict[str, Any]:
    """The owner's deletion never waits for what it owns (`blockOwnerDeletion`)."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def pod_template(
    request: JobRequest, resources: StageResources, profile: Profile, settings: Settings, *, gpus: int
) -> dict[str, Any]:
    """The pod template: what the profile asks for within restricted Pod Security, its own changes merged last."""
    labels = pod_labels(request.iteration.metadata.name, request.stage.name)
    pod: dict[str, Any] = {
        **restricted_pod(),
        "containers": [_container(request, resources, profile, settings, gpus)],
        "volumes": _volumes(resources),
    }
    _put(pod, "initContainers", _filler(request, resources, profile, settings))
    pod["securityContext"]["fsGroupChangePolicy"] = "OnRootMismatch"
    # Per attempt, as the local runner counts it; the Job's own deadline would span all of them.
    _put(pod, "activeDeadlineSeconds", resources.deadline_seconds)
    pod["terminationGracePeriodSeconds"] = resources.termination_grace_period_seconds
    _put(pod, "nodeSelector", resources.node_selector)
    _put(pod, "tolerations", [_given(t) for t in resources.tolerations])
    _put(pod, "affinity", None if resources.affinity is None else _given(resources.affinity))
    _put(pod, "topologySpreadConstraints", _spread(resources, labels))
    _put(pod, "priorityClassName", resources.priority_class_name)
    _put(pod, "runtimeClassName", resources.runtime_class_name)
    _put(pod, "imagePullSecrets", [_given(s) for s in resources.image_pull_secrets])
    template: dict[str, Any] = {"metadata": {"labels": labels}, "spec": pod}
    if resources.nodes > 1 and not request.freezing and not settings.ray_jobs:
        template = one_of_several(
            template, request.name, service_name(request.iteration.metadata.name), resources, gpus
        )
    if resources.pod_template is not None:
        generated = template["metadata"]["labels"]
        template = merged(template, _given(resources.pod_template))
        # Whatever a template says: by these pods are found, let in and kept apart.
        template["metadata"] = {
            **template["metadata"],
            "labels": {**template["metadata"].get("labels", {}), **generated},
        }
    return template


def _container(
    request: JobRequest, resources: StageResources, profile: Profile, settings: Settings, gpus: int
) -> dict[str, Any]:
    environment = _environment(resources, profile)
    if request.freezing:
        pieces = pack(frozen_resource(request.iteration), f"ViperIteration {request.iteration.metadata.name}")
        environment += [{"name": n, "value": v} for n, v in variables("VIPER_ITERATION", pieces).items()]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": resources.image or settings.image,
        **_program(request, resources, settings),
        "env": environment,
        "resources": _resources(resources, gpus),
        "volumeMounts": [
            {"name": "work", "mountPath": WORK},
            {"name": "tmp", "mountPath": SCRATCH},
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
            *_cache_mounts(resources),
        ],
        **restricted_container(settings),
    }
    _put(container, "imagePullPolicy", resources.image_pull_policy)
    return container


def _filler(
    request: JobRequest, resources: StageResources, profile: Profile, settings: Settings
) -> list[dict[str, Any]]:
    """The container that brings what the stage needs into the model cache, where that may be written.

    It has no GPU of its own. Its memory and CPUs are the stage's: a pod requests the larger of both, not the sum.
    """
    cache, stage, spec = resources.model_cache, request.stage, request.iteration.spec
    if cache is None or cache.read_only:
        return []
    needed = [uri for uri in stage_models(spec, stage).values() if is_remote(uri)]
    if request.freezing:
        if not needed:
            return []
        arguments = ["--tracking-uri", settings.tracking, *dict.fromkeys(needed)]
    elif needed or "vlm" in engine_fields(spec, stage):
        place = child_uri(settings.store, f"iterations/{request.iteration.metadata.name}")
        arguments = ["--iteration", place, "--stage", stage.name]
    else:
        return []
    container: dict[str, Any] = {
        "name": FILLER,
        "image": resources.image or settings.image,
        "command": ["viper"],
        "args": ["models", "pull", "--termination-log", TERMINATION_LOG, *arguments],
        "env": _environment(resources, profile),
        "resources": _resources(resources, 0),
        "volumeMounts": [{"name": "tmp", "mountPath": SCRATCH}, *_cache_mounts(resources)],
        **restricted_container(settings),
    }
    _put(container, "imagePullPolicy", resources.image_pull_policy)
    return [container]


def _environment(resources: StageResources, profile: Profile) -> list[dict[str, Any]]:
    environment = [{"name": "HOME", "value": SCRATCH}]
    if profile.offline:
        environment.append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if resources.model_cache is not None:
        environment.append({"name": "VIPER_MODEL_CACHE", "value": resources.model_cache.mount_path})
    return environment + [_variable(e) for e in resources.env]


def _variable(variable: EnvVar) -> dict[str, Any]:
    """A value, or where it comes from: never both, as Kubernetes wants it."""
    given = _given(variable)
    if variable.value_from is not None:
        del given["value"]
    return given


def _cache_mounts(resources: StageResources) -> list[dict[str, Any]]:
    cache = resources.model_cache
    if cache is None:
        return []
    return [{"name": "models", "mountPath": cache.mount_path, "readOnly": cache.read_only}]


def _fails_for_good(container: str) -> dict[str, Any]:
    """Failures that another attempt would meet again end the Job."""
    codes = {"containerName": container, "operator": "In", "values": sorted(PERMANENT_EXIT_CODES)}
    return {"action": "FailJob", "onExitCodes": codes}


def _program(request: JobRequest, resources: StageResources, settings: Settings) -> dict[str, Any]:
    if request.freezing:
        arguments = ["--store", settings.store, "--tracking", settings.tracking]
        return {"command": ["viper-freeze"], "args": [*arguments, "--termination-log", TERMINATION_LOG]}
    arguments = [
        request.stage.name,
        "--iteration",
        child_uri(settings.store, f"iterations/{request.iteration.metadata.name}"),
        "--shard",
        # Set by the Job controller in every pod of an Indexed Job, expanded by the kubelet.
        f"$(JOB_COMPLETION_INDEX)/{resources.shards}" if resources.nodes == 1 else "0/1",
        "--work-dir",
        # A claim is shared by all stages of all iterations that name it.
        WORK if resources.work_claim is None else f"{WORK}/{request.iteration.metadata.name}/{request.stage.name}",
        "--termination-log",
        TERMINATION_LOG,
    ]
    return {"command": ["viper-job"], "args": arguments}


def frozen_resource(iteration: ViperIteration) -> str:
    """The resource as `viper-freeze` gets it: with its profile inline, without what changes while it runs."""
    spec = iteration.spec.model_copy(update={"suspend": False}).dump()
    dump = {
        # An image that does not know all of these fields can tell whether it has to.
        **enveloped({}),
        MIN_VERSION: least_version(iteration),
        "apiVersion": iteration.api_version,
        "kind": iteration.kind,
        "metadata": {"name": iteration.metadata.name},
        "spec": spec,
    }
    return json.dumps(dump, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _resources(resources: StageResources, gpus: int) -> dict[str, Any]:
    wanted = _given(resources.resources)
    if gpus:
        wanted["limits"] = {**wanted.get("limits", {}), resources.gpu_resource_name: str(gpus)}
    return {kind: amounts for kind, amounts in wanted.items() if amounts}


def _volumes(resources: StageResources) -> list[dict[str, Any]]:
    work: dict[str, Any] = {}
    shm: dict[str, Any] = {"medium": "Memory"}
    _put(work, "sizeLimit", resources.work_size)
    _put(shm, "sizeLimit", resources.shm_size)
    scratch: dict[str, Any] = {"emptyDir": work}
    if resources.work_claim is not None:
        scratch = {"persistentVolumeClaim": {"claimName": resources.work_claim}}
    volumes: list[dict[str, Any]] = [
        {"name": "work", **scratch},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": shm},
    ]
    if (cache := resources.model_cache) is not None:
        claim = {"claimName": cache.claim_name, "readOnly": cache.read_only}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    return volumes


def _spread(resources: StageResources, labels: dict[str, str]) -> list[dict[str, Any]]:
    constraints = [_given(c) for c in resources.topology_spread_constraints]
    return [{"labelSelector": {"matchLabels": labels}, **c} for c in constraints]


def _given(model: Any) -> dict[str, Any]:
    """A part of the profile under Kubernetes' names, without what is null."""
    dump: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dump


def _put(target: dict[str, Any], key: str, value: Any) -> None:
    if value not in (None, [], {}):
        target[key] = value
