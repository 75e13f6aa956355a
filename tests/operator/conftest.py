"""A namespace of its own for every test that needs a control plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.cluster import Cluster, install_definitions
from servers.kube import KubeApi


@pytest.fixture
def cluster(kube_api: KubeApi, tmp_path: Path) -> Iterator[Cluster]:
    """A namespace with a kubelet of the fakes; the operator is started by the test."""
    install_definitions(kube_api)
    with Cluster(kube_api, tmp_path / "cluster") as made:
        yield made
