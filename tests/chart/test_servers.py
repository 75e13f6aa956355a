"""The chart's programs and server settings, against real servers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helm_chart import CHART, by_name, render
from minio import Minio
from minio.error import S3Error
from prometheus_client import CollectorRegistry, Counter, start_http_server

from fakes import world
from fakes.registry import MemoryRegistry
from servers.faulty_s3 import FaultyS3, ignores_conditions
from servers.running import ACCESS_KEY, SECRET_KEY, MinioServer, Server, free_port
from viper.errors import StoreError
from viper.iteration.freeze import freeze, load_frozen
from viper.stage.termination import STOPPED
from viper.store import open_store
from viper.store.minio import MinioStore
from viper.store.multipart import PART_BYTES
from viper_operator.stores import Stores

pytestmark = pytest.mark.server

READER = {"VIPER_READER_ACCESS_KEY_ID": "operator", "VIPER_READER_SECRET_ACCESS_KEY": "operator-secret"}
ROOT = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}


def prepare(
    uri: str, user: str, secret: str, program: str = "prepare_store.py", **environment: str
) -> subprocess.Popen[str]:
    """The setup hook's program, or another one of the chart, started as the chart starts it."""
    given = {"VIPER_STORE": uri, "AWS_ACCESS_KEY_ID": user, "AWS_SECRET_ACCESS_KEY": secret, **environment}
    text = (CHART / "files" / program).read_text("utf-8")
    pipe = subprocess.PIPE
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "MINIO_"))}
    return subprocess.Popen(
        [sys.executable, "-c", text], env={**inherited, **given}, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def output(process: subprocess.Popen[str]) -> tuple[int, str]:
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


@pytest.fixture(scope="module")
def bucket(minio_server: MinioServer) -> str:
    """A bucket that the setup hook made, with the users `stages` and `operator`."""
    name = f"b{uuid.uuid4().hex[:8]}"
    uri = f"s3://{name}?endpoint={minio_server.url}"
    code, text = output(prepare(uri, "stages", "stages-secret", **ROOT, **READER))
    assert code == 0, text
    assert "the operator may read it, and not write" in text
    return name


@pytest.fixture
def as_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stages")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "stages-secret")


def test_stages_may_do_all_they_need_in_their_bucket(
    minio_server: MinioServer, bucket: str, as_stages: None, tmp_path: Path
) -> None:
    store = open_store(f"s3://{bucket}/some/prefix?endpoint={minio_server.url}")
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(PART_BYTES + 1)  # more than one part
    store.put("small", b"1", if_absent=True)
    store.put_file("large", large)
    assert [o.key for o in store.list()] == ["large", "small"]
    assert store.get("small") == b"1"
    found = store.stat("large")
    assert found is not None
    assert found.size == PART_BYTES + 1
    for key in ("small", "large"):
        store.delete(key)
    assert list(store.list()) == []


def test_the_operator_reads_all_of_the_bucket_and_writes_nothing(
    minio_server: MinioServer, bucket: str, as_stages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{bucket}/all?endpoint={minio_server.url}"
    model = world.model(tmp_path / "model")
    iteration = world.iteration("it", generator={"alias": "generator", "initialUri": model.as_uri()})
    frozen = freeze(iteration, open_store(uri), MemoryRegistry()).iteration  # type: ignore[arg-type]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "operator-secret")
    store = open_store(uri)

    async def observed() -> None:
        stores = Stores(store, 1)
        assert await stores.frozen("uid", "it") == frozen
        assert {s.done for s in (await stores.stages("uid")).values()} == {None}
        assert await stores.progress("it", "ingest-images", 1) == (None, "")
        stores.close()

    asyncio.run(observed())
    (tmp_path / "large").write_bytes(b"x")
    assert isinstance(store, MinioStore)
    for write in (
        lambda: store.put("iterations/it/iteration.json", b""),
        lambda: store.put("new", b"", if_absent=True),
        lambda: store.put_in_parts("large", tmp_path / "large"),
        lambda: store.delete("iterations/it/iteration.json"),
    ):
        with pytest.raises(StoreError, match="forbids"):
            write()
    assert load_frozen(store, "it") == frozen
    with pytest.raises(StoreError):
        list(open_store(minio_server.uri("x")).list())


def test_a_key_of_the_operator_that_may_write_is_said(minio_server: MinioServer, bucket: str) -> None:
    same = {"VIPER_READER_ACCESS_KEY_ID": "stages", "VIPER_READER_SECRET_ACCESS_KEY": "stages-secret"}
    code, text = output(prepare(f"s3://{bucket}?endpoint={minio_server.url}", "stages", "stages-secret", **same))
    assert code == 0, text
    assert "may also write, which it does not need" in text
    wrong = {**same, "VIPER_READER_SECRET_ACCESS_KEY": "a-guess"}
    code, text = output(prepare(f"s3://{bucket}?endpoint={minio_server.url}", "stages", "stages-secret", **wrong))
    assert (code, "Traceback" in text) == (1, False)
    assert "the secret key is wrong" in text


def test_stages_may_do_nothing_in_another_bucket(minio_server: MinioServer, bucket: str, as_stages: None) -> None:
    other = open_store(minio_server.uri("x"))
    with pytest.raises(StoreError):
        other.put("key", b"")
    with pytest.raises(StoreError):
        other.get("key")
    client = Minio(endpoint=minio_server.url[7:], access_key="stages", secret_key="stages-secret", secure=False)  # noqa: S106
    with pytest.raises(S3Error, match="Access Denied"):
        client.make_bucket(bucket_name=f"{bucket}-more")


def test_preparing_again_changes_nothing_but_the_password_that_is_new(minio_server: MinioServer, bucket: str) -> None:
    uri = f"s3://{bucket}?endpoint={minio_server.url}"
    again = output(prepare(uri, "second", "first-secret", **ROOT))
    changed = output(prepare(uri, "second", "other-secret", **ROOT))
    assert (again[0], changed[0]) == (0, 0)
    assert "made the bucket" not in again[1]
    code, text = output(prepare(uri, "second", "first-secret"))
    assert code == 1
    assert "the store cannot be used" in text


def test_preparing_waits_for_a_server_that_is_still_starting(tmp_path: Path) -> None:
    server = MinioServer(tmp_path)
    process = prepare(f"s3://fresh?endpoint={server.url}", "stages", "stages-secret", **ROOT)
    try:
        server.start()
        code, text = output(process)
    finally:
        process.kill()
        server.kill()
    assert code == 0, text
    assert "made the bucket fresh" in text


def test_preparing_says_what_is_wrong(minio_server: MinioServer) -> None:
    uri = f"s3://fresh?endpoint={minio_server.url}"
    code, text = output(prepare(uri, "u", "p", MINIO_ROOT_USER=ACCESS_KEY, MINIO_ROOT_PASSWORD="wrong-one"))  # noqa: S106
    assert code == 1
    assert "error: the store cannot be used" in text
    unreachable = f"s3://fresh?endpoint=http://127.0.0.1:{free_port()}"
    code, text = output(prepare(unreachable, "u", "p", VIPER_PATIENCE="4", **ROOT))
    assert code == 1
    assert "Traceback" not in text


@pytest.mark.parametrize("program", ["prepare_store.py", "check_release.py"])
def test_a_hook_that_is_told_to_stop_does_at_once(program: str) -> None:
    """Also where the store takes a connection and says nothing: process 1 of a container has no default action."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        uri = f"s3://bucket?endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
        process = prepare(uri, "user", "secret", program, **ROOT)
        silent.accept()
        process.terminate()
        assert output(process)[0] == STOPPED


def test_a_store_in_which_every_writer_wins_is_refused_at_install(minio_server: MinioServer, bucket: str) -> None:
    with FaultyS3(minio_server.url, ignores_conditions) as server:
        code, text = output(prepare(f"s3://{bucket}?endpoint={server.url}", "stages", "stages-secret"))
        assert code == 1
        assert "lets a second writer replace an object" in text
        assert server.url in text
        assert "Traceback" not in text


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """MLflow with the arguments and the environment that the chart gives it, on a port and in a folder of its own."""
    folder = tmp_path_factory.mktemp("chart-mlflow")
    deployment = by_name(render({"mlflow": {"allowedHosts": ["*.example.org"]}}), "Deployment", "viper-mlflow")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = [a.replace("/data", str(folder)).replace("--port=5000", "--port={port}") for a in container["args"]]
    environment = {e["name"]: e["value"] for e in container["env"]}
    command = [sys.executable, "-m", *container["command"], *arguments]
    server = Server(command, {**environment, "HOME": str(folder)}, "/health", folder / "log", patience_s=300)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def status(url: str, host: str) -> int:
    request = urllib.request.Request(url, headers={"Host": host})  # noqa: S310 (our own URL)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


@pytest.mark.kube
@pytest.mark.slow
def test_mlflow_answers_to_its_names_and_to_no_others(mlflow: Server) -> None:
    url = f"{mlflow.url}/api/2.0/mlflow/registered-models/search"
    known = ("viper-mlflow:5000", "viper-mlflow.research.svc:5000", "localhost:5000", "team.example.org")
    assert [status(url, host) for host in known] == [200] * len(known)
    assert status(url, "viper-mlflow.evil.org") == 403
    assert status(f"{mlflow.url}/health", "10.244.0.7:5000") == 200  # the kubelet asks by address


@pytest.mark.kube
@pytest.mark.slow
def test_helm_test_asks_every_part_and_says_which_one_failed(
    minio_server: MinioServer, bucket: str, mlflow: Server
) -> None:
    registry = CollectorRegistry()
    Counter("viper_things", "Stands for the operator's.", registry=registry)
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("AWS_")},
            "VIPER_STORE": f"s3://{bucket}?endpoint={minio_server.url}",
            "VIPER_TRACKING": mlflow.url,
            "VIPER_METRICS": f"http://127.0.0.1:{server.server_port}/metrics",
            "AWS_ACCESS_KEY_ID": "stages",
            "AWS_SECRET_ACCESS_KEY": "stages-secret",
        }
        good = _check(environment)
        bad = _check({**environment, "VIPER_METRICS": f"http://127.0.0.1:{free_port()}/metrics"})
    finally:
        server.shutdown()
        thread.join()
    assert (good.returncode, good.stdout.count("ok      ")) == (0, 3), good.stdout
    assert (bad.returncode, bad.stdout.count("ok      ")) == (1, 2), bad.stdout
    assert "FAILED  operator" in bad.stdout


def _check(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = (CHART / "files" / "check_release.py").read_text("utf-8")
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
