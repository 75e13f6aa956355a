"""A namespace of its own for every test that needs a control plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cluster import Cluster, install_definitions
from servers.kube import KubeApi
from watcher.judge import judge, report
from watcher.recorder import Recorder
from watcher.timeline import Timeline, read


@pytest.fixture
def cluster(kube_api: KubeApi, tmp_path: Path) -> Iterator[Cluster]:
    """A namespace with a kubelet of the fakes; the operator is started by the test."""
    install_definitions(kube_api)
    with Cluster(kube_api, tmp_path / "cluster") as made:
        yield made


@pytest.fixture
def watched(cluster: Cluster, tmp_path: Path) -> Iterator[None]:
    """Everything that is said in the namespace is so, not late and said once; operators that are killed on a busy
    machine have their time."""
    file = tmp_path / "timeline.jsonl"
    with Recorder(Timeline(file), cluster.kubeconfig, cluster.namespace, store=cluster.store):
        yield
    assert report(judge(read(file), late=60.0)) == ""
