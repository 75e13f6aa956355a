"""Which pods' logs are meant."""

from __future__ import annotations

import pytest
from plugin_builders import container, iteration, pod, stage

from viper_operator.plugin.choose import begun, chosen, moment, nothing, over, prefix, select
from viper_operator.plugin.choose import container as log_container
from viper_operator.plugin.errors import ClusterError

PODS = [
    pod("a-0", created="10:00:00"),
    pod("a-1", shard=1, created="10:00:00"),
    pod("b-0", created="11:00:00"),
    pod("c-0", created="12:00:00"),
]


@pytest.mark.parametrize(
    ("shard", "previous", "expected"),
    [
        (None, False, ["c-0", "a-1"]),
        (None, True, ["b-0"]),
        (0, False, ["c-0"]),
        (1, False, ["a-1"]),
        (1, True, []),
        (2, False, []),
    ],
)
def test_the_last_attempt_of_every_shard_is_meant(shard: int | None, previous: bool, expected: list[str]) -> None:
    assert [p["metadata"]["name"] for p in select(PODS, shard, previous=previous)] == expected


@pytest.mark.parametrize(
    ("body", "asked", "expected"),
    [
        (iteration("it", "Running", stage("freeze", "Succeeded"), stage("evaluate", "Running")), "", "evaluate"),
        (iteration("it", "Running", stage("freeze", "Succeeded"), stage("evaluate", "Running")), "freeze", "freeze"),
        (iteration("it", "Promoted", stage("evaluate", "Succeeded"), stage("promote", "Succeeded")), "", "promote"),
        (iteration("it", "Pending"), "", ""),
        (iteration("it", "Pending"), "evaluate", "evaluate"),
    ],
    ids=["current", "asked", "last", "none-yet", "asked-before-status"],
)
def test_the_stage_is_the_current_one_unless_another_is_asked_for(body: object, asked: str, expected: str) -> None:
    assert chosen(body, asked) == expected  # type: ignore[arg-type]


def test_a_stage_that_the_iteration_has_not_is_refused_with_those_it_has() -> None:
    body = iteration("it", "Running", stage("freeze", "Succeeded"), stage("evaluate", "Running"))
    with pytest.raises(ClusterError, match="its stages are freeze, evaluate"):
        chosen(body, "evalute")


@pytest.mark.parametrize(
    ("outcome", "state", "asked", "expected"),
    [
        ("Running", "Running", "", False),
        ("Running", "Succeeded", "", False),
        ("Running", "Succeeded", "evaluate", True),
        ("Running", "Retrying", "evaluate", False),
        ("Failed", "Failed", "", True),
        ("Suspended", "Suspended", "evaluate", False),
    ],
)
def test_following_ends_with_the_stage_that_is_asked_for_or_the_iteration(
    outcome: str, state: str, asked: str, expected: bool
) -> None:
    assert over(iteration("it", outcome, stage("evaluate", state)), asked) is expected


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (container(running={}), True),
        (container(terminated={"exitCode": 1}), True),
        (container(waiting={"reason": "ContainerCreating"}), False),
        ([], False),
        ([{"name": "sidecar", "state": {"running": {}}}, *container(waiting={})], False),
    ],
)
def test_only_a_container_that_has_begun_has_a_log(statuses: list[dict[str, object]], expected: bool) -> None:
    assert begun(pod("p", containerStatuses=statuses)) is expected


def test_the_stages_own_container_is_read() -> None:
    both = pod("p")
    both["spec"]["containers"].insert(0, {"name": "sidecar"})
    assert log_container(both) == "stage"
    both["spec"]["containers"] = [{"name": "renamed"}]
    assert log_container(both) == "renamed"


def test_shards_have_their_number_in_front_where_there_are_several() -> None:
    assert [prefix(p, PODS[:2]) for p in PODS[:2]] == ["[0] ", "[1] "]
    assert prefix(PODS[0], PODS[:1]) == ""


@pytest.mark.parametrize(
    ("state", "previous", "expected"),
    [
        ("Waiting", False, "evaluate has not started"),
        ("Succeeded", False, "ttlSecondsAfterFinished"),
        ("Running", True, "there is no pod of evaluate (previous attempt)"),
    ],
)
def test_where_there_is_no_log_it_says_why(state: str, previous: bool, expected: str) -> None:
    body = iteration("it", "Running", stage("evaluate", state))
    assert expected in str(nothing(body, "evaluate", None, previous=previous))


def test_times_of_logs_compare_whatever_zeros_they_leave_out() -> None:
    stamps = ["2026-11-20T10:00:00Z", "2026-11-20T10:00:00.09Z", "2026-11-20T10:00:00.1Z", "2026-11-20T10:00:01Z"]
    mixed = [stamps[i] for i in (2, 0, 3, 1)]
    assert sorted(mixed, key=moment) == stamps
    assert moment("2026-11-20T10:00:00.1Z") == moment("2026-11-20T10:00:00.100000000Z")
