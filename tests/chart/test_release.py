"""Releases on a real API server: admitted, upgraded, uninstalled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import (
    CHART,
    EVERYTHING,
    EXTERNAL,
    FILES,
    REFUSED_FILES,
    HelmError,
    Release,
    pods,
    previous_version,
    render,
    values_of,
)
from kubernetes import client, config

from servers.kube import KubeApi, eventually
from servers.running import free_port
from viper.spec import parse_resource
from viper_operator.plugin.installation import installation
from viper_operator.plugin.jobs import Wish, registry_job

pytestmark = pytest.mark.kube

CRDS = ("viperiterations.viper.dev", "viperloops.viper.dev", "viperprofiles.viper.dev")
ITERATION: dict[str, Any] = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperIteration",
    "metadata": {"name": "live"},
    "spec": {
        "model": "smallworld",
        "generator": {"alias": "generator", "initialUri": "smallworld:starter"},
        "images": {"uri": "smallworld:scenes?count=10&seed=1"},
        "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld"),
        "profileRef": "cpu-small",
    },
}

#: Its Jobs succeed without having done anything, and are not tried again.
LOOP = {
    "apiVersion": "viper.dev/v1alpha1",
    "kind": "ViperLoop",
    "metadata": {"name": "again"},
    "spec": {
        "iterations": 2,
        "template": {
            **{k: v for k, v in ITERATION["spec"].items() if k != "profileRef"},
            "profile": {"defaults": {"retries": 0}},
        },
    },
}


@pytest.fixture(scope="module")
def old(chart_api: KubeApi, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The previous version in a namespace that enforces restricted Pod Security, with a live iteration and its Job."""
    release = Release(chart_api, chart_api.namespace("old"))
    for name in ("p", "team-b-low"):
        chart_api.apply(
            {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1}
        )
    release.install(previous_version(tmp_path_factory.mktemp("previous")))
    chart_api.apply(ITERATION, namespace=release.namespace)
    chart_api.apply(_job(release.get("viperiteration", "live")), namespace=release.namespace)
    return release


def _job(owner: dict[str, Any]) -> dict[str, Any]:
    """A Job as the operator would have made it."""
    container = {
        "name": "stage",
        "image": "viper.local/cpu:0.0.9",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "live-ingest-images",
            "ownerReferences": [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                }
            ],
        },
        "spec": {
            "template": {
                "metadata": {"annotations": {"fake.viper.dev/seconds": "forever"}},
                "spec": {"restartPolicy": "Never", "securityContext": security, "containers": [container]},
            }
        },
    }


@pytest.mark.slow
def test_a_first_install_ends_with_its_profiles_in_place(old: Release) -> None:
    profiles = old.get("viperprofiles")["items"]
    assert {p["metadata"]["name"] for p in profiles} == {"cpu-small", "a100-8x"}


@pytest.mark.slow
def test_an_upgrade_keeps_credentials_definitions_and_running_work(old: Release, chart_api: KubeApi) -> None:
    def kept() -> dict[str, Any]:
        secrets = {s["metadata"]["name"]: s["data"] for s in old.get("secret")["items"] if s["type"] == "Opaque"}
        job = old.get("job", "live-ingest-images")
        crds = {c: old.get("crd", c)["metadata"]["uid"] for c in CRDS}
        (pod,) = (p["metadata"]["uid"] for p in old.get("pod", "-l", "job-name=live-ingest-images")["items"])
        return {
            "secrets": secrets,
            "crds": crds,
            "job": (job["metadata"]["uid"], job["metadata"]["generation"]),
            "pod": pod,
            "iteration": old.get("viperiteration", "live")["metadata"]["uid"],
        }

    eventually(lambda: old.get("pod", "-l", "job-name=live-ingest-images")["items"])
    before = kept()
    assert set(before["secrets"]) == {"viper-store", "viper-store-reader", "viper-minio-root"}
    assert "queueName" not in _spec_fields(old)

    old.upgrade()

    assert kept() == before
    assert "queueName" in _spec_fields(old)
    operator = old.get("deployment", "viper-operator")["spec"]["template"]["spec"]["containers"][0]
    version = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))["appVersion"]
    assert operator["image"] == f"viper.local/operator:{version}"


def _spec_fields(release: Release) -> set[str]:
    version = release.get("crd", "viperprofiles.viper.dev")["spec"]["versions"][0]
    return set(version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])


