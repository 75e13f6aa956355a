"""Eight processes want the same model at once, on one volume."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from modelcache_files import names

from fakes.hub import FakeHub
from viper.modelcache import CachedModel, ModelCache, fetch
from viper.modelcache.cache import STAMPS
from viper.modelcache.remotes import Remote, RemoteFile, git_blob
from viper.modelcache.reporting import FetchProgress
from viper.store.transfer import MANIFEST

CONTENT = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40}

PROGRAM = """
import sys
from pathlib import Path
from viper.modelcache import ModelCache, fetch
print(fetch("hf://org/name@main", ModelCache(Path(sys.argv[1]))).path)
"""

#: flock that succeeds for everybody, as on some shared file systems, and hosts of different names.
WITHOUT = """
import fcntl, os, socket
fcntl.flock = lambda *_: None
socket.gethostname = lambda: f"host-{os.getpid()}"
"""
#: A file system that has no locks.
REFUSED = """
import fcntl, errno
def refuse(*_): raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = refuse
"""


@pytest.mark.process
@pytest.mark.parametrize("locks", ["", WITHOUT, REFUSED], ids=["locks", "locks of one host", "no locks"])
def test_all_get_the_same_whole_directory(hub: FakeHub, cache: ModelCache, locks: str) -> None:
    command = [sys.executable, "-c", locks + PROGRAM, str(cache.root)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    places = {process.communicate()[0].strip() for process in processes}
    assert [p.returncode for p in processes] == [0] * 8
    assert len(places) == 1
    found = fetch("hf://org/name@main", cache, offline=True)
    assert cache.damaged(found, thorough=True) == []
    assert str(found.path) == places.pop()
    assert list((cache.root / "partial").iterdir()) == []
    if not locks:
        assert len(hub.downloads) == len(names(found.path))


@pytest.mark.process
def test_a_killed_download_is_continued_by_the_next_process(hub: FakeHub, cache: ModelCache) -> None:
    small = {f"{i}.json": b"{}" for i in range(20)}
    hub.commit("org/name", {"model.safetensors": b"w" * 5000, **small})
    hub.held, hub.expected = {"model.safetensors"}, len(small)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(cache.root)])
    assert hub.all_but_held.wait(60)
    process.kill()
    process.wait()
    assert cache.entries() == []
    hub.released.set()
    hub.requests.clear()
    found = fetch("hf://org/name@main", cache)
    assert cache.damaged(found, thorough=True) == []
    assert "model.safetensors" in hub.downloads
    # Each of the other three threads may have had a file on its way to the disk.
    assert len(hub.downloads) <= 4


def remote(fetch_file: object, digest: str | None = None) -> Remote:
    import hashlib

    files = {n: RemoteFile(len(c), sha256=hashlib.sha256(c).hexdigest()) for n, c in CONTENT.items()}
    return Remote("s3://bucket/model", files, fetch_file, digest)  # type: ignore[arg-type]


def write(path: str, directory: Path) -> None:
    (directory / path).write_bytes(CONTENT[path])


def test_the_loser_of_a_race_without_locks_throws_its_copy_away(
    cache: ModelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    both = threading.Barrier(2)

    def slow(path: str, directory: Path) -> None:
        if path == "config.json":
            both.wait(60)  # both are in the middle of it
        write(path, directory)

    caches = [cache, ModelCache(cache.root)]
    monkeypatch.setattr("socket.gethostname", (f"host-{n}" for n in range(1000)).__next__)
    with ThreadPoolExecutor(2) as pool:
        entries = list(pool.map(lambda c: c.fill("s3://bucket/model", remote(slow)), caches))
    assert entries[0] == entries[1]
    assert names(entries[0].path) == sorted(CONTENT)
    assert list((cache.root / "partial").iterdir()) == []


def test_a_winner_whose_files_are_damaged_is_mended_by_the_loser(cache: ModelCache) -> None:
    first = cache.fill("s3://bucket/model", remote(write))
    (first.path / "config.json").write_bytes(b"")
    ref = next((cache.root / "refs").iterdir())
    ref.unlink()  # as for a process that does not know of it
    assert cache.fill("s3://bucket/model", remote(write)) == first
    assert cache.damaged(first, thorough=True) == []


@pytest.mark.parametrize(
    ("left", "fetched"),
    [
        ((*CONTENT, MANIFEST), []),  # a training stage's copy of what it had stored: no stamps, no reference
        ((*CONTENT, MANIFEST, STAMPS), []),
        (("config.json",), sorted(CONTENT)),  # the same, killed in the middle
    ],
    ids=["a copy", "a copy with stamps", "half a copy"],
)
def test_what_an_earlier_release_left_is_used_as_far_as_it_is_whole(
    cache: ModelCache, tmp_path: Path, left: tuple[str, ...], fetched: list[str]
) -> None:
    made = ModelCache(tmp_path / "earlier").fill("s3://bucket/model", remote(write))
    place = cache.root / "models" / made.digest.replace(":", "-")
    place.mkdir(parents=True)
    for name in left:
        (place / name).write_bytes((made.path / name).read_bytes())
    asked: list[str] = []

    def get(path: str, directory: Path) -> None:
        asked.append(path)
        write(path, directory)

    found = cache.fill("s3://bucket/model", remote(get, made.digest))
    assert (found.path, sorted(asked)) == (place, fetched)
    assert cache.damaged(found, thorough=True) == []


def test_a_lock_of_another_program_or_release_is_respected(cache: ModelCache) -> None:
    """Locks are the kernel's, on `locks/<hash>`: a file that is left there by one who was killed holds nobody up."""
    cache.fill("s3://bucket/model", remote(write))
    (lock,) = (cache.root / "locks").iterdir()
    told: list[str] = []
    with lock.open("ab") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)

        def free(name: str, *_: int) -> None:
            told.append(name)
            fcntl.flock(held, fcntl.LOCK_UN)

        pool.submit(ModelCache(cache.root).fill, "s3://bucket/model", remote(write), free).result(60)
    assert told[0] == "another process fetches s3://bucket/model: waiting for it"


