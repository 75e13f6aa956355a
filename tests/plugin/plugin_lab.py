"""A namespace with objects as an operator would leave them, and `kubectl viper` on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from plugin_builders import condition

from fakes import world
from servers.kube import KubeApi
from viper_operator.plugin.main import main


class Lab:
    """One namespace."""

    def __init__(self, kube: KubeApi, capsys: pytest.CaptureFixture[str]) -> None:
        self.kube, self._capsys = kube, capsys
        self.namespace = kube.namespace("plugin", enforce="privileged")

    def viper(self, *arguments: str, kubeconfig: Path | None = None) -> tuple[int, str, str]:
        """Exit status, output and error output of `kubectl viper` with these arguments."""
        self._capsys.readouterr()
        where = ["--kubeconfig", str(kubeconfig or self.kube.kubeconfig), "-n", self.namespace]
        code = main([*where, *arguments])
        found = self._capsys.readouterr()
        return code, found.out, found.err

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """An object."""
        found: dict[str, Any] = json.loads(self.kube.kubectl("-n", self.namespace, "get", kind, name, "-o", "json"))
        return found

    def names(self, kind: str) -> list[str]:
        """Names of all objects of a kind."""
        return self.kube.kubectl("-n", self.namespace, "get", kind, "-o", "jsonpath={.items[*].metadata.name}").split()

    def status(self, kind: str, name: str, status: dict[str, Any]) -> None:
        """Writes a status."""
        patch = json.dumps({"status": status})
        common = ("-n", self.namespace, "patch", kind, name, "--type=merge", "--subresource=status")
        self.kube.kubectl(*common, "-p", patch)

    def iteration(self, name: str, outcome: str = "", *stages: dict[str, Any], loop: str = "", **status: Any) -> None:
        """A ViperIteration; with an outcome, as an operator describes it."""
        body = world.iteration(name, profile={"defaults": {"retries": 1}}).dump()
        if loop:
            body["metadata"]["labels"] = {"viper.dev/loop": loop}
        self.kube.apply(body, namespace=self.namespace)
        if outcome:
            self.describe(name, outcome, *stages, **status)

    def describe(self, name: str, outcome: str, *stages: dict[str, Any], reason: str = "", **status: Any) -> None:
        """What the operator says about an iteration now."""
        summary = {"Promoted": "True", "Registered": "True", "Held": "False", "Failed": "False"}.get(outcome, "Unknown")
        at = next((s["name"] for s in stages if s["state"] not in ("Succeeded", "Waiting")), "promote")
        generation = self.get("viperiteration", name)["metadata"]["generation"]
        found = {"conditions": [condition("Succeeded", summary, reason or outcome, "because")], "stages": list(stages)}
        found |= {"outcome": outcome, "stage": at, "observedGeneration": generation, "retries": 0}
        self.status("viperiteration", name, found | status)

    def loop(self, name: str, **status: Any) -> None:
        """A ViperLoop of three."""
        spec = {"iterations": 3, "template": world.iteration().dump()["spec"]}
        body = {"apiVersion": "viper.dev/v1alpha1", "kind": "ViperLoop", "metadata": {"name": name}, "spec": spec}
        self.kube.apply(body, namespace=self.namespace)
        running = {"conditions": [condition("Succeeded", "Unknown", "Running", "")], "observedGeneration": 1}
        self.status("viperloop", name, running | status)

    def pod(self, name: str, iteration: str, stage: str, *, shard: int = 0, node: str = "", **status: Any) -> None:
        """A pod of a stage in this state."""
        labels = {
            "viper.dev/iteration": iteration,
            "viper.dev/stage": stage,
            "batch.kubernetes.io/job-completion-index": str(shard),
            "batch.kubernetes.io/job-name": f"{iteration}-{stage}",
        }
        spec: dict[str, Any] = {"containers": [{"name": "stage", "image": "none"}], "terminationGracePeriodSeconds": 0}
        if node:
            spec["nodeName"] = node
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        self.kube.apply(body, namespace=self.namespace)
        if status:
            self.status("pod", name, status)

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
        self.kube.apply(body, namespace=self.namespace)

    def user(self, folder: Path, *rules: dict[str, Sequence[str]]) -> Path:
        """The kubeconfig of somebody who may do so much in this namespace."""
        where = ("-n", self.namespace)
        self.kube.kubectl(*where, "create", "serviceaccount", "jane")
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "jane"}}
        self.kube.apply({**role, "rules": list(rules)}, namespace=self.namespace)
        account = f"{self.namespace}:jane"
        self.kube.kubectl(*where, "create", "rolebinding", "jane", "--role=jane", f"--serviceaccount={account}")
        config = yaml.safe_load(self.kube.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self.kube.kubectl(*where, "create", "token", "jane").strip()}
        file = folder / "jane.conf"
        file.write_text(yaml.safe_dump(config))
        return file
