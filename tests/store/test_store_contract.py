"""What every object store promises, checked on a directory and on a real MinIO server."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from minio import Minio

from servers.running import ACCESS_KEY, SECRET_KEY
from viper.errors import AlreadyExistsError, NotFoundError, StoreError
from viper.store import ObjectInfo, ObjectStore, child_uri, open_store, upload_directory

BIG = 50_000_000


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "weights.safetensors"
    path.write_bytes(os.urandom(BIG))
    return path


@pytest.mark.parametrize("data", [b"", b"one", bytes(range(256)) * 1000], ids=["empty", "small", "binary"])
def test_an_object_reads_back_as_written(store: ObjectStore, data: bytes) -> None:
    store.put("a/b.json", data)
    assert store.get("a/b.json") == data
    assert store.stat("a/b.json") == ObjectInfo("a/b.json", len(data))


def test_a_put_replaces_the_object(store: ObjectStore) -> None:
    store.put("k", b"first, longer")
    store.put("k", b"second")
    assert store.get("k") == b"second"


@pytest.mark.parametrize("key", ["Bilder/Größe.json", "图像/样本.json", "a b+c%41&d=e#f?.txt", "e\u0301", "🐍"])
def test_unicode_and_special_characters_in_keys_survive(store: ObjectStore, key: str) -> None:
    store.put(key, key.encode())
    assert store.get(key) == key.encode()
    assert keys(store) == [key]


def test_a_large_file_goes_in_and_out_unchanged(store: ObjectStore, big_file: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(big_file.read_bytes()).hexdigest()
    store.put_file("model/weights", big_file, if_absent=True, sha256=digest)
    store.get_file("model/weights", tmp_path / "new" / "folder" / "weights")
    assert hashlib.sha256((tmp_path / "new" / "folder" / "weights").read_bytes()).hexdigest() == digest
    assert store.stat("model/weights") == ObjectInfo("model/weights", BIG)
    assert store.sha256("model/weights") == digest
    assert list((tmp_path / "new" / "folder").iterdir()) == [tmp_path / "new" / "folder" / "weights"]


def test_the_digest_of_a_missing_object_is_none(store: ObjectStore) -> None:
    assert store.sha256("nothing") is None


def test_a_download_replaces_the_file_at_its_destination(store: ObjectStore, tmp_path: Path) -> None:
    store.put("k", b"new")
    (tmp_path / "k").write_bytes(b"old and longer")
    store.get_file("k", tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == b"new"


def test_a_missing_object_is_not_found_and_leaves_no_file(store: ObjectStore, tmp_path: Path) -> None:
    store.put("folder/object", b"")
    for key in ("nothing", "folder", "folder/object/below"):
        assert store.stat(key) is None
        with pytest.raises(NotFoundError) as error:
            store.get(key)
        assert key in error.value.where
        with pytest.raises(NotFoundError):
            store.get_file(key, tmp_path / "out" / "file")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("size", [5, 10_000_000, 40_000_000], ids=["small", "medium", "large"])
def test_a_conditional_create_refuses_an_existing_key_and_leaves_it_alone(
    store: ObjectStore, tmp_path: Path, size: int
) -> None:
    (tmp_path / "f").write_bytes(b"3" * size)
    store.put("manifest.json", b"first", if_absent=True)
    with pytest.raises(AlreadyExistsError) as error:
        store.put("manifest.json", b"2" * size, if_absent=True)
    with pytest.raises(AlreadyExistsError):
        store.put_file("manifest.json", tmp_path / "f", if_absent=True)
    assert "manifest.json" in error.value.where
    assert store.get("manifest.json") == b"first"


def test_of_sixteen_concurrent_writers_exactly_one_wins(store: ObjectStore) -> None:
    def write(number: int) -> int | None:
        try:
            open_store(store.uri).put("manifest.json", b"writer %d" % number, if_absent=True)
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(16) as pool:
        winners = [number for number in pool.map(write, range(16)) if number is not None]
    assert len(winners) == 1
    assert store.get("manifest.json") == b"writer %d" % winners[0]


@pytest.mark.parametrize("size", [10_000_000, BIG], ids=["one request", "multipart"])
def test_of_concurrent_uploads_of_a_large_file_exactly_one_wins(store: ObjectStore, tmp_path: Path, size: int) -> None:
    (tmp_path / "weights").write_bytes(b"x" * size)

    def write(_: int) -> bool:
        try:
            open_store(store.uri).put_file("weights", tmp_path / "weights", if_absent=True)
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(write, range(3))) == 1
    assert store.stat("weights") == ObjectInfo("weights", size)


def test_readers_see_the_old_object_or_the_new_one_never_a_mixture(store: ObjectStore) -> None:
    versions = [bytes([number]) * 300_000 for number in range(20)]
    store.put("k", versions[0])

    def write() -> None:
        for version in versions:
            store.put("k", version)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        seen = [store.get("k")]
        while not writing.done():
            seen.append(store.get("k"))
        writing.result()
    assert set(seen) <= set(versions)


# Each kills its own process in the middle of a transfer.
SABOTAGE = {
    "file": """