@pytest.mark.parametrize("values", [{}, EXTERNAL, EVERYTHING], ids=["default", "external", "everything"])
def test_a_restricted_namespace_takes_every_pod(old: Release, values: dict[str, Any]) -> None:
    asked = []
    for name, pod in pods(render(values)):
        spec = {**pod["spec"], "serviceAccountName": "default"}
        if name.startswith("StatefulSet/"):  # its controller adds the volume
            spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
        metadata = {"name": name.lower().replace("/", "-"), "labels": pod["metadata"]["labels"]}
        asked.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    taken = old.kube.kubectl(
        *("-n", old.namespace, "create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-"),
        stdin=yaml.safe_dump_all(asked),
    )
    assert taken.split() == [f"pod/{a['metadata']['name']}" for a in asked]


@pytest.mark.parametrize("values", [{}, EXTERNAL, EVERYTHING], ids=["default", "external", "everything"])
def test_the_api_server_takes_every_object_without_a_warning(old: Release, values: dict[str, Any]) -> None:
    objects = [o for o in render(values, release="another") if o["kind"] != "ServiceMonitor"]
    for one in objects:
        one["metadata"].setdefault("namespace", old.namespace)
        if one["kind"] in {"ClusterRole", "CustomResourceDefinition"}:
            del one["metadata"]["namespace"]
        if one["kind"] == "RoleBinding":
            one["subjects"][0]["namespace"] = old.namespace
    old.kube.kubectl(
        "apply",
        *("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--warnings-as-errors"),
        *("-f", "-"),
        stdin=yaml.safe_dump_all(objects),
    )


def test_the_api_server_takes_every_object_of_the_value_files(old: Release) -> None:
    """Those that differ, once each. The definitions here are those of an older chart: profiles are only read."""
    namespace = old.kube.namespace("filed")
    different: dict[str, None] = {}
    for name in FILES.keys() - REFUSED_FILES.keys():
        for one in render(values_of(name)):
            if one["kind"] == "ViperProfile":
                parse_resource(one)
            elif one["kind"] != "ServiceMonitor":
                if one["kind"] != "ClusterRole":
                    one["metadata"]["namespace"] = namespace
                if one["kind"] == "RoleBinding":
                    one["subjects"][0]["namespace"] = namespace
                if one["kind"] == "Secret":
                    one["data"] = {}
                different[json.dumps(one, sort_keys=True)] = None
    assert len(different) > 50
    old.kube.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"),
        *("--warnings-as-errors", "-f", "-"),
        stdin="\n---\n".join(different),
    )


#: Every pod has to say all four; and a ratio of limit to request that clusters commonly allow.
QUOTA = {"requests.cpu": "20", "requests.memory": "40Gi", "limits.cpu": "40", "limits.memory": "80Gi", "pods": "30"}
LIMITS = {
    "type": "Container",
    "min": {"cpu": "50m", "memory": "32Mi"},
    "max": {"cpu": "4", "memory": "8Gi"},
    "maxLimitRequestRatio": {"cpu": "10", "memory": "8"},
}
BESIDE = {"crds": {"install": False}, "userRoles": {"create": False}}


@pytest.fixture(scope="module")
def bounded(old: Release) -> Release:
    """A namespace with a quota and another release's rights, in which nothing is installed yet."""
    release = Release(old.kube, old.kube.namespace("bounded"))
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": QUOTA}}
    old.kube.apply(quota, namespace=release.namespace)
    eventually(lambda: release.get("resourcequota", "all").get("status", {}).get("used"))
    return release


def test_a_quota_on_limits_lets_two_releases_install_beside_each_other(bounded: Release) -> None:
    """Admission is asked for every pod: controllers make the services' and the hooks' (an installation ends with its
    hook), the others are tried."""
    second = Release(bounded.kube, bounded.namespace, "blue")
    for release, values in ((bounded, BESIDE), (second, values_of("second-in-the-namespace"))):
        release.install(**values)
    wanted = {f"{start}-{part}-" for start in ("viper", "viper-blue") for part in ("minio", "mlflow", "operator")}

    def there() -> set[str]:
        names = [p["metadata"]["name"] for p in bounded.get("pods")["items"]]
        return {start for start in wanted if any(name.startswith(start) for name in names)}

    eventually(lambda: there() == wanted)
    operator = installation(bounded.get("deployment", "viper-operator"))
    move = registry_job("p", Wish("promote", "m", "a", 2), operator, by="me", reason="", request="r")
    moves = move["spec"]["template"]
    (test,) = (p for name, p in pods(render({})) if name == "Pod/viper-test")
    assert _refusals(bounded, [("test", test), ("registry", moves)]) == []
    (refusal,) = _refusals(bounded, [("without", {**moves, "spec": _without_limits(moves["spec"])})])
    assert "must specify limits.cpu" in refusal


