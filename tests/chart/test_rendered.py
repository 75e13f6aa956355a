"""Properties of everything that the chart renders, whatever the values."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
import yaml
from helm_chart import CHART, VALUES, by_name, pods, render
from prometheus_client import REGISTRY

import viper_operator.metrics  # noqa: F401 (registers them)
from servers.kube import binaries
from viper.spec import parse_resource
from viper_operator.names import RAY, pod_labels
from viper_operator.plugin.installation import REGISTRY_JOBS as REGISTRY_JOBS_VARIABLE
from viper_operator.plugin.installation import RESOURCES, installation
from viper_operator.plugin.jobs import Wish, registry_job
from viper_operator.settings import Settings

pytestmark = pytest.mark.kube
each_values = pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)


def test_the_unit_tests_of_the_templates_pass() -> None:
    done = subprocess.run(
        [binaries("chart") / "helm-unittest", "--strict", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tests: +\d\d+ passed", done.stdout)


@each_values
def test_every_container_is_restricted_and_bounded(values: dict[str, Any]) -> None:
    for name, pod in pods(render(values)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]), name
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name
        assert all(set(v) - {"name"} <= {"emptyDir", "persistentVolumeClaim"} for v in spec["volumes"]), name


@each_values
def test_only_the_operator_has_a_token_for_the_api_server(values: dict[str, Any]) -> None:
    with_token = {n for n, pod in pods(render(values)) if pod["spec"].get("automountServiceAccountToken") is not False}
    assert with_token == {"Deployment/viper-operator"}


@each_values
def test_no_role_has_wildcards_secrets_or_a_way_to_more_rights(values: dict[str, Any]) -> None:
    roles = [o for o in render(values) if o["kind"] in {"Role", "ClusterRole"}]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            said = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "*" not in said, role["metadata"]["name"]
            assert not {"secrets", "serviceaccounts", "roles", "rolebindings", "pods/exec"} & set(said)
            assert not {"escalate", "bind", "impersonate"} & set(said)


@each_values
def test_the_operator_is_bound_in_its_own_namespace_only(values: dict[str, Any]) -> None:
    objects = render(values)
    assert not [o for o in objects if o["kind"] == "ClusterRoleBinding"]
    (binding,) = (o for o in objects if o["kind"] == "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "viper-operator", "namespace": "research"}]


@each_values
def test_nothing_has_a_finalizer(values: dict[str, Any]) -> None:
    assert not [o["metadata"]["name"] for o in render(values) if o["metadata"].get("finalizers")]


@each_values
def test_no_secret_is_written_into_a_pod(values: dict[str, Any]) -> None:
    objects = render(values)
    secrets = {v for o in objects if o["kind"] == "Secret" for v in o["data"].values()}
    text = json.dumps([o for o in objects if o["kind"] != "Secret"])
    assert not {s for s in secrets if s in text}
    for _, pod in pods(objects):
        for container in pod["spec"]["containers"]:
            plain = {e["name"] for e in container["env"] if "value" in e}
            assert not {n for n in plain if re.search("KEY|PASSWORD|SECRET_ACCESS|TOKEN", n)}


@each_values
def test_a_key_that_may_write_to_the_store_is_the_stages_and_hooks_alone(values: dict[str, Any]) -> None:
    """Where nobody named one that only reads, the notes say so."""
    named = {**values, "store": {**values.get("store", {}), "readerExistingSecret": "reads-only"}}
    for given, reader in ((named, "reads-only"), *(() if "store" in values else ((values, "viper-store-reader"),))):
        deployment = by_name(render(given), "Deployment", "viper-operator")
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        keys = [e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"] if e["name"].startswith("AWS_")]
        assert keys == [reader, reader]


@pytest.mark.parametrize("release", ["x", "a-release-with-a-very-long-name-that-helm-still-takes"])
def test_names_fit_whatever_the_release_is_called(release: str) -> None:
    assert len(release) <= 53
    for one in render({}, release=release):
        # The names of a StatefulSet and of a Job become labels of their pods, with a suffix.
        assert len(one["metadata"]["name"]) <= (52 if one["kind"] in {"StatefulSet", "Job"} else 63)
        assert all(len(str(v)) <= 63 for v in one["metadata"].get("labels", {}).values())


def test_selectors_of_two_releases_do_not_meet() -> None:
    one, other = (by_name(render({}, release=r), "Service", f"{r}-mlflow") for r in ("viper", "viper2"))
    assert one["spec"]["selector"] != other["spec"]["selector"]


@each_values
def test_every_service_and_policy_selects_the_pods_of_its_component(values: dict[str, Any]) -> None:
    objects = render(values)
    labels = {n: pod["metadata"]["labels"] for n, pod in pods(objects)}
    for service in (o for o in objects if o["kind"] == "Service"):
        selected = [n for n, own in labels.items() if service["spec"]["selector"].items() <= own.items()]
        assert [n.split("/")[1] for n in selected] == [service["metadata"]["name"]]


def test_policies_for_stages_select_the_pods_that_the_operator_makes() -> None:
    policies = [o for o in render({}) if o["kind"] == "NetworkPolicy"]
    stage = pod_labels("first", "synthesize-captions")
    own = by_name(policies, "NetworkPolicy", "viper-stages")
    assert own["spec"]["podSelector"]["matchLabels"].items() <= stage.items()
    for server in ("viper-minio", "viper-mlflow"):
        peers = by_name(policies, "NetworkPolicy", server)["spec"]["ingress"][0]["from"]
        assert any(
            p["podSelector"].get("matchLabels", {"": ""}).items() <= stage.items()
            and "matchExpressions" not in p["podSelector"]
            for p in peers
        )


def test_nodes_of_a_training_stage_may_talk_to_each_other_and_other_stages_may_not() -> None:
    peers = [{"namespaceSelector": {}}]
    policies = [o for o in render({"networkPolicy": {"rayOperator": peers}}) if o["kind"] == "NetworkPolicy"]
    policy = by_name(policies, "NetworkPolicy", "viper-nodes")["spec"]
    stage = pod_labels("first", "train-captions")
    node = {**stage, RAY: "true"}
    selected = policy["podSelector"]["matchLabels"]
    assert selected.items() <= node.items()
    assert not selected.items() <= stage.items()
    assert policy["ingress"][0]["from"] == policy["egress"][0]["to"] == [{"podSelector": {"matchLabels": selected}}]
    assert policy["ingress"][1] == {"from": peers, "ports": [{"protocol": "TCP", "port": 8265}]}


@each_values
def test_the_operator_understands_the_environment_it_gets(values: dict[str, Any]) -> None:
    deployment = by_name(render(values), "Deployment", "viper-operator")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {e["name"]: e.get("value", "research") for e in container["env"]}
    settings = Settings.from_environment(environment)
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert ports == {"health": settings.health_port, "metrics": settings.metrics_port}
    assert settings.credentials_secret == ("team-s3" if "store" in values else "viper-store")
    (role,) = (o for o in render(values) if o["kind"] == "Role")
    assert [r["resourceNames"] for r in role["rules"] if "resourceNames" in r] == [[settings.lease]]


REGISTRY_JOBS: list[tuple[dict[str, Any], dict[str, Any], dict[str, str], dict[str, Any]]] = [
    ({}, RESOURCES, {}, {}),
    ({"operator": {"nodeSelector": {"pool": "a"}}}, RESOURCES, {}, {"nodeSelector": {"pool": "a"}}),
    (
        {
            "images": {"pullSecrets": ["pull"]},
            "operator": {"nodeSelector": {"pool": "a"}, "tolerations": [{"key": "a"}], "priorityClassName": "high"},
            "registryJobs": {
                "resources": {"requests": {"cpu": "2", "memory": "3Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
                "nodeSelector": {"pool": "b"},
                "podLabels": {"team": "x"},
                "podAnnotations": {"sidecar.istio.io/inject": "false"},
                "env": [{"name": "NO_PROXY", "value": ".svc"}],
            },
        },
        {"requests": {"cpu": "2", "memory": "3Gi"}, "limits": {"cpu": "2", "memory": "3Gi"}},
        {"team": "x"},
        {
            "nodeSelector": {"pool": "b"},
            "tolerations": [{"key": "a"}],
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "pull"}],
        },
    ),
    ({"registryJobs": {"resources": None}}, {}, {}, {}),
]


@pytest.mark.parametrize(("values", "resources", "labels", "placement"), REGISTRY_JOBS)
def test_jobs_that_move_an_alias_are_made_as_the_values_say(
    values: dict[str, Any], resources: dict[str, Any], labels: dict[str, str], placement: dict[str, Any]
) -> None:
    deployment = by_name(render(values), "Deployment", "viper-operator")
    deployment["metadata"]["namespace"] = "research"
    found = installation(deployment)
    template = registry_job("p", Wish("promote", "m", "a", 2), found, by="me", reason="", request="r")["spec"][
        "template"
    ]
    assert template["metadata"]["labels"].items() >= labels.items()
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "stage"
    said = values.get("registryJobs", {})
    assert template["metadata"].get("annotations", {}) == (said.get("podAnnotations") or {})
    (container,) = template["spec"]["containers"]
    assert container["resources"] == resources
    assert [e for e in container["env"] if e["name"] == "NO_PROXY"] == (said.get("env") or [])
    places = ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets")
    assert {k: template["spec"][k] for k in places if k in template["spec"]} == placement
    # As an older chart left it: nothing is said, and the pod's own fields count.
    operator = deployment["spec"]["template"]["spec"]["containers"][0]
    operator["env"] = [e for e in operator["env"] if e["name"] != REGISTRY_JOBS_VARIABLE]
    assert installation(deployment).resources == RESOURCES


def test_helpers_run_where_the_operator_does_unless_values_say_otherwise() -> None:
    values = {
        "operator": {"nodeSelector": {"pool": "a"}, "priorityClassName": "high"},
        "hooks": {"nodeSelector": {"pool": "b"}, "resources": {"limits": {"cpu": "3"}}, "podLabels": {"team": "x"}},
        "tests": {"podAnnotations": {"note": "y"}},
    }
    found = dict(pods(render(values)))
    hook, test = found["Job/viper-setup"], found["Pod/viper-test"]
    assert (hook["spec"]["nodeSelector"], hook["spec"]["priorityClassName"]) == ({"pool": "b"}, "high")
    assert hook["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "3", "memory": "256Mi"}
    assert hook["metadata"]["labels"]["team"] == "x"
    assert (test["spec"]["nodeSelector"], test["metadata"]["annotations"]["note"]) == ({"pool": "a"}, "y")
    assert test["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_a_registry_stands_in_front_of_every_image() -> None:
    for values in ({}, {"minio": {}}, {"images": {"cpu": {"digest": "sha256:" + "0" * 64}}}):
        mirrored = {**values, "images": {**values.get("images", {}), "registry": "r.example.org:5000/m"}}
        images = [c["image"] for _, pod in pods(render(mirrored)) for c in pod["spec"]["containers"]]
        assert len(images) == 5
        assert all(image.startswith("r.example.org:5000/m/") for image in images)


def test_the_profiles_are_valid() -> None:
    profiles = [o for o in render({}) if o["kind"] == "ViperProfile"]
    assert {p["metadata"]["name"] for p in profiles} == {"cpu-small", "a100-8x"}
    for profile in profiles:
        parse_resource(profile)


def test_the_dashboard_asks_only_for_metrics_that_the_operator_has() -> None:
    dashboard = (CHART / "dashboards" / "viper.json").read_text("utf-8")
    asked = {m for p in json.loads(dashboard)["panels"] for t in p.get("targets", []) for m in _metrics(t["expr"])}
    known = {s.name for m in REGISTRY.collect() for s in m.samples} | {
        f"{m.name}{suffix}" for m in REGISTRY.collect() for suffix in _suffixes(m.type)
    }
    assert asked
    assert {m for m in asked if m.startswith("viper_")} <= known
    assert {m for m in asked if not m.startswith("viper_")} <= {
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    }


def test_every_panel_of_the_dashboard_says_what_it_shows() -> None:
    panels = json.loads((CHART / "dashboards" / "viper.json").read_text("utf-8"))["panels"]
    said = {p["title"]: p["description"] for p in panels if p["type"] != "row"}
    assert said, "the dashboard shows something"
    assert [title for title, text in said.items() if len(text.split()) < 4 or not text.endswith(".")] == []
    assert len(set(said.values())) == len(said)
    for panel in (p for p in panels if len(p.get("targets", ())) > 1):
        assert all(t["legendFormat"] for t in panel["targets"]), f"{panel['title']} names its lines"


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b([a-z_]+)\{", expression))


def _suffixes(kind: str) -> tuple[str, ...]:
    return {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(kind, ("",))


def test_two_renderings_differ_in_generated_secrets_only() -> None:
    def without_secrets(release: str) -> list[dict[str, Any]]:
        return [o for o in render({"fullnameOverride": "same"}, release=release) if o["kind"] != "Secret"]

    def text(objects: list[dict[str, Any]], release: str) -> str:
        return yaml.safe_dump(objects).replace(f"instance: {release}", "instance: r")

    assert text(without_secrets("one"), "one") == text(without_secrets("two"), "two")
