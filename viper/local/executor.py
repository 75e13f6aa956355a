"""Carries out plans with local processes: observe, plan, act, wait for something to change."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

from viper.iteration.observe import StoreObserver
from viper.local.directory import RunDirectory
from viper.local.process import StageProcess
from viper.plan import Exit, Plan, Shard, StartStage, StopStage, plan
from viper.stage.frozen import FrozenIteration
from viper.stage.progress import ProgressRecord
from viper.stage.termination import STOPPED
from viper.store import ObjectStore, child_uri

#: The stage programs. A string, so that the core does not import them.
STAGE_PROGRAM = "viper_jobs.main:main"
DEADLINE = "DeadlineExceeded"


class Stopped(Exception):  # noqa: N818 (not an error: a person asked for it)
    """Ctrl-C or SIGTERM; everything is resumable."""

    def __init__(self, number: int) -> None:
        self.signal = number
        super().__init__(signal.Signals(number).name)


class Listener(Protocol):
    """Is told after every plan; `interval` is how often it wants to be told while nothing happens."""

    interval: float

    def update(self, frozen: FrozenIteration, made: Plan, progress: Mapping[str, ProgressRecord]) -> None:
        """`progress` by stage, of those that run."""
        ...


@dataclass
class _Running:
    stage: str
    shard: int
    process: StageProcess
    since: float
    stop_reason: str = ""
    stopped_at: float = 0.0


@dataclass
class LocalExecutor:
    """Runs one frozen iteration to its end.

    Args:
        parallel: stage processes at a time.
        entry: `module:function` of the stage program; takes the arguments of `viper-job`.
        suspend: stop what runs and start nothing.
        grace: seconds between asking a process to stop and killing it; None: what the profile says of its stage.
    """

    frozen: FrozenIteration
    store: ObjectStore
    directory: RunDirectory
    listener: Listener
    parallel: int = 1
    entry: str = STAGE_PROGRAM
    suspend: bool = False
    grace: float | None = None
    clock: Callable[[], float] = time.time
    #: Processes started so far.
    started: int = field(default=0, init=False)
    _running: list[_Running] = field(default_factory=list, init=False)
    _shards: dict[str, dict[int, Shard]] = field(default_factory=dict, init=False)
    _stop: int = field(default=0, init=False)
    _signals: int = field(default=0, init=False)

    def run(self) -> Plan:
        """Returns the last plan: finished or suspended. Raises `Stopped`, `StoreError`."""
        observer = StoreObserver(self.store, self.frozen)
        spec = self.frozen.iteration.spec
        with _signals(self._on_signal) as wakeup:
            try:
                while True:
                    self._reap()
                    made = plan(spec, observer.observe(self._observed(), suspend=self.suspend), self.clock())
                    self._tell(observer, made)
                    if self._stop:
                        raise Stopped(self._stop)
                    if not self._running and (made.finished or made.outcome == "suspended"):
                        return made
                    if not self._act(made):
                        self._wait(made, wakeup)
            finally:
                self._stop_all(wakeup)

    def _on_signal(self, number: int) -> None:
        self._stop = number
        self._signals += 1

    # ---- observe -----------------------------------------------------------------------------------------------

    def _observed(self) -> dict[str, dict[int, Shard]]:
        seen = {stage: dict(shards) for stage, shards in self._shards.items()}
        for r in self._running:
            before = seen.setdefault(r.stage, {}).get(r.shard, Shard())
            seen[r.stage][r.shard] = Shard(r.since, before.ended, before.last)
        return seen

    def _reap(self) -> None:
        for r in list(self._running):
            code = r.process.exit_code
            if code is None:
                continue
            self._running.remove(r)
            if r.stop_reason and r.stop_reason != DEADLINE:
                continue
            self._ended(r.stage, r.shard, self._exit(r, code))

    def _ended(self, stage: str, shard: int, how: Exit) -> None:
        shards = self._shards.setdefault(stage, {})
        shards[shard] = Shard(None, shards.get(shard, Shard()).ended + 1, how)

    def _exit(self, r: _Running, code: int) -> Exit:
        log = f"log: {r.process.log}"
        if r.stop_reason == DEADLINE:
            limit = self.frozen.iteration.spec.profile.of(r.stage).deadline_seconds
            return Exit(self.clock(), STOPPED, DEADLINE, f"took longer than its deadline of {limit} s; {log}")
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return Exit(self.clock(), code, "Killed", f"the process was ended by {name}{hint}; {log}")
        if code == 0:
            return Exit(self.clock(), 0)
        reason, message = termination(r.process.log)
        return Exit(self.clock(), code, reason, message or f"exit status {code}; {log}")

    def _tell(self, observer: StoreObserver, made: Plan) -> None:
        progress = {}
        for stage in {r.stage for r in self._running}:
            record = observer.progress(stage, self.frozen.iteration.spec.profile.of(stage).shards)
            # An earlier attempt's last record says nothing about this one.
            if record is not None and record.updated >= min(r.since for r in self._running if r.stage == stage):
                progress[stage] = record
        self.listener.update(self.frozen, made, progress)

    # ---- act ---------------------------------------------------------------------------------------------------

    def _act(self, made: Plan) -> bool:
        """Whether the observation has changed by it."""
        before = self.started
        for action in made.actions:
            if isinstance(action, StopStage):
                self._stop_stage(action)
            elif isinstance(action, StartStage) and len(self._running) < self.parallel:
                self._start(action)
        return self.started > before

    def _start(self, action: StartStage) -> None:
        name = self.frozen.name
        work = self.directory.work(name, action.stage)
        argv = stage_arguments(self.store.uri, name, action, work)
        self.started += 1
        try:
            log = self.directory.next_log(name, action.stage, action.shard, action.shards)
            argv += ["--termination-log", str(termination_path(log))]
            process = StageProcess(self.entry, argv, log, self.directory.processes_lock)
        except (
            EOFError,
            OSError,
        ) as error:  # disk full; or the fork server died, of which the next attempt starts another
            what = f"the process did not start: {type(error).__name__}: {error}"
            self._ended(action.stage, action.shard, Exit(self.clock(), 1, "NotStarted", what))
            return
        self._running.append(_Running(action.stage, action.shard, process, self.clock()))

    def _stop_stage(self, action: StopStage) -> None:
        for r in self._running:
            if (r.stage, r.shard) == (action.stage, action.shard) and not r.stop_reason:
                r.stop_reason, r.stopped_at = action.reason, self.clock()
                r.process.stop()

    def _wait(self, made: Plan, wakeup: socket.socket) -> None:
        now = self.clock()
        times = [now + self.listener.interval]
        if made.wake_at is not None:
            times.append(made.wake_at)
        for r in self._running:
            if r.stop_reason:
                end = r.stopped_at + self._grace(r)
                if now >= end:
                    r.process.kill()
                else:
                    times.append(end)
        wait([wakeup, *(r.process.sentinel for r in self._running)], timeout=max(0.0, min(times) - now))

    def _stop_all(self, wakeup: socket.socket) -> None:
        """Each stage within its grace period; a second Ctrl-C (or SIGTERM) waits for nothing any more."""
        for r in self._running:
            r.process.stop()
        if self._stop and self._running:
            longest = max(map(self._grace, self._running))
            print(f"stopping in order, within {longest:g} s; once more to stop at once", file=sys.stderr)
        asked, begun = self._signals, time.monotonic()
        while left := [r for r in self._running if r.process.exit_code is None]:
            late = [r for r in left if self._signals > asked or time.monotonic() >= begun + self._grace(r)]
            for r in late:
                r.process.kill()
            timeout = 0.1 if late else begun + min(map(self._grace, left)) - time.monotonic()
            with suppress(BlockingIOError):
                wakeup.recv(64)
            wait([wakeup, *(r.process.sentinel for r in left)], timeout=max(timeout, 0.0))
        self._running.clear()

    def _grace(self, running: _Running) -> float:
        if self.grace is not None:
            return self.grace
        return float(self.frozen.iteration.spec.profile.of(running.stage).termination_grace_period_seconds)


def stage_arguments(store: str, iteration: str, action: StartStage, work: Path) -> list[str]:
    """The arguments of `viper-job` for a shard."""
    return [
        action.stage,
        "--iteration",
        child_uri(store, f"iterations/{iteration}"),
        "--shard",
        f"{action.shard}/{action.shards}",
        "--work-dir",
        str(work),
    ]


def termination_path(log: Path) -> Path:
    """Where the stage program leaves its last error (Kubernetes: `terminationMessagePath`)."""
    return log.with_suffix(".error.json")


def termination(log: Path) -> tuple[str, str]:
    """Reason and message of the stage program's last error; empty when it left none."""
    try:
        data = json.loads(termination_path(log).read_bytes())
        return str(data["reason"]), str(data["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


@contextmanager
def _signals(notify: Callable[[int], None]) -> Iterator[socket.socket]:
    """Yields a socket that becomes readable on SIGINT and SIGTERM, of which `notify` is told."""
    ours, kernels = socket.socketpair()
    with ours, kernels:
        ours.setblocking(False)
        kernels.setblocking(False)
        if threading.current_thread() is not threading.main_thread():  # signals go to the main thread alone
            yield ours
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {n: signal.signal(n, lambda number, _frame: notify(number)) for n in numbers}
        descriptor = signal.set_wakeup_fd(kernels.fileno(), warn_on_full_buffer=False)
        try:
            yield ours
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in before.items():
                signal.signal(number, handler)