def test_a_record_that_was_cut_short_counts_as_absent(cache: ModelCache) -> None:
    cache.fill("s3://bucket/model", remote(write))
    ref = next((cache.root / "refs").iterdir())
    ref.write_text(json.dumps({"uri": "x"})[:-3])
    assert cache.entries() == []
    assert isinstance(cache.fill("s3://bucket/model", remote(write)), CachedModel)


def test_progress_counts_bytes_up_to_all_of_them(cache: ModelCache) -> None:
    seen: list[tuple[str, int, int]] = []
    cache.fill("s3://bucket/model", remote(write), lambda *r: seen.append(r))
    total = sum(len(c) for c in CONTENT.values())
    assert (seen[0], seen[-1]) == (("s3://bucket/model", 0, total), ("s3://bucket/model", total, total))


def test_whoever_waits_says_so(cache: ModelCache, capsys: pytest.CaptureFixture[str]) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(path: str, directory: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        write(path, directory)

    def told(name: str, done: int, total: int) -> None:
        FetchProgress(clock=lambda: 0.0)(name, done, total)
        go_on.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.fill, "s3://bucket/model", remote(slow))
        assert begun.wait(60)
        second = pool.submit(ModelCache(cache.root).fill, "s3://bucket/model", remote(slow), told)
        assert first.result() == second.result()
    assert "another process fetches s3://bucket/model: waiting for it" in capsys.readouterr().err


def test_progress_has_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    report = FetchProgress(clock=lambda: now[0])
    report("hf://a/b", 0, 4_000_000_000)
    for done in range(3):  # no time left is told from less
        now[0] += 20.0
        report("hf://a/b", (done + 1) * 1_000_000_000, 4_000_000_000)
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == [
        "MB of hf://a/b 1000/4000 (50/s)",
        "MB of hf://a/b 2000/4000 (50/s)",
        "MB of hf://a/b 3000/4000 (50/s, 20 s left)",
    ]


def test_gits_name_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert git_blob(tmp_path / "empty") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
