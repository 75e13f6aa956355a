"""Fixtures that several areas share: real servers and stores."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from servers.kube import KubeApi
from servers.node import OneNode, traces
from servers.running import CREDENTIALS, MinioServer, MlflowServer
from viper.store import DirectoryStore, ObjectStore, open_store

#: Folders whose tests need what takes long to make on a fresh machine, in the order in which tests/prepare.sh has it.
LATE = (
    "evaluation",
    "reward_service",
    "training",
    "engines",
    "examples",
    "cluster",
    "chart",
    "conformance",
    "operator",
    "plugin",
)

#: Files whose tests stay in one process: there is one node, and one verl fills a machine.
TOGETHER = {"cluster/": "cluster", "training/test_verl_": "verl"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for nothing come first."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return LATE.index(folder) + 1 if folder in LATE else 0

    items.sort(key=place)


class _Files(LoadFileScheduling):
    """Whole files for each process, in the order of the collection."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0].removeprefix("tests/")
        return next((name for start, name in TOGETHER.items() if file.startswith(start)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """How `pytest -n 2` shares out the tests."""
    config.option.loadscopereorder = False
    return _Files(config, log)


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO server; use it in tests marked `server`."""
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running MLflow server; use it in tests marked `server`."""
    with MlflowServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def kube_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """A running Kubernetes control plane without a node; for tests marked `kube`, each in its own namespace."""
    with KubeApi(tmp_path_factory.mktemp("kube"), audit=True) as api:
        yield api


@pytest.fixture(scope="session")
def one_node() -> Iterator[OneNode]:
    """The cluster of `make cluster`; use it in tests marked `cluster`.

    One that is there already stays; one that is started here is removed at the end, which has to leave nothing.
    """
    cluster = OneNode()
    before = None
    if not cluster.is_up():
        cluster.down()  # what one that was killed left
        before = traces()
    cluster.up()
    try:
        yield cluster
    finally:
        if before is not None:
            cluster.down()
            assert not traces() - before, "make cluster-down leaves something behind"


@pytest.fixture
def minio_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server's credentials in the environment, where stores look for them."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def minio_store(minio_server: MinioServer, minio_credentials: None) -> ObjectStore:
    """An empty store in the MinIO server."""
    return open_store(minio_server.uri(uuid.uuid4().hex))


@pytest.fixture
def directory_store(tmp_path: Path) -> DirectoryStore:
    """An empty store in a directory."""
    return DirectoryStore(tmp_path / "store")


@pytest.fixture(params=["directory", pytest.param("minio", marks=pytest.mark.server)])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """An empty store of each kind."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found
