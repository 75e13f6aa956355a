"""A namespace of its own for every test of `kubectl viper` that needs an API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubelet_server import LogServer
from plugin_lab import Lab

from fakes.cluster import install_definitions
from servers.kube import KubeApi


@pytest.fixture
def lab(kube_api: KubeApi, capsys: pytest.CaptureFixture[str]) -> Lab:
    """An empty namespace of a cluster that knows ViPER."""
    install_definitions(kube_api)
    return Lab(kube_api, capsys)


@pytest.fixture
def logs(lab: Lab, tmp_path: Path) -> Iterator[LogServer]:
    """A node `logs` of which nothing works but the logs."""
    server = LogServer(tmp_path)
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{lab.namespace}"}}
    lab.apply(node)
    lab.status(
        "Node",
        f"node-{lab.namespace}",
        {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}},
        },
    )
    yield server
    server.stop()
    lab.delete("Node", f"node-{lab.namespace}")
