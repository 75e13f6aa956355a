"""Real servers for tests: started on a free port of this machine, asked for their health, killed at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from viper.registry import Registry

_HERE = Path(__file__).parent
_POLL = threading.Event()  # never set: a pause between two looks at a server that is starting

ACCESS_KEY, SECRET_KEY = "viper-test", "viper-test-secret"
#: Runs a program as root of a user namespace, with mounts of its own.
UNSHARE = ("unshare", "--map-root-user", "--mount")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


class Server:
    """A process with a health page; `start` after `kill` brings it back on the same port with the same data.

    As a context it runs for the block, and does not outlive it.
    """

    def __init__(
        self, command: list[str], environment: dict[str, str], health: str, log: Path, patience_s: int
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._environment = {**os.environ, **environment}
        self._health, self._log, self._patience_s = self.url + health, log, patience_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start without waiting for an answer."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        assert self._process is not None
        for _ in range(self._patience_s * 10):
            if self._process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self._health, timeout=5):  # noqa: S310 (our own http URL)
                    return
            except (OSError, urllib.error.URLError):
                _POLL.wait(0.1)
        self.kill()
        raise RuntimeError(f"{self._command[0]} did not start:\n{self._log.read_text(errors='replace')[-3000:]}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL to the server and its children."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


class MinioServer(Server):
    """A MinIO server (built on first use, see build_minio.sh) with a bucket `viper-test`.

    With `disk` (like "40m") its data lie in a file system of that size, mounted for this process alone.
    """

    bucket = "viper-test"

    def __init__(self, folder: Path, disk: str = "") -> None:
        environment = {**os.environ, "PYTHON": sys.executable}
        script = _HERE / "build_minio.sh"
        build = subprocess.run([script], env=environment, stdout=subprocess.PIPE, text=True, check=True)
        data = folder / "data"
        (data / self.bucket).mkdir(parents=True)  # a folder of the data directory is a bucket
        mount = f'mount -t tmpfs -o size={disk} tmpfs "$0" && mkdir "$0/{self.bucket}" && exec "$@"'
        wrapper = [*UNSHARE, "sh", "-c", mount, str(data)] if disk else []
        binary = build.stdout.strip().splitlines()[-1]
        super().__init__(
            [*wrapper, binary, "server", "--quiet", "--address", "127.0.0.1:{port}", str(data)],
            {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "MINIO_BROWSER": "off"},
            "/minio/health/ready",
            folder / "minio.log",
            patience_s=30,
        )

    def uri(self, prefix: str) -> str:
        """The URI of a store in this server's bucket."""
        return f"s3://{self.bucket}/{prefix}?endpoint={self.url}"


class MlflowServer(Server):
    """`mlflow server` on SQLite with served artifacts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        Registry(f"sqlite:///{folder}/db").experiment("Default")  # a copy of the cached schema: seconds less to wait
        command = (
            f"-m mlflow server --host 127.0.0.1 --port {{port}} --workers 1 --backend-store-uri sqlite:///{folder}/db"
        )
        super().__init__(
            [sys.executable, *command.split(), "--artifacts-destination", str(folder / "artifacts")],
            {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            "/health",
            folder / "mlflow.log",
            patience_s=300,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
