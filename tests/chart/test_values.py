"""Values: what is accepted, and what is refused with a message that says what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from helm_chart import (
    CHART,
    EXTERNAL,
    FILES,
    KUBERNETES,
    REFUSED_FILES,
    VALUES,
    HelmError,
    by_name,
    helm,
    pods,
    render,
    values_of,
)

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
        "operator.env: VIPER_STORE is set by the chart itself",
    ),
    ("an address that is no CIDR", {"networkPolicy": {"storeCidrs": ["10.0.0.1"]}}, "'/networkPolicy/storeCidrs/0'"),
    ("a peer that selects nothing", {"networkPolicy": {"metricsFrom": [{}]}}, "'/networkPolicy/metricsFrom/0'"),
    ("a peer with a typo", {"networkPolicy": {"dns": [{"podSelektor": {}}]}}, "additional properties 'podSelektor'"),
    ("a toleration with a typo", {"minio": {"tolerations": [{"kee": "x"}]}}, "additional properties 'kee'"),
    (
        "an affinity of no kind",
        {"hooks": {"affinity": {"nodes": {}}}},
        "'/hooks/affinity': additional properties 'nodes'",
    ),
    (
        "a label that selects pods",
        {"tests": {"podLabels": {"app.kubernetes.io/name": "x"}}},
        "tests.podLabels: app.kub",
    ),
    ("a label that is none", {"operator": {"podLabels": {"team": "a b"}}}, "'/operator/podLabels/team'"),
    ("a list for a map", {"registryJobs": {"nodeSelector": ["a"]}}, "'/registryJobs/nodeSelector': got array"),
    ("a text for a list", {"operator": {"tolerations": "all"}}, "'/operator/tolerations': got string, want array"),
    ("a text for a section", {"hooks": "none"}, "'/hooks': got string, want object"),
    (
        "a number of cores without sense",
        {"hooks": {"resources": {"limits": {"cpu": "two"}}}},
        "'/hooks/resources/limits",
    ),
    ("a registry with a scheme", {"images": {"registry": "https://example.org"}}, "'/images/registry'"),
    ("no tag of MinIO", {"images": {"minio": {"tag": ""}}}, "images.minio.tag is null or empty"),
    ("a null within a list", {"operator": {"tolerations": [None]}}, "'/operator/tolerations/0': got null"),
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
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def keys(part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]]
        return part.get("properties", {})

    def compare(value: dict[str, Any], part: dict[str, Any], where: str) -> None:
        known = keys(part)
        if not known or not value:  # what is in a map that is empty is up to whoever fills it
            return
        assert set(value) == set(known) - {"global"}, where
        for name, inner in value.items():
            if isinstance(inner, dict):
                compare(inner, known[name], f"{where}.{name}")

    compare(dict(values), {"properties": schema["properties"]}, "values")


def paths(values: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every path of values.yaml, sections and what is in them, with what stands there."""
    for key, value in values.items():
        yield (*before, key), value
        if isinstance(value, dict):
            yield from paths(value, (*before, key))


def nulls(*chosen: tuple[str, ...]) -> dict[str, Any]:
    """Values that say null at these paths."""
    found: dict[str, Any] = {}
    for *sections, last in chosen:
        part = found
        for section in sections:
            part = part.setdefault(section, {})
        part[last] = None
    return found


def test_every_value_set_to_null_is_a_chart_or_a_sentence_that_names_it() -> None:
    """What is empty by default, and what is in maps of names that people choose, may be null; all else is refused."""
    refused: list[tuple[str, ...]] = []
    waves: list[list[tuple[str, ...]]] = []
    for path, value in paths(yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))):
        if value in ("", [], {}) or (free(path) and path[2:] != ("spec",)):
            # As many in one chart as there can be: one below another is for the next one.
            wave = next((w for w in waves if not any(path[: len(o)] == o for o in w)), None)
            if wave is None:
                waves.append(wave := [])
            wave.append(path)
        else:
            refused.append(path)
    assert len(refused) > 30
    assert sum(map(len, waves)) > 100
    template = ("template", "viper", CHART, "--kube-version", KUBERNETES, "--set", "crds.install=false")
    for wave in waves:
        assert "kind: Deployment" in helm(*template, values=nulls(*wave))
    for path in refused:
        with pytest.raises(HelmError) as error:
            helm(*template[: -2 if path[0] == "crds" else None], values=nulls(path))
        sentence, *rest = str(error.value).strip().splitlines()
        assert rest == ["", "Use --debug flag to render out invalid YAML"]
        assert sentence.startswith("Error: execution error at ")
        assert f"{'.'.join(path)} is null" in sentence or f"{'.'.join(path)} says nothing" in sentence


