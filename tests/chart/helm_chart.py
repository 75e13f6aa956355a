"""The chart through helm: rendered, installed, upgraded."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from servers.kube import KubeApi, binaries

CHART = Path(__file__).parents[2] / "charts" / "viper"
KUBERNETES = "1.36.0"

EXTERNAL = {
    "store": {"uri": "s3://team/viper?endpoint=https://s3.example.org:9443", "existingSecret": "team-s3"},
    "tracking": {"uri": "https://mlflow.example.org"},
}
EVERYTHING = {
    "operator": {
        "replicas": 2,
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "priorityClassName": "p",
    },
    "images": {"pullPolicy": "Always", "pullSecrets": ["registry"]},
    "minio": {"persistence": {"storageClassName": "fast", "retain": False}},
    "mlflow": {"allowedHosts": ["mlflow.example.org"], "allowedOrigins": ["https://mlflow.example.org"]},
    "metrics": {"serviceMonitor": {"enabled": True}, "dashboard": {"enabled": True}},
    "networkPolicy": {
        "apiServer": {"cidrs": ["10.0.0.1/32"], "ports": [6443]},
        "mlflowFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "stageEgress": [{"ports": [{"port": 443}]}],
    },
}
MINIMAL = {
    **EXTERNAL,
    "crds": {"install": False},
    "userRoles": {"create": False},
    "networkPolicy": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
    "profiles": {"cpu-small": {"create": False}, "a100-8x": {"create": False}},
}
#: Value sets that every general property is checked with.
VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    "external": EXTERNAL,
    "everything": EVERYTHING,
    "minimal": MINIMAL,
}
#: Value files as people write them, by name.
FILES = {f.stem: f for f in sorted((Path(__file__).parent / "values").glob("*.yaml"))}
#: Those that are refused, and the sentence.
REFUSED_FILES = {
    "argocd-null-section": ("networkPolicy is null: leave it out of your values to have the chart's default",),
    "unquoted-numbers": (
        "at '/operator/nodeSelector/gpu': got boolean, want string",
        "at '/operator/nodeSelector/generation': got number, want string",
        "at '/operator/env/0/value': got number, want string",
    ),
}


def values_of(name: str) -> dict[str, Any]:
    """What a value file holds; without the definitions, which are large and the same for all."""
    found: dict[str, Any] = yaml.safe_load(FILES[name].read_text("utf-8"))
    return {**found, "crds": {"install": False}}


class HelmError(Exception):
    """What helm says when it refuses."""


@functools.cache
def _program() -> Path:
    return binaries("chart") / "helm"


def helm(*arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
    """helm's output, without the cluster of whoever runs the tests; raises `HelmError` with its stderr."""
    given = [] if values is None else ["--values", "-"]
    done = subprocess.run(
        [_program(), *arguments, *given],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nonexistent", "KUBECONFIG": "/nonexistent", "HELM_CACHE_HOME": "/nonexistent"},
    )
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout


def render(values: Mapping[str, Any], *, release: str = "viper", chart: Path = CHART) -> list[dict[str, Any]]:
    """Every object that the chart makes of the values in the namespace `research`, hooks included."""
    return copy.deepcopy(list(_rendered(json.dumps(values), release, chart)))


@functools.lru_cache
def _rendered(values: str, release: str, chart: Path) -> tuple[dict[str, Any], ...]:
    text = helm(
        "template", release, chart, "--namespace", "research", "--kube-version", KUBERNETES, values=json.loads(values)
    )
    return tuple(d for d in yaml.load_all(text, Loader=yaml.CSafeLoader) if d)


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod (with metadata and spec) of everything that runs one."""
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one
        elif isinstance(one.get("spec"), dict) and "template" in one["spec"]:
            yield name, one["spec"]["template"]


def by_name(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The object of that kind and name."""
    (found,) = (o for o in objects if (o["kind"], o["metadata"]["name"]) == (kind, name))
    return found


def previous_version(folder: Path) -> Path:
    """A copy of the chart as the version before would have been: an older number, and one field less in a CRD."""
    chart = folder / "viper"
    shutil.copytree(CHART, chart)
    about = yaml.safe_load((chart / "Chart.yaml").read_text("utf-8"))
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}), "utf-8")
    crd = chart / "templates" / "crds" / "viperprofiles.yaml"
    head, body, tail = _split_template(crd.read_text("utf-8"))
    definition = yaml.safe_load(body)
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    del spec["properties"]["queueName"]
    rules = spec["x-kubernetes-validations"]  # of which one is about a field that there is not yet
    spec["x-kubernetes-validations"] = [rule for rule in rules if "queueName" not in yaml.safe_dump(rule)]
    crd.write_text(f"{head}\n{yaml.safe_dump(definition)}\n{tail}\n", "utf-8")
    return chart


def _split_template(text: str) -> tuple[str, str, str]:
    """First line with an action, the YAML, last line with an action."""
    lines = text.strip().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("{{-"))
    return lines[start], "\n".join(lines[start + 1 : -1]), lines[-1]


class Release:
    """A release in a namespace of a real API server."""

    def __init__(self, kube: KubeApi, namespace: str, name: str = "viper") -> None:
        self.kube, self.namespace, self.name = kube, namespace, name

    def helm(self, command: str, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """Runs helm against the release; raises `HelmError`."""
        where = ["--namespace", self.namespace, "--kubeconfig", self.kube.kubeconfig]
        return helm(command, self.name, *arguments, *where, values=values)

    def install(self, chart: Path = CHART, **values: Any) -> str:
        return self.helm("install", chart, "--timeout", "300s", values=values)

    def upgrade(self, chart: Path = CHART, **values: Any) -> str:
        return self.helm("upgrade", chart, "--timeout", "300s", values=values)

    def uninstall(self) -> str:
        return self.helm("uninstall", "--timeout", "300s", "--wait")

    def get(self, *what: str) -> dict[str, Any]:
        """One object, or a list, as the API server has it."""
        found: dict[str, Any] = json.loads(self.kube.kubectl("-n", self.namespace, "get", *what, "-o", "json"))
        return found
