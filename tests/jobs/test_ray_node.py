"""The nodes of a stage come together, do its work once, and end together; with a fake Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from servers.kube import eventually
from servers.running import free_port
from viper.stage.termination import JOB_UID, OTHER_NODE_WENT
from viper_jobs import ray_node
from viper_jobs.meeting import Caller, Meeting, MeetingAnswer, serving

FAKE = Path(__file__).parent / "fake_ray"
ROOT = Path(__file__).parents[2]
#: Says where Ray is, and its own process, then waits for somebody to say how it shall end.
STAGE = """
import os, pathlib, sys, time
here = pathlib.Path(sys.argv[1])
(here / "stage.new").write_text(f"{os.environ['RAY_ADDRESS']} {os.getpid()}")
(here / "stage.new").rename(here / "stage")
while not (here / "end").exists():
    time.sleep(0.02)
sys.exit(int((here / "end").read_text()))
"""

#: The same, which stores something before it ends by SIGTERM.
STORES = (
    """
import signal
def stop(number, frame):
    (here / "storing").touch()
    while not (here / "end").exists():
        time.sleep(0.02)
    (here / "stored").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
"""
    + STAGE
)


class Nodes:
    """Processes that stand for the pods of a stage, all on this machine."""

    def __init__(self, folder: Path, nodes: int = 2, join_seconds: float = 30) -> None:
        self.folder, self.nodes, self.join_seconds = folder, nodes, join_seconds
        self.port, self.meeting_port = free_port(), free_port()
        self.made: list[subprocess.Popen[bytes]] = []
        self.options: list[str] = []
        self.program = STAGE
        (folder / "ray").mkdir()

    def start(self, node: int) -> subprocess.Popen[bytes]:
        number = len(self.made)
        command = [sys.executable, "-m", "viper_jobs.ray_node", "--nodes", str(self.nodes), "--node", str(node)]
        command += ["--head", "localhost", "--port", str(self.port), "--meeting-port", str(self.meeting_port)]
        command += ["--join-seconds", str(self.join_seconds), "--silence", "3"]
        command += [*self.options, "--termination-log", str(self.folder / f"end-{number}.json"), "--"]
        command += [sys.executable, "-c", self.program, str(self.folder)]
        path = os.pathsep.join(map(str, (ROOT, ROOT / "jobs", FAKE)))
        environment = {**os.environ, "PYTHONPATH": path, "FAKE_RAY": str(self.folder / "ray"), JOB_UID: "uid"}
        self.made.append(subprocess.Popen(command, env=environment))
        return self.made[-1]

    def stage(self) -> tuple[str, int]:
        """Ray's address as the stage sees it, and the stage's process, once it runs."""
        file = self.folder / "stage"
        eventually(file.exists, 30)
        address, pid = file.read_text().split()
        return address, int(pid)

    def end(self, code: int) -> None:
        (self.folder / "end.new").write_text(str(code))
        (self.folder / "end.new").rename(self.folder / "end")

    def said(self, number: int) -> dict[str, str]:
        """What the n-th process that was started left as its last word."""
        found: dict[str, str] = json.loads((self.folder / f"end-{number}.json").read_text())
        return found

    def alive(self) -> list[str]:
        """Processes that stand for Ray's."""
        return [f.name for f in (self.folder / "ray").glob("node-*") if Path("/proc", f.read_text()).exists()]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    for process in made.made:
        for pid in [*ray_node.descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    for file in (tmp_path / "ray").glob("node-*"):  # orphans of a node that was killed; in a pod they end with it
        with suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)


@pytest.mark.process
@pytest.mark.parametrize("code", [0, 7])
def test_node_0_does_the_work_once_all_are_there_and_ends_as_it_does(nodes: Nodes, code: int) -> None:
    other, head = nodes.start(1), nodes.start(0)
    address, _ = nodes.stage()
    assert address == f"127.0.0.1:{nodes.port}"
    assert len(nodes.alive()) == 2
    nodes.end(code)
    assert head.wait(30) == code
    assert other.wait(30) == OTHER_NODE_WENT
    assert nodes.said(0)["reason"] == "HeadLost"
    assert not (nodes.folder / "end-1.json").exists(), "the stage's own last word stays"
    assert nodes.alive() == []


@pytest.mark.process
def test_work_does_not_start_before_all_are_there_and_that_has_a_limit(tmp_path: Path) -> None:
    alone = Nodes(tmp_path, nodes=3, join_seconds=2)
    assert alone.start(0).wait(30) == 1
    assert alone.said(0)["reason"] == "NodesMissing"
    assert "1, 2" in alone.said(0)["message"]
    assert not (tmp_path / "stage").exists()


