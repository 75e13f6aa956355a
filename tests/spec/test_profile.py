"""Profiles: what a stage gets, what is taken from the defaults, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from viper.errors import SpecError
from viper.methods.stages import FREEZE, STAGES
from viper.spec import (
    Profile,
    StageResources,
    ViperIteration,
    ViperProfile,
    load_resource,
    load_runnable,
    parse_resource,
    parse_stored,
)
from viper.spec.pods import amount

SPEC: dict[str, Any] = {
    "model": "small",
    "images": {"uri": "smallworld:scenes?count=1000"},
    "engines": dict.fromkeys(("reconstructor", "editor", "similarity", "imageSimilarity"), "smallworld"),
}


def resource(kind: str = "ViperIteration", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "viper.dev/v1alpha1", "kind": kind, "metadata": {"name": "one"}, "spec": spec}


def profile(**fields: Any) -> Profile:
    iteration = parse_resource(resource(**SPEC, profile=fields))
    assert isinstance(iteration, ViperIteration)
    return iteration.spec.profile


def refusal(**fields: Any) -> str:
    with pytest.raises(SpecError) as caught:
        profile(**fields)
    return str(caught.value)


def test_a_stage_takes_what_it_does_not_set_from_the_defaults() -> None:
    found = profile(
        defaults={"gpus": 1, "retries": 7, "nodeSelector": {"zone": "a"}},
        stages={"train-captions": {"gpus": 8}, "promote": {"gpus": 0, "nodeSelector": {}}},
    )
    train, promote = found.of("train-captions"), found.of("promote")
    assert (train.gpus, train.retries, train.node_selector) == (8, 7, {"zone": "a"})
    assert (promote.gpus, promote.retries, promote.node_selector) == (0, 7, {})
    assert found.of("evaluate") == found.defaults


def test_a_stage_may_go_back_to_the_value_that_is_the_default_of_the_field() -> None:
    found = profile(
        defaults={"retries": 7, "deadlineSeconds": 60, "ttlSecondsAfterFinished": None},
        stages={"evaluate": {"retries": 2, "deadlineSeconds": None, "ttlSecondsAfterFinished": 604800}},
    ).of("evaluate")
    assert (found.retries, found.deadline_seconds, found.ttl_seconds_after_finished) == (2, None, 604800)


@given(
    defaults=st.fixed_dictionaries(
        {}, optional={"gpus": st.integers(0, 8), "retries": st.integers(0, 20), "image": st.sampled_from(["a", "b"])}
    ),
    stages=st.dictionaries(
        st.sampled_from([FREEZE, *STAGES]),
        st.fixed_dictionaries(
            {},
            optional={
                "gpus": st.integers(0, 8),
                "deadlineSeconds": st.none() | st.integers(1, 9),
                "env": st.just([{"name": "A", "value": "b"}]),
            },
        ),
    ),
)
def test_a_profile_written_out_and_read_again_is_the_same(defaults: dict[str, Any], stages: dict[str, Any]) -> None:
    found = profile(defaults=defaults, stages=stages)
    again = profile(**found.dump())
    assert again == found
    assert again.dump() == found.dump()
    for name, own in stages.items():
        wanted = StageResources().model_dump(by_alias=True) | defaults | own
        assert found.of(name).dump() == StageResources.model_validate(wanted).dump()


def test_what_stage_and_defaults_cannot_have_together_names_the_stage() -> None:
    text = refusal(defaults={"gpus": 1}, stages={"evaluate": {"resources": {"limits": {"nvidia.com/gpu": 2}}}})
    assert "evaluate, together with defaults: gpus sets nvidia.com/gpu, which resources names too" in text


@pytest.mark.parametrize(
    "stage", sorted({FREEZE, *STAGES} - {"synthesize-captions", "synthesize-operations", "validate-operations"})
)
def test_only_stages_made_of_parts_can_be_split(stage: str) -> None:
    assert f"profile.stages.{stage}.shards must be 1" in refusal(stages={stage: {"shards": 2}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("2", "2"), ("500m", "0.5"), ("1.5", "1.5"), (".5", "0.5"), ("1.", "1"), ("64Gi", str(64 * 2**30))),
        *(("1k", "1000"), ("1e3", "1000"), ("1E3", "1000"), ("2E", "2e18"), ("1Ki", "1024"), ("3u", "3e-6")),
    ],
)
def test_quantities_mean_what_kubernetes_means(text: str, expected: str) -> None:
    assert amount(text) == Decimal(expected)
    assert profile(defaults={"resources": {"requests": {"cpu": text}}}).defaults.resources.requests == {"cpu": text}


def test_a_whole_number_is_a_quantity_and_a_fraction_needs_quotes() -> None:
    assert profile(defaults={"resources": {"limits": {"cpu": 4}}}).defaults.resources.limits == {"cpu": "4"}
    assert "as '0.5'" in refusal(defaults={"resources": {"limits": {"cpu": 0.5}}})
    for wrong in ("16 GB", "1e400", "1E-400", "9e99999999", "1e+308"):
        assert "must be a whole number, or a string such as 500m" in refusal(defaults={"shmSize": wrong})


def test_requests_above_limits_are_seen_through_their_units() -> None:
    fits = {"requests": {"memory": "1Gi", "cpu": 1}, "limits": {"memory": "1100M", "cpu": "1000m"}}
    assert profile(defaults={"resources": fits}).defaults.resources.requests["cpu"] == "1"
    text = refusal(defaults={"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}})
    assert "requests.memory (1Gi) is more than limits.memory (1G); lower the request or raise the limit" in text


# ---- references to profiles --------------------------------------------------------------------------------------


def test_an_iteration_with_a_reference_keeps_it_and_has_no_profile_of_its_own() -> None:
    iteration = parse_resource(resource(**SPEC, profileRef="a100"))
    assert isinstance(iteration, ViperIteration)
    assert "profile" not in iteration.dump()["spec"]
    assert parse_resource(iteration.dump()) == iteration


def test_a_resolved_reference_is_an_iteration_with_that_profile() -> None:
    named = parse_resource(resource(**SPEC, profileRef="a100"))
    inline = parse_resource(resource(**SPEC, profile={"device": "cuda"}))
    assert isinstance(named, ViperIteration)
    assert isinstance(inline, ViperIteration)
    assert named.spec.with_profile(inline.spec.profile) == inline.spec
    assert parse_resource({**inline.dump(), "spec": named.spec.with_profile(inline.spec.profile).dump()}) == inline


@pytest.mark.parametrize("trainer", ["trl", "verl"])
def test_a_referred_profile_with_nodes_needs_a_trainer_that_works_on_several(trainer: str) -> None:
    engines = {**SPEC["engines"], "trainer": trainer}
    named = parse_resource(resource(**{**SPEC, "engines": engines}, profileRef="two"))
    assert isinstance(named, ViperIteration)
    two = Profile.model_validate({"stages": {"train-captions": {"nodes": 2, "workClaim": "shared"}}})
    if trainer == "verl":
        assert named.spec.with_profile(two).profile.of("train-captions").nodes == 2
    else:
        with pytest.raises(
            SpecError, match=r"profileRef: two(.|\n)*trainer trl works on one node; set engines.trainer: verl"
        ):
            named.spec.with_profile(two)


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("ViperIteration", {**SPEC, "profileRef": "a100"}, "spec.profile"),
        ("ViperLoop", {"template": {**SPEC, "profileRef": "a100"}}, "spec.template.profile"),
    ],
)
def test_a_reference_cannot_be_run_without_a_cluster(kind: str, spec: Any, field: str, tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.write_text(yaml.safe_dump(resource(kind, **spec)))
    assert load_resource(path).kind == kind
    with pytest.raises(SpecError) as caught:
        load_runnable(path)
    assert f"{field}Ref names the ViperProfile 'a100' in a cluster" in str(caught.value)
    assert f"write the profile into {field}" in str(caught.value)


def test_a_profile_is_a_resource_that_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(resource("ViperProfile", device="cuda", stages={"evaluate": {"gpus": 1}})))
    found = load_resource(path)
    assert isinstance(found, ViperProfile)
    assert found.spec.of("evaluate").gpus == 1
    with pytest.raises(SpecError, match="it is nothing to run itself"):
        load_runnable(path)


def test_a_stored_object_reads_without_what_the_server_added() -> None:
    wanted = resource(**SPEC)
    metadata = {
        "name": "one",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 2,
        "managedFields": [],
        "labels": {"a": "b"},
    }
    found = parse_stored({**wanted, "metadata": metadata, "status": {"outcome": "Running"}})
    assert found.spec == parse_resource(wanted).spec
    assert found.metadata.labels == {"a": "b"}


def test_a_stored_object_that_is_not_valid_is_named() -> None:
    with pytest.raises(SpecError, match="ViperIteration team/one"):
        parse_stored({**resource(model="m"), "metadata": {"name": "one", "namespace": "team"}})


def test_models_stay_frozen_when_stages_are_resolved() -> None:
    with pytest.raises(ValidationError):
        profile().defaults.gpus = 3
