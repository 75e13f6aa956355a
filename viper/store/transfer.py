"""Model directories in a store: uploaded whole, verified by digest, resumed where they broke off."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from viper.errors import AlreadyExistsError, DamagedError, InputError, NotFoundError, StoreError
from viper.store.base import RESERVED, ObjectStore, check_key
from viper.store.directory import DirectoryStore
from viper.stored import enveloped, read_content
from viper.words import plural

MANIFEST = "digests.json"
"""Written last. A directory without it is not complete, whatever else is there."""

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from one thread."""

_WORKERS = 4
_RACY_NS = 2_000_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-256 in hexadecimal of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class DirectoryDigests:
    """What a model directory consists of: its files by relative path (with `/`)."""

    files: dict[str, FileDigest]

    @property
    def digest(self) -> str:
        """`sha256:…` over the sorted lines `<sha256> <size> <path>`: equal for equal content, wherever it lies."""
        lines = (f"{f.sha256} {f.size} {path}\n" for path, f in sorted(self.files.items()))
        return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(f.size for f in self.files.values())

    def to_json(self) -> bytes:
        content = {"digest": self.digest, "files": {p: asdict(f) for p, f in sorted(self.files.items())}}
        return json.dumps(enveloped(content), indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> DirectoryDigests:
        """Raises StoreError when `data` is not what `to_json` wrote."""
        content = read_content(data, what=f"a valid {MANIFEST}", where=where, error=DamagedError)
        try:
            files = {check_key(p): FileDigest(int(f["size"]), str(f["sha256"])) for p, f in content["files"].items()}
            digests = cls(files)
            if digests.digest != content["digest"]:
                raise ValueError("its digest does not belong to its list of files")
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(
                f"is not a valid {MANIFEST}: {error}",
                where=where,
                fix="restore it from a copy, or upload the directory again elsewhere",
            ) from error
        return digests


def directory_digests(directory: Path, *, cache: Path | None = None) -> DirectoryDigests:
    """Digests of all files below `directory` (symbolic links to files are followed), hashed in parallel.

    Left out: `digests.json` itself and names that start with `.viper-`.

    With `cache` (a JSON file outside the directory) a file is not read again while its device, inode, size,
    modification and change time are the recorded ones. Files younger than two seconds are not recorded: they could
    still change within one tick of the clock. Without `cache` every byte is read.

    Raises InputError when the directory is missing, empty, or holds something that is neither file nor folder.
    """
    paths = _model_files(directory)
    known = _read_cache(cache)
    recorded: dict[str, list[Any]] = {}

    def digest(path: Path) -> FileDigest:
        status = path.stat()
        stamp = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        name = str(path.absolute())
        entry = known.get(name)
        if entry is not None and entry[:-1] == stamp:
            recorded[name] = entry
            return FileDigest(status.st_size, entry[-1])
        with path.open("rb") as file:
            found = FileDigest(status.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        after = path.stat()
        if [after.st_size, after.st_mtime_ns, after.st_ctime_ns] != stamp[2:]:
            raise InputError("the file changed while being read", where=name, fix="wait until its writer is done")
        if time.time_ns() - max(stamp[3], stamp[4]) > _RACY_NS:
            recorded[name] = [*stamp, found.sha256]
        return found

    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            digests = DirectoryDigests(dict(zip(paths, pool.map(digest, paths.values()), strict=True)))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(error.filename or directory)) from error
    _write_cache(cache, recorded)
    return digests


def directory_digest(directory: Path, *, cache: Path | None = None) -> str:
    """The content-addressed digest `sha256:…` of a model directory; see `directory_digests`."""
    return directory_digests(directory, cache=cache).digest


def upload_directory(
    store: ObjectStore,
    prefix: str,
    directory: Path,
    *,
    progress: Progress | None = None,
    cache: Path | None = None,
    digests: DirectoryDigests | None = None,
) -> DirectoryDigests:
    """Upload `directory` under `prefix` in parallel, `digests.json` last; return its digests (`digests`, where known).

    A directory in a store is immutable. Interrupted and run again, it sends only the files that are not there yet with
    the same digest; files of other content, left by an interrupted upload, are removed; a complete upload of the same
    content is left as it is. Raises AlreadyExistsError when other content is complete under `prefix`, InputError when
    the directory cannot be read or changes meanwhile, StoreError otherwise.
    """
    if digests is None:
        digests = directory_digests(directory, cache=cache)
    manifest = _key(prefix, MANIFEST)
    done = _find_digests(store, prefix)
    if done is not None and done.digest != digests.digest:
        raise AlreadyExistsError(
            f"another directory ({done.digest}) is complete there, this one is {digests.digest}",
            where=f"{store.uri} {prefix}",
            fix="upload under a new prefix; directories in a store do not change",
        )
    present = {o.key: o.size for o in store.list(_key(prefix, ""))}

    def send(path: str) -> int:
        expected, key = digests.files[path], _key(prefix, path)
        if present.get(key) != expected.size or (done is None and store.sha256(key) != expected.sha256):
            source = directory / path
            before = source.stat().st_mtime_ns
            store.put_file(key, source, sha256=expected.sha256)
            if source.stat().st_mtime_ns != before or source.stat().st_size != expected.size:
                raise InputError(
                    "the file changed during the upload", where=str(source), fix="upload the directory again"
                )
        return expected.size

    if done is None:
        _remove_strangers(store, prefix, set(present) - {_key(prefix, path) for path in digests.files})
    in_parallel(send, _largest_first(digests), digests.size, progress)
    if done is None:
        try:
            store.put(manifest, digests.to_json(), if_absent=True)
        except AlreadyExistsError:  # a second upload of the same directory finished first, or of another one: then tell
            winner = _find_digests(store, prefix)
            if winner is None or winner.digest != digests.digest:
                raise
    return digests


def download_directory(
    store: ObjectStore, prefix: str, directory: Path, *, progress: Progress | None = None
) -> DirectoryDigests:
    """Download what `upload_directory` stored into `directory`, in parallel; every file is checked against its digest.

    Files that are there with the right digest are kept, `digests.json` is written last. Raises StoreError when the
    directory in the store is not complete, DamagedError when it is damaged, InputError when `directory` holds files
    that do not belong to it.
    """
    digests = stored_digests(store, prefix)
    if directory.is_dir():
        foreign = sorted(set(_list_files(directory)) - set(digests.files))
        if foreign:
            raise InputError(
                f"{plural(len(foreign), 'file')} of another model there, for example {foreign[0]}",
                where=str(directory),
                fix="download into a new or empty directory",
            )

    def fetch(path: str) -> int:
        expected, target = digests.files[path], directory / path
        if _matches(target, expected):
            return expected.size
        key = _key(prefix, path)
        try:
            store.get_file(key, target)
        except NotFoundError as error:
            raise DamagedError(
                "a file of this directory is missing", where=f"{store.uri} {key}", fix=_DAMAGED
            ) from error
        if not _matches(target, expected):
            target.unlink()
            raise DamagedError("the file does not have the recorded digest", where=f"{store.uri} {key}", fix=_DAMAGED)
        return expected.size

    in_parallel(fetch, _largest_first(digests), digests.size, progress)
    DirectoryStore(directory).put(MANIFEST, digests.to_json())
    return digests


def stored_digests(store: ObjectStore, prefix: str) -> DirectoryDigests:
    """The digests of a complete directory in the store. Raises StoreError, NotFoundError when it is not complete."""
    digests = _find_digests(store, prefix)
    if digests is None:
        raise NotFoundError(
            f"not a complete directory: there is no {MANIFEST}",
            where=f"{store.uri} {prefix}",
            fix="upload it (again); an interrupted upload goes on where it stopped",
        )
    return digests


def directory_in_place(store: DirectoryStore, prefix: str = "") -> Path:
    """Where the directory under `prefix` lies, its sizes compared with `digests.json`; read it, never write it.

    Raises `StoreError` when it is not complete, `DamagedError` when a file is missing or has another size.
    """
    place = store.path(prefix) if prefix else store.root
    for path, expected in stored_digests(store, prefix).files.items():
        file = place / path
        if not file.is_file() or file.stat().st_size != expected.size:
            raise DamagedError("a file is missing or has another size", where=str(file), fix=_DAMAGED)
    return place


def _remove_strangers(store: ObjectStore, prefix: str, keys: set[str]) -> None:
    """Remove what an interrupted upload of other content left under `prefix`: a loader could pick it up."""
    nested = sorted(key for key in keys if key.endswith(f"/{MANIFEST}"))
    if nested:
        raise StoreError(
            f"another model directory lies below this prefix ({nested[0]})",
            where=f"{store.uri} {prefix}",
            fix="upload under a prefix of its own",
        )
    for key in sorted(keys):
        store.delete(key)


_DAMAGED = (
    "the stored copy is damaged: restore this file from a copy of the store, or upload the directory again elsewhere"
)


def _key(prefix: str, path: str) -> str:
    return f"{prefix.strip('/')}/{path}" if prefix.strip("/") else path


def _find_digests(store: ObjectStore, prefix: str) -> DirectoryDigests | None:
    key = _key(prefix, MANIFEST)
    try:
        return DirectoryDigests.from_json(store.get(key), f"{store.uri} {key}")
    except NotFoundError:
        return None


def _model_files(directory: Path) -> dict[str, Path]:
    if not directory.is_dir():
        raise InputError("there is no such directory", where=str(directory))
    files = {path: directory / path for path in sorted(_list_files(directory))}
    for path, file in files.items():
        check_key(path)
        if not file.is_file():
            raise InputError("neither a file nor a folder (a broken link?)", where=str(file), fix="remove or repair it")
    if not files:
        raise InputError("the directory is empty", where=str(directory), fix="give a directory with a saved model")
    return files


def _list_files(directory: Path) -> Iterator[str]:
    """Relative paths of everything that is not a folder, without the manifest and temporary files."""
    for folder, folders, names in os.walk(directory):
        folders[:] = [f for f in folders if not f.startswith(RESERVED)]
        for name in names:
            path = (Path(folder) / name).relative_to(directory).as_posix()
            if not name.startswith(RESERVED) and path != MANIFEST:
                yield path


def _largest_first(digests: DirectoryDigests) -> list[str]:
    return sorted(digests.files, key=lambda path: -digests.files[path].size)


def _matches(path: Path, expected: FileDigest) -> bool:
    if not path.is_file() or path.stat().st_size != expected.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256


def in_parallel(work: Callable[[T], int], items: Iterable[T], total: int, progress: Progress | None) -> None:
    """Do `work` on all items; on the first error nothing more is started and the error is raised."""
    done = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        futures: list[Future[int]] = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                done += future.result()
                if progress:
                    progress(done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _read_cache(cache: Path | None) -> dict[str, list[Any]]:
    if cache is None:
        return {}
    try:
        content = json.loads(cache.read_bytes())
        return {k: v for k, v in content.items() if isinstance(v, list) and len(v) == 6}
    except (OSError, ValueError, AttributeError):  # a cache that cannot be read is a cache that is empty
        return {}


def _write_cache(cache: Path | None, recorded: dict[str, list[Any]]) -> None:
    if cache is not None:
        store = DirectoryStore(cache.parent)
        store.put(cache.name, json.dumps({**_read_cache(cache), **recorded}).encode())
