"""MinIO down, restarted, forbidding or answering into the void: clear errors, and nothing is lost or written twice."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.running import CREDENTIALS, MinioServer
from support.mounts import need_private_mounts
from viper.errors import AlreadyExistsError, StoreError
from viper.retries import Policy
from viper.store import open_store, upload_directory
from viper.store.minio import MinioStore

pytestmark = pytest.mark.server

IMPATIENT = Policy((0.01, 0.02), tries=3)


@pytest.fixture
def own_server(tmp_path: Path, minio_credentials: None) -> Iterator[MinioServer]:
    """A server that the test may kill."""
    with MinioServer(tmp_path / "own") as server:
        yield server


def store_at(url: str, prefix: str = "p", patience: Policy = IMPATIENT) -> MinioStore:
    return MinioStore(MinioServer.bucket, prefix, endpoint=url, patience=patience)


def test_a_restart_of_the_server_is_survived(own_server: MinioServer, tmp_path: Path) -> None:
    store = open_store(own_server.uri("run"))
    store.put("before", b"1")
    own_server.kill()
    back = threading.Timer(1.0, own_server.launch)
    back.start()
    try:
        store.put("during", b"2", if_absent=True)
        assert store.get("before") == b"1"
        assert [o.key for o in store.list()] == ["before", "during"]
    finally:
        back.join()


def test_a_server_that_stays_down_is_reported_and_the_upload_goes_on_later(
    own_server: MinioServer, tmp_path: Path
) -> None:
    store = store_at(own_server.url)
    (tmp_path / "model").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "model" / name).write_bytes(os.urandom(100_000))
    sent: list[int] = []

    def kill_after_the_first(done: int, total: int) -> None:
        sent.append(done)
        own_server.kill()

    with pytest.raises(StoreError, match="does not answer") as error:
        upload_directory(store, "m", tmp_path / "model", progress=kill_after_the_first)
    assert own_server.url in error.value.where
    assert "start the server" in error.value.fix
    own_server.start()
    present = {o.key for o in store.list("m/")}
    assert present
    assert "m/digests.json" not in present
    digests = upload_directory(store, "m", tmp_path / "model")
    assert {o.key for o in store.list("m/")} == {f"m/{name}" for name in digests.files} | {"m/digests.json"}


def test_every_operation_reports_a_server_that_is_down(tmp_path: Path, minio_credentials: None) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        store = store_at(f"http://127.0.0.1:{reserved.getsockname()[1]}")
        (tmp_path / "f").write_bytes(b"x")
        for operation in (
            lambda: store.get("k"),
            lambda: store.put("k", b""),
            lambda: store.put_file("k", tmp_path / "f"),
            lambda: store.get_file("k", tmp_path / "g"),
            lambda: store.stat("k"),
            lambda: list(store.list()),
            lambda: store.delete("k"),
        ):
            with pytest.raises(StoreError, match="does not answer"):
                operation()
    assert not (tmp_path / "g").exists()


def test_a_full_disk_of_the_server_is_a_clear_error(tmp_path: Path, minio_credentials: None) -> None:
    need_private_mounts()
    server = MinioServer(tmp_path / "full", disk="100m")
    (tmp_path / "large").write_bytes(b"x" * 110_000_000)
    try:
        server.start()
        store = store_at(server.url)
        store.put("fits", b"x" * 10_000_000)
        with pytest.raises(StoreError, match="the server's disk is full") as error:
            store.put("more", b"x" * 110_000_000, if_absent=True)
        assert "free some space there" in error.value.fix
        with pytest.raises(StoreError, match="the server's disk is full"):
            store.put_file("large", tmp_path / "large", if_absent=True)
        assert [o.key for o in store.list()] == ["fits"]
    finally:
        server.kill()


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Something that speaks HTTP and is no S3 server."""

    def do_GET(self) -> None:
        self.send_response(502 if "gateway" in self.path else 200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    do_PUT = do_GET  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_an_endpoint_that_is_no_s3_server_is_a_clear_error(minio_credentials: None) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        for prefix in ("welcome", "gateway"):
            with pytest.raises(StoreError, match="not the answer of a working S3 server"):
                MinioStore("some-bucket", prefix, endpoint=url, patience=IMPATIENT).put("k", b"x")
        server.shutdown()


class Proxy:
    """Passes connections on to a server and cuts some: see `drop` and `cut_after`."""

    def __init__(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self._port = port
        self.drop: bytes | None = None  # a request that starts like this is carried out, once, but never answered
        self.cut_after = 0  # the next answer larger than this many bytes breaks off there, once
        self.log: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._port))
            mute = threading.Event()
            threading.Thread(target=self._forward, args=(client, upstream, mute), daemon=True).start()
            threading.Thread(target=self._answer, args=(upstream, client, mute), daemon=True).start()

    def _forward(self, client: socket.socket, upstream: socket.socket, mute: threading.Event) -> None:
        while data := _receive(client):
            line = data.split(b"\r\n", 1)[0]
            if b" HTTP/1.1" in line:
                self.log.append(line)
                if self.drop is not None and line.startswith(self.drop):
                    self.drop = None
                    mute.set()
            upstream.sendall(data)
        upstream.close()

    def _answer(self, upstream: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        passed = 0
        while data := _receive(upstream):
            if mute.is_set():
                break
            passed += len(data)
            client.sendall(data)
            if self.cut_after and passed > self.cut_after:
                self.cut_after = 0
                break
        client.shutdown(socket.SHUT_RDWR)
        client.close()

    def close(self) -> None:
        self._server.close()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except OSError:
        return b""


@pytest.fixture
def proxy(minio_server: MinioServer, minio_credentials: None) -> Iterator[Proxy]:
    proxy = Proxy(minio_server.port)
    yield proxy
    proxy.close()


def test_a_create_whose_answer_got_lost_is_recognised_as_ones_own(proxy: Proxy) -> None:
    store = store_at(proxy.url, "lost-answer")
    store.stat("warm-up")
    proxy.drop = b"PUT /"
    store.put("manifest.json", b"mine", if_absent=True)
    assert sum(line.startswith(b"PUT /") for line in proxy.log) == 2
    assert store.get("manifest.json") == b"mine"
    with pytest.raises(AlreadyExistsError):
        store.put("manifest.json", b"mine", if_absent=True)


def test_a_multipart_upload_whose_completion_got_no_answer_is_recognised(proxy: Proxy, tmp_path: Path) -> None:
    store = store_at(proxy.url, "lost-completion")
    store.stat("warm-up")
    (tmp_path / "f").write_bytes(b"x" * 40_000_000)
    proxy.drop = f"POST /{MinioServer.bucket}/lost-completion/w?uploadId".encode()
    store.put_file("w", tmp_path / "f", if_absent=True)
    assert proxy.drop is None
    assert store.stat("w") is not None


def test_a_download_that_breaks_off_goes_on_where_it_stopped(proxy: Proxy, tmp_path: Path) -> None:
    store = store_at(proxy.url, "broken-download")
    data = os.urandom(20_000_000)
    store.put("k", data)
    proxy.cut_after = 8_000_000
    store.get_file("k", tmp_path / "k")
    assert proxy.cut_after == 0
    assert (tmp_path / "k").read_bytes() == data
    proxy.cut_after = 8_000_000
    assert store.get("k") == data


def test_wrong_credentials_are_a_clear_error(minio_server: MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nonexistent")
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StoreError, match="credentials") as error:
        store_at(minio_server.url).get("k")
    assert "AWS_ACCESS_KEY_ID" in error.value.fix

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-guess-that-must-not-show")
    with pytest.raises(StoreError, match="access key") as error:
        store_at(minio_server.url).get("k")
    assert "a-guess" not in str(error.value)

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS["AWS_ACCESS_KEY_ID"])
    with pytest.raises(StoreError, match="secret key is wrong"):
        store_at(minio_server.url).put("k", b"")


