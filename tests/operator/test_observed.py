"""What Jobs and pods mean for the brain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kube_objects import NOW, job, pod_body, terminated, waiting

from viper.plan import Exit, Shard
from viper_operator.observed import Problem, current_jobs, pod_report, shards_of
from viper_operator.views import JobView

END, POD_END = 1767225660.0, 1767225650.0
MESSAGE = json.dumps({"reason": "InputError", "message": "row 7 has no image"})


@pytest.mark.parametrize(
    ("one", "shards"),
    [
        (job(active=1), {0: Shard(running_since=NOW)}),
        (job(), {0: Shard(running_since=NOW)}),
        (job(attempt=3), {0: Shard(running_since=NOW, ended=2)}),
        (job(shards=3, active=2, succeeded=1), {i: Shard(running_since=NOW) for i in range(3)}),
        (job(suspend=True), {0: Shard()}),
        (job(suspend=True, attempt=2), {0: Shard(ended=1)}),
        (job(suspend=True, queue="team"), {0: Shard(running_since=NOW)}),
        (job(condition="Complete"), {0: Shard(ended=1, last=Exit(END, 0))}),
        (job(condition="Complete", shards=2, attempt=2), {i: Shard(ended=2, last=Exit(END, 0)) for i in (0, 1)}),
        (
            job(condition="Failed", reason="BackoffLimitExceeded", message="too often"),
            {0: Shard(ended=3, last=Exit(END, 1, "BackoffLimitExceeded", "too often"))},
        ),
    ],
    ids=lambda v: v.name if isinstance(v, JobView) else "",
)
def test_what_a_job_means_for_its_shards(one: JobView, shards: dict[int, Shard]) -> None:
    assert shards_of(one, [], retries=2, now=NOW) == shards


def test_a_failed_job_ends_as_the_last_attempt_of_each_of_its_shards_did() -> None:
    one = job(condition="Failed", shards=2)
    pods = [
        pod_body(index=1, containerStatuses=terminated(137, reason="OOMKilled", at="2026-01-01T00:00:20Z")),
        pod_body(index=1, containerStatuses=terminated(3, message=MESSAGE)),
        pod_body(index=0, phase="Succeeded", containerStatuses=terminated(0)),
        pod_body("another-job", containerStatuses=terminated(1)),
    ]
    reports = [pod_report(p) for p in pods]
    expected = {1: Shard(ended=3, last=Exit(POD_END, 3, "InputError", "row 7 has no image"))}
    assert shards_of(one, reports, retries=2, now=NOW) == expected


def test_a_shard_that_has_had_its_attempts_ends_while_others_still_work() -> None:
    one = job(shards=2, active=2, failed=4)
    times = ["2026-01-01T00:00:10Z", "2026-01-01T00:00:20Z", "2026-01-01T00:00:50Z"]
    bad = [pod_report(pod_body(index=1, containerStatuses=terminated(1, message="boom", at=t))) for t in times]
    other = pod_report(pod_body(index=0, containerStatuses=terminated(1)))
    working = Shard(running_since=NOW)
    assert shards_of(one, [*bad[:2], other], retries=2, now=NOW) == {0: working, 1: working}
    ended = Shard(ended=3, last=Exit(POD_END, 1, "Error", "boom"))
    assert shards_of(one, [*bad, other], retries=2, now=NOW) == {0: working, 1: ended}


@pytest.mark.parametrize(
    ("body", "exit_"),
    [
        (pod_body(containerStatuses=terminated(1, message="Traceback\n  boom\n")), (1, "Error", "Traceback\n  boom")),
        (pod_body(containerStatuses=terminated(3, message=MESSAGE)), (3, "InputError", "row 7 has no image")),
        (
            pod_body(
                containerStatuses=waiting("PodInitializing"),
                initContainerStatuses=[{**terminated(3, message=MESSAGE)[0], "name": "models"}],
            ),
            (3, "InputError", "row 7 has no image"),
        ),
        (
            pod_body(containerStatuses=terminated(137, reason="OOMKilled")),
            (137, "OOMKilled", "the container used more memory than its limit and was killed"),
        ),
        (
            pod_body(reason="DeadlineExceeded", message="Pod was active on the node longer than the deadline"),
            (143, "DeadlineExceeded", "took longer than its deadline (deadlineSeconds of the profile)"),
        ),
        (pod_body(reason="UnexpectedAdmissionError", message="no GPUs"), (1, "UnexpectedAdmissionError", "no GPUs")),
        (
            pod_body(
                containerStatuses=[
                    {"name": "a-sidecar", "state": {"terminated": {"exitCode": 0}}},
                    *terminated(7, message=MESSAGE),
                ]
            ),
            (7, "InputError", "row 7 has no image"),
        ),
    ],
)
def test_how_a_failed_pod_ended(body: dict[str, Any], exit_: tuple[int, str, str]) -> None:
    found = pod_report(body).exit
    assert found is not None
    assert (found.code, found.reason, found.message) == exit_


def test_preemption_and_loss_of_the_node_are_no_failures() -> None:
    taken = [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    report = pod_report(pod_body(conditions=taken, containerStatuses=terminated(137)))
    assert (report.exit, report.problem) == (None, None)


@pytest.mark.parametrize(
    ("status", "reason", "part"),
    [
        ({"containerStatuses": waiting("ContainerCreating")}, None, ""),
        ({"containerStatuses": waiting("ImagePullBackOff", "Back-off pulling x")}, "ImagePullBackOff", "pulling x"),
        ({"containerStatuses": waiting("ErrImagePull", "not found")}, "ImagePullBackOff", "not found"),
        ({"containerStatuses": waiting("CreateContainerConfigError", 'secret "s" not found')}, None, 'secret "s"'),
        ({"initContainerStatuses": waiting("InvalidImageName")}, "InvalidImageName", "InvalidImageName"),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
                ]
            },
            "Unschedulable",
            "waits for a node: 0/3 nodes",
        ),
        ({"conditions": [{"type": "PodScheduled", "status": "True"}]}, None, ""),
    ],
)
def test_why_a_pod_does_not_run(status: dict[str, Any], reason: str | None, part: str) -> None:
    problem = pod_report(pod_body(phase="Pending", **status)).problem
    if not part:
        assert problem is None
        return
    assert problem is not None
    assert reason is None or problem.reason == reason
    assert part in problem.message


def test_two_names_for_an_image_that_cannot_be_pulled_are_one_problem() -> None:
    both = [
        pod_report(pod_body(phase="Pending", containerStatuses=waiting(r, "no")))
        for r in ("ErrImagePull", "ImagePullBackOff")
    ]
    assert {p.problem for p in both} == {Problem("ImagePullBackOff", "pod pod: no")}


def test_the_newest_job_of_a_stage_counts_and_one_of_an_earlier_retry_only_while_it_works() -> None:
    first, second = job(condition="Complete"), job(attempt=2, name="it-ingest-images-a2")
    assert current_jobs([second, first], 0) == {"ingest-images": second}
    assert current_jobs([first], 1) == {}
    assert current_jobs([second, first], 1) == {"ingest-images": second}
    again = job(retry=1, name="it-ingest-images-r1")
    assert current_jobs([again, job(condition="Failed")], 1) == {"ingest-images": again}
