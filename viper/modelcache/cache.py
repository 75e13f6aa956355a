"""The model cache: model directories by content, filled by many processes at once, used by all of them.

models/sha256-…/        a model directory, whole: it appears by one rename and is never changed, only repaired
  digests.json          size and SHA-256 of every file, recorded when it was filled
  .viper-stamps.json    size and time of every file then: what lets a start check 40 GB without reading them
refs/<hash>.json        a URI, what it meant when it was fetched, and the digest of its content
partial/<hash>@<host>/  files of a download that is under way or broke off
locks/<hash>            held by the process that downloads
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from viper.errors import InputError, NotFoundError, StoreError
from viper.modelcache.remotes import Remote
from viper.store import DirectoryStore
from viper.store.places import cache_dir
from viper.store.transfer import MANIFEST, DirectoryDigests, FileDigest, directory_digests, in_parallel
from viper.stored import enveloped, read_content

Report = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes done and bytes in all; with a remark and zeros while nothing is."""

#: What reading JSON of another shape raises.
_UNREADABLE = (OSError, ValueError, ArithmeticError, KeyError, TypeError, RecursionError)
STAMPS = ".viper-stamps.json"
#: A download of another host that nothing was added to for so long is taken over.
ABANDONED_AFTER_S = 600.0
_SAMPLE_S = 1.0
_FREE_BYTES = 1 << 28


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache. `pinned`: the URI with what could move resolved; `digest`: of the whole directory."""

    uri: str
    pinned: str
    digest: str
    size: int
    path: Path


class ModelCache:
    """Model directories below `root`. Reading needs no right to write; nothing is made before the first fill."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def writable(self) -> bool:
        """Whether it can be filled: the folder, or where it would be made, takes files."""
        place = self.root
        while not place.exists() and place != place.parent:
            place = place.parent
        return os.access(place, os.W_OK | os.X_OK) and not os.statvfs(place).f_flag & os.ST_RDONLY

    # ---- reading -----------------------------------------------------------------------------------------------

    def find(self, uri: str) -> CachedModel | None:
        """What is in the cache for a URI; its files are not looked at."""
        return self._read_ref(self.root / "refs" / f"{_key(uri)}.json")

    def entries(self) -> list[CachedModel]:
        """Everything in the cache, by URI."""
        found = (self._read_ref(path) for path in (self.root / "refs").glob("*.json"))
        return sorted((e for e in found if e is not None), key=lambda e: e.uri)

    def digests(self, entry: CachedModel) -> DirectoryDigests | None:
        """What the directory consists of; None when it is not there or its record is damaged."""
        try:
            found = DirectoryDigests.from_json((entry.path / MANIFEST).read_bytes(), str(entry.path))
        except (OSError, StoreError):
            return None
        return found if found.digest == entry.digest else None

    def damaged(self, entry: CachedModel, *, thorough: bool = False) -> list[str] | None:
        """Files that are not what was recorded, None when the directory as a whole is not there.

        A file of the recorded size and time is taken to be the recorded one; every other is read, and so are all of
        them when `thorough`.
        """
        digests = self.digests(entry)
        if digests is None:
            return None
        stamps = {} if thorough else _read_stamps(entry.path)
        wrong, doubtful = [], False
        for path, expected in digests.files.items():
            try:
                status = (entry.path / path).stat()
            except OSError:
                wrong.append(path)
                continue
            if status.st_size != expected.size:
                wrong.append(path)
            elif stamps.get(path) != _stamp(status):
                doubtful = True
        if wrong or not doubtful:
            return sorted(wrong)
        # A cache that was copied: its files have other times. What was read is remembered on this machine.
        remembered = None if thorough else cache_dir() / "digests.json"
        now = directory_digests(entry.path, cache=remembered).files
        if now == digests.files:
            with suppress(OSError):  # read-only
                _write_stamps(entry.path, digests)
        return sorted(path for path, expected in digests.files.items() if now.get(path) != expected)

    # ---- filling -----------------------------------------------------------------------------------------------

    def fill(self, uri: str, remote: Remote, report: Report | None = None) -> CachedModel:
        """Fetches what is missing, repairs what is damaged, and records `uri`.

        Any number of processes may do this at once, on any number of machines: one works while the others wait where
        the file system has locks; where it has none, or they mean nothing between machines, each works on its own, one
        rename wins, and the others throw theirs away. Broken off, it goes on with the files that are complete.

        Raises `StoreError` (disk, damaged origin), `InputError` (the hub), `InputError` when what is fetched is not
        what the origin says.
        """
        with self._explained(), self._lock(remote.uri, report) as held:
            entry = self.find(remote.uri)
            if entry is not None and remote.digest not in (None, entry.digest):
                entry = None  # the origin was removed and made again
            wrong = None if entry is None else self.damaged(entry)
            if entry is None or wrong is None:
                entry = self._fetch_all(uri, remote, held, report)
            elif wrong:
                self._mend(entry, remote, wrong, held, report)
            for name in {uri, remote.uri}:
                self._write_ref(CachedModel(name, remote.uri, entry.digest, entry.size, entry.path))
        return CachedModel(uri, remote.uri, entry.digest, entry.size, entry.path)

    def _fetch_all(self, uri: str, remote: Remote, held: bool, report: Report | None) -> CachedModel:
        if remote.digest is not None:
            # The content may be there under another URI.
            known = CachedModel(uri, remote.uri, remote.digest, _size(remote), self._place(remote.digest))
            wrong = self.damaged(known)
            if wrong == []:
                return known
        work = self._workspace(_key(remote.uri), held)
        digests = self._fetch(remote, remote.files, work, report)
        if remote.digest not in (None, digests.digest):
            raise StoreError(f"is not the directory {remote.digest} that it says it is", where=remote.uri)
        place = self._place(digests.digest)
        entry = CachedModel(uri, remote.uri, digests.digest, digests.size, place)
        _write(work / MANIFEST, digests.to_json())
        _write_stamps(work, digests)
        place.parent.mkdir(parents=True, exist_ok=True)
        if self.digests(entry) is None and place.exists():
            place.rename(work.with_name(f"{work.name}.broken"))  # without its record nobody uses it
            shutil.rmtree(work.with_name(f"{work.name}.broken"), ignore_errors=True)
        try:
            work.rename(place)
        except OSError:
            if self.digests(entry) is None:
                raise
            # Another process was first; where its files are wrong, ours take their place.
            for path in self.damaged(entry) or ():
                _move(work / path, place / path)
            _write_stamps(place, digests)
            shutil.rmtree(work, ignore_errors=True)
        return entry

    def _mend(
        self, entry: CachedModel, remote: Remote, wrong: Iterable[str], held: bool, report: Report | None
    ) -> None:
        """Replaces damaged files one by one: the directory stays usable for those who have it open."""
        digests = self.digests(entry)
        work = self._workspace(_key(remote.uri), held)
        wrong = list(wrong)
        fetched = self._fetch(remote, [path for path in wrong if path in remote.files], work, report)
        for path in wrong:
            if digests is None or fetched.files.get(path) != digests.files[path]:
                raise StoreError(
                    f"the file {path} is another one now",
                    where=remote.uri,
                    fix="the origin has changed: fill another cache (VIPER_MODEL_CACHE), or pull it under its new URI",
                )
            _move(work / path, entry.path / path)
        if digests is not None:
            _write_stamps(entry.path, digests)
        shutil.rmtree(work, ignore_errors=True)

    def _fetch(self, remote: Remote, paths: Iterable[str], work: Path, report: Report | None) -> DirectoryDigests:
        """Brings files into `work`, each checked; returns their digests."""
        wanted = {path: remote.files[path] for path in paths}
        total = sum(f.size for f in wanted.values())
        present = _used(work)
        free = shutil.disk_usage(work).free
        if total - present + _FREE_BYTES > free:
            raise StoreError(
                f"{remote.uri} takes {_gb(total - present)} more, {_gb(free)} are free",
                where=str(self.root),
                fix="enlarge the volume, or use another one (VIPER_MODEL_CACHE); `viper models list` shows them",
            )
        found: dict[str, FileDigest] = {}

        def get(path: str) -> int:
            expected, target = wanted[path], work / path
            for fresh in (False, True):
                if not target.is_file() or target.stat().st_size != expected.size:
                    target.unlink(missing_ok=True)
                    remote.fetch(path, work)
                with target.open("rb") as file:
                    digest = FileDigest(target.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
                    os.fsync(file.fileno())  # later starts trust size and time
                if expected.accepts(digest, target):
                    found[path] = digest
                    return expected.size
                target.unlink()
                if fresh:
                    break
            raise InputError(
                f"the file {path} does not have the size and digest that its origin names",
                where=remote.uri,
                fix="pull it again; if that does not help, the origin (or a proxy on the way) is damaged",
            )

        with _watched(work, remote.uri, total, report):
            in_parallel(get, sorted(wanted, key=lambda path: -wanted[path].size), total, None)
        shutil.rmtree(work / ".cache", ignore_errors=True)  # huggingface_hub's notes
        for stray in [p for p in work.rglob("*") if p.is_file() and p.relative_to(work).as_posix() not in wanted]:
            stray.unlink()
        return DirectoryDigests(found)

    def _workspace(self, key: str, held: bool) -> Path:
        """A folder of this process alone, with what an earlier attempt left.

        Its name has the host: some shared file systems grant every machine the same lock. Without any lock it has the
        process as well.
        """
        partial = self.root / "partial"
        own = partial / (f"{key}@{socket.gethostname()}" + ("" if held else f".{os.getpid()}"))
        partial.mkdir(parents=True, exist_ok=True)
        if not own.exists():
            for other in sorted(partial.glob(f"{key}@*")):
                if time.time() - _newest(other) > ABANDONED_AFTER_S:
                    with suppress(OSError):  # another process takes it
                        other.rename(own)
                        break
        own.mkdir(exist_ok=True)
        return own

    @contextmanager
    def _lock(self, uri: str, report: Report | None) -> Iterator[bool]:
        """Held while the body runs; False where the file system has no locks."""
        folder = self.root / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock, Timeout  # the operator knows of the cache and fills none: its image is without

        # Never a file that only says who holds it instead: a process that is killed would leave it there.
        lock = FileLock(folder / _key(uri), fallback_to_soft=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if report is not None:
                report(f"another process fetches {uri}: waiting for it", 0, 0)
            lock.acquire()
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the model cache cannot be written: {error.strerror or error}",
                where=str(error.filename or self.root),
                fix="give it a folder that takes files (VIPER_MODEL_CACHE), with enough space",
            ) from error

    # ---- records -----------------------------------------------------------------------------------------------

    def _place(self, digest: str) -> Path:
        return self.root / "models" / digest.replace(":", "-")

    def _read_ref(self, path: Path) -> CachedModel | None:
        try:
            content = read_content(path.read_bytes(), what="a reference", where=str(path))
            digest = str(content["digest"])
            return CachedModel(
                str(content["uri"]), str(content["pinned"]), digest, int(content["size"]), self._place(digest)
            )
        except (*_UNREADABLE, StoreError):  # a record that cannot be read is none
            return None

    def _write_ref(self, entry: CachedModel) -> None:
        content = {"uri": entry.uri, "pinned": entry.pinned, "digest": entry.digest, "size": entry.size}
        data = json.dumps(enveloped(content), indent=1).encode()
        store, key = DirectoryStore(self.root), f"refs/{_key(entry.uri)}.json"
        with suppress(NotFoundError):
            if store.get(key) == data:
                return
        store.put(key, data)


def _key(uri: str) -> str:
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def _size(remote: Remote) -> int:
    return sum(f.size for f in remote.files.values())


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _write_stamps(place: Path, digests: DirectoryDigests) -> None:
    stamps = {path: _stamp((place / path).stat()) for path in digests.files}
    temporary = place / f"{STAMPS}.{os.getpid()}"
    _write(temporary, json.dumps(stamps).encode())
    temporary.replace(place / STAMPS)


def _stamp(status: os.stat_result) -> list[int]:
    """Size and time of a file, in microseconds: not every file system that a cache is copied to keeps nanoseconds."""
    return [status.st_size, status.st_mtime_ns // 1000]


def _read_stamps(place: Path) -> dict[str, list[int]]:
    try:
        content = json.loads((place / STAMPS).read_bytes())
    except _UNREADABLE:
        return {}
    return content if isinstance(content, dict) else {}


def _files(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        with suppress(OSError):  # renamed meanwhile
            if path.is_file():
                yield path.stat()


def _used(folder: Path) -> int:
    """Bytes that are written there; a file that was made at its full length counts as far as it has blocks."""
    return sum(min(s.st_size, s.st_blocks * 512) for s in _files(folder))


def _newest(folder: Path) -> float:
    try:
        return max([folder.stat().st_mtime, *(s.st_mtime for s in _files(folder))])
    except OSError:
        return float("inf")


@contextmanager
def _watched(work: Path, name: str, total: int, report: Report | None) -> Iterator[None]:
    """Reports how much there is, from what the folder holds: that is the same for every origin."""
    if report is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            report(name, min(_used(work), total), total)

    report(name, min(_used(work), total), total)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    report(name, total, total)
