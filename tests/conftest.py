"""Fixtures that several areas share: real servers and stores."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.kube import KubeApi
from servers.running import CREDENTIALS, MinioServer, MlflowServer
from viper.store import DirectoryStore, ObjectStore, open_store


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A running MinIO server; use it in tests marked `server`."""
    server = MinioServer(tmp_path_factory.mktemp("minio"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running MLflow server; use it in tests marked `server`."""
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def kube_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    """A running Kubernetes control plane without a node; use it in tests marked `kube`, each in a namespace of its own."""
    with KubeApi(tmp_path_factory.mktemp("kube"), audit=True) as api:
        yield api


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