@pytest.mark.parametrize("file", ["", "restricted-quota"])
def test_a_limit_range_lets_every_pod_of_the_chart_start(bounded: Release, file: str) -> None:
    """A LimitRange of a namespace of its own: it gives containers that say nothing its maximum."""
    namespace = bounded.kube.namespace("ranged")
    limits = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "all"}, "spec": {"limits": [LIMITS]}}
    bounded.kube.apply(limits, namespace=namespace)
    found = pods(render(values_of(file) if file else {}))
    assert _refusals(Release(bounded.kube, namespace), found) == []


def _refusals(release: Release, found: Iterable[tuple[str, dict[str, Any]]]) -> list[str]:
    """What admission says of pods, each as its controller would create it, where it does not take them."""
    refused = []
    with config.new_client_from_config(str(release.kube.kubeconfig)) as api:
        for name, pod in found:
            spec = {**pod["spec"], "serviceAccountName": "default"}
            if name.startswith("StatefulSet/"):  # its controller adds the volume
                spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
            metadata = {**pod["metadata"], "name": name.lower().replace("/", "-")}
            try:
                client.CoreV1Api(api).create_namespaced_pod(
                    release.namespace, {"metadata": metadata, "spec": spec}, dry_run="All"
                )
            except client.ApiException as error:
                refused.append(f"{name}: {json.loads(error.body)['message']}")
    return refused


def _without_limits(spec: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec["containers"]
    requests = {"requests": container["resources"]["requests"]}
    return {**spec, "containers": [{**container, "resources": requests}]}


ROLES = ("view", "edit", "admin")
ALLOWED = [
    ("list", "viperiterations.viper.dev"),
    ("create", "viperiterations.viper.dev"),
    ("patch", "viperiterations.viper.dev/status"),
    ("patch", "viperloops.viper.dev/status"),
    ("watch", "viperprofiles.viper.dev"),
    ("patch", "jobs.batch"),
    ("delete", "jobs.batch"),
    ("patch", "rayjobs.ray.io"),
    ("delete", "rayjobs.ray.io"),
    ("create", "services"),
    ("patch", "services"),
    ("list", "pods"),
    ("create", "events"),
    ("list", "events"),
    ("create", "leases.coordination.k8s.io"),
    ("update", "leases.coordination.k8s.io/viper-operator"),
]
DENIED = [
    ("get", "secrets"),
    ("list", "secrets"),
    ("get", "configmaps"),
    ("create", "pods"),
    ("delete", "pods"),
    ("create", "pods/exec"),
    ("delete", "events"),
    ("get", "services"),
    ("delete", "services"),
    ("create", "rayclusters.ray.io"),
    ("delete", "viperiterations.viper.dev"),
    ("patch", "viperprofiles.viper.dev"),
    ("update", "leases.coordination.k8s.io/another"),
    ("create", "roles.rbac.authorization.k8s.io"),
    ("patch", "deployments.apps"),
]


@pytest.mark.parametrize(
    ("verb", "resource", "answer"),
    [(*a, "yes") for a in ALLOWED] + [(*d, "no") for d in DENIED],
    ids=[f"{v} {r}" for v, r in ALLOWED + DENIED],
)
def test_the_operator_may_do_its_work_and_nothing_else(old: Release, verb: str, resource: str, answer: str) -> None:
    account = f"system:serviceaccount:{old.namespace}:viper-operator"
    assert _can(old.kube, account, old.namespace, verb, resource) == answer
    assert _can(old.kube, account, "default", verb, resource) == "no"


def _can(kube: KubeApi, who: str, namespace: str, verb: str, resource: str) -> str:
    """What the API server's authorizer says; `resource` is resource[.group][/subresource, or a Lease's name]."""
    kind, _, rest = resource.partition("/")
    name, _, group = kind.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "resource": name, "group": group}
    if rest:
        attributes["name" if name == "leases" else "subresource"] = rest
    review = {"spec": {"user": who, "groups": ["system:authenticated"], "resourceAttributes": attributes}}
    with config.new_client_from_config(str(kube.kubeconfig)) as api:
        answer = client.AuthorizationV1Api(api).create_subject_access_review(review)
    return "yes" if answer.status.allowed else "no"


