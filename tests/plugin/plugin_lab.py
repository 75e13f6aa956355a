"""A namespace with objects as an operator would leave them, and `kubectl viper` on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_builders import condition, stage

from fakes import world
from fakes.kubelet import MERGE, Connection
from servers.kube import KubeApi
from viper_operator.plugin.main import main

Object = dict[str, Any]

APPLY = "application/apply-patch+yaml"
#: Plural and whether it has a namespace, by kind.
PLURALS = {
    "Node": ("nodes", False),
    "ResourceQuota": ("resourcequotas", True),
    "ViperIteration": ("viperiterations", True),
    "ViperLoop": ("viperloops", True),
    "ViperProfile": ("viperprofiles", True),
}


def begun(**state: Any) -> Object:
    """The status of a pod whose container has this state."""
    status = {"name": "stage", "image": "", "imageID": "", "ready": True, "restartCount": 0, "state": state}
    return {"phase": "Succeeded" if "terminated" in state else "Running", "containerStatuses": [status]}


ENDED = begun(terminated={"exitCode": 0})
RUNNING = (
    stage("freeze", "Succeeded", headline="generator is version 5 of m"),
    stage(
        "synthesize-captions",
        "Running",
        job="it-synthesize-captions",
        gpuSeconds=60.0,
        items={"done": 4, "total": 8, "rate": 0.5, "etaSeconds": 8.0},
    ),
    stage("validate-captions", "Waiting"),
)


class Lab:
    """One namespace."""

    def __init__(self, kube: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
        self.kube, self._capsys = kube, capsys
        self.namespace = kube.namespace("plugin", enforce="privileged")
        self._api = Connection(kube.kubeconfig)

    @property
    def where(self) -> list[str]:
        """Options that choose the cluster and the namespace."""
        return ["--kubeconfig", str(self.kube.kubeconfig), "-n", self.namespace]

    def viper(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Exit status, output and error output of `kubectl viper` with these arguments."""
        self._capsys.readouterr()
        code = main(["--kubeconfig", str(kubeconfig or self.kube.kubeconfig), "-n", self.namespace, *arguments])
        found = self._capsys.readouterr()
        return code, found.out, found.err

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The command in a process of its own, which does not outlive the test."""
        program = Path(sys.executable).parent / "kubectl-viper"
        pipe = subprocess.PIPE
        with subprocess.Popen([program, *arguments, *self.where], stdout=pipe, stderr=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def path(self, kind: str, name: str = "", api: str = "") -> str:
        """Of an object or a collection."""
        api = api or {"Viper": "viper.dev/v1alpha1", "Job": "batch/v1", "Deplo": "apps/v1"}.get(kind[:5], "v1")
        plural, inside = PLURALS.get(kind, (f"{kind.lower()}s", True))
        root = f"/apis/{api}" if "/" in api else f"/api/{api}"
        return f"{root}{f'/namespaces/{self.namespace}' if inside else ''}/{plural}" + (f"/{name}" if name else "")

    def apply(self, body: Object) -> None:
        """Server-side apply."""
        path = self.path(body["kind"], body["metadata"]["name"], body["apiVersion"])
        self._api.call("PATCH", f"{path}?fieldManager=test&force=true", body, APPLY)

    def get(self, kind: str, name: str) -> Object:
        """An object."""
        found: Object = self._api.call("GET", self.path(kind, name))
        return found

    def items(self, kind: str, labels: str = "") -> list[Object]:
        """All objects of a kind."""
        found: list[Object] = self._api.call("GET", f"{self.path(kind)}?labelSelector={labels}")["items"]
        return found

    def names(self, kind: str, labels: str = "") -> list[str]:
        """Names of all objects of a kind."""
        return [item["metadata"]["name"] for item in self.items(kind, labels)]

    def delete(self, kind: str, name: str) -> None:
        """Deletes an object."""
        self._api.call("DELETE", self.path(kind, name))

    def status(self, kind: str, name: str, status: Object) -> None:
        """Writes a status."""
        self._api.call("PATCH", f"{self.path(kind, name)}/status", {"status": status}, MERGE)

    def iteration(self, name: str, outcome: str = "", *stages: Object, loop: str = "", **status: Any) -> None:
        """A ViperIteration; with an outcome, as an operator describes it."""
        body = world.iteration(name, profile={"defaults": {"retries": 1}}).dump()
        if loop:
            body["metadata"]["labels"] = {"viper.dev/loop": loop}
        self.apply(body)
        if outcome:
            self.describe(name, outcome, *stages, **status)

    def describe(self, name: str, outcome: str, *stages: Object, reason: str = "", **status: Any) -> None:
        """What the operator says about an iteration now."""
        summary = {"Promoted": "True", "Registered": "True", "Held": "False", "Failed": "False"}.get(outcome, "Unknown")
        at = next((s["name"] for s in stages if s["state"] not in ("Succeeded", "Waiting")), "promote")
        generation = self.get("ViperIteration", name)["metadata"]["generation"]
        found = {"conditions": [condition("Succeeded", summary, reason or outcome, "because")], "stages": list(stages)}
        found |= {"outcome": outcome, "stage": at, "observedGeneration": generation, "retries": 0}
        self.status("ViperIteration", name, found | status)

    def loop(self, name: str, **status: Any) -> None:
        """A ViperLoop of three."""
        spec = {"iterations": 3, "template": world.iteration().dump()["spec"]}
        body = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperLoop", "metadata": {"name": name}, "spec": spec}
        self.apply(body)
        running = {"conditions": [condition("Succeeded", "Unknown", "Running", "")], "observedGeneration": 1}
        self.status("ViperLoop", name, running | status)

    def pod(self, name: str, iteration: str, stage: str, *, shard: int = 0, node: str = "", **status: Any) -> None:
        """A pod of a stage in this state."""
        labels = {
            "viper.dev/iteration": iteration,
            "viper.dev/stage": stage,
            "batch.kubernetes.io/job-completion-index": str(shard),
            "batch.kubernetes.io/job-name": f"{iteration}-{stage}",
        }
        spec: Object = {"containers": [{"name": "stage", "image": "none"}], "terminationGracePeriodSeconds": 0}
        if node:
            spec["nodeName"] = node
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        self.apply(body)
        if status:
            self.status("Pod", name, status)

    def bind(self, pod: str, node: str) -> None:
        """What a scheduler does."""
        meta = {"name": pod}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        self._api.call("POST", f"{self.path('Pod', pod)}/binding", body)

    def operator(self, **environment: str) -> None:
        """The Deployment of an operator; its pods never start."""
        env = {
            "VIPER_STORE": "s3://viper?endpoint=http://viper-minio:9000",
            "VIPER_TRACKING": "http://viper-mlflow:5000",
            "VIPER_STAGE_IMAGE": "viper.local/cpu:9",
            "VIPER_CREDENTIALS_SECRET": "viper-store",
            **environment,
        }
        labels = {
            "app.kubernetes.io/name": "viper",
            "app.kubernetes.io/component": "operator",
            "app.kubernetes.io/version": "9",
        }
        container = {
            "name": "operator",
            "image": "viper.local/operator:9",
            "env": [{"name": k, "value": v} for k, v in env.items()],
        }
        pod = {"containers": [container], "imagePullSecrets": [{"name": "pull"}]}
        template = {"metadata": {"labels": labels}, "spec": pod}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "viper-operator", "labels": labels},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
        }
        self.apply(body)

    def user(self, folder: Path, *rules: dict[str, Sequence[str]]) -> Path:
        """The kubeconfig of somebody who may do so much in this namespace."""
        rbac = "rbac.authorization.k8s.io"
        account = {"kind": "ServiceAccount", "name": "jane", "namespace": self.namespace}
        role = {"apiGroup": rbac, "kind": "Role", "name": "jane"}
        meta = {"metadata": {"name": "jane"}}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", **meta})
        self.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", **meta, "rules": list(rules)})
        binding = {"apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **meta, "roleRef": role, "subjects": [account]}
        self.apply(binding)
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = self._api.call("POST", f"{self.path('ServiceAccount', 'jane')}/token", request)["status"]["token"]
        config = yaml.safe_load(self.kube.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        file = folder / "jane.conf"
        file.write_text(yaml.safe_dump(config))
        return file
