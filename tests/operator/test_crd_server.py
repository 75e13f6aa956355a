"""The resources on a real API server: what it accepts, fills in, freezes, stores and shows."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from crd_api import RefusedError, Resources, installed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_cases import SPEC, VALID, patched, valid

from servers.kube import KubeApi
from viper.errors import SpecError
from viper.spec import IterationSpec, ViperIteration, parse_resource, parse_stored
from viper.spec.status import IterationStatus, LoopStatus

pytestmark = pytest.mark.kube
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def resources(kube_api: KubeApi) -> Resources:
    return installed(kube_api)


def named(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    return patched(manifest, {"metadata name": name})


# ---- accepted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_every_example_is_accepted_and_means_the_same_on_both_sides(path: Path, resources: Resources) -> None:
    for manifest in yaml.safe_load_all(path.read_text("utf-8")):
        assert parse_stored(resources.create(manifest)).spec == parse_resource(manifest).spec


@pytest.mark.parametrize("kind", sorted(VALID))
def test_the_servers_defaults_are_those_of_the_models(kind: str, resources: Resources) -> None:
    assert parse_stored(resources.create(valid(kind))).spec == parse_resource(valid(kind)).spec


@pytest.mark.parametrize("kind", sorted(VALID))
def test_a_resource_with_every_default_written_out_is_accepted_and_stays_the_same(
    kind: str, resources: Resources
) -> None:
    written = parse_resource(valid(kind)).dump()
    assert parse_stored(resources.create(written)).spec == parse_resource(valid(kind)).spec


def test_a_stage_takes_what_it_does_not_set_from_the_defaults_of_the_profile(resources: Resources) -> None:
    profile = {
        "defaults": {"gpus": 1, "retries": 5, "resources": {"limits": {"memory": "64Gi"}}},
        "stages": {"train-captions": {"gpus": 8}, "promote": {"gpus": 0, "resources": {"requests": {"cpu": 1}}}},
    }
    stored = parse_stored(resources.create(patched(valid("ViperIteration"), {"spec profile": profile})))
    assert isinstance(stored, ViperIteration)
    train, promote = (stored.spec.profile.of(s) for s in ("train-captions", "promote"))
    assert (train.gpus, train.retries, train.resources.limits) == (8, 5, {"memory": "64Gi"})
    assert (promote.gpus, promote.retries, promote.resources.requests, promote.resources.limits) == (
        0,
        5,
        {"cpu": "1"},
        {},
    )


def test_every_part_of_a_profile_is_accepted(resources: Resources) -> None:
    everything = {
        "device": "cuda",
        "queueName": "team-a",
        "defaults": {
            "image": "registry.example.org:5000/viper/gpu:1.2@sha256:abc",
            "imagePullPolicy": "IfNotPresent",
            "imagePullSecrets": [{"name": "pull"}, {"name": "pull.other"}],
            "gpus": 8,
            "resources": {"requests": {"cpu": 4, "memory": "64Gi"}, "limits": {"cpu": "8000m", "memory": "1e12"}},
            "shmSize": "16Gi",
            "workSize": 1000000000,
            "modelCache": {"claimName": "models"},
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
            "nodeSelector": {"nvidia.com/gpu.product": "A100-SXM4-80GB"},
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"operator": "Exists"},
            ],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}},
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
            "priorityClassName": "high",
            "runtimeClassName": "nvidia",
            "podTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostNetwork": True}},
        },
        "stages": {"synthesize-captions": {"shards": 8, "gpus": 1}, "freeze": {"gpus": 0, "deadlineSeconds": None}},
    }
    manifest = patched(valid("ViperIteration"), {"spec profile": everything})
    assert parse_stored(resources.create(manifest)).spec == parse_resource(manifest).spec


# ---- refused -----------------------------------------------------------------------------------------------------


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_server_and_command_line_agree_about_whatever_is_written(data: st.DataObject, resources: Resources) -> None:
    numbers = st.sampled_from([-1, 0, 1, 2, 7, 64, 128, 0.5, 1.5, "3", None, True])
    texts = st.sampled_from(["", "a", "A b", "cuda", "cuda:1", "generator", "file:///x", "a/b", 3, None, [], {}])
    quantities = st.sampled_from(["1", "500m", "64Gi", "1e3", ".5", "1.", "-1", "x", 1, 2, None])
    fields = {
        "spec images limit": numbers,
        "spec images minSide": st.sampled_from([8, 1536, 1537, 7]),
        "spec suspend": st.sampled_from([True, False, "true", None]),
        "spec generator": st.dictionaries(st.sampled_from(["alias", "version", "uri", "initialUri"]), numbers | texts),
        "spec model": texts,
        "spec recipe captions training batchPrompts": numbers,
        "spec recipe captions training miniBatchPrompts": numbers,
        "spec recipe reward tau": numbers,
        "spec recipe validation judge votes": numbers,
        "spec profile device": texts,
        "spec profile defaults gpus": numbers,
        "spec profile defaults shmSize": quantities,
        "spec profile defaults resources requests cpu": quantities,
        "spec profile defaults resources limits cpu": quantities,
        "spec profile stages": st.dictionaries(
            st.sampled_from(["evaluate", "freeze", "synthesize-captions", "train"]),
            st.none() | st.fixed_dictionaries({}, optional={"shards": numbers, "gpus": numbers, "image": texts}),
            max_size=2,
        ),
        "spec profileRef": texts,
        "spec evaluation questions": texts,
    }
    chosen = data.draw(st.lists(st.sampled_from(sorted(fields)), unique=True, min_size=1, max_size=3))
    manifest = patched(valid("ViperIteration"), {path: data.draw(fields[path]) for path in chosen})
    try:
        here: Any = parse_resource(manifest).spec
    except SpecError as e:
        here = str(e)
    try:
        there: Any = parse_stored(resources.create(manifest)).spec
    except RefusedError as e:
        there = str(e)
    if isinstance(here, str) or isinstance(there, str):
        assert isinstance(here, str), f"only the server refuses it: {there}"
        assert isinstance(there, str), f"only the command line refuses it: {here}"
    else:
        assert here == there


def test_kubectl_shows_a_person_every_mistake_in_a_file(kube_api: KubeApi, resources: Resources) -> None:
    manifest = patched(
        valid("ViperIteration"), {"spec images limit": 0, "spec generator": {}, "spec promotion alias": "1"}
    )
    with pytest.raises(subprocess.CalledProcessError) as refused:
        kube_api.kubectl("-n", resources.namespace, "apply", "-f", "-", stdin=yaml.safe_dump(manifest))
    for words in (
        "spec.images.limit in body should be greater than or equal to 1",
        "spec.generator: Invalid value: set exactly one of alias, version, uri",
        "must be letters, digits, '_' and '-', beginning with a letter",
    ):
        assert words in refused.value.stderr


# ---- frozen ------------------------------------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "model": "other",
    "generator": {"version": 3},
    "images": {"uri": "file:///other"},
    "engines": {**SPEC["engines"], "editor": "other"},
    "recipe": {"seed": 1},
    "profile": {"device": "cuda"},
    "profileRef": "a100",
    "evaluation": {"limit": 5},
    "promotion": {"policy": "Never"},
}
RUNNING = {"outcome": "Running", "stages": [{"name": "freeze", "state": "Running", "job": "turn-freeze"}]}
UNTOUCHED = [{"name": "freeze", "state": "Suspended"}]


def started(resources: Resources, manifest: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """The manifest, created and given a status, as it is stored."""
    made = resources.create(manifest, keep=True)
    return resources.replace({**made, "status": status}, status=True)


@pytest.mark.parametrize("field", [f.alias or n for n, f in IterationSpec.model_fields.items() if n != "suspend"])
def test_what_an_iteration_was_started_with_cannot_be_changed(field: str, resources: Resources) -> None:
    stored = started(resources, named(valid("ViperIteration"), f"frozen-{field.lower()}"), RUNNING)
    with pytest.raises(
        RefusedError, match=rf"spec\.{field} cannot be changed once the iteration has started; restore it"
    ):
        resources.replace(patched(stored, {f"spec {field}": CHANGES[field]}))


def test_an_iteration_that_runs_can_be_suspended_and_labelled(resources: Resources) -> None:
    stored = started(resources, named(valid("ViperIteration"), "suspended"), RUNNING)
    changed = resources.replace(patched(stored, {"spec suspend": True, "metadata labels": {"team": "a"}}))
    assert changed["spec"] == {**stored["spec"], "suspend": True}


@pytest.mark.parametrize(
    "status",
    [{}, {"outcome": "Pending"}, {"outcome": "Suspended", "stages": UNTOUCHED}, {**RUNNING, "outcome": "Failed"}],
    ids=["new", "pending", "suspended", "failed"],
)
def test_an_iteration_can_be_corrected_before_anything_is_frozen(
    status: dict[str, Any], resources: Resources, request: pytest.FixtureRequest
) -> None:
    name = f"open-{request.node.callspec.id}"
    stored = started(resources, named(valid("ViperIteration"), name), status)
    assert resources.replace(patched(stored, {"spec model": "other"}))["spec"]["model"] == "other"


FROZEN = {"outcome": "Failed", "generator": {"uri": "s3://m", "digest": "sha256:0"}}
THROUGH, WRONG = {"name": "freeze", "state": "Succeeded"}, {"name": "ingest-images", "state": "Failed"}
INGESTED = {"name": "ingest-images", "state": "Succeeded"}


def test_an_iteration_that_failed_can_be_corrected_until_a_stage_is_done(resources: Resources) -> None:
    status = {**FROZEN, "stages": [THROUGH, WRONG]}
    stored = started(resources, named(valid("ViperIteration"), "correctable"), status)
    assert resources.replace(patched(stored, {"spec model": "other"}))["spec"]["model"] == "other"


@pytest.mark.parametrize(
    "status",
    [FROZEN, {**FROZEN, "stages": [THROUGH, INGESTED]}, {**FROZEN, "outcome": "Running", "stages": [THROUGH, WRONG]}],
    ids=["unknown", "ingested", "running"],
)
def test_an_iteration_that_has_data_or_runs_stays_as_it_was(
    status: dict[str, Any], resources: Resources, request: pytest.FixtureRequest
) -> None:
    name = f"final-{request.node.callspec.id}"
    stored = started(resources, named(valid("ViperIteration"), name), status)
    with pytest.raises(RefusedError, match=r"spec\.recipe cannot be changed"):
        resources.replace(patched(stored, {"spec recipe seed": 2}))


def test_a_loop_that_has_begun_can_be_made_longer_and_keeps_its_template(resources: Resources) -> None:
    stored = started(resources, named(valid("ViperLoop"), "longer"), {"current": "longer-1"})
    more = resources.replace(patched(stored, {"spec iterations": 9, "spec budget gpuHours": 2, "spec suspend": True}))
    assert (more["spec"]["iterations"], more["spec"]["budget"], more["spec"]["suspend"]) == (9, {"gpuHours": 2}, True)
    for path, value in (("spec template recipe seed", 7), ("spec rotateImages", False)):
        with pytest.raises(RefusedError, match=rf"spec\.{path.split()[1]} cannot be changed once the loop has started"):
            resources.replace(patched(more, {path: value}))


def test_a_profile_can_always_be_changed(resources: Resources) -> None:
    made = resources.create(named(valid("ViperProfile"), "changing"), keep=True)
    assert resources.replace(patched(made, {"spec defaults gpus": 4}))["spec"]["defaults"]["gpus"] == 4


# ---- stored and shown --------------------------------------------------------------------------------------------

NOW = "2026-11-21T03:04:05Z"
CONDITION = {
    "type": "Succeeded",
    "reason": "Running",
    "message": "m",
    "lastTransitionTime": NOW,
    "observedGeneration": 1,
}
ITERATION = IterationStatus.model_validate(
    {
        "observedGeneration": 1,
        "conditions": [{**CONDITION, "status": "Unknown"}, {**CONDITION, "type": "Held", "status": "False"}],
        "outcome": "Running",
        "stage": "synthesize-captions",
        "progress": "412/512, 12 min left",
        "generator": {"model": "m", "version": 7, "uri": "s3://m/7", "digest": "sha256:0"},
        "version": 8,
        "score": "80.3 % (+8.4)",
        "stages": [
            {"name": "freeze", "state": "Succeeded", "job": "turn-freeze", "startedAt": NOW, "finishedAt": NOW},
            {
                "name": "synthesize-captions",
                "state": "Running",
                "items": {"done": 412, "total": 512, "rate": 1.5, "etaSeconds": 720.0},
                "gpuSeconds": 80.5,
                "seconds": 10.25,
                "headline": "h",
            },
        ],
        "gpuSeconds": 80.5,
        "retries": 1,
        "run": "r",
        "store": "s3://viper/iterations/turn",
    }
)
LOOP = LoopStatus.model_validate(
    {
        "observedGeneration": 1,
        "conditions": [{**CONDITION, "status": "Unknown"}],
        "iteration": 2,
        "of": 3,
        "current": "shown-2",
        "version": 5,
        "gpuSeconds": 0.5,
    }
)


def test_a_status_comes_back_as_it_was_written_and_a_spec_never_brings_one(resources: Resources) -> None:
    for kind, status in (("ViperIteration", ITERATION), ("ViperLoop", LOOP)):
        made = resources.create({**named(valid(kind), "shown"), "status": {"version": 99}}, keep=True)
        assert "status" not in made
        written = resources.replace({**made, "status": status.dump(), "spec": {}}, status=True)
        assert written["spec"] == made["spec"]
        assert written["metadata"]["generation"] == 1
        assert type(status).model_validate(resources.get(made)["status"]) == status


def test_printer_columns_show_what_the_status_says(kube_api: KubeApi, resources: Resources) -> None:
    started(resources, named(valid("ViperIteration"), "columns"), ITERATION.dump())
    started(resources, named(valid("ViperLoop"), "columns"), LOOP.dump())

    def row(*arguments: str) -> dict[str, str]:
        header, values = kube_api.kubectl("-n", resources.namespace, "get", *arguments).splitlines()
        starts = [m.start() for m in re.finditer(r"(?:^|(?<=\s\s))\S", header)]
        bounds = list(zip(starts, [*starts[1:], None], strict=True))
        return {header[a:b].strip(): values[a:b].strip() for a, b in bounds}

    shown = row("vi", "columns", "-o", "wide")
    shown.pop("AGE")
    assert shown == {
        "NAME": "columns",
        "STAGE": "synthesize-captions",
        "PROGRESS": "412/512, 12 min left",
        "GENERATOR": "7",
        "VERSION": "8",
        "SCORE": "80.3 % (+8.4)",
        "SUCCEEDED": "Unknown",
        "MODEL": "m",
        "OUTCOME": "Running",
        "GPU-SECONDS": "80.5",
        "REASON": "Running",
        "MESSAGE": "m",
    }
    loop = row("vl", "columns")
    assert (loop["ITERATION"], loop["OF"], loop["CURRENT"], loop["VERSION"]) == ("2", "3", "shown-2", "5")
    everything = kube_api.kubectl("-n", resources.namespace, "get", "vipers", "-o", "name").splitlines()
    assert {"viperiteration.viper.dev/columns", "viperloop.viper.dev/columns"} <= set(everything)
    described = kube_api.kubectl("-n", resources.namespace, "describe", "viper", "columns")
    assert re.search(r"(?m)^Kind: +ViperIteration$", described)
    assert "412/512, 12 min left" in described


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("vi.spec.recipe.captions.training.clipHigh", "ε_high of equation 8"),
        ("vl.spec.budget.gpuHours", "Unit: GPU-hours"),
        ("vp.spec.stages.gpus", "Unit: GPUs per pod"),
        ("vi.status.stages.items.etaSeconds", "Estimated time left"),
    ],
)
def test_kubectl_explains_fields(field: str, words: str, kube_api: KubeApi, resources: Resources) -> None:
    assert words in " ".join(kube_api.kubectl("explain", field).split()), "whatever the line breaks"


def test_server_side_apply_of_the_same_again_writes_nothing(kube_api: KubeApi, resources: Resources) -> None:
    manifest = named(valid("ViperIteration"), "applied")
    versions = []
    for _ in range(2):
        kube_api.apply(manifest, namespace=resources.namespace)
        versions.append(resources.get(manifest)["metadata"]["resourceVersion"])
    assert versions[0] == versions[1]
