"""Fixtures that several areas share: real servers and stores."""

from __future__ import annotations

import ast
import gc
import resource
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from servers.kube import KubeApi
from servers.node import OneNode, traces
from servers.running import CREDENTIALS, MinioServer, MlflowServer
from viper.store import DirectoryStore, ObjectStore, open_store

#: Folders whose tests need what takes long to make on a fresh machine, in the order in which tests/prepare.sh has it.
#: The cluster needs everything, and goes through its tests alone; beside it are those of the operator and the plugin.
LATE = (
    "evaluation",
    "reward_service",
    "training",
    "engines",
    "examples",
    "chart",
    "conformance",
    "cluster",
    "operator",
    "plugin",
)
#: Files of other folders with such tests: MinIO is there first, the API server with the chart's tools.
WAITS = {"server": 0, "kube": LATE.index("conformance")}

#: Files whose tests stay in one process: there is one node, and one verl fills a machine.
TOGETHER = {"cluster/": "cluster", "training/test_verl_": "verl"}

#: What `--quick` leaves out. Whatever else a test needs is in the environment of `make quick`, which has
#: neither torch nor transformers: a test that lacks its marker fails there.
APART = ("torch", "server", "kube", "cluster", "slow", "process")
#: Scripts that make servers and environments; what needs one is marked.
BUILDS = {"build_minio.sh", "build.sh", "environment.sh", "images.sh", "up.sh"}
#: Processor time, which other programs on the machine hardly change, of a test that is not marked `slow`: twice what
#: the marker says, so that a slow machine is no reason to fail.
QUICK_CPU_S = 20.0

# A busy machine is no finding: properties are judged by what they say, not by how long they take.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help=f"only what is not marked {', '.join(APART)}; and held to it")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("quick"):
        config.option.markexpr = " and ".join(f"not {name}" for name in APART)
        if (
            hasattr(config, "workerinput") or not config.option.numprocesses
        ):  # where tests run: xdist itself starts Python
            sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and (name := Path(str(arguments[0])).name) in BUILDS:
        raise PermissionError(f"{name} in a test without a marker: mark it `server`, `kube`, `cluster` or `slow`")
    if event == "subprocess.Popen" and sys.executable in arguments[1]:
        raise PermissionError("a Python of its own in a test without a marker: mark it `process`")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """`--quick` does not import files that are left out whole: what they import is not there."""
    return True if config.getoption("quick") and _marked(collection_path).intersection(APART) else None


def _marked(path: Path) -> set[str]:
    """The markers of a file's `pytestmark`."""
    if path.suffix != ".py":
        return set()
    marks = [
        node.value
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "pytestmark" for t in node.targets)
    ]
    return {node.attr for mark in marks for node in ast.walk(mark) if isinstance(node, ast.Attribute)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """With `--quick`, a test that takes long without saying so fails."""
    before = _processor_seconds()
    yield
    took = _processor_seconds() - before
    if item.config.getoption("quick") and took > QUICK_CPU_S:
        pytest.fail(f"{took:.0f} s of processor time: make it quicker, or mark it `slow`", pytrace=False)


def _processor_seconds() -> float:
    """Of this process, and of its children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that wait for nothing come first. A file is one piece of work, and waits when one of its tests does."""
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> float:
        folder = item.path.relative_to(tests).parts[0]
        if folder in LATE:
            return LATE.index(folder)
        return max((rank - 0.5 for marker, rank in WAITS.items() if item.get_closest_marker(marker)), default=-1)

    places: dict[Path, float] = {}
    for item in items:
        places[item.path] = max(place(item), places.get(item.path, -1))
    items.sort(key=lambda item: places[item.path])


def pytest_collection_finish() -> None:
    """Thousands of tests live to the end: the collector of garbage need not look at them again and again."""
    gc.freeze()


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
