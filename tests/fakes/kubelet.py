"""A kubelet for pods that no node runs: their stage programs are the fakes, as processes of this machine.

It watches the pods of a namespace, runs what they ask for, and says through the API how they are: running and ready,
succeeded, failed with exit code and termination message, past their deadline. Pods that are deleted are stopped.
"""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import yaml

from fakes.local import PRELOAD
from viper.local.process import StageProcess, warm_up

PROGRAMS = {"viper-job": "fakes.program:main", "viper-freeze": "fakes.freezing:main"}
MERGE = "application/merge-patch+json"


class Connection:
    """Plain requests to the API server of a kubeconfig file with a token."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text())
        cluster = content["clusters"][0]["cluster"]
        self.url, self._token = cluster["server"], content["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def open(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """The response, to be read line by line or as a whole; bytes are sent as they are. Raises
        `urllib.error.HTTPError`."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310
        return urllib.request.urlopen(request, timeout=600, context=self._tls)  # noqa: S310 (our own server)

    def call(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Any:
        """The decoded answer."""
        with self.open(method, path, body, content) as response:
            return json.load(response)


class Kubelet:
    """Runs the pods of one namespace; `started` are the names of those that it has started, in order.

    `hold`: pods for which it returns true stay Pending, as if no node had room, until `look_again`.
    """

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self.api, self.namespace, self.folder = Connection(kubeconfig), namespace, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.started: list[str] = []
        self.hold: Callable[[dict[str, Any]], bool] = lambda pod: False
        self._processes: dict[str, StageProcess] = {}
        self._held: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        warm_up([*PRELOAD, "fakes.freezing", "viper_operator.main"])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> list[str]:
        """Names of pods at work."""
        return sorted(self._processes)

    def stop(self) -> None:
        """Ends, and so do the pods' programs."""
        self._over.set()
        for process in list(self._processes.values()):
            process.kill()

    def kill(self, pod: str) -> None:
        """The pod's program dies by SIGKILL, as when it runs out of memory."""
        self._processes[pod].kill()

    def look_again(self) -> None:
        """Starts what was held and is held no more."""
        for pod in list(self._held.values()):
            self._see("MODIFIED", pod)

    def _run(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        while not self._over.is_set():
            query = "watch=1&labelSelector=app.kubernetes.io/name=viper&timeoutSeconds=300"
            with suppress(OSError), self.api.open("GET", f"{path}?{query}") as watch:  # the server may be restarted
                for line in watch:
                    event = json.loads(line)
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED") and not self._over.is_set():
                        self._see(event["type"], event["object"])
            self._over.wait(0.1)

    def _see(self, kind: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["name"]
        gone = kind == "DELETED" or "deletionTimestamp" in pod["metadata"]
        with self._lock:
            process = self._processes.get(name)
            if gone:
                self._held.pop(name, None)
                if process is not None:
                    process.stop()
                return
            new = name not in self.started and pod.get("status", {}).get("phase") == "Pending"
            if not new:
                return
            if self.hold(pod):
                self._held[name] = pod
                return
            self._held.pop(name, None)
            self.started.append(name)
            self._start(name, pod)

    def _start(self, name: str, pod: dict[str, Any]) -> None:
        container = next(c for c in pod["spec"]["containers"] if c["name"] == "stage")
        folder = self.folder / name
        folder.mkdir()
        # A Job's pods name their index in an annotation, from which the Job controller has the kubelet fill this.
        index = pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"]
        places = {"/work": str(folder / "work"), "/dev/termination-log": str(folder / "termination.json")}
        arguments = [places.get(a, a).replace("$(JOB_COMPLETION_INDEX)", index) for a in container["args"]]
        program = container["command"][0]
        if program == "viper-freeze":
            environment = {e["name"]: e.get("value", "") for e in container["env"]}
            (folder / "environment.json").write_text(json.dumps(environment))
            arguments.insert(0, str(folder / "environment.json"))
        process = StageProcess(PROGRAMS[program], arguments, folder / "log", self.folder / ".processes")
        self._processes[name] = process
        self._say(name, {"phase": "Running", "conditions": [_ready("True")], **_container({"running": {}}, ready=True)})
        waiting = threading.Thread(target=self._wait, args=(name, pod, process, folder), daemon=True)
        waiting.start()

    def _wait(self, name: str, pod: dict[str, Any], process: StageProcess, folder: Path) -> None:
        late = not wait([process.sentinel], pod["spec"].get("activeDeadlineSeconds"))
        if late:
            process.kill()
            wait([process.sentinel])
        code = process.exit_code or 0
        code = 128 - code if code < 0 else code
        message = (folder / "termination.json").read_text() if (folder / "termination.json").exists() else ""
        ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error", "message": message}
        status: dict[str, Any] = {
            "phase": "Succeeded" if code == 0 else "Failed",
            "conditions": [_ready("False")],
            **_container({"terminated": ended}, ready=False),
        }
        if late:
            status |= {"reason": "DeadlineExceeded", "message": "Pod was active on the node longer than its deadline"}
        del self._processes[name]
        if not self._over.is_set():
            self._say(name, status)

    def _say(self, name: str, status: dict[str, Any]) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        while not self._over.is_set():
            try:
                self.api.call("PATCH", path, {"status": status}, MERGE)
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return
                self._over.wait(0.1)
            except OSError:  # the server is being restarted
                self._over.wait(0.1)
            else:
                return


def _ready(status: str) -> dict[str, Any]:
    return {"type": "Ready", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}


def _container(state: dict[str, Any], *, ready: bool) -> dict[str, Any]:
    one = {"name": "stage", "image": "fake", "imageID": "", "ready": ready, "restartCount": 0, "state": state}
    return {"containerStatuses": [one]}
