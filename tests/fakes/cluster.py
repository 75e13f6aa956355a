"""A namespace with the real operator, a directory store and the fakes' kubelet, on a real API server."""

from __future__ import annotations

import json
import os
import secrets
import signal
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

from fakes import world
from fakes.kubelet import MERGE, Connection, Kubelet
from fakes.program import EXECUTOR
from servers.kube import KubeApi, eventually
from servers.running import free_port
from viper.local.process import StageProcess
from viper.store import open_store
from viper_operator.crd import definitions

RESOURCES = "/apis/viper.dev/v1alpha1/namespaces/{}/{}"


def install_definitions(kube_api: KubeApi) -> None:
    """The custom resource definitions, once for each API server."""
    if getattr(kube_api, "viper_definitions", False):
        return
    kube_api.apply(*definitions())
    names = [f"crd/{d['metadata']['name']}" for d in definitions()]
    kube_api.kubectl("wait", "--for=condition=Established", *names, "--timeout=60s")
    kube_api.viper_definitions = True  # type: ignore[attr-defined]


class OperatorProcess:
    """`viper-operator` as a process; with a lease of its own name or one that several share."""

    def __init__(self, kubeconfig: Path, namespace: str, store: str, log: Path, **environment: str) -> None:
        self.metrics_port = free_port()
        self.log = log
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "VIPER_NAMESPACE": namespace,
            "VIPER_STORE": store,
            "VIPER_TRACKING": "sqlite:////none",
            "VIPER_STAGE_IMAGE": "viper/cpu:test",
            "VIPER_CREDENTIALS_SECRET": "viper-store",
            "VIPER_HEALTH_PORT": str(free_port()),
            "VIPER_METRICS_PORT": str(self.metrics_port),
            "VIPER_PROGRESS_SECONDS": "1",
            "VIPER_PROBLEM_SECONDS": "1",
            "OMP_NUM_THREADS": "1",
        }
        environment = {**settings, **environment}
        self._process = StageProcess(
            "fakes.operating:main", [json.dumps(environment)], log, log.with_name(".operators")
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.exit_code is None

    def kill(self) -> None:
        """SIGKILL: nothing is cleaned up, the lease stays taken."""
        self.signal(signal.SIGKILL)
        self.wait(30)

    def terminate(self) -> int:
        """SIGTERM, as Kubernetes does; its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(30)

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Its exit status, once it has ended by itself; -N for signal N."""
        if not wait([self._process.sentinel], seconds):
            raise TimeoutError(f"the operator runs after {seconds:g} s")
        assert self._process.exit_code is not None
        return self._process.exit_code

    def metric(self, name: str) -> float:
        """The sum over all labels of a metric."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


class Cluster:
    """One namespace. `operator` is None until `start` and after `kill`."""

    def __init__(self, kube_api: KubeApi, folder: Path) -> None:
        self.kube, self.folder = kube_api, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.store = open_store(folder / "store")
        world.model(folder / "model")
        self.api = Connection(kube_api.kubeconfig)
        self.namespace = self._namespace()
        self.kubelet = Kubelet(kube_api.kubeconfig, self.namespace, folder / "pods")
        self.operator: OperatorProcess | None = None
        self.kubeconfig = kube_api.kubeconfig
        self._others: list[OperatorProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends everything that was started."""
        self.kubelet.stop()
        for process in self._others:
            if process.alive:
                process.kill()

    def _namespace(self) -> str:
        """A new namespace that enforces restricted Pod Security; kubectl would take seconds each time."""
        name = f"operator-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})

        def has_account() -> bool:
            accounts = self.api.call("GET", f"/api/v1/namespaces/{name}/serviceaccounts")
            return bool(accounts["items"])

        eventually(has_account)
        return name

    # ---- the operator --------------------------------------------------------------------------------------------

    def start(self, **environment: str) -> OperatorProcess:
        """Starts the operator. Without a name of its own for the lease, it would wait for that of a killed one."""
        names = {"VIPER_LEASE": f"lease-{len(self._others)}", **environment}
        self.operator = self.another(**names)
        self.store.put(EXECUTOR, str(self.operator.pid).encode())
        return self.operator

    def another(self, **environment: str) -> OperatorProcess:
        """One more operator, beside the one there is."""
        log = self.folder / "operator.log"
        made = OperatorProcess(self.kubeconfig, self.namespace, self.store.uri, log, **environment)
        self._others.append(made)
        return made

    def kill(self) -> None:
        """Kills the operator."""
        assert self.operator is not None
        self.operator.kill()
        self.operator = None

    # ---- resources -----------------------------------------------------------------------------------------------

    def apply(self, manifest: dict[str, Any]) -> None:
        """Creates or changes a resource as `kubectl apply --server-side` does."""
        path = f"{RESOURCES.format(self.namespace, manifest['kind'].lower() + 's')}/{manifest['metadata']['name']}"
        query = "fieldManager=kubectl&force=true&fieldValidation=Strict"
        self.api.call("PATCH", f"{path}?{query}", manifest, "application/apply-patch+yaml")

    def iteration(self, name: str = "it", **spec: Any) -> dict[str, Any]:
        """Applies an iteration of fake stages; `spec` overrides fields of the spec."""
        one = manifest(name, **spec)
        self.apply(one)
        return one

    def get(self, name: str = "it", plural: str = "viperiterations") -> dict[str, Any]:
        """A resource."""
        path = f"{RESOURCES.format(self.namespace, plural)}/{name}"
        return self.api.call("GET", path)  # type: ignore[no-any-return]

    def status(self, name: str = "it", plural: str = "viperiterations") -> dict[str, Any]:
        """Its status."""
        return self.get(name, plural).get("status", {})  # type: ignore[no-any-return]

    def patch(self, body: dict[str, Any], name: str = "it", plural: str = "viperiterations") -> None:
        """Merges into a resource."""
        self.api.call("PATCH", f"{RESOURCES.format(self.namespace, plural)}/{name}", body, MERGE)

    def annotate(self, key: str, value: str, name: str = "it") -> None:
        """Annotates an iteration."""
        self.patch({"metadata": {"annotations": {key: value}}}, name)

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Jobs by name."""
        found = self.api.call("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs")
        return {j["metadata"]["name"]: j for j in found["items"]}

    def events(self, name: str = "it") -> list[tuple[str, str]]:
        """Reason and message of the Events about a resource of ours."""
        found = self.api.call("GET", f"/api/v1/namespaces/{self.namespace}/events")
        return [
            (e["reason"], e["message"])
            for e in found["items"]
            if e["involvedObject"]["name"] == name and e["involvedObject"]["kind"].startswith("Viper")
        ]

    # ---- waiting -------------------------------------------------------------------------------------------------

    def until(self, look: Callable[[dict[str, Any]], Any], name: str = "it", patience_s: float = 120) -> dict[str, Any]:
        """The status, once `look` is content with it."""

        def fits() -> dict[str, Any] | None:
            if self.operator is not None and not self.operator.alive:
                if self.operator.wait(0) != 1 or "the lease is lost" not in self.tail():
                    raise AssertionError(f"the operator has ended: {self.tail()}")
                self.start()  # as the kubelet does; on a machine this busy, a renewal may come too late
            with suppress(OSError):
                status = self.status(name)
                return status if status and look(status) else None
            return None

        try:
            return eventually(fits, patience_s)  # type: ignore[no-any-return]
        except TimeoutError:
            shown = json.dumps(self.status(name), indent=1)[-3000:]
            raise TimeoutError(f"{name} is at\n{shown}\n{self.tail()}") from None

    def finished(self, name: str = "it", patience_s: float = 120) -> dict[str, Any]:
        """The status of an iteration that has ended."""
        ends = ("Promoted", "Registered", "Held", "Failed")
        return self.until(lambda s: s.get("outcome") in ends, name, patience_s)

    def tail(self) -> str:
        """The end of the operator's log."""
        return (self.folder / "operator.log").read_text()[-4000:]


def manifest(name: str = "it", **spec: Any) -> dict[str, Any]:
    """A ViperIteration of fake stages as a user writes it."""
    fields: dict[str, Any] = {
        "model": "m",
        "images": {"uri": "file:///i"},
        "engines": world.ENGINES,
        "profile": {"defaults": {"retries": 2}},
    }
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperIteration",
        "metadata": {"name": name},
        "spec": {**fields, **spec},
    }


def stages(status: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages of a status by name."""
    return {s["name"]: s for s in status.get("stages", ())}