def test_a_missing_bucket_is_a_clear_error(minio_server: MinioServer, minio_credentials: None) -> None:
    store = open_store(f"s3://no-such-bucket/p?endpoint={minio_server.url}")
    for operation in (lambda: store.get("k"), lambda: store.put("k", b""), lambda: list(store.list())):
        with pytest.raises(StoreError, match="no such bucket") as error:
            operation()
        assert "create the bucket" in error.value.fix


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("s3://user:secret@bucket/p", "credentials do not belong in a URI"),
        ("s3://Bad_Bucket/p", "not a bucket name"),
        ("s3:///p", "not an S3 URI"),
        ("s3://bucket/p?region=x", "not an S3 URI"),
        ("s3://bucket/p#fragment", "not an S3 URI"),
        ("s3://bucket/../p", "not a valid object key"),
        ("s3://bucket/p?endpoint=localhost:9000", "not an S3 endpoint"),
        ("s3://bucket/p?endpoint=http://host/path", "not an S3 endpoint"),
    ],
)
def test_a_malformed_uri_is_refused_before_anything_is_contacted(uri: str, what: str) -> None:
    with pytest.raises(StoreError, match=what) as error:
        open_store(uri)
    assert "secret" not in str(error.value)


def test_the_endpoint_may_come_from_the_environment(
    minio_server: MinioServer, minio_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIPER_S3_ENDPOINT", minio_server.url)
    store = open_store(f"s3://{minio_server.bucket}/environment")
    store.put("k", b"data")
    assert store.uri == f"s3://{minio_server.bucket}/environment"
    assert open_store(minio_server.uri("environment")).get("k") == b"data"
