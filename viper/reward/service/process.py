"""The reward service as a child process: started for a training stage, watched by it, gone with it."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from viper.errors import EngineError
from viper.reward.equations import RewardParameters
from viper.reward.service.batching import BatchLimits

#: Seconds until the service has to be ready: a cold start of torch, gigabytes of weights from a slow disk.
START_S = 900.0
#: Seconds for a service that is asked to end; it gives 20 s to what is in work.
END_S = 30.0
_TAIL = 5
log = logging.getLogger(__name__)


class RewardServer:
    """A service that runs. Made by `running`; `log` is the file with what it says."""

    def __init__(self, command: list[str], host: str, advertised: str, log_file: Path, start_s: float) -> None:
        self._command, self._host, self._advertised, self._start_s = command, host, advertised, start_s
        self.log, self.restarts = log_file, 0
        self._port = 0
        self.similarity = ""
        self._start()

    @property
    def url(self) -> str:
        """Where callers reach it; the same after a restart."""
        return f"http://{self._advertised}:{self._port}"

    @property
    def pid(self) -> int:
        """Of the process that runs now, or ran last."""
        return self._process.pid

    def wait(self) -> int:
        """Waits until the process has ended; its exit code."""
        return self._process.wait()

    def alive(self) -> bool:
        """Whether the process runs; whether it answers is what `/healthz` says."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """How it ended, or that it runs, and the end of its log."""
        code = self._process.poll()
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines()[-_TAIL:]
        state = "the reward service runs" if code is None else f"the reward service ended with code {code}"
        return f"{state}: {' | '.join(lines) or '(it said nothing)'}"

    def restart(self) -> None:
        """Starts it anew at the same address, with a warning and a count: callers that retry go on.

        Raises `EngineError` when it does not come up.
        """
        log.warning("starting the reward service again (restart %d): %s", self.restarts + 1, self.last_words())
        self.close()
        self.restarts += 1
        self._start()

    def close(self) -> None:
        """Ends it: what is in work is answered first. Its memory is free when this returns."""
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, kind)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
                return

    def _start(self) -> None:
        read, write = os.pipe()
        with os.fdopen(read, "rb") as ready:
            try:
                with self.log.open("ab") as output:
                    self._process = subprocess.Popen(
                        [*self._command, "--host", self._host, "--port", str(self._port), "--ready-fd", str(write)],
                        stdin=subprocess.PIPE,  # never written to: it ends when this process does
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        pass_fds=(write,),
                        start_new_session=True,
                    )
            finally:
                os.close(write)
            said = self._first_line(ready.fileno())
        if not said:
            self.close()
            what = "did not start" if said is not None else f"was not ready after {self._start_s:g} s"
            raise EngineError(
                f"the reward service {what}: {self.last_words()}",
                where="spec.engines.similarity",
                fix=f"see {self.log}",
            )
        about = json.loads(said)
        self._port, self.similarity = int(about["port"]), str(about["similarity"])

    def _first_line(self, file: int) -> bytes | None:
        """What the child says when it is ready; nothing when it ended before, None when it takes too long."""
        end, said = time.monotonic() + self._start_s, b""
        while not said.endswith(b"\n"):
            if not select.select([file], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            block = os.read(file, 4096)
            if not block:
                return b""
            said += block
        return said


@contextmanager
def running(
    similarity: str,
    device: str,
    parameters: RewardParameters,
    work_dir: Path,
    *,
    host: str = "127.0.0.1",
    advertised: str | None = None,
    limits: BatchLimits | None = None,
    start_s: float = START_S,
) -> Iterator[RewardServer]:
    """A reward service that is ready, for the block. It ends with the block, and with this process.

    Args:
        similarity: the engine's name, as in `spec.engines.similarity`, its model on this machine.
        device: a torch device.
        work_dir: takes its log, `reward-service.log`.
        host: address to listen at; `0.0.0.0` when workers of other nodes ask.
        advertised: host name in its URL; `host` by default.

    Raises `EngineError` with the end of its log when it does not start.
    """
    bounds, p = limits or BatchLimits(), parameters
    command = [
        *(sys.executable, "-m", "viper.reward.service", "--similarity", similarity, "--device", device),
        *("--tau", repr(p.tau), "--format-weight", repr(p.format_weight), "--correct-weight", repr(p.correct_weight)),
        *("--batch", str(bounds.batch), "--waiting", str(bounds.waiting)),
    ]
    work_dir.mkdir(parents=True, exist_ok=True)
    server = RewardServer(command, host, advertised or host, work_dir / "reward-service.log", start_s)
    try:
        yield server
    finally:
        server.close()
