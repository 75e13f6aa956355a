"""verl's processes: all of them end with the stage, whoever ends first, and can be asked what they do."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from viper.training.verl.process import MARK, end_marked, mark_of, marked, running, save_stacks

ROOT = Path(__file__).parents[2]
#: Starts a grandchild in a session of its own, as Ray does, tells both pids and waits.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def wait_until_gone(pid: int) -> None:
    """Returns when the process has ended; raises after a minute."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], 60)[0], f"process {pid} still runs"
    finally:
        os.close(handle)


@pytest.mark.process
def test_leaving_the_block_ends_what_was_started_and_what_that_started(tmp_path: Path) -> None:
    log = tmp_path / "log"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    with running([sys.executable, "-c", PARENT], env(), log, tmp_path) as child:
        grandchild = int(os.read(reader, 100))
        assert {child.pid, grandchild} <= set(marked(mark_of(tmp_path)))
        stacks = [p.read_text("utf-8") for p in save_stacks(mark_of(tmp_path), tmp_path / "stacks")]
        assert sum("input()" in text for text in stacks) >= 1
    os.close(reader)
    wait_until_gone(grandchild)
    assert marked(mark_of(tmp_path)) == []


def test_processes_that_hide_their_environment_are_found_by_descent(tmp_path: Path) -> None:
    for pid, (parent, environment) in {
        10: (1, f"A=1\0{MARK}=m\0"),
        11: (10, "\0\0\0"),
        12: (11, ""),
        13: (1, f"{MARK}=other\0"),
        14: (13, ""),
    }.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_text(environment, "utf-8")
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (ray::a) b) S {parent} 1 1", "utf-8")
    (tmp_path / "99").mkdir()  # gone in between
    assert marked("m", tmp_path) == [10, 11, 12]


@pytest.mark.process
def test_a_stage_that_is_killed_takes_its_child_along(tmp_path: Path) -> None:
    stage = (
        "import sys; from pathlib import Path; from viper.training.verl.process import running\n"
        "with running([sys.executable, '-c', 'input()'], {**__import__('os').environ}, Path('log'), Path('.')) as c:\n"
        "    print(c.pid, flush=True); sys.stdin.read()\n"
    )
    made = subprocess.Popen(
        [sys.executable, "-c", stage], cwd=tmp_path, env=env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    child = int(made.stdout.readline())
    assert marked(mark_of(tmp_path)) == [child]
    made.kill()
    made.wait()
    wait_until_gone(child)


@pytest.mark.process
def test_leftovers_of_a_killed_stage_are_removed_before_the_next_start(tmp_path: Path) -> None:
    left = subprocess.Popen(
        [sys.executable, "-c", "input()"], env={**env(), MARK: mark_of(tmp_path)}, stdin=subprocess.PIPE
    )
    with running([sys.executable, "-c", ""], env(), tmp_path / "log", tmp_path):
        pass
    assert left.wait() == -signal.SIGKILL


@pytest.mark.process
def test_processes_of_others_are_not_touched(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "input()"], env={**env(), MARK: mark_of(tmp_path / "other")}, stdin=subprocess.PIPE
    )
    end_marked(mark_of(tmp_path))
    assert other.poll() is None
    other.kill()
    other.wait()
