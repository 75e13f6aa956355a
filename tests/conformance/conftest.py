"""The executors under test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.executors import Executor, Jobs, Local
from fakes.cluster import Cluster, install_definitions

EXECUTORS = ["local", pytest.param("cluster", marks=[pytest.mark.kube, pytest.mark.slow])]


@pytest.fixture(params=EXECUTORS)
def executor_kind(request: pytest.FixtureRequest) -> str:
    """Name of an executor."""
    return str(request.param)


@pytest.fixture
def executor(request: pytest.FixtureRequest, executor_kind: str, tmp_path: Path) -> Iterator[Executor]:
    """An executor of that kind; a test may pass options (`shards`, `deadline`) as parameter.

    `before`: fills the folder of the store before anything else is there.
    """
    options: dict[str, Any] = dict(getattr(request, "param", {}))
    if (before := options.pop("before", None)) is not None:
        before(tmp_path / "run" / "store")
    if executor_kind == "local":
        yield Local(tmp_path / "run", **options)
        return
    kube_api = request.getfixturevalue("kube_api")
    install_definitions(kube_api)
    made: list[Cluster] = []

    def cluster(folder: Path) -> Cluster:
        made.append(Cluster(kube_api, folder))
        return made[-1]

    yield Jobs(cluster, tmp_path / "run", **options)
    for one in made:
        one.__exit__()