@pytest.mark.slow
def test_the_operator_works_with_exactly_these_rights(old: Release, tmp_path: Path) -> None:
    """The operator itself, as its service account, from a loop to a Job, its status and Events; nothing is refused."""
    kube, namespace = old.kube, old.namespace
    account = f"system:serviceaccount:{namespace}:viper-operator"
    deployment = old.get("deployment", "viper-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {
        **{e["name"]: e.get("value", namespace) for e in container["env"]},
        "VIPER_STORE": (tmp_path / "store").as_uri(),
        "VIPER_HEALTH_PORT": str(free_port()),
        "VIPER_METRICS_PORT": str(free_port()),
        "KUBECONFIG": str(_kubeconfig(kube, namespace, tmp_path)),
        "PATH": os.environ["PATH"],
    }
    kube.apply(LOOP, namespace=namespace)
    with (tmp_path / "log").open("wb") as log:
        operator = subprocess.Popen(
            [sys.executable, "-m", "viper_operator.main"], env=environment, stdout=log, stderr=log
        )
    try:
        eventually(lambda: _finished(old, "again-1"), patience_s=180)
    finally:
        operator.terminate()
        operator.wait(timeout=60)
    asked = [r for r in kube.requests() if r["user"]["username"] == account]
    objects = [(r["verb"], r["objectRef"]) for r in asked if "objectRef" in r]  # the others are discovery
    done = {(verb, about["resource"], about.get("subresource", "")) for verb, about in objects}
    assert {
        ("patch", "viperiterations", ""),
        ("patch", "viperiterations", "status"),
        ("patch", "viperloops", "status"),
        ("patch", "jobs", ""),
        ("create", "events", ""),
        ("update", "leases", ""),
    } <= done
    refused = [(r["verb"], r["requestURI"]) for r in asked if r["responseStatus"]["code"] == 403]
    assert refused == []


def _finished(release: Release, name: str) -> bool:
    """Whether the iteration has failed for good: fake pods succeed and leave nothing in the store."""
    found = {i["metadata"]["name"]: i for i in release.get("viperiterations")["items"]}
    conditions = found.get(name, {}).get("status", {}).get("conditions", [])
    return any((c["type"], c["status"]) == ("Succeeded", "False") for c in conditions)


def _kubeconfig(kube: KubeApi, namespace: str, folder: Path) -> Path:
    """The service account's, as the token volume of its pod would let it in."""
    content = yaml.safe_load(kube.kubeconfig.read_text("utf-8"))
    token = kube.kubectl("-n", namespace, "create", "token", "viper-operator").strip()
    content["users"] = [{"name": "admin", "user": {"token": token}}]
    path = folder / "operator.conf"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


def test_whoever_may_edit_a_namespace_may_edit_its_iterations(old: Release) -> None:
    for role in ROLES:
        old.kube.kubectl("-n", old.namespace, "create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}")

    def rights(who: str) -> tuple[str, ...]:
        verbs = ("list", "create", "patch", "delete")
        return tuple(_can(old.kube, who, old.namespace, verb, "viperiterations.viper.dev") for verb in verbs)

    eventually(lambda: rights("view")[0] == "yes" and rights("edit") == rights("admin") == ("yes",) * 4)
    assert rights("view") == ("yes", "no", "no", "no")
    assert rights("stranger") == ("no",) * 4


def test_a_second_release_leaves_out_what_belongs_to_the_cluster(old: Release) -> None:
    second = Release(old.kube, old.kube.namespace("second"), "lab")
    with pytest.raises(HelmError, match=r"viperiterations\.viper\.dev.* exists and cannot be imported"):
        second.install()
    second.helm("uninstall", "--ignore-not-found")
    second.install(crds={"install": False}, userRoles={"create": False})
    assert second.get("deployment", "lab-viper-operator")["spec"]["replicas"] == 1


@pytest.mark.slow
def test_an_uninstall_keeps_resources_and_data_and_nothing_hangs(old: Release) -> None:
    kube, namespace = old.kube, old.namespace
    eventually(lambda: old.get("pvc")["items"][1:])
    ours = old.get("vipers")["items"]
    assert len(ours) >= 3

    old.uninstall()

    assert old.get("vipers")["items"] == ours
    installed = "deployment,statefulset,service,role,rolebinding,serviceaccount,secret,networkpolicy,pdb,configmap,pvc"
    left = old.get(installed, "-l", "app.kubernetes.io/name=viper")["items"]
    assert sorted((o["kind"], o["metadata"]["name"]) for o in left) == [
        ("PersistentVolumeClaim", "data-viper-minio-0"),
        ("PersistentVolumeClaim", "viper-mlflow"),
    ]
    assert all(old.get("crd", c) for c in CRDS)
    assert old.get("job", "live-ingest-images")["status"]["active"] == 1

    kube.kubectl("delete", "namespace", namespace, "--timeout=300s")


def test_a_namespace_with_a_release_can_be_deleted_at_once(old: Release) -> None:
    release = Release(old.kube, old.kube.namespace("doomed"))
    release.install(crds={"install": False}, userRoles={"create": False})
    old.kube.apply(ITERATION, namespace=release.namespace)
    old.kube.kubectl("delete", "namespace", release.namespace, "--timeout=300s")