@pytest.mark.process
def test_a_name_that_leads_nowhere_is_said_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "viper_jobs.ray_node", "--nodes", "2", "--head", "head.invalid"]
    log = tmp_path / "end.json"
    command += ["--join-seconds", "0", "--termination-log", str(log), "--", "true"]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "jobs")))
    environment = {**os.environ, "PYTHONPATH": path, JOB_UID: "uid"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "head.invalid has no address" in log.read_text()
    assert "is its Service there?" in done.stderr


@pytest.mark.process
def test_a_node_that_leaves_ends_the_attempt_which_is_no_failure_of_node_0(nodes: Nodes) -> None:
    head, other = nodes.start(0), nodes.start(1)
    _, stage = nodes.stage()
    other.terminate()
    assert other.wait(30) == 128 + signal.SIGTERM
    assert head.wait(30) == OTHER_NODE_WENT
    assert nodes.said(0) == {"reason": "NodeLost", "message": "node 1 of 2 has left"}
    assert not Path(f"/proc/{stage}").exists()
    assert nodes.alive() == []


@pytest.mark.process
def test_a_node_that_falls_silent_ends_the_attempt(nodes: Nodes) -> None:
    head, other = nodes.start(0), nodes.start(1)
    _, stage = nodes.stage()
    other.kill()
    assert head.wait(30) == 1
    assert "has said nothing for 3 s" in nodes.said(0)["message"]
    assert not Path(f"/proc/{stage}").exists()


@pytest.mark.process
def test_a_node_that_comes_again_ends_the_attempt_and_belongs_to_the_next(nodes: Nodes) -> None:
    head, other = nodes.start(0), nodes.start(1)
    nodes.stage()
    other.kill()
    nodes.start(1)
    assert head.wait(30) == OTHER_NODE_WENT
    (nodes.folder / "stage").unlink()
    again = nodes.start(0)
    nodes.stage()
    nodes.end(0)
    assert again.wait(30) == 0


@pytest.mark.process
def test_a_head_that_ends_ends_the_attempt(nodes: Nodes) -> None:
    head, other = nodes.start(0), nodes.start(1)
    _, stage = nodes.stage()
    ray = next(p for p in ray_node.descendants(head.pid) if p != stage)
    os.kill(ray, signal.SIGKILL)
    assert head.wait(30) == 1
    assert nodes.said(0)["reason"] == "RayEnded"
    assert other.wait(30) == OTHER_NODE_WENT
    assert not Path(f"/proc/{stage}").exists()


@pytest.mark.process
def test_a_stage_that_is_stopped_has_the_grace_period_to_end_in_order(nodes: Nodes) -> None:
    """The stage needs longer than Ray gets: it stores its checkpoint."""
    nodes.options = ["--grace", "60"]
    nodes.program = STORES
    head, other = nodes.start(0), nodes.start(1)
    nodes.stage()
    head.terminate()
    eventually((nodes.folder / "storing").exists, 30)
    assert head.poll() is None
    nodes.end(0)
    assert head.wait(30) == 128 + signal.SIGTERM
    assert (nodes.folder / "stored").exists()
    assert other.wait(30) == OTHER_NODE_WENT
    assert nodes.alive() == []


def test_who_belongs_to_a_meeting() -> None:
    now = 0.0
    meeting = Meeting(3, silence=10, clock=lambda: now)
    assert meeting.missing() == [1, 2]
    assert meeting.say("join", 2, "a")
    assert meeting.missing() == [1]
    assert not any(meeting.say("join", node, "a") for node in (0, 3, -1))
    assert not meeting.say("beat", 1, "b"), "it never joined"
    assert meeting.gone() is None
    assert meeting.say("join", 1, "b")
    assert meeting.complete()
    now = 9.0
    assert meeting.say("beat", 1, "b")
    now = 11.0
    assert meeting.silent() == 2
    assert not meeting.say("join", 2, "another")
    assert meeting.gone() == 2


def test_only_who_knows_the_key_is_heard() -> None:
    meeting, port = Meeting(2, silence=10), free_port()
    with serving(meeting, "127.0.0.1", port, "10.0.0.1:6379", "right"):

        def say(word: str, key: str, token: str) -> MeetingAnswer:
            return Caller("127.0.0.1", port, key, 1, token).say(word)

        assert say("join", "wrong", "a") == MeetingAnswer()
        assert meeting.missing() == [1]
        assert say("join", "right", "a") == MeetingAnswer("10.0.0.1:6379", here="127.0.0.1")
        assert say("dance", "right", "a") == MeetingAnswer()
        assert say("beat", "right", "b") == MeetingAnswer(unknown=True)
    assert meeting.complete()


#: Credentials of the store and the Job's uid.
SOURCES = [("one", ""), ("two", ""), ("", "uid-1"), ("", "uid-2"), ("one", "uid-1")]


def test_the_key_follows_from_what_all_nodes_of_one_job_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    found = set()
    for credential, uid in SOURCES:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credential)
        monkeypatch.setenv(JOB_UID, uid)
        assert ray_node.secret("job-0.nodes") == ray_node.secret("job-0.nodes")
        found |= {ray_node.secret("job-0.nodes"), ray_node.secret("other-0.nodes")}
    assert len(found) == 2 * len(SOURCES)
    assert not any("one" in key or "two" in key for key in found)


def test_without_anything_to_make_a_key_of_nodes_do_not_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", JOB_UID):
        monkeypatch.delenv(name, raising=False)
    log = tmp_path / "end.json"
    assert ray_node.main(["--nodes", "2", "--head", "h", "--termination-log", str(log), "--", "true"]) == 1
    assert json.loads(log.read_text())["reason"] == "NoToken"
