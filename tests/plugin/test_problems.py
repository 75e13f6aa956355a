"""What keeps a stage's pods from working, said once and in their own words."""

from __future__ import annotations

from typing import Any

import pytest
from plugin_builders import container, pod, warning

from viper_operator.plugin.problems import problem, problems

NO_GPU = "0/8 nodes are available: 8 Insufficient nvidia.com/gpu."
UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": NO_GPU}]
}
LEFT = '{"reason": "InputError", "message": "s3://images: no image could be read"}'


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ""),
        ({"phase": "Running", "containerStatuses": container(running={})}, ""),
        ({"phase": "Succeeded"}, ""),
        (UNSCHEDULABLE, f"Unschedulable: {NO_GPU}"),
        ({"containerStatuses": container(waiting={"reason": "ContainerCreating"})}, ""),
        (
            {"containerStatuses": container(waiting={"reason": "ImagePullBackOff", "message": "no\nsuch image"})},
            "ImagePullBackOff: no such image",
        ),
        (
            {"containerStatuses": container(waiting={"reason": "CreateContainerConfigError"})},
            "CreateContainerConfigError",
        ),
        ({"initContainerStatuses": container(waiting={"reason": "ErrImagePull"})}, "ErrImagePull"),
        (
            {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 3, "message": LEFT})},
            "attempt failed, InputError: s3://images: no image could be read",
        ),
        (
            {"phase": "Failed", "containerStatuses": container(terminated={"exitCode": 137, "reason": "OOMKilled"})},
            "attempt failed, OOMKilled",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": container(
                    terminated={"exitCode": 1, "reason": "Error", "message": "a\nlast line\n"}
                ),
            },
            "attempt failed, exit status 1: last line",
        ),
        (
            {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active too long"},
            "attempt failed, DeadlineExceeded: Pod was active too long",
        ),
        (
            {
                "phase": "Running",
                "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}],
            },
            "taken away (PreemptionByScheduler), will be replaced",
        ),
        ({"phase": "Unknown"}, "the node does not answer"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_pods_trouble_is_told_in_its_own_words(status: dict[str, Any], expected: str) -> None:
    assert problem(pod("p", **status)) == expected


def test_a_pod_on_its_way_out_has_no_trouble() -> None:
    leaving = pod("p", **UNSCHEDULABLE)
    leaving["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    assert problem(leaving) == ""


def test_the_same_trouble_of_several_shards_is_told_once_with_their_number() -> None:
    pods = [pod(f"p{i}", "evaluate", shard=i, **UNSCHEDULABLE) for i in range(3)]
    pods.append(pod("q", "ingest-images", phase="Running"))
    assert problems(pods) == {"evaluate": [f"3 pods: Unschedulable: {NO_GPU}"]}


def test_a_pod_that_does_not_start_tells_its_last_warning() -> None:
    events = [
        warning("Pod", "p", "FailedMount", "secret not found", "10:05:00"),
        warning("Pod", "p", "FailedScheduling", "none", "10:01:00"),
        warning("Pod", "other", "BackOff", "x", "10:09:00"),
    ]
    assert problems([pod("p")], events) == {"promote": ["FailedMount: secret not found"]}
    assert problems([pod("p", phase="Running")], events) == {}


def test_a_job_whose_pods_are_refused_tells_why() -> None:
    events = [warning("Job", "it-evaluate", "FailedCreate", 'pods "x" is forbidden: exceeded quota')]
    assert problems([], events, {"it-evaluate": "evaluate"}) == {
        "evaluate": ['FailedCreate: pods "x" is forbidden: exceeded quota']
    }
    has_pods = pod("p", "evaluate", phase="Running")
    assert problems([has_pods], events, {"it-evaluate": "evaluate"}) == {}
