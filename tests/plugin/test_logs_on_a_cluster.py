"""`kubectl viper logs` on a real API server that asks a kubelet."""

from __future__ import annotations

import re

import pytest
from kubelet_server import LogServer
from plugin_builders import condition, stage
from plugin_lab import ENDED, RUNNING, Lab, begun

pytestmark = pytest.mark.kube
AT, LATER = "2026-11-20T10:00:00Z", "2026-11-20T10:01:15Z"


def untimed(notes: str) -> list[str]:
    """Notes without the time of day that each has in front, and without those that only say for how long."""
    assert all(re.match(r"\d\d:\d\d:\d\dZ  ", note) for note in notes.splitlines())
    return [note[11:] for note in notes.splitlines() if not re.search(r", for [\d a-z]+ now$", note)]


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
    assert untimed(notes) == ["==> synthesize-captions of it, pod p"]
    assert logs.queries[1]["sinceTime"].startswith("2026-11-20T10:00:00")


def test_following_goes_on_to_the_next_stage_until_the_iteration_ends(lab: Lab, logs: LogServer) -> None:
    node = f"node-{lab.namespace}"
    lab.iteration("it", "Running", *RUNNING)
    with lab.started("logs", "it", "-f") as following:
        assert following.stdout is not None
        assert following.stderr is not None
        notes = untimed(following.stderr.readline() + following.stderr.readline())
        assert notes == ["it: Running", "waiting for synthesize-captions of it: its pods have not started"]
        logs.pieces["p"] = [["2026-11-20T10:00:00Z captions"]]
        lab.pod("p", "it", "synthesize-captions", node=node, **ENDED)
        assert following.stdout.readline() == "captions\n"
        lab.describe("it", "Running", stage("synthesize-captions", "Succeeded"), stage("validate-captions", "Running"))
        logs.pieces["q"] = [["2026-11-20T10:01:00Z validated"]]
        lab.pod("q", "it", "validate-captions", node=node, **ENDED)
        assert following.stdout.readline() == "validated\n"
        lab.describe("it", "Held", stage("validate-captions", "Held"))
        rest, said = following.communicate()
    assert (rest, following.returncode) == ("", 0)
    assert untimed(said) == [
        "==> synthesize-captions of it, pod p",
        "it synthesize-captions is done",
        "==> validate-captions of it, pod q",
        "it validate-captions is held",
        "it ends: Held: because",
    ]


def test_following_ends_when_nobody_reads_any_more(lab: Lab, logs: LogServer) -> None:
    lab.iteration("it", "Running", *RUNNING)
    lab.pod("p", "it", "synthesize-captions", node=f"node-{lab.namespace}", **begun(running={}))
    logs.pieces["p"] = [[f"2026-11-20T10:00:{i // 60000:02d}.{i % 60000:05d}Z line {i}" for i in range(50_000)]]
    with lab.started("logs", "it", "-f") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "line 0\n"
        following.stdout.close()
        assert following.wait(60) == 141
        assert following.stderr is not None
        assert "Traceback" not in following.stderr.read()


def test_lines_of_two_stages_at_work_at_once_name_their_stage(lab: Lab, logs: LogServer) -> None:
    node = f"node-{lab.namespace}"
    lab.iteration("it", "Running", stage("map-attention", "Running"), stage("evaluate", "Running"))
    logs.pieces |= {name: [[f"2026-11-20T10:00:00Z line of {name}"]] for name in ("p", "q", "r")}
    lab.pod("p", "it", "map-attention", node=node, **begun(running={}))
    lab.pod("q", "it", "evaluate", node=node, **begun(running={}))
    with lab.started("logs", "it", "-f") as following:
        assert following.stdout is not None
        told = {following.stdout.readline() for _ in range(2)}
        assert told == {"[map-attention] line of p\n", "[evaluate] line of q\n"}
        for pod in ("p", "q"):
            lab.status("Pod", pod, ENDED)
        done = (stage("map-attention", "Succeeded"), stage("evaluate", "Succeeded"))
        lab.describe("it", "Running", *done, stage("promote", "Running"))
        lab.pod("r", "it", "promote", node=node, **ENDED)
        assert following.stdout.readline() == "line of r\n"
        lab.describe("it", "Promoted", *done, stage("promote", "Succeeded"))
        assert following.communicate(timeout=60)[0] == ""


def test_following_a_loop_goes_on_through_its_iterations_and_says_what_it_waits_for(lab: Lab, logs: LogServer) -> None:
    node = f"node-{lab.namespace}"
    lab.loop("l", iteration=1, of=2, current="l-1")
    lab.iteration("l-1", "Running", stage("evaluate", "Succeeded"), stage("promote", "Running"), loop="l")
    lab.pod("old", "l-1", "evaluate", node=node, **ENDED)
    logs.pieces |= {name: [[f"2026-11-20T10:00:00Z {name} says so"]] for name in ("old", "p", "q", "r")}
    with lab.started("logs", "l", "-f") as following:
        assert following.stdout is not None
        assert following.stderr is not None

        def told(last: str) -> list[str]:
            """Notes up to this one."""
            assert following.stderr is not None
            found: list[str] = []
            while last not in found:
                line = following.stderr.readline()
                assert line, found
                found += untimed(line)
            return found

        assert told("waiting for promote of l-1: its pods have not started") == [
            "loop l: Running, iteration 1 of 2",
            "l-1: Running",
            "waiting for promote of l-1: its pods have not started",
        ]
        lab.pod("p", "l-1", "promote", node=node, **ENDED)
        assert following.stdout.readline() == "p says so\n"
        done = stage("promote", "Succeeded", headline="promoted, version 2", startedAt=AT, finishedAt=LATER)
        lab.describe("l-1", "Promoted", stage("evaluate", "Succeeded"), done)
        assert told("waiting for iteration 2 of loop l to begin") == [
            "==> promote of l-1, pod p",
            "l-1 promote is done after 1 min 15 s: promoted, version 2",
            "l-1 ends: Promoted: because",
            "waiting for iteration 2 of loop l to begin",
        ]
        lab.iteration("l-2", "Running", stage("evaluate", "Pending"), stage("promote", "Waiting"), loop="l")
        scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
        lab.pod("q", "l-2", "evaluate", node=node, conditions=[scheduled])
        assert told("waiting for evaluate of l-2: Unschedulable: no GPU")[0].startswith("l-2: ")
        lab.status("Pod", "q", ENDED)
        assert following.stdout.readline() == "q says so\n"
        lab.pod("r", "l-2", "promote", node=node, **ENDED)
        assert following.stdout.readline() == "r says so\n"
        held = stage("promote", "Held", reason="PromotionHeld", message="worse than θ0")
        lab.describe("l-2", "Held", stage("evaluate", "Succeeded"), held)
        stopped = {"conditions": [condition("Succeeded", "False", "IterationHeld", "iteration 2 is held: worse")]}
        lab.status("ViperLoop", "l", stopped | {"observedGeneration": 1, "iteration": 2, "of": 2, "current": "l-2"})
        rest, said = following.communicate(timeout=60)
    assert (rest, following.returncode) == ("", 0)
    assert untimed(said)[-3:] == [
        "l-2 promote is held: worse than θ0",
        "l-2 ends: Held: because",
        "loop l ends: IterationHeld: iteration 2 is held: worse",
    ]