import viper.store.directory as d
def half(source, target):
    target.write(source.read(size // 2)); target.flush(); os.kill(os.getpid(), signal.SIGKILL)
d._copy = half
""",
    "s3": """
import http.client
send, sent = http.client.HTTPConnection.send, 0
def most(self, data):
    global sent
    send(self, data)
    sent += len(data)
    if sent > 0.8 * size:
        os.kill(os.getpid(), signal.SIGKILL)
http.client.HTTPConnection.send = most
""",
}


@pytest.mark.process
@pytest.mark.parametrize("size", [5_000_000, BIG], ids=["one request", "multipart"])
def test_a_writer_killed_in_the_middle_leaves_no_object(store: ObjectStore, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * size)
    program = f"""
import os, signal
from pathlib import Path
from viper.store import open_store
size = {size}
{SABOTAGE[store.uri.split(":")[0]]}
open_store({store.uri!r}).put_file("part-0", Path({str(source)!r}), if_absent=True)
"""
    writer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert writer.returncode == -signal.SIGKILL, writer.stderr
    assert store.stat("part-0") is None
    assert keys(store) == []
    store.put_file("part-0", source, if_absent=True)
    assert store.stat("part-0") == ObjectInfo("part-0", size)


def test_a_listing_is_ordered_by_the_bytes_of_the_keys(store: ObjectStore) -> None:
    names = ["a-b", "a/b", "a/c/d", "a.b", "ab", "a0", "B", "é", "z/1", "z/10", "z/2", "😀", "\uffee"]
    for name in names:
        store.put(name, name.encode())
    expected = sorted(names, key=str.encode)
    assert list(store.list()) == [ObjectInfo(name, len(name.encode())) for name in expected]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("run1/", ["run1/a", "run1/b/c"]),
        ("run1", ["run1.json", "run1/a", "run1/b/c", "run10/a"]),
        ("run1/b", ["run1/b/c"]),
        ("run1/b/", ["run1/b/c"]),
        ("run1/a/", []),
        ("nothing/", []),
        ("", ["run1.json", "run1/a", "run1/b/c", "run10/a"]),
    ],
)
def test_a_prefix_is_a_string_that_keys_start_with(store: ObjectStore, prefix: str, expected: list[str]) -> None:
    for key in ("run1/a", "run1/b/c", "run10/a", "run1.json"):
        store.put(key, b"")
    assert keys(store, prefix) == expected


@pytest.mark.server
def test_folders_that_a_console_made_are_no_objects(minio_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes(b"{}")
    parts = urlsplit(minio_store.uri)
    client = Minio(
        endpoint=parse_qs(parts.query)["endpoint"][0][7:], access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False
    )
    for folder in ("", "models/", "models/m/", "models/m/empty/"):
        client.put_object(parts.netloc, f"{parts.path[1:]}/{folder}", io.BytesIO(b""), 0)
    assert keys(minio_store) == keys(minio_store, "models/") == []
    upload_directory(minio_store, "models/m", tmp_path / "m")
    assert keys(minio_store) == ["models/m/config.json", "models/m/digests.json"]


def test_stores_under_neighbouring_prefixes_do_not_see_each_other(store: ObjectStore) -> None:
    one, ten = (open_store(child_uri(store.uri, name)) for name in ("run 1", "run 10"))
    ten.put("a", b"ten")
    assert keys(one) == []
    one.put("a", b"one", if_absent=True)
    assert (one.get("a"), ten.get("a")) == (b"one", b"ten")
    assert keys(store) == ["run 1/a", "run 10/a"]


def test_a_store_can_be_opened_again_by_its_uri(store: ObjectStore) -> None:
    store.put("k", b"data")
    again = open_store(store.uri)
    assert again.uri == store.uri
    assert again.get("k") == b"data"


def test_deleting_is_idempotent_and_frees_the_key(store: ObjectStore) -> None:
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/there")
    assert keys(store) == ["a/c"]
    store.put("a/b", b"3", if_absent=True)
    store.delete("a/b")
    store.delete("a/c")
    store.put("a", b"a folder is gone with its last object", if_absent=True)
    assert keys(store) == ["a"]


BAD_KEYS = ["", "/a", "a/", "a//b", ".", "../a", "a/../b", "a/./b", "a\\b", "a\nb", "a\0b", "\ud800", "x" * 256]
BAD_KEYS += ["/".join(["x" * 90] * 11), ".viper-tmp/x", "a/.viper-x"]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_malformed_key_is_refused_everywhere(store: ObjectStore, key: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for operation in (
        lambda: store.get(key),
        lambda: store.put(key, b""),
        lambda: store.put_file(key, tmp_path / "f"),
        lambda: store.get_file(key, tmp_path / "g"),
        lambda: store.stat(key),
        lambda: store.sha256(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(StoreError, match="not a valid object key"):
            operation()


@pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//"])
def test_a_malformed_prefix_is_refused(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(StoreError, match="not a valid object key"):
        list(store.list(prefix))


def test_a_file_that_cannot_be_read_is_a_clear_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        store.put_file("k", tmp_path / "missing")
    assert str(tmp_path / "missing") in error.value.where
    assert store.stat("k") is None
