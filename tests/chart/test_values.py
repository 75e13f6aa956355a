"""Values: what is accepted, and what is refused with a message that says what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helm_chart import CHART, EXTERNAL, KUBERNETES, VALUES, HelmError, helm, render

pytestmark = pytest.mark.kube

DIGEST = "sha256:" + "0" * 64

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("an unknown key", {"replica": 2}, "additional properties 'replica' not allowed"),
    ("an unknown key further down", {"operator": {"image": "x"}}, "'/operator': additional properties 'image'"),
    ("more replicas than are supported", {"operator": {"replicas": 3}}, "'/operator/replicas': maximum: got 3, want 2"),
    ("a word where a number belongs", {"operator": {"replicas": "two"}}, "got string, want integer"),
    ("a pull policy that does not exist", {"images": {"pullPolicy": "Sometimes"}}, "'/images/pullPolicy'"),
    ("a repository with a tag in it", {"images": {"cpu": {"repository": "a/b:1"}}}, "'/images/cpu/repository'"),
    ("half a digest", {"images": {"minio": {"digest": "sha256:12"}}}, "'/images/minio/digest'"),
    ("a size without sense", {"minio": {"persistence": {"size": "big"}}}, "'/minio/persistence/size'"),
    ("a bucket that S3 would refuse", {"minio": {"bucket": "My_Bucket"}}, "'/minio/bucket'"),
    ("resources of another kind", {"mlflow": {"resources": {"claims": []}}}, "'/mlflow/resources'"),
    (
        "a variable that the chart sets itself",
        {"operator": {"env": [{"name": "VIPER_STORE"}]}},
        "'/operator/env/0/name'",
    ),
    ("an address that is no CIDR", {"networkPolicy": {"storeCidrs": ["10.0.0.1"]}}, "'/networkPolicy/storeCidrs/0'"),
    ("a peer that selects nothing", {"networkPolicy": {"metricsFrom": [{}]}}, "'/networkPolicy/metricsFrom/0'"),
    ("a peer with a typo", {"networkPolicy": {"dns": [{"podSelektor": {}}]}}, "additional properties 'podSelektor'"),
    ("no DNS at all", {"networkPolicy": {"dns": []}}, "'/networkPolicy/dns': minItems"),
    ("an origin without a scheme", {"mlflow": {"allowedOrigins": ["example.org"]}}, "'/mlflow/allowedOrigins/0'"),
    ("a host with a path", {"mlflow": {"allowedHosts": ["example.org/mlflow"]}}, "'/mlflow/allowedHosts/0'"),
    ("a profile's name in capitals", {"profiles": {"GPU": {"create": True, "spec": {}}}}, "'GPU' does not match"),
    ("a profile without a spec", {"profiles": {"gpu": {"create": True}}}, "profiles.gpu.spec says nothing"),
    ("a store without its Secret", {"store": {"uri": "s3://bucket"}}, "name it in store.existingSecret"),
    ("a store that is not S3", {"store": {"uri": "https://host/b", "existingSecret": "s"}}, "write s3://bucket/prefix"),
    (
        "credentials in the store's URI",
        {"store": {"uri": "s3://bucket?endpoint=https://user:password@host", "existingSecret": "s"}},
        "credentials belong in the Secret",
    ),
    ("a tracking server that is no URL", {"tracking": {"uri": "mlflow:5000"}}, "write https://host:port"),
    (
        "credentials in the tracking URL",
        {"tracking": {"uri": "https://u:p@host"}},
        "credentials (MLFLOW_TRACKING_USERNAME",
    ),
]


@pytest.mark.parametrize(("values", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_bad_values_are_refused_with_a_message_that_names_them(values: dict[str, Any], message: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(values)
    assert message in str(refused.value)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("a digest", {"images": {"minio": {"digest": DIGEST}}}),
    ("a registry with a port", {"images": {"cpu": {"repository": "example.org:5000/team/cpu", "tag": "1.0"}}}),
    ("a store at AWS", {"store": {"uri": "s3://bucket/prefix/of/mine", "existingSecret": "s"}}),
    ("an MLflow below a path", {"tracking": {"uri": "https://example.org/mlflow"}}),
    (
        "MinIO's own credentials by reference",
        {"minio": {"rootExistingSecret": "root"}, "store": {"existingSecret": "s"}},
    ),
    (
        "half a core and a number as quantity",
        {"operator": {"resources": {"requests": {"cpu": 0.5, "memory": 1000000}}}},
    ),
    ("values of a parent chart", {"global": {"anything": True}}),
]


@pytest.mark.parametrize("values", [a[1] for a in ACCEPTED], ids=[a[0] for a in ACCEPTED])
def test_good_values_are_accepted(values: dict[str, Any]) -> None:
    assert render(values)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, values=values)


def test_every_value_of_the_chart_is_in_the_schema_and_the_other_way_round() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    import yaml

    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def keys(part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        return part.get("properties", {})

    def compare(value: dict[str, Any], part: dict[str, Any], where: str) -> None:
        known = keys(part)
        if not known:
            return
        assert set(value) == set(known) - {"global"}, where
        for name, inner in value.items():
            if isinstance(inner, dict):
                compare(inner, known[name], f"{where}.{name}")

    compare(dict(values), {"properties": schema["properties"]}, "values")


def test_an_old_cluster_is_refused() -> None:
    with pytest.raises(HelmError, match="requires kubeVersion"):
        helm("template", "viper", CHART, "--kube-version", "1.25.0", values={})


def test_nothing_of_the_bundled_servers_is_left_where_external_ones_are_named() -> None:
    names = {o["metadata"]["name"] for o in render(EXTERNAL)}
    assert not {n for n in names if "minio" in n or "mlflow" in n or n == "viper-store"}
