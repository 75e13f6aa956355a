"""`kubectl viper logs` on a real API server that asks a kubelet."""

from __future__ import annotations

import pytest
from kubelet_server import LogServer
from plugin_builders import stage
from plugin_lab import ENDED, RUNNING, Lab, begun

pytestmark = pytest.mark.kube


def test_logs_are_those_of_the_current_stage_with_shards_in_front(lab: Lab, logs: LogServer) -> None:
    lab.iteration("it", "Running", *RUNNING)
    for index in range(2):
        lab.pod(
            f"p-{index}", "it", "synthesize-captions", shard=index, node=f"node-{lab.namespace}", **begun(running={})
        )
        logs.pieces[f"p-{index}"] = [[f"2026-11-20T10:00:00Z line of {index}"]]
    assert lab.viper("logs", "it") == (0, "[0] line of 0\n[1] line of 1\n", "")
    assert lab.viper("logs", "it", "--shard", "1", "--tail", "5") == (0, "line of 1\n", "")
    assert logs.queries[-1] == {"pod": "p-1", "tailLines": "5"}


def test_a_pod_that_has_not_begun_says_why_there_is_no_log(lab: Lab) -> None:
    lab.iteration("it", "Running", *RUNNING)
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    lab.pod("p", "it", "synthesize-captions", conditions=[scheduled])
    code, _, err = lab.viper("logs", "it")
    assert code == 10
    assert "has written nothing yet: Unschedulable: no GPU" in err
    assert "validate-captions has not started" in lab.viper("logs", "it", "validate-captions")[2]


def test_following_survives_cut_connections_and_ends_with_the_stage(lab: Lab, logs: LogServer) -> None:
    lab.iteration("it", "Running", *RUNNING)
    node = f"node-{lab.namespace}"
    lab.pod("p", "it", "synthesize-captions", node=node, **begun(running={}))
    first = ["2026-11-20T10:00:00.1Z one", "2026-11-20T10:00:00.2Z two"]
    logs.pieces["p"] = [first, [*first, "2026-11-20T10:00:01Z three"]]
    with lab.started("logs", "it", "synthesize-captions", "-f") as following:
        assert following.stdout is not None
        lines = [following.stdout.readline() for _ in range(3)]
        lab.status("Pod", "p", ENDED)
        done = (stage("synthesize-captions", "Succeeded"), stage("validate-captions", "Running"))
        lab.describe("it", "Running", *done)
        rest, notes = following.communicate()
    assert lines == ["one\n", "two\n", "three\n"]
    assert (rest, following.returncode) == ("", 0)
    assert notes == "==> synthesize-captions, pod p\n"
    assert logs.queries[1]["sinceTime"].startswith("2026-11-20T10:00:00")


def test_following_goes_on_to_the_next_stage_until_the_iteration_ends(lab: Lab, logs: LogServer) -> None:
    node = f"node-{lab.namespace}"
    lab.iteration("it", "Running", *RUNNING)
    with lab.started("logs", "it", "-f") as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stderr.readline() == "waiting for synthesize-captions: its pods have not started\n"
        logs.pieces["p"] = [["2026-11-20T10:00:00Z captions"]]
        lab.pod("p", "it", "synthesize-captions", node=node, **ENDED)
        assert following.stdout.readline() == "captions\n"
        lab.describe("it", "Running", stage("synthesize-captions", "Succeeded"), stage("validate-captions", "Running"))
        logs.pieces["q"] = [["2026-11-20T10:01:00Z validated"]]
        lab.pod("q", "it", "validate-captions", node=node, **ENDED)
        assert following.stdout.readline() == "validated\n"
        lab.describe("it", "Held", stage("validate-captions", "Held"))
        rest, _ = following.communicate()
    assert (rest, following.returncode) == ("", 0)
