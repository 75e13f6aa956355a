"""kubeconform, with the schemas of a real API server made strict."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_chart import VALUES, render

from servers.kube import KubeApi, binaries

pytestmark = pytest.mark.kube

#: Kinds that a bare API server does not know; the API server itself checks them in test_release.py.
UNKNOWN = "ServiceMonitor,ViperProfile"
_SCALARS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}


@pytest.fixture(scope="module")
def schemas(kube_api: KubeApi, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one JSON schema a kind, in which unknown fields are errors."""
    folder = tmp_path_factory.mktemp("schemas")
    definitions = json.loads(kube_api.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    wanted = {o["kind"] for values in VALUES.values() for o in render(values)}
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            if kind["kind"] in wanted:
                needed = {n: _strict(n, definitions[n]) for n in sorted(_reachable(name, definitions))}
                schema = {"$ref": f"#/definitions/{name}", "definitions": needed}
                version = "-".join(p for p in (kind["group"].split(".")[0], kind["version"]) if p)
                (folder / f"{kind['kind'].lower()}-{version}.json").write_text(json.dumps(schema), "utf-8")
    return folder


def _strict(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    if name in _SCALARS:
        return _SCALARS[name]
    return {**definition, "additionalProperties": False} if "properties" in definition else definition


def _reachable(name: str, definitions: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            waiting += _references(definitions[one])
    return found


def _references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].removeprefix("#/definitions/")
        for inner in part.values():
            yield from _references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _references(inner)


def kubeconform(objects: list[dict[str, Any]], schemas: Path) -> dict[str, Any]:
    """kubeconform's summary and what it found."""
    where = f"{schemas}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json"
    options = ["-strict", "-summary", "-output", "json", "-skip", UNKNOWN, "-schema-location", where]
    done = subprocess.run(
        [binaries("chart") / "kubeconform", *options, "-"],
        input=yaml.safe_dump_all(objects),
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_everything_conforms_to_the_schemas_of_kubernetes(values: dict[str, Any], schemas: Path) -> None:
    objects = render(values)
    found = kubeconform(objects, schemas)
    assert found["resources"] == []
    skipped = [o for o in objects if o["kind"] in UNKNOWN.split(",")]
    assert found["summary"] == {
        "valid": len(objects) - len(skipped),
        "invalid": 0,
        "errors": 0,
        "skipped": len(skipped),
    }


def test_a_misspelt_field_would_be_found(schemas: Path) -> None:
    (service,) = (o for o in render({}) if o["kind"] == "Service" and o["metadata"]["name"] == "viper-minio")
    wrong = {**service, "spec": {**service["spec"], "selektor": {}}}
    assert kubeconform([wrong], schemas)["summary"]["invalid"] == 1
