"""The Jobs that the operator makes, and that an API server takes them under restricted Pod Security."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kube_objects import SETTINGS

from fakes import world
from fakes.kubelet import Connection
from servers.kube import KubeApi
from viper.methods.stages import FREEZE, FREEZING, STAGES, declared
from viper.spec import ViperIteration, parse_stored
from viper.spec.packed import pieces_of, unpack
from viper_operator.job_specs import JobRequest, stage_job

RICH: dict[str, Any] = {
    "queueName": "team",
    "offline": False,
    "defaults": {
        "retries": 1,
        "deadlineSeconds": 60,
        "image": "registry/viper:2",
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "pull"}],
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
        "shmSize": "8Gi",
        "workSize": "20Gi",
        "modelCache": {"claimName": "models", "mountPath": "/models"},
        "env": [
            {"name": "COLOUR", "value": "blue"},
            {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "judge", "key": "api-key"}}},
        ],
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"topologyKey": "zone"}],
        "priorityClassName": "system-node-critical",
        "runtimeClassName": None,
        "ttlSecondsAfterFinished": 100,
    },
    "stages": {"synthesize-captions": {"shards": 8, "gpus": 1}},
}


def of(stage: str, profile: dict[str, Any] | None = None, **request: Any) -> dict[str, Any]:
    """The Job of a stage."""
    one = world.iteration("it", **({"profile": profile} if profile is not None else {}))
    return stage_job(JobRequest(one, "uid-it", declared(stage), **request), SETTINGS)


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return job["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(job: dict[str, Any]) -> dict[str, Any]:
    return pod(job)["containers"][0]  # type: ignore[no-any-return]


def test_a_job_of_a_stage_whole() -> None:
    labels = {
        "app.kubernetes.io/name": "viper",
        "app.kubernetes.io/component": "stage",
        "app.kubernetes.io/managed-by": "viper-operator",
        "viper.dev/iteration": "it",
        "viper.dev/stage": "ingest-images",
    }
    owner = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperIteration", "name": "it", "uid": "uid-it"}
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {"containerName": "stage", "operator": "In", "values": [2, 3, 7, 9, 11]},
        },
    ]
    assert of("ingest-images") == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "it-ingest-images",
            "namespace": "team",
            "labels": {**labels, "viper.dev/retry": "0", "viper.dev/attempt": "1"},
            "annotations": {"viper.dev/model": "m", "viper.dev/gpus": "0"},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 2,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            "ttlSecondsAfterFinished": 604800,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 60,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "fsGroup": 65532,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "volumes": [
                        {"name": "work", "emptyDir": {}},
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "shm", "emptyDir": {"medium": "Memory"}},
                    ],
                    "containers": [
                        {
                            "name": "stage",
                            "image": "viper/cpu:1",
                            "command": ["viper-job"],
                            "args": [
                                "ingest-images",
                                "--iteration",
                                "s3://viper/iterations/it?endpoint=http://minio:9000",
                                "--shard",
                                "$(JOB_COMPLETION_INDEX)/1",
                                "--work-dir",
                                "/work",
                                "--termination-log",
                                "/dev/termination-log",
                            ],
                            "env": [{"name": "HOME", "value": "/tmp"}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
                            "envFrom": [{"secretRef": {"name": "viper-store"}}],
                            "resources": {},
                            "volumeMounts": [
                                {"name": "work", "mountPath": "/work"},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "shm", "mountPath": "/dev/shm"},
                            ],
                            "terminationMessagePath": "/dev/termination-log",
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "readOnlyRootFilesystem": True,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    }


def test_freezing_gets_the_resource_and_is_one_pod_without_gpus() -> None:
    job = of(FREEZE, {"defaults": {"gpus": 8, "retries": 5}}, retry=2)
    assert job["metadata"]["name"] == "it-freeze-r2"
    assert job["metadata"]["annotations"]["viper.dev/gpus"] == "0"
    assert container(job)["command"] == ["viper-freeze"]
    assert container(job)["args"] == [
        "--store",
        "s3://viper?endpoint=http://minio:9000",
        "--tracking",
        "http://mlflow:5000",
        "--termination-log",
        "/dev/termination-log",
    ]
    assert container(job)["resources"] == {}
    environment = {e["name"]: e.get("value", "") for e in container(job)["env"]}
    given = unpack(pieces_of("VIPER_ITERATION", environment), "it")
    one = parse_stored(json.loads(given))
    assert isinstance(one, ViperIteration)
    assert one.spec == world.iteration("it", profile={"defaults": {"gpus": 8, "retries": 5}}).spec


def test_whether_it_is_suspended_is_no_part_of_what_is_frozen() -> None:
    running, suspended = world.iteration("it"), world.iteration("it", suspend=True)
    jobs = [stage_job(JobRequest(one, "u", FREEZING.stage), SETTINGS) for one in (running, suspended)]
    assert jobs[0] == jobs[1]


def test_everything_that_a_profile_asks_for_is_in_the_job() -> None:
    job = of("synthesize-captions", RICH, seconds_before=61.4)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert job["metadata"]["annotations"]["viper.dev/gpus"] == "8"
    assert job["metadata"]["annotations"]["viper.dev/seconds-before"] == "61"
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (8, 8, 8)
    assert spec["ttlSecondsAfterFinished"] == 100
    assert "suspend" not in spec
    made = pod(job)
    assert made["activeDeadlineSeconds"] == 60
    assert made["nodeSelector"] == {"pool": "gpu"}
    assert made["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    assert made["priorityClassName"] == "system-node-critical"
    assert made["imagePullSecrets"] == [{"name": "pull"}]
    labels = spec["template"]["metadata"]["labels"]
    assert made["topologySpreadConstraints"][0]["labelSelector"] == {"matchLabels": labels}
    volumes = {v["name"]: v for v in made["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}
    assert volumes["work"]["emptyDir"] == {"sizeLimit": "20Gi"}
    assert volumes["models"]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    stage = container(job)
    assert stage["image"] == "registry/viper:2"
    assert stage["imagePullPolicy"] == "Always"
    assert stage["args"][4] == "$(JOB_COMPLETION_INDEX)/8"
    assert stage["resources"] == {
        "requests": {"cpu": "500m"},
        "limits": {"memory": "1Gi", "nvidia.com/gpu": "1"},
    }
    assert stage["env"] == [
        {"name": "HOME", "value": "/tmp"},
        {"name": "VIPER_MODEL_CACHE", "value": "/models"},
        {"name": "COLOUR", "value": "blue"},
        {
            "name": "OPENAI_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "judge", "key": "api-key", "optional": False}},
        },
    ]
    assert {"name": "models", "mountPath": "/models", "readOnly": True} in stage["volumeMounts"]


def test_a_profiles_own_pod_template_comes_last() -> None:
    change = {
        "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {"containers": [{"name": "stage", "env": [{"name": "HOME", "value": "/work"}]}], "hostNetwork": False},
    }
    job = of("evaluate", {"defaults": {"podTemplate": change}})
    assert job["spec"]["template"]["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert container(job)["env"][0] == {"name": "HOME", "value": "/work"}
    assert container(job)["command"] == ["viper-job"]
    assert pod(job)["hostNetwork"] is False


MODELS = {
    "reconstructor": "qwen-image:hf://Qwen/Qwen-Image@main",
    "editor": "omnigen2:/models/omnigen2",
    "similarity": "bge-m3:s3://weights/bge-m3",
    "imageSimilarity": "open-clip:models:/clip@production",
    "editing": {"lora": "hf://org/lora@main"},
}
FILLED: dict[str, Any] = {
    **RICH,
    "defaults": {**RICH["defaults"], "modelCache": {"claimName": "models", "readOnly": False}},
}


def with_models(stage: str, profile: dict[str, Any], **spec: Any) -> dict[str, Any]:
    one = world.iteration("it", profile=profile, engines=MODELS, **spec)
    return stage_job(JobRequest(one, "uid-it", declared(stage)), SETTINGS)


def test_a_cache_that_may_be_written_is_filled_before_the_stage_starts() -> None:
    job = with_models("synthesize-captions", FILLED)
    (filler,) = pod(job)["initContainers"]
    stage = container(job)
    assert filler["name"] == "models"
    assert filler["command"] == ["viper"]
    iteration = "s3://viper/iterations/it?endpoint=http://minio:9000"
    log = ["--termination-log", "/dev/termination-log"]
    assert filler["args"] == ["models", "pull", *log, "--iteration", iteration, "--stage", "synthesize-captions"]
    assert filler["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}
    assert stage["resources"]["limits"]["nvidia.com/gpu"] == "1"
    for same in ("image", "imagePullPolicy", "env", "envFrom", "securityContext", "terminationMessagePath"):
        assert filler[same] == stage[same]
    assert {"name": "VIPER_MODEL_CACHE", "value": "/models"} in filler["env"]
    assert {"name": "models", "mountPath": "/models", "readOnly": False} in filler["volumeMounts"]
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [r["onExitCodes"]["containerName"] for r in rules[1:]] == ["stage", "models"]


def test_a_cache_that_is_read_only_is_not_filled_and_the_stage_is_told_where_it_is() -> None:
    job = with_models("synthesize-captions", RICH)
    assert "initContainers" not in pod(job)
    assert {"name": "VIPER_MODEL_CACHE", "value": "/models"} in container(job)["env"]


def test_only_stages_that_load_models_fill_the_cache() -> None:
    filled = {stage for stage in (FREEZE, *STAGES) if "initContainers" in pod(with_models(stage, FILLED))}
    assert filled == {s for s in STAGES if s.startswith(("synthesize", "train", "cold", "map", "evaluate"))} | {
        "validate-operations"
    }


@pytest.mark.parametrize(("similarity", "filled"), [(None, False), (0.95, True)])
def test_taking_in_images_fills_the_cache_where_it_looks_for_near_duplicates_by_clip(
    similarity: float | None, filled: bool
) -> None:
    recipe = {"validation": {"nearDuplicateSimilarity": similarity}}
    job = with_models("ingest-images", FILLED, recipe=recipe)
    assert ("initContainers" in pod(job)) == filled


def test_freezing_fills_the_cache_with_models_that_go_into_the_store() -> None:
    generator = {"alias": "generator", "initialUri": "hf://Qwen/Qwen2.5-VL-7B-Instruct@main"}
    (filler,) = pod(with_models(FREEZE, FILLED, generator=generator))["initContainers"]
    assert filler["args"][4:] == ["--tracking-uri", "http://mlflow:5000", "hf://Qwen/Qwen2.5-VL-7B-Instruct@main"]


@pytest.mark.parametrize("offline", [True, False])
def test_the_profile_decides_whether_the_cache_may_be_filled_from_the_hub(offline: bool) -> None:
    (filler,) = pod(with_models("synthesize-captions", {**FILLED, "offline": offline}))["initContainers"]
    assert ({"name": "HF_HUB_OFFLINE", "value": "1"} in filler["env"]) is offline


@pytest.mark.kube
@pytest.mark.parametrize("stage", [FREEZE, "ingest-images", "synthesize-captions"])
@pytest.mark.parametrize("profile", [{}, RICH, FILLED], ids=["plain", "rich", "filled"])
def test_an_api_server_takes_them_where_pod_security_is_restricted(
    kube_api: KubeApi, stage: str, profile: dict[str, Any]
) -> None:
    api = Connection(kube_api.kubeconfig)
    job = of(stage, profile)
    job["metadata"]["namespace"] = "default"
    query = "fieldManager=viper-operator&dryRun=All&fieldValidation=Strict"
    path = f"/apis/batch/v1/namespaces/default/jobs/{job['metadata']['name']}?{query}"
    made = api.call("PATCH", path, job, "application/apply-patch+yaml")
    assert made["spec"]["completionMode"] == "Indexed"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.call("PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": labels}}, "application/merge-patch+json")
    template = job["spec"]["template"]
    template["spec"].pop("priorityClassName", None)
    body = {"metadata": {"generateName": "try-", **template["metadata"]}, "spec": template["spec"]}
    assert api.call("POST", "/api/v1/namespaces/default/pods?dryRun=All", body)["spec"]
