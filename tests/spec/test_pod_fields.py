"""Misspelt fields of pods are found with what was meant; what nobody knows is left to the API server."""

from __future__ import annotations

from typing import Any

import pytest

from viper.spec.pod_fields import fields, hint, misspelt
from viper_operator.core_fields import core_fields

FINE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "null": {"spec": None},
    "of a later Kubernetes": {"spec": {"quantumEntanglement": True, "containers": [{"name": "a", "flavour": "x"}]}},
    "keys of a map": {"spec": {"nodeSelector": {"nodeSelektor": "a"}, "overhead": {"cpus": "1"}}},
    "keys of labels": {"metadata": {"labels": {"lables": "a"}, "annotations": {"anotations": "b"}}},
    "extended resources": {"spec": {"containers": [{"name": "a", "resources": {"limits": {"limit/s": 1}}}]}},
    "what is no map where one should be": {"spec": {"tolerations": {"kye": "a"}, "securityContext": ["x"]}},
    "what strategic merges are told": {"spec": {"$patch": "replace"}},
    "all of it": {
        "metadata": {"labels": {"a": "b"}},
        "spec": {
            "tolerations": [{"key": "a", "operator": "Exists"}],
            "containers": [{"name": "stage", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
            "affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        },
    },
}


@pytest.mark.parametrize("template", FINE.values(), ids=FINE)
def test_nothing_is_said_of_what_may_be_right(template: dict[str, Any]) -> None:
    assert list(misspelt(template, "PodTemplateSpec", "podTemplate")) == []


@pytest.mark.parametrize(
    ("refusal", "meant"),
    [
        (".spec.template.spec.nodeSelektor: field not declared in schema", "did you mean nodeSelector?"),
        ('.spec.template.spec.containers[name="a"].imagePulPolicy: field not declared in schema', "imagePullPolicy"),
        (".spec.template.spec.imagePullPolicy: field not declared in schema", "it is one of Container"),
        (".spec.rayClusterSpec.headGroupSpec.template.spec.nodeSelektor: field not declared in schema", "nodeSelector"),
        (".spec.template.spec.quantumEntanglement: field not declared in schema", ""),
        (".spec.template.spec.nowhere.nodeSelektor: field not declared in schema", ""),
        ('.spec.template.spec.initContainers: duplicate entries for key [name="a"]', ""),
        ("exceeded quota", ""),
    ],
)
def test_what_an_api_server_does_not_know_is_said_with_what_was_meant(refusal: str, meant: str) -> None:
    found = hint(f"422 Invalid: failed to create typed patch object (ns/it; batch/v1, Kind=Job): {refusal}")
    assert meant in found
    assert bool(found) is bool(meant)


def test_the_fields_are_those_of_kubernetes_client() -> None:
    """Else: python -m viper_operator.core_fields > viper/spec/pod_fields.json"""
    assert fields() == core_fields()
