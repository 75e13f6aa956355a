"""What a profile may make of its pods: the finished pod passes "Restricted", unless who runs the operator says else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from kube_objects import SETTINGS

from viper.errors import SpecError
from viper.methods.stages import FREEZE, FREEZING, declared, stage_graph
from viper.spec import ViperIteration, parse_resource, parse_stored
from viper.spec.packed import pieces_of, unpack
from viper_operator.job_specs import JobRequest, stage_job
from viper_operator.names import pod_labels
from viper_operator.pod_security import violations
from viper_operator.pod_templates import refusal
from viper_operator.settings import POD_TEMPLATES, Settings

ENGINES = {"reconstructor": "qwen-image", "editor": "qwen-image-edit", "similarity": "bge-m3"}
ENGINES |= {"imageSimilarity": "open-clip", "trainer": "verl"}


def iteration(template: Any = None, *, stage: str = "", **defaults: Any) -> ViperIteration:
    """An iteration with this pod template, of all stages or one."""
    given = {} if template is None else {"podTemplate": template}
    profile = {"defaults": {**defaults, **({} if stage else given)}, "stages": {stage: given} if stage else {}}
    made = parse_resource(
        {
            "apiVersion": "viper.dev/v1alpha1",
            "kind": "ViperIteration",
            "metadata": {"name": "it"},
            "spec": {"model": "m", "images": {"uri": "file:///i"}, "engines": ENGINES, "profile": profile},
        }
    )
    assert isinstance(made, ViperIteration)
    return made


def refused(template: Any, mode: str = "restricted", stage: str = "evaluate", **settings: Any) -> str:
    request = JobRequest(iteration(template), "uid", declared(stage))
    return refusal(request, replace(SETTINGS, pod_templates=mode, **settings))


def of_pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def of_stage(**container: Any) -> dict[str, Any]:
    return of_pod(containers=[{"name": "stage", **container}])


def secured(**security: Any) -> dict[str, Any]:
    return of_stage(securityContext=security)


def sidecar(kind: str, **security: Any) -> dict[str, Any]:
    return of_pod(**{kind: [{"name": "other", "image": "x", "securityContext": security}]})


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (of_pod(initContainers=[{"name": "a"}, {"name": "a"}]), "initContainers has 2 items called a"),
        (of_pod(containers=[{"name": "b"}] * 3), "containers has 3 items called b"),
        (of_pod(volumes=[{"name": "v", "emptyDir": {}}] * 2), "volumes has 2 items called v"),
        (of_pod(ephemeralContainers=[{"name": "e"}] * 2), "ephemeralContainers has 2 items called e"),
        (
            of_pod(containers=[{"name": "a"}], initContainers=[{"name": "a"}]),
            "spec.initContainers[a] is called as one of containers",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["restricted", "unrestricted"])
def test_two_items_of_one_name_are_refused(template: dict[str, Any], said: str, mode: str) -> None:
    assert said in refused(template, mode)


GOOD = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}

#: template → what is said of it. One row or more for every line of the standard.
BREAKS: list[tuple[dict[str, Any], str]] = [
    # ---- Baseline: namespaces, privilege, volumes, ports ----
    (of_pod(hostNetwork=True), "spec.hostNetwork"),
    (of_pod(hostPID=True), "spec.hostPID"),
    (of_pod(hostIPC=True), "spec.hostIPC"),
    (secured(privileged=True), "privileged"),
    (secured(privileged="true"), "privileged"),
    (sidecar("initContainers", **GOOD, privileged=True), "spec.initContainers[other].securityContext.privileged"),
    (sidecar("ephemeralContainers", **GOOD, privileged=True), "spec.ephemeralContainers[other]"),
    (sidecar("containers", **GOOD, privileged=True), "spec.containers[other].securityContext.privileged"),
    (secured(windowsOptions={"hostProcess": True}), "windowsOptions.hostProcess"),
    (of_pod(securityContext={"windowsOptions": {"hostProcess": True}}), "spec.securityContext.windowsOptions"),
    *(
        (of_pod(volumes=[{"name": "v", kind: {}}]), f"spec.volumes[v] must not be a {kind}")
        for kind in (
            "hostPath",
            "nfs",
            "iscsi",
            "glusterfs",
            "rbd",
            "cephfs",
            "fc",
            "gcePersistentDisk",
            "awsElasticBlockStore",
            "azureDisk",
            "azureFile",
            "cinder",
            "flexVolume",
            "flocker",
            "gitRepo",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "scaleIO",
            "storageos",
            "vsphereVolume",
            "aVolumeOfALaterVersion",
        )
    ),
    (of_pod(volumes=[{"name": "work", "emptyDir": None, "hostPath": {"path": "/"}}]), "spec.volumes[work]"),
    (of_stage(ports=[{"containerPort": 80, "hostPort": 80}]), "hostPort"),
    (of_stage(livenessProbe={"httpGet": {"host": "10.0.0.1", "port": 1}}), "livenessProbe.httpGet.host"),
    (of_stage(readinessProbe={"tcpSocket": {"host": "10.0.0.1", "port": 1}}), "readinessProbe.tcpSocket.host"),
    (of_stage(startupProbe={"httpGet": {"host": "10.0.0.1", "port": 1}}), "startupProbe.httpGet.host"),
    (of_stage(lifecycle={"postStart": {"httpGet": {"host": "x", "port": 1}}}), "lifecycle.postStart.httpGet.host"),
    (of_stage(lifecycle={"preStop": {"tcpSocket": {"host": "x", "port": 1}}}), "lifecycle.preStop.tcpSocket.host"),
    # ---- Baseline: profiles of the kernel ----
    (secured(appArmorProfile={"type": "Unconfined"}), "appArmorProfile"),
    (of_pod(securityContext={"appArmorProfile": {"type": "Unconfined"}}), "spec.securityContext.appArmorProfile"),
    (
        {"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/stage": "unconfined"}}},
        "metadata.annotations[container.apparmor",
    ),
    (secured(seLinuxOptions={"type": "spc_t"}), "seLinuxOptions.type"),
    (secured(seLinuxOptions={"user": "root"}), "seLinuxOptions.user"),
    (of_pod(securityContext={"seLinuxOptions": {"role": "system_r"}}), "seLinuxOptions.role"),
    (secured(procMount="Unmasked"), "procMount"),
    (of_pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}), "sysctls[kernel.msgmax]"),
    (secured(seccompProfile={"type": "Unconfined"}), "seccompProfile"),
    (of_pod(securityContext={"seccompProfile": {"type": "Unconfined"}}), "spec.securityContext.seccompProfile"),
    (of_pod(securityContext={"seccompProfile": None}), "seccompProfile"),
    # ---- Restricted ----
    (secured(allowPrivilegeEscalation=True), "allowPrivilegeEscalation"),
    (secured(allowPrivilegeEscalation=None), "allowPrivilegeEscalation"),
    (of_stage(securityContext=None), "allowPrivilegeEscalation"),
    (of_pod(securityContext={"runAsNonRoot": False}), "runAsNonRoot"),
    (of_pod(securityContext={"runAsNonRoot": None}), "runAsNonRoot"),
    (of_pod(securityContext=None), "runAsNonRoot"),
    (secured(runAsNonRoot=False), "spec.containers[stage].securityContext.runAsNonRoot"),
    (of_pod(securityContext={"runAsUser": 0}), "spec.securityContext.runAsUser"),
    (secured(runAsUser=0), "spec.containers[stage].securityContext.runAsUser"),
    (secured(capabilities={"add": ["IPC_LOCK"]}), "capabilities.add must not hold IPC_LOCK"),
    (secured(capabilities={"add": ["NET_BIND_SERVICE", "SYS_ADMIN"]}), "must not hold SYS_ADMIN"),
    (secured(capabilities={"drop": []}), "capabilities.drop"),
    (secured(capabilities={"drop": ["NET_RAW"]}), "capabilities.drop"),
    (secured(capabilities=None), "capabilities.drop"),
    (sidecar("containers"), "spec.containers[other].securityContext.allowPrivilegeEscalation"),
    (sidecar("initContainers", **GOOD, runAsUser=0), "spec.initContainers[other].securityContext.runAsUser"),
    # ---- ours beyond the standard ----
    (
        of_pod(volumes=[{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]),
        "serviceAccountToken",
    ),
    *(
        (
            of_pod(volumes=[{"name": "t", "projected": {"sources": [{"configMap": {}}, {kind: {}}]}}]),
            f"sources[1].{kind}",
        )
        for kind in ("podCertificate", "aSourceOfALaterVersion")
    ),
]


@pytest.mark.parametrize(("template", "said"), BREAKS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_the_standard_forbids_is_refused_with_its_path(template: dict[str, Any], said: str) -> None:
    text = refused(template)
    assert said in text
    assert text.startswith("evaluate: podTemplate")
    assert "unrestricted" in text, "what to do"
    assert refused(template, "unrestricted") == ""
    assert "forbidden" in refused(template, "forbidden")


FINE: list[dict[str, Any]] = [
    {},
    {"metadata": {"annotations": {"sidecar.istio.io/inject": "false"}, "labels": {"team": "vision"}}},
    of_stage(env=[{"name": "A", "value": "b"}]),
    of_stage(ports=[{"containerPort": 8080}]),
    of_stage(livenessProbe={"httpGet": {"port": 1}}),
    of_pod(hostNetwork=False, hostPID=None),
    of_pod(schedulerName="other", hostname="h", hostAliases=[{"ip": "10.0.0.1", "hostnames": ["a"]}]),
    of_pod(securityContext={"sysctls": [{"name": "net.ipv4.tcp_keepalive_time", "value": "60"}]}),
    of_pod(securityContext={"runAsUser": 1000, "seLinuxOptions": {"type": "container_t", "level": "s0"}}),
    of_pod(securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}),
    secured(capabilities={"add": ["NET_BIND_SERVICE"]}),
    secured(appArmorProfile={"type": "RuntimeDefault"}),
    sidecar("containers", **GOOD),
    of_pod(automountServiceAccountToken=False),
    *(
        of_pod(volumes=[{"name": "v", kind: {}}])
        for kind in ("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected")
    ),
    of_pod(volumes=[{"name": "v", "secret": {"secretName": "my-own"}}]),
    secured(seLinuxOptions={"type": None, "level": "s0"}),
    of_pod(
        volumes=[
            {
                "name": "v",
                "projected": {
                    "defaultMode": 292,
                    "sources": [
                        {"configMap": {"name": "a"}},
                        {"secret": {"name": "b"}},
                        {"downwardAPI": {"items": []}},
                        {"clusterTrustBundle": {"name": "c", "path": "ca.pem"}},
                    ],
                },
            }
        ]
    ),
    of_pod(
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists"}],
        nodeSelector={"a": "b"},
        runtimeClassName="nvidia",
        priorityClassName="batch",
    ),
    of_pod(
        volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "photos", "readOnly": True}}],
        containers=[{"name": "stage", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
    ),
    of_pod(volumes=[{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Gi"}}]),
    of_pod(
        initContainers=[{"name": "proxy", "image": "x", "restartPolicy": "Always", "securityContext": GOOD}],
        shareProcessNamespace=True,
    ),
    of_stage(resources={"limits": {"rdma/ib": 1, "memory": "64Gi"}}),
    {"metadata": {"annotations": {"sidecar.istio.io/inject": "true", "prometheus.io/scrape": "true"}}},
]


@pytest.mark.parametrize("template", FINE, ids=repr)
def test_what_it_allows_is_taken(template: dict[str, Any]) -> None:
    assert refused(template) == ""


OURS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"metadata": {"labels": {key: "x"}}}, f"labels[{key}]")
        for key in (
            "app.kubernetes.io/component",
            "app.kubernetes.io/managed-by",
            "app.kubernetes.io/name",
            "app.kubernetes.io/instance",
            "viper.dev/iteration",
            "viper.dev/stage",
            "viper.dev/ray",
            "viper.dev/anything",
            "batch.kubernetes.io/job-name",
            "job-name",
            "controller-uid",
            "kueue.x-k8s.io/queue-name",
            "ray.io/cluster",
        )
    ),
    ({"metadata": {"annotations": {"viper.dev/model": "other"}}}, "annotations[viper.dev/model]"),
    ({"metadata": {"labels": {"app.kubernetes.io/component": None}}}, "labels"),
    ({"metadata": {"finalizers": ["a/b"]}}, "metadata.finalizers"),
    ({"metadata": {"ownerReferences": []}}, "metadata.ownerReferences"),
    ({"metadata": {"namespace": "kube-system"}}, "metadata.namespace"),
    (of_pod(serviceAccountName="viper-operator"), "spec.serviceAccountName"),
    (of_pod(serviceAccount="viper-operator"), "spec.serviceAccount"),
    (of_pod(automountServiceAccountToken=True), "spec.automountServiceAccountToken"),
    (of_pod(automountServiceAccountToken=None), "spec.automountServiceAccountToken"),
    (of_pod(containers=None), "spec.containers"),
    (of_stage(**{"$patch": "replace"}), "spec.containers[0].$patch is no part of a pod"),
    (of_pod(volumes=[{"name": "work", "$patch": "delete"}]), "spec.volumes[0].$patch"),
    (of_pod(**{"$retainKeys": ["containers"]}), "spec.$retainKeys"),
    (secured(**{"$patch": "delete"}), "spec.containers[0].securityContext.$patch"),
    ({"metadata": {"$patch": "replace"}}, "metadata.$patch"),
    (of_pod(volumes=[{"name": "v", "secret": {"secretName": "viper-minio-root"}}]), "Secret viper-minio-root"),
    (of_pod(volumes=[{"name": "v", "secret": {"secretName": "sh.helm.release.v1.viper.v1"}}]), "sh.helm.release.v1"),
    (
        of_pod(volumes=[{"name": "v", "projected": {"sources": [{"secret": {"name": "viper-minio-root"}}]}}]),
        "Secret viper-minio-root",
    ),
    (
        of_pod(volumes=[{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "viper-minio-root"}}}]),
        "Secret viper-minio-root",
    ),
    (of_stage(envFrom=[{"secretRef": {"name": "viper-minio-root"}}]), "Secret viper-minio-root"),
    (
        of_stage(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "viper-minio-root", "key": "k"}}}]),
        "Secret viper-minio-root",
    ),
    (of_pod(imagePullSecrets=[{"name": "viper-minio-root"}]), "Secret viper-minio-root"),
]


@pytest.mark.parametrize("mode", ["restricted", "unrestricted"])
@pytest.mark.parametrize(("template", "said"), OURS, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_ours_is_never_the_templates(template: dict[str, Any], said: str, mode: str) -> None:
    text = refused(template, mode, protected_secrets=("viper-minio-root",))
    assert said in text
    assert "podTemplate" in text


def test_a_protected_secret_is_refused_as_a_variable_of_the_profile_too() -> None:
    variable = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "viper-minio-root", "key": "k"}}}
    settings = replace(SETTINGS, protected_secrets=("viper-minio-root",))
    assert "viper-minio-root" in refusal(JobRequest(iteration(env=[variable]), "uid", FREEZING.stage), settings)


MALFORMED: list[dict[str, Any]] = [
    of_pod(containers="stage"),
    of_pod(containers=[7]),
    of_pod(containers=[None]),
    of_pod(containers=[{"image": "x"}]),
    of_pod(containers=[{"name": ["stage"]}]),
    of_pod(containers={"name": "stage"}),
    of_pod(initContainers=7),
    of_pod(volumes={"v": {}}),
    of_pod(volumes=[["v"]]),
    of_pod(securityContext="none"),
    of_pod(securityContext=[]),
    of_pod(securityContext={"seccompProfile": "RuntimeDefault"}),
    of_pod(securityContext={"sysctls": ["kernel.msgmax"]}),
    secured(capabilities=["ALL"]),
    secured(capabilities={"drop": "ALL"}),
    secured(seLinuxOptions="spc_t"),
    of_stage(ports=7),
    of_stage(ports=[80]),
    of_stage(livenessProbe="often"),
    of_stage(lifecycle={"preStop": "sleep"}),
    of_stage(env=7) | {"metadata": {"labels": ["a"]}},
    {"metadata": {"labels": {"a": 1}}},
    {"metadata": {"annotations": "a"}},
]


@pytest.mark.parametrize("template", MALFORMED, ids=repr)
def test_what_is_no_pod_template_is_refused_and_nothing_raises(template: dict[str, Any]) -> None:
    assert "podTemplate" in refused(template)


@pytest.mark.parametrize("ray", [False, True], ids=["Job", "RayJob"])
def test_the_pods_of_several_nodes_are_looked_at_too(ray: bool) -> None:
    made = iteration(secured(privileged=True), stage="train-captions", workClaim="w")
    profile = made.spec.profile
    nodes = {"nodes": 2, "workClaim": "w", "podTemplate": profile.stages["train-captions"].pod_template}
    train = profile.stages["train-captions"].model_copy(update=nodes)
    train.model_fields_set.update(nodes)
    changed = profile.model_copy(update={"stages": {"train-captions": train}})
    made = made.model_copy(update={"spec": made.spec.model_copy(update={"profile": changed})})
    settings = replace(SETTINGS, ray_jobs=ray)
    request = JobRequest(made, "uid", declared("train-captions"))
    assert stage_job(request, settings)["kind"] == ("RayJob" if ray else "Job")
    assert "privileged" in refusal(request, settings)
    assert refusal(request, replace(settings, pod_templates="unrestricted")) == ""


def test_before_the_first_job_all_stages_are_looked_at() -> None:
    """Days of work before the stage that could not run would be lost."""
    request = JobRequest(iteration(of_pod(hostNetwork=True), stage="train-operations"), "uid", FREEZING.stage)
    assert refusal(request, SETTINGS).startswith("train-operations: podTemplate: spec.hostNetwork")


def every(settings: Settings) -> Iterator[dict[str, Any]]:
    """The finished pods of all stages, on one node and on several."""
    for nodes in (1, 2):
        own = {"nodes": nodes, "workClaim": "w" if nodes > 1 else None, "modelCache": {"claimName": "c"}}
        profile = {"defaults": {"modelCache": {"claimName": "c", "readOnly": False}}, "stages": {}}
        profile["stages"] = dict.fromkeys(("train-captions", "train-operations"), own)
        document = iteration().dump()
        document["spec"]["profile"] = profile
        made = parse_resource(document)
        assert isinstance(made, ViperIteration)
        for stage in (FREEZE, *(n.name for n in stage_graph(made.spec.recipe))):
            job = stage_job(JobRequest(made, "uid", declared(stage)), settings)
            if job["kind"] == "Job":
                yield job["spec"]["template"]
            else:
                cluster = job["spec"]["rayClusterSpec"]
                yield cluster["headGroupSpec"]["template"]
                yield cluster["workerGroupSpecs"][0]["template"]


@pytest.mark.parametrize("ray", [False, True], ids=["Jobs", "RayJobs"])
def test_what_the_operator_makes_by_itself_passes(ray: bool) -> None:
    for pod in every(replace(SETTINGS, ray_jobs=ray)):
        assert list(violations(pod)) == []


TIMES = "$(A)" * 1000
TOWER = [{"name": f"A{i}", "value": f"$(A{i - 1})" * 500 if i else "x"} for i in range(60)]


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ([{"name": "A", "value": "x" * 4000}, {"name": "B", "value": TIMES}], "spec.containers[stage].env[B]"),
        ([{"name": "A", "value": "ß" * 4096}], ""),
        ([{"name": "B", "value": TIMES}, {"name": "A", "value": "x" * 4000}], ""),
        (TOWER, "has 1000000000000000 bytes"),
    ],
    ids=["a product", "not ASCII", "in the other order", "a tower"],
)
def test_variables_that_make_a_program_impossible_to_start_are_refused(env: list[dict[str, str]], said: str) -> None:
    text = refusal(JobRequest(iteration(env=env), "uid", declared("evaluate")), SETTINGS)
    assert said in text
    assert bool(text) == bool(said)


@pytest.mark.parametrize(
    "container",
    [
        {"env": [{"name": "A", "value": "x" * 140_000}]},
        {"args": ["x" * 140_000]},
        {"command": ["ß" * 70_000]},
        {"env": [{"name": f"A{i}", "value": "x" * 100_000} for i in range(20)]},
    ],
    ids=["variable", "argument", "command", "together"],
)
def test_so_are_those_of_a_template(container: dict[str, Any]) -> None:
    for mode in ("restricted", "unrestricted"):
        assert "no program could be started" in refused(of_stage(**container), mode)


def legal(letters: int) -> ViperIteration:
    """A spec of some 10 kB: variables of every stage, in no ASCII."""
    env = [{"name": f"V{i}", "value": "漢" * letters} for i in range(3)]
    document = iteration().dump()
    document["spec"]["profile"] = {"stages": {s: {"env": env} for s in (FREEZE, *ALL)}}
    made = parse_resource(document)
    assert isinstance(made, ViperIteration)
    return made


ALL = [n.name for n in stage_graph(iteration().spec.recipe)]


@pytest.mark.parametrize("letters", [1, 100, 1300])
def test_a_legal_spec_is_handed_to_freezing_whatever_its_size(letters: int) -> None:
    made = legal(letters)
    assert refusal(JobRequest(made, "uid", FREEZING.stage), SETTINGS) == ""
    container = stage_job(JobRequest(made, "uid", FREEZING.stage), SETTINGS)["spec"]["template"]["spec"]["containers"][
        0
    ]
    environment = {e["name"]: e.get("value", "") for e in container["env"]}
    assert max(len(n.encode()) + len(v.encode()) for n, v in environment.items()) < 128 * 1024 - 2
    found = parse_stored(json.loads(unpack(pieces_of("VIPER_ITERATION", environment), "it")))
    assert found.spec == made.spec


def test_our_labels_are_there_whatever_a_template_says() -> None:
    labels = {"app.kubernetes.io/component": "operator", "mine": "yes"}
    job = stage_job(JobRequest(iteration({"metadata": {"labels": labels}}), "uid", declared("evaluate")), SETTINGS)
    found = job["spec"]["template"]["metadata"]["labels"]
    assert found == pod_labels("it", "evaluate") | {"mine": "yes"}


ENVIRONMENT = {
    "VIPER_NAMESPACE": "team",
    "VIPER_STORE": "s3://bucket?endpoint=http://minio:9000",
    "VIPER_TRACKING": "http://mlflow",
    "VIPER_STAGE_IMAGE": "i",
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
}


def test_the_setting_is_restricted_unless_one_of_the_others_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment(copy.copy(ENVIRONMENT)).pod_templates == "restricted"
    for mode in POD_TEMPLATES:
        assert Settings.from_environment({**ENVIRONMENT, "VIPER_POD_TEMPLATES": mode}).pod_templates == mode
    with pytest.raises(SpecError, match="none of restricted, unrestricted, forbidden"):
        Settings.from_environment({**ENVIRONMENT, "VIPER_POD_TEMPLATES": "Unrestricted"})
    found = Settings.from_environment({**ENVIRONMENT, "VIPER_PROTECTED_SECRETS": "a, b,,"})
    assert found.protected_secrets == ("a", "b")
