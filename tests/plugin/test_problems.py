"""What keeps a stage's pods from working, said once and in their own words."""

from __future__ import annotations

from typing import Any

import pytest
from plugin_builders import container, event, pod

from viper_operator.plugin.api import EVENTS
from viper_operator.plugin.errors import ClusterError, ForbiddenError
from viper_operator.plugin.jobs import wait
from viper_operator.plugin.problems import problem, problems, silent

NO_GPU = "0/8 nodes are available: 8 Insufficient nvidia.com/gpu."
UNSCHEDULABLE: dict[str, Any] = {
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


def test_a_pod_that_does_not_start_tells_the_last_word_about_it() -> None:
    events = [
        event("uid-p", "FailedMount", "secret not found", "10:05:00"),
        event("uid-p", "FailedScheduling", "none", "10:01:00"),
        event("uid-other", "BackOff", "x", "10:09:00"),
    ]
    assert problems([pod("p")], events) == {"promote": ["FailedMount: secret not found"]}
    assert problems([pod("p", phase="Running")], events) == {}
    over = event("uid-p", "Pulling", "image x", "10:06:00", type_="Normal")
    assert problems([pod("p")], [*events, over]) == {}


def test_a_job_whose_pods_are_refused_tells_why() -> None:
    jobs, uids = {"it-evaluate": "evaluate"}, {"it-evaluate": "uid-job"}
    events = [event("uid-job", "FailedCreate", "forbidden: exceeded quota")]
    assert problems([], events, jobs, uids) == {"evaluate": ["FailedCreate: forbidden: exceeded quota"]}
    assert problems([], [event("uid-of-an-earlier-one", "FailedCreate", "quota")], jobs, uids) == {}
    assert (
        problems([], [*events, event("uid-job", "SuccessfulCreate", "", "10:07:00", type_="Normal")], jobs, uids) == {}
    )
    has_pods = pod("p", "evaluate", phase="Running")
    assert problems([has_pods], events, jobs, uids) == {}


def test_pods_of_an_earlier_try_are_left_out() -> None:
    failed = pod("p", "evaluate", phase="Failed", reason="Evicted")
    assert problems([failed], (), {"it-evaluate": "evaluate"}) == {"evaluate": ["attempt failed, Evicted"]}
    assert problems([failed], (), {"it-evaluate-r1": "evaluate"}) == {}


def test_only_what_says_nothing_itself_is_asked_for() -> None:
    pods = [pod("starts"), pod("runs", phase="Running"), pod("waits", **UNSCHEDULABLE)]
    assert silent(pods, {"it-promote": "uid-promote", "it-evaluate": "uid-evaluate"}) == ["uid-starts", "uid-evaluate"]


class Namespace:
    """A cluster with these pods of a Job and these Events, which may be `forbidden`."""

    namespace = "team"

    def __init__(self, events: list[dict[str, Any]], pods: list[dict[str, Any]], *, forbidden: bool = False) -> None:
        self.events, self.pods, self.forbidden = events, pods, forbidden

    def items(self, resource: Any, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        if resource is EVENTS and self.forbidden:
            raise ForbiddenError("no Events for you")
        return self.events if resource is EVENTS else self.pods


@pytest.mark.parametrize(
    ("events", "pods", "forbidden", "said"),
    [
        ([event("uid-j", "FailedCreate", "exceeded quota")], [], False, "FailedCreate: exceeded quota"),
        (
            [event("uid-p", "FailedMount", 'secret "s" not found')],
            [pod("p")],
            False,
            'FailedMount: secret "s" not found',
        ),
        ([event("uid-other", "FailedCreate", "exceeded quota")], [], False, ""),
        ([event("uid-j", "FailedCreate", "exceeded quota")], [pod("p", phase="Running")], False, ""),
        ([event("uid-j", "FailedCreate", "exceeded quota")], [], True, ""),
    ],
)
def test_a_registry_job_that_does_not_start_says_why(
    events: list[dict[str, Any]], pods: list[dict[str, Any]], forbidden: bool, said: str
) -> None:
    job = {"metadata": {"name": "j", "uid": "uid-j", "resourceVersion": "1"}}
    told: list[str] = []
    with pytest.raises(ClusterError) as error:
        wait(Namespace(events, pods, forbidden=forbidden), job, 0, told.append)  # type: ignore[arg-type]
    assert told == ([f"waiting for job/j: {said}"] if said else [])
    assert said in error.value.what
