"""Runs the parts one after the other, each in a process of its own, within one budget of time.

Nothing is imported here that a part needs. The parts are forked from a server that has imported the heavy libraries
once; where that server cannot run, they start anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.gpu.results import Results

PRELOAD = "benchmarks.gpu.preload"
#: What the parts print, beside the report.
LOG = "parts.log"
#: Seconds that are left for writing at the end, and that a part has to end by itself after its time.
RESERVE_S, GRACE_S = 5.0, 10.0
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # A library that asks for GPUs while the server imports it must not start CUDA there: nobody forked could use it.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


@dataclass(frozen=True)
class Part:
    """A part of the kit. `target`: `module:function`, called with a `Kit`; seconds."""

    name: str
    target: str
    limit: float
    least: float = 10.0


@dataclass(frozen=True)
class Options:
    """How parts run. `device`: a torch device, empty for a GPU if there is one."""

    out: Path
    tiny: bool = False
    device: str = ""
    budget: float = 600.0
    attention: str = ""
    preload: bool = True


def run(parts: Sequence[Part], options: Options, shown: Callable[[str], None] = print) -> Results:
    """Runs all parts; the results are complete in `options.out/report.json` whatever becomes of a part."""
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Servers and processes that start anew look where this one does: the bundle comes before what is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys([str(Path.cwd()), *sys.path])))
    results = Results(options.out / "report.json", tiny=options.tiny)
    (options.out / LOG).write_bytes(b"")
    starter = Starter(options.preload)
    for part in parts:
        left = options.budget - (time.monotonic() - began) - RESERVE_S
        if left < part.least:
            results.part(part.name, "left out", 0.0, f"{left:.0f} s are left of the budget, it takes {part.least:.0f}")
        else:
            shown(f"{part.name}: up to {min(part.limit, left):.0f} s")
            _one(part, options, results, starter, min(part.limit, left))
            if len(results.parts) == 1 and results.parts[0]["state"] != "done" and starter.give_up():
                shown(f"{part.name}: {results.parts[0]['state']}; once more, in a process that starts anew")
                _one(part, options, results, starter, min(part.limit, left))
        state = results.parts[-1]
        shown(
            f"{part.name}: {state['state']} after {state['seconds']:.1f} s. {state['problem'].splitlines()[:1] or ''}"
        )
    results.finish(time.monotonic() - began)
    return results


class Starter:
    """Starts processes: from a server that has imported the libraries, or anew once that server has failed."""

    def __init__(self, preload: bool) -> None:
        self.methods = ["forkserver", "spawn"] if preload else ["spawn"]
        multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOAD])

    def give_up(self) -> bool:
        """Whether there is another way than the present one, which is not used any more."""
        if len(self.methods) < 2:
            return False
        self.methods.pop(0)
        return True

    def start(self, part: Part, options: Options, seconds: float, scratch: str) -> tuple[Any, Connection]:
        """A process and what it says; raises `RuntimeError` when none can be started."""
        while self.methods:
            context: Any = multiprocessing.get_context(self.methods[0])
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_child, args=(part, options, seconds, scratch, send), name=part.name)
            try:
                with _at_most(seconds):
                    process.start()
            except (OSError, EOFError, RuntimeError):
                receive.close()
                self.methods.pop(0)
                continue
            finally:
                send.close()
            return process, receive
        raise RuntimeError("no process can be started")


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in it after so long: a server that hangs while it imports answers nobody."""

    def expired(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, expired)
    running = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *running)
        signal.signal(signal.SIGALRM, before)


def _one(part: Part, options: Options, results: Results, starter: Starter, seconds: float) -> None:
    with tempfile.TemporaryDirectory(prefix=f"gpu-kit-{part.name}-") as scratch:
        _watched(part, options, results, starter, seconds=seconds, scratch=scratch)


def _watched(part: Part, options: Options, results: Results, starter: Starter, *, seconds: float, scratch: str) -> None:
    began = time.monotonic()
    results.part(part.name, "running", 0.0)
    try:
        process, says = starter.start(part, options, seconds, scratch)
    except RuntimeError as error:
        results.part(part.name, "failed", 0.0, str(error))
        return
    problem, ended = "", False
    with says:
        while not ended:
            ready = wait([says, process.sentinel], max(0.0, began + seconds + GRACE_S - time.monotonic()))
            if not ready:
                problem = f"took longer than {seconds:.0f} s and was ended"
                _kill(process)
            while says.poll():
                try:
                    message = says.recv()
                except (EOFError, OSError):
                    break
                problem = message.pop("problem", problem)
                results.take(part.name, message)
            ended = process.sentinel in ready or not ready
        process.join()
    _kill(process)  # what it started and left
    state = "done" if process.exitcode == 0 else "failed"
    if process.exitcode is not None and process.exitcode < 0:
        state, died = "killed", f"killed by {_signal(-process.exitcode)}"
        problem = f"{problem}; {died}" if problem else died
    said = "" if state == "done" else _tail(options.out / LOG)
    results.part(part.name, state, time.monotonic() - began, problem or said)


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _kill(process: Any) -> None:
    """Ends a part and what it started: it leads a process group of its own."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(OSError, ValueError):
        process.kill()


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
    return ""


def _child(part: Part, options: Options, seconds: float, scratch: str, send: Connection) -> None:
    """In the part's process."""
    os.setsid()
    log = os.open(options.out / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(log, f"==== {part.name}\n".encode())
    for stream in (1, 2):
        os.dup2(log, stream)
    deadline = time.monotonic() + seconds
    try:
        import importlib

        from benchmarks.gpu.measure import Kit

        module, _, function = part.target.partition(":")
        kit = Kit(part.name, options, deadline, Path(scratch), send.send)
        getattr(importlib.import_module(module), function)(kit)
    except BaseException as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            send.send({"problem": f"{type(error).__name__}: {error}"[:2000]})
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # libraries' own threads have nothing to finish
