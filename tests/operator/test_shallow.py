"""Objects that are nested deeper than Python reads: the operator goes on, and they are refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fakes.cluster import RESOURCES, Cluster, manifest
from viper.errors import SpecError
from viper.spec import parse_resource
from viper.spec.documents import DEEPEST as DEEPEST_IN_A_FILE
from viper_operator.observed import _termination
from viper_operator.plugin.problems import termination
from viper_operator.shallow import DEEPEST, loads, shallow

MAP, LIST = ('{"a":', "}"), ("[", "]")


def nested(levels: int, form: tuple[str, str] = MAP, leaf: str = "1") -> str:
    """JSON of so many mappings or lists inside each other."""
    return form[0] * levels + leaf + form[1] * levels


def depth(value: Any) -> int:
    level, found = [value], -1
    while level:
        found += 1
        level = [v for x in level for v in (x.values() if isinstance(x, dict) else x if isinstance(x, list) else ())]
    return found


@pytest.mark.parametrize(
    "form", [MAP, LIST, ('[{"a":', "}]"), ('{"{[\\"":[', "]}")], ids=["maps", "lists", "both", "odd keys"]
)
@pytest.mark.parametrize("levels", [1, 50, 99, 101, 150, 250, 999, 5_000, 100_000])
def test_what_is_too_deep_is_null_and_the_rest_is_there(form: tuple[str, str], levels: int) -> None:
    deep = nested(levels, form)
    found = loads(f'{{"before": "}}]\\\\", "x": [{deep}], "y": {{"z": [2]}}, "after": "{{"}}'.encode())
    assert (found["before"], found["y"], found["after"]) == ("}]\\", {"z": [2]}, "{")
    assert depth(found) <= DEEPEST + 1
    levels *= 2 if form[0].count("[") + form[0].count('":') > 1 else 1
    if levels < DEEPEST - 2:
        assert json.dumps(found["x"], separators=(",", ":")) == f"[{deep}]"


@pytest.mark.parametrize(
    "data",
    ["", "[" * 4096, "{" * 4096, "[" * 4096 + "]" * 100, "]" * 4096, '{"a":' * 4096, '"' * 4096, '"\\' * 400_000, "x"],
    ids=lambda d: f"{d[:6]} {len(d)}",
)
def test_what_is_no_json_is_that_and_nothing_else(data: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|Unterminated|delimiter|Invalid"):
        loads(data.encode())
    # What a program leaves at its end may be anything.
    assert _termination(data)[0] == ""
    assert termination({"reason": "Error", "message": data, "exitCode": 1})[0] == "exit status 1"


def test_the_lines_of_an_ordinary_object_are_as_they_were() -> None:
    data = json.dumps(manifest("it", engines={"trainer": "verl"})).encode()
    assert shallow(data) is data


FREE_FORM = [
    lambda deep: {"podTemplate": {"spec": deep}},
    lambda deep: {"podTemplate": {"metadata": deep}},
    lambda deep: {"affinity": {"nodeAffinity": deep}},
    lambda deep: {"affinity": {"podAffinity": deep}},
    lambda deep: {"affinity": {"podAntiAffinity": deep}},
    lambda deep: {"topologySpreadConstraints": [{"topologyKey": "zone", "labelSelector": deep}]},
]


@pytest.mark.parametrize("place", FREE_FORM)
@pytest.mark.parametrize("form", [MAP, ('{"a":[', "]}")], ids=["maps", "lists too"])
def test_a_part_without_a_form_may_be_as_deep_as_a_file(place: Any, form: tuple[str, str]) -> None:
    per = form[0].count("[") + 1
    parse_resource(manifest(profile={"defaults": place(json.loads(nested((DEEPEST_IN_A_FILE - 1) // per, form)))}))
    for levels in (DEEPEST_IN_A_FILE // per + 1, 400 // per):
        with pytest.raises(SpecError, match="mappings and lists are nested more than 100 deep"):
            parse_resource(manifest(profile={"defaults": place(json.loads(nested(levels, form)))}))


@pytest.mark.kube
def test_an_object_deeper_than_python_reads_stops_only_itself(cluster: Cluster) -> None:
    path = RESOURCES.format(cluster.namespace, "viperiterations")

    def create(name: str, levels: int) -> None:
        text = json.dumps(manifest(name, profile={"defaults": {"podTemplate": {"spec": {"affinity": "HERE"}}}}))
        with cluster.api.open("POST", path, text.replace('"HERE"', nested(levels)).encode()):
            pass

    create("listed", 3_000)  # there when the operator starts
    cluster.start()
    eventually_failed(cluster, "listed")
    create("watched", 3_000)
    eventually_failed(cluster, "watched")
    cluster.iteration("fine")
    cluster.until(lambda status: status["outcome"] == "Running", "fine")
    assert cluster.operator is not None
    assert cluster.operator.alive


def eventually_failed(cluster: Cluster, name: str) -> None:
    """Waits for what is said of an iteration whose body no JSON of Python reads."""
    text = cluster.kube.kubectl(
        "-n", cluster.namespace, "wait", f"viperiteration/{name}", "--for=jsonpath={.status.outcome}=Failed",
        "--timeout=60s", "-o", "jsonpath={.status.conditions[*].message}",
    )  # fmt: skip
    assert "spec.profile.defaults.podTemplate.spec: mappings and lists are nested more than 100 deep" in text
