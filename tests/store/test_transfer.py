"""Model directories go into a store and out of it whole, verified, and resumed after an interruption."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from viper.errors import AlreadyExistsError, InputError, NotFoundError, StoreError
from viper.store import (
    DirectoryStore,
    ObjectInfo,
    ObjectStore,
    child_uri,
    directory_digest,
    directory_digests,
    directory_in_place,
    download_directory,
    open_store,
    stored_digests,
    upload_directory,
)
from viper.store.multipart import MultipartUpload

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 100_000, "sub/größe.txt": b"x", "empty": b""}


class Recording:
    """A store that counts what is written and stops working after `limit` writes."""

    def __init__(self, store: ObjectStore, limit: int = 1000) -> None:
        self.store, self.limit, self.written = store, limit, list[str]()

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        self._count(key)
        self.store.put_file(key, path, if_absent=if_absent, sha256=sha256)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._count(key)
        self.store.put(key, data, if_absent=if_absent)

    def _count(self, key: str) -> None:
        if len(self.written) >= self.limit:
            raise StoreError("the store went down")
        self.written.append(key)

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str) -> bytes:
        return self.store.get(key)

    def get_file(self, key: str, path: Path) -> None:
        self.store.get_file(key, path)

    def stat(self, key: str) -> ObjectInfo | None:
        return self.store.stat(key)

    def sha256(self, key: str) -> str | None:
        return self.store.sha256(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        return self.store.list(prefix)

    def delete(self, key: str) -> None:
        self.store.delete(key)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model", FILES)


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


def test_a_directory_comes_back_as_it_went_in(store: ObjectStore, model: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    digests = upload_directory(store, "models/θ2", model, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (digests.size, digests.size) == (100_003, 100_003)
    download_directory(store, "models/θ2", tmp_path / "out")
    for name, data in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == data
    assert directory_digest(tmp_path / "out") == digests.digest == directory_digest(model)
    assert stored_digests(store, "models/θ2") == digests


def test_a_directory_can_be_the_root_of_its_own_store(store: ObjectStore, model: Path, tmp_path: Path) -> None:
    digests = upload_directory(store, "models/a", model)
    own = open_store(child_uri(store.uri, "models/a"))
    assert download_directory(own, "", tmp_path / "out") == digests


def test_an_interrupted_upload_is_not_mistaken_for_a_model(store: ObjectStore, model: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="went down"):
        upload_directory(Recording(store, limit=3), "m", model)
    assert len(list(store.list("m/"))) == 3
    with pytest.raises(StoreError, match=r"not a complete directory: there is no digests\.json"):
        download_directory(store, "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_upload_goes_on_with_the_files_that_are_missing(store: ObjectStore, model: Path) -> None:
    first = Recording(store, limit=3)
    with pytest.raises(StoreError):
        upload_directory(first, "m", model)
    second, third = Recording(store), Recording(store)
    digests = upload_directory(second, "m", model)
    assert sorted(first.written + second.written) == sorted([f"m/{name}" for name in FILES] + ["m/digests.json"])
    assert second.written[-1] == "m/digests.json"
    assert upload_directory(third, "m", model) == digests
    assert third.written == []


def test_a_file_of_the_same_size_but_other_content_is_sent_again(store: ObjectStore, model: Path) -> None:
    with pytest.raises(StoreError):
        upload_directory(Recording(store, limit=4), "m", model)
    (model / "sub/größe.txt").write_bytes(b"y")
    second = Recording(store)
    upload_directory(second, "m", model)
    assert second.written == ["m/sub/größe.txt", "m/digests.json"]
    assert store.get("m/sub/größe.txt") == b"y"


def test_other_content_under_a_complete_prefix_is_refused(store: ObjectStore, model: Path) -> None:
    upload_directory(store, "m", model)
    (model / "config.json").write_bytes(b"[]")
    with pytest.raises(AlreadyExistsError, match="another directory"):
        upload_directory(store, "m", model)
    assert store.get("m/config.json") == b"{}"


def test_what_an_interrupted_upload_of_other_content_left_is_removed(store: ObjectStore, model: Path) -> None:
    store.put("m/model-00001-of-00002.safetensors", b"left over")
    store.put("m2/config.json", b"a neighbour")
    upload_directory(store, "m", model)
    assert {o.key for o in store.list("m/")} == {f"m/{name}" for name in FILES} | {"m/digests.json"}
    assert store.get("m2/config.json") == b"a neighbour"


def test_a_prefix_that_holds_other_models_is_refused_and_they_stay(store: ObjectStore, model: Path) -> None:
    digests = upload_directory(store, "models/a", model)
    with pytest.raises(StoreError, match="another model directory lies below"):
        upload_directory(store, "models", model)
    assert stored_digests(store, "models/a") == digests
    assert len(list(store.list("models/"))) == len(FILES) + 1


def test_a_repeated_download_fetches_only_what_is_missing_or_wrong(
    store: ObjectStore, model: Path, tmp_path: Path
) -> None:
    upload_directory(store, "m", model)
    out = tmp_path / "out"
    download_directory(store, "m", out)
    kept = (out / "model.safetensors").stat().st_ino
    (out / "sub/größe.txt").write_bytes(b"!")
    (out / "config.json").unlink()
    download_directory(store, "m", out)
    assert (out / "model.safetensors").stat().st_ino == kept
    assert {name: (out / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("damage", [b"W" * 100_000, b"short", None], ids=["content", "size", "missing"])
def test_a_damaged_copy_is_found_out(store: ObjectStore, model: Path, tmp_path: Path, damage: bytes | None) -> None:
    upload_directory(store, "m", model)
    if damage is None:
        store.delete("m/model.safetensors")
    else:
        store.put("m/model.safetensors", damage)
    with pytest.raises(StoreError) as error:
        download_directory(store, "m", tmp_path / "out")
    assert "m/model.safetensors" in error.value.where
    assert "upload the directory again" in error.value.fix
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "digests.json").exists()


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"files": {}}', b'{"digest": "sha256:0", "files": {}}'])
def test_a_manifest_that_is_not_one_is_a_clear_error(store: ObjectStore, tmp_path: Path, manifest: bytes) -> None:
    store.put("m/digests.json", manifest)
    with pytest.raises(StoreError, match=r"not a valid digests\.json"):
        download_directory(store, "m", tmp_path / "out")


def test_a_manifest_cannot_write_outside_the_destination(store: ObjectStore, tmp_path: Path) -> None:
    store.put("m/digests.json", b'{"digest": "x", "files": {"../evil": {"size": 0, "sha256": ""}}}')
    with pytest.raises(StoreError, match="path segment"):
        download_directory(store, "m", tmp_path / "out")


def test_a_download_into_a_directory_with_other_files_is_refused(
    directory_store: DirectoryStore, model: Path, tmp_path: Path
) -> None:
    upload_directory(directory_store, "m", model)
    write(tmp_path / "out", {"adapter.safetensors": b"mine"})
    with pytest.raises(InputError, match=r"adapter\.safetensors"):
        download_directory(directory_store, "m", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "adapter.safetensors"]


def test_a_directory_store_gives_the_place_itself(directory_store: DirectoryStore, model: Path) -> None:
    upload_directory(directory_store, "m", model)
    place = directory_in_place(directory_store, "m")
    assert place == directory_store.root / "m" == directory_in_place(DirectoryStore(place))
    assert (place / "sub/größe.txt").read_bytes() == b"x"


def test_a_file_missing_in_a_directory_store_is_found_before_it_is_used(
    directory_store: DirectoryStore, model: Path
) -> None:
    upload_directory(directory_store, "m", model)
    directory_store.delete("m/config.json")
    with pytest.raises(StoreError, match="missing"):
        directory_in_place(directory_store, "m")


def test_the_digest_depends_on_content_and_names_only(tmp_path: Path) -> None:
    one, same = write(tmp_path / "one", FILES), write(tmp_path / "other place", FILES)
    os.utime(same / "config.json", (1, 1))
    assert directory_digest(one) == directory_digest(same)
    (same / "config.json").rename(same / "konfig.json")
    assert directory_digest(one) != directory_digest(same)


def test_links_to_files_are_followed_as_in_a_hugging_face_cache(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    (snapshot / "sub").mkdir(parents=True)
    for name in FILES:
        (snapshot / name).symlink_to(model / name)
    assert directory_digest(snapshot) == directory_digest(model)


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        directory_digest(tmp_path / "nothing")
    with pytest.raises(InputError, match="empty"):
        directory_digest(tmp_path)
    (tmp_path / "weights").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="broken link"):
        directory_digest(tmp_path)


def test_a_file_that_changes_during_the_upload_is_refused(directory_store: DirectoryStore, model: Path) -> None:
    class Slow(Recording):
        def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
            super().put_file(key, path, if_absent=if_absent, sha256=sha256)
            path.write_bytes(b"another writer was not done yet")

    with pytest.raises(InputError, match="changed during the upload"):
        upload_directory(Slow(directory_store), "m", model)
    with pytest.raises(NotFoundError):
        directory_store.get("m/digests.json")


def age(model: Path) -> None:
    """Make the clock of the file system move past the files: only older ones are recorded in the cache."""
    now = time.time_ns()
    for name in FILES:
        os.utime(model / name, ns=(now - 10**12, now - 10**12))


def test_the_cache_saves_reading_but_notices_a_change_that_keeps_size_and_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("viper.store.transfer._RACY_NS", 0)
    cache = tmp_path / "cache" / "digests.json"
    age(model)
    before = directory_digests(model, cache=cache)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("an unchanged file was read again"))
    assert directory_digests(model, cache=cache) == before
    monkeypatch.undo()

    status = (model / "model.safetensors").stat()
    (model / "model.safetensors").write_bytes(b"v" * 100_000)
    os.utime(model / "model.safetensors", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = directory_digests(model, cache=cache)
    assert after == directory_digests(model)
    assert after.files["model.safetensors"] != before.files["model.safetensors"]


def test_a_fresh_file_is_not_recorded_in_the_cache(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    directory_digest(model, cache=cache)
    assert cache.read_text() == "{}"


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"x": 1}', b"\xff"])
def test_a_broken_cache_is_an_empty_cache(model: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    assert directory_digest(model, cache=tmp_path / "c") == directory_digest(model)


class _Answers:
    """A server of S3 that takes parts until one is not taken; `asked` are its requests."""

    def __init__(self, ends: BaseException | None) -> None:
        self.ends, self.asked = ends, list[str]()

    def get_presigned_url(self, method: str, *_: object, extra_query_params: dict[str, str], **__: object) -> str:
        return f"{method} {' '.join(extra_query_params)}"

    def urlopen(self, method: str, url: str, **_: object) -> SimpleNamespace:
        self.asked.append(url)
        if method == "PUT" and self.ends is not None:
            raise self.ends
        return SimpleNamespace(status=200, data=b"<a><UploadId>u</UploadId></a>", headers={"etag": "e"})


@pytest.mark.parametrize(
    ("ends", "aborted"),
    [(None, False), (TimeoutError(), True), (KeyboardInterrupt(), True), (SystemExit(143), True)],
    ids=["none", "an error", "Ctrl-C", "SIGTERM"],
)
def test_parts_of_an_upload_that_is_given_up_are_removed(
    tmp_path: Path, ends: BaseException | None, aborted: bool
) -> None:
    """Nothing else ever does: they are in no listing, and cost."""
    (tmp_path / "file").write_bytes(b"x")
    server: Any = _Answers(ends)
    with (tmp_path / "file").open("rb") as file, nullcontext() if ends is None else pytest.raises(type(ends)):
        MultipartUpload(server, server, "bucket", "key").send(file.fileno(), 1, {}, if_absent=True)
    assert ("DELETE uploadId" in server.asked) == aborted
    assert ("POST uploadId" in server.asked) != aborted