def free(path: tuple[str, ...]) -> bool:
    """Whether a value is, or is within, a map whose names people choose."""
    return path[0] == "profiles" or path[-1] == "metricsFrom" or "resources" in path or "labels" in path


@pytest.mark.parametrize("name", FILES)
def test_value_files_as_people_write_them_are_a_chart_or_sentences_that_name_the_value(name: str) -> None:
    if name not in REFUSED_FILES:
        assert len(render(values_of(name))) > 10
        return
    with pytest.raises(HelmError) as refused:
        render(values_of(name))
    for sentence in REFUSED_FILES[name]:
        assert sentence in str(refused.value)


SMALL: dict[str, Any] = {"crds": {"install": False}, "profiles": {"cpu-small": None, "a100-8x": None}}
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def test_no_two_names_of_releases_make_the_same_names_of_objects() -> None:
    """Up to the 53 letters that Helm takes; one that is long is cut and told apart by a digest."""
    releases = ["a", LETTERS[:34], LETTERS[:35], "x" * 53, f"{'x' * 52}y", f"viper-{LETTERS}", f"viper-{LETTERS}2"]
    found = [o["metadata"]["name"] for r in releases for o in render(SMALL, release=r) if o["kind"] == "Service"]
    assert len(set(found)) == len(found) == 3 * len(releases)
    assert all(re.fullmatch(r"[a-z][-a-z0-9]{0,51}", name) for name in found)


@pytest.mark.parametrize("release", ["team.viper", "team.a", "2024", "7-viper", f"0.{'x' * 51}"])
def test_a_releases_name_that_makes_no_names_of_services_is_refused_by_name(release: str) -> None:
    with pytest.raises(HelmError) as refused:
        render(SMALL, release=release)
    assert f'the release\'s name "{release}" cannot begin the names of its Services' in str(refused.value)
    assert "set fullnameOverride" in str(refused.value)
    named = render({**SMALL, "fullnameOverride": "short"}, release=release)
    assert all(o["metadata"]["name"].startswith(("short", "viper")) for o in named)


def test_a_variable_that_the_chart_sets_itself_cannot_be_set() -> None:
    (text,) = re.findall(
        r'define "viper.ownVariables" -}}(.+?){{-', (CHART / "templates" / "_helpers.tpl").read_text("utf-8"), re.DOTALL
    )
    refused = set(text.split())
    services = ("minio", "mlflow")
    set_by_us = {
        e["name"]
        for values in VALUES.values()
        for name, pod in pods(render(values))
        for c in pod["spec"]["containers"]
        if c["name"] not in services
        for e in c["env"]
    }
    given = {"HTTPS_PROXY", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    assert set_by_us - given <= refused


def test_a_variable_that_is_given_is_not_set_twice() -> None:
    deployment = by_name(render(values_of("external-minio-mlflow")), "Deployment", "viper-operator")
    names = [e["name"] for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"]]
    assert len(set(names)) == len(names)
    assert "MLFLOW_TRACKING_USERNAME" in names


def test_an_old_cluster_is_refused() -> None:
    with pytest.raises(HelmError, match="requires kubeVersion"):
        helm("template", "viper", CHART, "--kube-version", "1.25.0", values={})


def test_nothing_of_the_bundled_servers_is_left_where_external_ones_are_named() -> None:
    names = {o["metadata"]["name"] for o in render(EXTERNAL)}
    assert not {n for n in names if "minio" in n or "mlflow" in n or n == "viper-store"}
