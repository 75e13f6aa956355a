"""What is particular to a store in a directory: its disk, its permissions, its left-overs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from viper.errors import NotFoundError, ObjectError, StoreError
from viper.store import DirectoryStore, open_store


def test_opening_a_store_makes_no_directory(tmp_path: Path) -> None:
    store = open_store(tmp_path / "runs" / "new")
    assert list(store.list()) == []
    assert store.stat("a") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["{0}", "file://{0}", "file://localhost{0}", "{0}/"])
def test_a_directory_is_named_by_its_path_or_a_file_uri(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(tmp_path))
    assert isinstance(store, DirectoryStore)
    assert store.root == tmp_path
    assert store.uri == tmp_path.as_uri()


@pytest.mark.parametrize("uri", ["", "file://relative/path", "gs://bucket/x", "http://host/x"])
def test_what_is_no_store_uri_is_refused(uri: str) -> None:
    with pytest.raises(StoreError) as error:
        open_store(uri)
    assert "file:///" in error.value.fix


def test_a_key_that_is_both_object_and_folder_is_refused(directory_store: DirectoryStore) -> None:
    directory_store.put("a/b", b"1")
    for key in ("a", "a/b/c"):
        for if_absent in (True, False):
            with pytest.raises(StoreError, match="both an object and a folder"):
                directory_store.put(key, b"2", if_absent=if_absent)
    assert [o.key for o in directory_store.list()] == ["a/b"]
    assert not list((directory_store.root / ".viper-tmp").iterdir())


@pytest.mark.parametrize(
    ("number", "what", "fix"),
    [
        (errno.ENOSPC, "the disk is full", "free some space"),
        (errno.EDQUOT, "quota", "free some space"),
        (errno.EROFS, "read-only", "can be written"),
        (errno.EACCES, "permission denied", "owner"),
        (errno.EIO, "input/output error", "disk"),
        (errno.ESTALE, "the file system refused", ""),
    ],
)
def test_a_failing_disk_is_a_clear_error_and_loses_nothing(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, number: int, what: str, fix: str
) -> None:
    directory_store.put("part", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=what) as error:
        directory_store.put("part", b"new")
    assert error.value.where == str(directory_store.root / "part")
    assert fix in error.value.fix
    monkeypatch.undo()
    assert directory_store.get("part") == b"old"
    assert not list((directory_store.root / ".viper-tmp").iterdir())


FULL_DISK = """
import subprocess, sys
from pathlib import Path
from viper.errors import NotFoundError, ObjectError, StoreError
from viper.store import open_store
where = Path(sys.argv[1])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(where)], check=False).returncode:
    sys.exit("no-mount")
store = open_store(where)
store.put("small", b"x" * 1000)
try:
    store.put("large", b"x" * 1_000_000, if_absent=True)
except StoreError as error:
    print(error)
assert store.stat("large") is None and [o.key for o in store.list()] == ["small"]
store.put("fits", b"x" * 300_000, if_absent=True)  # what the failed write took is free again
"""


@pytest.mark.process
def test_a_full_disk_refuses_the_object_and_frees_what_it_took(tmp_path: Path) -> None:
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare on this machine")
    if result.returncode and ("unshare" in result.stderr or "no-mount" in result.stderr):
        pytest.skip("this machine allows no private mounts")
    assert result.returncode == 0, result.stderr
    assert "the disk is full" in result.stdout
    assert "free some space and run the same command again" in result.stdout


def test_what_a_writer_killed_long_ago_left_behind_is_removed(directory_store: DirectoryStore) -> None:
    directory_store.put("k", b"")
    left = directory_store.root / ".viper-tmp"
    (left / "old").write_bytes(b"half a part")
    (left / "being-written").write_bytes(b"half a part")
    two_days_ago = time.time() - 2 * 86400
    os.utime(left / "old", (two_days_ago, two_days_ago))
    store = DirectoryStore(directory_store.root)
    assert [p.name for p in left.iterdir()] == ["being-written"]
    assert [o.key for o in store.list()] == ["k"]


def test_what_is_no_regular_file_is_no_object_and_nothing_waits_for_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    for key in ("pipe", "device", "loop"):
        with pytest.raises(ObjectError):
            store.get(key)
        with pytest.raises(ObjectError):
            store.get_file(key, tmp_path / "copy")
        with pytest.raises(ObjectError):
            store.sha256(key)
    with pytest.raises(NotFoundError):
        store.get("nowhere")
    assert store.get("a") == b"1"
    assert {o.key for o in store.list()} >= {"a"}
    assert "loop" not in {o.key for o in store.list()}
