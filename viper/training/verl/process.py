"""verl as a child process with everything it starts: Ray's servers, its workers, vLLM. None of it outlives the stage.

Ray's processes leave their parent's process group, and those of a driver that was killed become orphans. They are
found by a mark in their environment, which all of them inherit, and by descent: workers that call themselves `ray::…`
overwrite what the kernel shows of their environment.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = "VIPER_VERL_RUN"
_PR_SET_PDEATHSIG = 1


def mark_of(work_dir: Path) -> str:
    """Names the processes of one work directory."""
    return hashlib.sha256(str(work_dir.absolute()).encode()).hexdigest()[:24]


@contextmanager
def running(
    argv: Sequence[str], env: Mapping[str, str], log: Path, work_dir: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program until the block is left; then it and all that it started are gone.

    Leftovers of an earlier run of the same work directory are removed first. Should this process be killed, the kernel
    kills the child, and Ray's servers go with their driver.

    Args:
        argv: interpreter and arguments.
        env: the child's whole environment; the mark is added.
        log: receives what it prints, appended.
        work_dir: where it runs.
    """
    mark = mark_of(work_dir)
    end_marked(mark)
    launcher = [sys.executable, "-m", "viper.training.verl.process", str(os.getpid()), *argv]
    with log.open("ab") as output:
        child = subprocess.Popen(
            launcher,
            env={**env, MARK: mark},
            cwd=work_dir,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        end_marked(mark)


def marked(mark: str, proc: Path = Path("/proc")) -> list[int]:
    """Processes, other than this one, that carry the mark, and all that they started."""
    wanted, found, parents = f"{MARK}={mark}".encode(), set[int](), dict[int, int]()
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):
            # `pid (name) state ppid …`; the name may hold anything.
            parents[int(folder.name)] = int(
                (folder / "stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()[1]
            )
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    found.discard(os.getpid())
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def end_marked(mark: str, seconds: float = 20.0) -> None:
    """Kills every process that carries the mark and waits until they are gone, at most `seconds`."""
    end = time.monotonic() + seconds
    while (pids := marked(mark)) and time.monotonic() < end:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def save_stacks(mark: str, target: Path, seconds: float = 20.0) -> list[Path]:
    """Writes what every marked Python process is doing, one file each, by py-spy.

    Args:
        seconds: longest wait for one process.
    """
    target.mkdir(parents=True, exist_ok=True)
    beside = Path(sys.executable).with_name("py-spy")
    spy = str(beside) if beside.is_file() else shutil.which("py-spy")
    files = []
    for pid in marked(mark):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            state = Path(f"/proc/{pid}/status").read_text("utf-8")
            files.append(target / f"{pid}.txt")
            files[-1].write_text(f"{command}\n\n{_stacks(spy, pid, seconds)}\n\n{state}", "utf-8")
    return files


def _stacks(spy: str | None, pid: int, seconds: float) -> str:
    if spy is None:
        return "py-spy is not installed"
    try:
        done = subprocess.run(
            [spy, "dump", "--nonblocking", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"py-spy: {error}"
    return done.stdout + done.stderr


def _become(parent: int, argv: Sequence[str]) -> None:
    """Replaces this process by `argv`, to be killed with `parent`."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    os.execv(argv[0], list(argv))  # noqa: S606 - arguments of our own, no shell


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
