"""A vLLM-Omni server of one's own: started for a phase, ended when the engine is closed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import urllib3

from viper.engines.diffusion_files import lora_file
from viper.errors import EngineError, UnfitEngineError
from viper.spec.engines import DiffusionSettings

#: Seconds until a server has to be ready: 15 GB of weights from a slow disk, and compilation.
START_S: Final = 1800.0
#: Seconds between two looks at a server that starts, and for one that is asked to end.
LOOK_S: Final = 1.0
END_S: Final = 30.0
_OFFLOAD: Final[Mapping[str, tuple[str, ...]]] = {
    "none": (),
    "model": ("--enable-cpu-offload",),
    "sequential": ("--enable-layerwise-offload",),
}


def serve_command(program: Sequence[str], directory: Path, settings: DiffusionSettings, port: int) -> list[str]:
    """The command line of `vllm-omni serve … --omni` (options of vLLM-Omni 0.30, `entrypoints/cli/serve.py`)."""
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", settings.dtype, *_OFFLOAD[settings.offload]]
    if settings.tiled_decoding:
        options.append("--vae-use-tiling")
    if not settings.compile:
        options.append("--enforce-eager")
    if settings.lora:
        options += ["--lora-path", str(lora_file(Path(settings.lora)).parent), "--lora-scale", f"{settings.lora_scale}"]
    return [*program, "serve", str(directory), "--omni", *options]


def environment(device: str, outer: Mapping[str, str]) -> dict[str, str]:
    """`outer` with the one GPU that `cuda:N` means made visible, counted among those that are visible already."""
    _, _, number = device.partition(":")
    if not number:
        return dict(outer)
    seen = [gpu for gpu in outer.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    return {**outer, "CUDA_VISIBLE_DEVICES": seen[int(number)] if seen else number}


class OmniServer:
    """A server on a free port of this machine, ready when made.

    Args:
        program: how vLLM-Omni is called.

    Raises `EngineError`: there is no such program, it ended (with the end of its log), or it is not ready in time.
    """

    def __init__(
        self,
        directory: Path,
        device: str,
        settings: DiffusionSettings,
        program: Sequence[str],
        start_s: float = START_S,
    ) -> None:
        port = _free_port()
        command = serve_command(program, directory, settings, port)
        self._log = tempfile.NamedTemporaryFile(prefix="vllm-omni-", suffix=".log")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=environment(device, os.environ),
                start_new_session=True,
            )
        except OSError as error:
            raise UnfitEngineError(
                f"vLLM-Omni cannot be started: {error}",
                where="spec.engines.editor",
                fix="set VIPER_VLLM_OMNI to the program, or name a server: omnigen2:http://host:8000/v1#OmniGen2/OmniGen2",
            ) from error
        # Ends the server with this process too, should nobody close the engine.
        self._end = weakref.finalize(self, _end, self._process)
        self.url = f"http://127.0.0.1:{port}/v1"
        self._wait(f"http://127.0.0.1:{port}/health", start_s)

    def close(self) -> None:
        """Ends the server and waits until it is gone and its memory free."""
        self._end()
        self._log.close()

    def _wait(self, health: str, start_s: float) -> None:
        looks = max(1, round(start_s / LOOK_S))
        with urllib3.PoolManager(retries=False, timeout=LOOK_S) as pool:
            for _ in range(looks):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = self._process.wait(LOOK_S)
                    raise self._failed(f"vLLM-Omni ended with code {code} while it started")
                with contextlib.suppress(urllib3.exceptions.HTTPError):
                    if pool.request("GET", health).status == 200:
                        return
        raise self._failed(f"vLLM-Omni was not ready after {start_s:g} s")

    def _failed(self, what: str) -> EngineError:
        tail = Path(self._log.name).read_text("utf-8", errors="replace").strip().splitlines()[-5:]
        self.close()
        return EngineError(f"{what}: {' | '.join(tail) or '(it said nothing)'}", where="spec.engines.editor")


def _free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its children, kindly first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            return
