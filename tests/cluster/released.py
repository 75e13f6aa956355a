"""The chart in a namespace of the one-node cluster, and ways to reach what is in it."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from end_to_end.test_small_world import iteration
from servers.kube import binaries
from servers.node import OneNode

ROOT = Path(__file__).parents[2]
MODEL = "smallworld"


def loop(iterations: int) -> dict[str, Any]:
    """Small iterations of the small world."""
    template = iteration()["spec"]
    template["profile"] = {"defaults": {"retries": 2, "backoffSeconds": 1, "threads": 1}}
    return {
        "apiVersion": "viper.dev/v1alpha1",
        "kind": "ViperLoop",
        "metadata": {"name": "evolve"},
        "spec": {"iterations": iterations, "template": template},
    }


def helm_values(images: dict[str, str]) -> list[str]:
    """Arguments that name our images and ask for little of the machine."""
    values = []
    for name, image in images.items():
        repository, tag = image.rsplit(":", 1)
        values += ["--set-string", f"images.{name}.repository={repository}", "--set-string", f"images.{name}.tag={tag}"]
    for server in ("minio", "mlflow"):
        values += ["--set", f"{server}.persistence.size=1Gi", "--set", f"{server}.persistence.retain=false"]
    return values


@contextmanager
def release(cluster: OneNode) -> Iterator[str]:
    """A namespace that enforces `restricted`, with the chart in it."""
    images = cluster.images("operator", "cpu", "minio")
    namespace = cluster.namespace()
    helm = [str(binaries("helm") / "helm"), "--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace]
    # Another release (make cluster-demo's) may own the CustomResourceDefinitions and user roles.
    options = ["--take-ownership", "--wait", "--timeout", "10m", *helm_values(images)]
    subprocess.run([*helm, "install", "viper", str(ROOT / "charts" / "viper"), *options], check=True)
    yield namespace
    subprocess.run([*helm, "uninstall", "viper", "--wait", "--timeout", "3m"], check=True)
    cluster.kubectl("delete", "namespace", namespace, "--timeout=180s")


@contextmanager
def forwarded(cluster: OneNode, namespace: str, service: str, port: int) -> Iterator[int]:
    """A local port that leads to a service."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        local = free.getsockname()[1]
    command = [str(binaries("kubectl") / "kubectl"), "--kubeconfig", str(cluster.kubeconfig), "-n", namespace]
    command += ["port-forward", f"service/{service}", f"{local}:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert "Forwarding" in process.stdout.readline()
        yield local
    finally:
        process.terminate()
        process.wait()


def seen(cluster: OneNode, namespace: str, resource: str) -> dict[str, Any]:
    """An object, or a list of objects."""
    found: dict[str, Any] = json.loads(cluster.kubectl("-n", namespace, "get", resource, "-o", "json"))
    return found


def store_credentials(cluster: OneNode, namespace: str) -> dict[str, str]:
    """The release's, as the environment variables in which stores look for them."""
    secret = seen(cluster, namespace, "secret/viper-store")["data"]
    return {name: base64.b64decode(value).decode() for name, value in secret.items()}
