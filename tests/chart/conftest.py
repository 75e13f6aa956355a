"""An API server of the chart's own: its CustomResourceDefinitions belong to a release here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from servers.kube import KubeApi


@pytest.fixture(scope="session")
def chart_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """An API server with a node on which pods run at once and Jobs succeed."""
    with KubeApi(tmp_path_factory.mktemp("chart-api"), audit=True) as kube:
        kube.fake_nodes(1)
        yield kube
