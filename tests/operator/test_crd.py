"""The generated CustomResourceDefinitions, without a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from viper.spec import ViperIteration, ViperLoop, ViperProfile, parse_resource
from viper_operator.crd import definitions, template, write
from viper_operator.crd_columns import COLUMNS
from viper_operator.crd_rules import ROOT_RULES, RULES

CHART = Path(__file__).parents[2] / "charts" / "viper"
#: What all annotations of an object may have, `kubectl apply`'s copy of it included (apimachinery).
ANNOTATIONS_LIMIT = 256 * 1024
KINDS: tuple[type[BaseModel], ...] = (ViperIteration, ViperLoop, ViperProfile)
FREE_FORM = {
    "nodeAffinity",
    "podAffinity",
    "podAntiAffinity",
    "labelSelector",
    "podTemplate.metadata",
    "podTemplate.spec",
}

Node = tuple[str, dict[str, Any]]


def root(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[Node]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


ALL: list[Node] = [(d["spec"]["names"]["kind"] + path, node) for d in definitions() for path, node in nodes(root(d))]


def test_the_chart_has_what_the_models_say(tmp_path: Path) -> None:
    write(tmp_path)
    made = {p.name: p.read_text("utf-8") for p in tmp_path.iterdir()}
    kept = {p.name: p.read_text("utf-8") for p in (CHART / "templates" / "crds").iterdir()}
    assert made == kept, "run `make crds`"


def test_helm_leaves_the_braces_of_descriptions_alone() -> None:
    assert "a: '{{ \"{{\" }} .Values }}'" in template({"a": "{{ .Values }}"})
    for definition in definitions():
        lines = template(definition).splitlines()
        assert yaml.safe_load("\n".join(line for line in lines if not line.startswith("{{-"))) == definition


@pytest.mark.parametrize("definition", definitions(), ids=lambda d: str(d["spec"]["names"]["kind"]))
def test_a_definition_is_small_enough_for_kubectl_apply(definition: dict[str, Any]) -> None:
    assert len(json.dumps(definition).encode()) < ANNOTATIONS_LIMIT


def test_the_profiles_of_the_chart_are_valid() -> None:
    profiles = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["profiles"]
    for name, given in profiles.items():
        head = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperProfile", "metadata": {"name": name}}
        assert parse_resource({**head, "spec": given["spec"]}).metadata.name == name
    assert {"cpu-small", "a100-8x"} <= profiles.keys()


def test_every_node_is_structural() -> None:
    for path, node in ALL:
        assert "$ref" not in node, path
        assert "anyOf" not in node or node.get("x-kubernetes-int-or-string"), path
        assert node.get("type") in {"object", "array", "string", "integer", "number", "boolean"} or "anyOf" in node, (
            path
        )
        if node.get("type") == "array":
            assert "items" in node, path


def test_free_form_are_the_parts_that_kubernetes_checks_itself_and_nothing_else() -> None:
    open_nodes = {
        path
        for path, node in ALL
        if node.get("x-kubernetes-preserve-unknown-fields")
        or (node.get("type") == "object" and not node.keys() & {"properties", "additionalProperties"})
    }
    assert {p for p in open_nodes if not p.endswith(tuple(FREE_FORM))} == {f"{k.__name__}.metadata" for k in KINDS}


def test_every_field_has_a_description() -> None:
    named = [(p, n) for p, n in ALL if not p.endswith(("[]", ".metadata")) or p.endswith("podTemplate.metadata")]
    assert [path for path, node in named if not node.get("description")] == []


def test_every_validator_of_the_models_has_a_rule() -> None:
    def validated(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        from viper.spec.load import submodel

        if any(d.info.mode == "after" for d in model.__pydantic_decorators__.model_validators.values()):
            yield model
        for field in model.model_fields.values():
            if (inner := submodel(field.annotation)) is not None:
                yield from validated(inner)

    needed = {m for kind in KINDS for m in validated(kind)} - {ViperProfile}  # whose check is that of its spec
    assert {m.__name__ for m in needed - set(RULES) - {k for k, rules in ROOT_RULES.items() if rules}} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_printer_columns_show_fields_that_exist(kind: type[BaseModel]) -> None:
    paths = {path for path, _ in ALL}
    for column in COLUMNS[kind]:
        if column.path == ".metadata.creationTimestamp":
            continue
        path = re.sub(r"\[\?\(.*?\)\]", "[]", column.path)
        assert f"{kind.__name__}{path}" in paths, column.name


def test_resources_of_a_stage_have_no_defaults_that_would_hide_those_of_the_profile() -> None:
    defaults = re.compile(r"\.stages\[\]\.[a-zA-Z]+$")
    found = [path for path, node in ALL if defaults.search(path) and ".status." not in path and "default" in node]
    assert found == []
