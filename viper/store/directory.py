"""The object store in a directory: one file per object, made visible by link or rename when it is complete."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from viper.errors import AlreadyExistsError, NotFoundError, ObjectError, StoreError, UnfitStoreError
from viper.retries import STORE_FOLDER, retrying
from viper.store.base import RESERVED, ObjectInfo, check_key, check_prefix, open_source

_TEMPORARY = f"{RESERVED}tmp"
_ABANDONED_AFTER_S = 24 * 3600  # a file still being written has a recent mtime


class DirectoryStore:
    """An `ObjectStore` in a directory of a file system that has hard links (the conditional create is `link`).

    The directory is made on the first write, so that opening a store for reading never leaves one behind.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))  # noqa: PTH100 (no symlink resolution: the path the user gave)
        self._temporary = self._root / _TEMPORARY
        _remove_abandoned(self._temporary)

    @property
    def root(self) -> Path:
        return self._root

    @property
    def uri(self) -> str:
        return self._root.as_uri()

    def path(self, key: str) -> Path:
        """Where the object lies (or would lie). Objects are immutable: read it, never write it."""
        return self._root / check_key(key)

    def get(self, key: str) -> bytes:
        path = self.path(key)
        with _explained(path), _opened(path) as file:
            return file.read()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        def write(file: IO[bytes]) -> None:
            file.write(data)

        self._write(key, write, if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        def write(file: IO[bytes]) -> None:
            _copy(source, file)

        with open_source(path) as source:
            self._write(key, write, if_absent)

    def get_file(self, key: str, path: Path) -> None:
        source_path = self.path(key)
        with _explained(source_path), _opened(source_path) as source:
            temporary = path.parent / f"{RESERVED}{uuid.uuid4().hex}"
            with _explained(path, writing=True):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    with temporary.open("xb") as file:
                        _copy(source, file)
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)

    def stat(self, key: str) -> ObjectInfo | None:
        path = self.path(key)
        try:
            with _explained(path):
                status = path.stat()
        except NotFoundError:
            return None
        return None if path.is_dir() else ObjectInfo(key, status.st_size)

    def sha256(self, key: str) -> str | None:
        path = self.path(key)
        try:
            with _explained(path), _opened(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except NotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        folder, _, _ = prefix.rpartition("/")
        yield from self._walk(f"{folder}/" if folder else "", prefix)

    def _walk(self, folder: str, prefix: str) -> Iterator[ObjectInfo]:
        """Objects under `folder` (empty, or ending in a slash). A folder sorted with its slash falls into key order."""
        try:
            with _explained(self._root / folder), os.scandir(self._root / folder) as entries:
                names = {e.name + ("/" if _is_folder(e) else ""): e for e in entries if not e.name.startswith(RESERVED)}
        except NotFoundError:
            return
        for name in sorted(names, key=os.fsencode):
            key = folder + name
            if name.endswith("/"):
                if key.startswith(prefix) or prefix.startswith(key):
                    yield from self._walk(key, prefix)
            elif key.startswith(prefix):
                size = _size(names[name])
                if size is not None:
                    yield ObjectInfo(key, size)

    def delete(self, key: str) -> None:
        path = self.path(key)
        try:
            with _explained(path):
                path.unlink()
        except NotFoundError:
            return
        with suppress(OSError):  # folders are not objects: they go with their last object
            for folder in path.parents:
                if folder == self._root:
                    break
                folder.rmdir()

    def _write(self, key: str, write: Callable[[IO[bytes]], None], if_absent: bool) -> None:
        path = self.path(key)
        with _explained(path, writing=True):
            self._temporary.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._temporary)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(file.fileno(), 0o644)
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                retrying(STORE_FOLDER, FileNotFoundError)(_publish, temporary, path, if_absent)
                _sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _size(entry: os.DirEntry[str]) -> int | None:
    """None for what is no object: deleted meanwhile, or a link that leads nowhere or to itself."""
    try:
        return entry.stat().st_size
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP}:
            return None
        with _explained(Path(entry.path)):
            raise


def _publish(temporary: Path, path: Path, if_absent: bool) -> None:
    """Again where `delete` removed the empty folder between mkdir and the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if if_absent:
            os.link(temporary, path)  # fails when the name is taken, atomically, on NFS too
        else:
            temporary.replace(path)
    except FileExistsError as error:
        if path.is_dir():
            raise
        with suppress(OSError):
            if path.samefile(temporary):  # our own success: NFS repeated the request when its answer got lost
                return
        raise AlreadyExistsError("there is an object under this key already", where=str(path)) from error
    except OSError as error:
        if not if_absent or error.errno not in _NO_LINKS:
            raise
        raise UnfitStoreError(
            f"the file system makes no hard links here, by which objects are created ({error.strerror or error})",
            where=str(path),
            fix="use a directory on a file system with hard links (local disks, NFS), or MinIO/S3",
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy between files inside the kernel, sharing blocks where the file system can; else through memory."""
    try:
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
            pass
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}:
            raise
        target.seek(0, os.SEEK_END)
        source.seek(target.tell())
        shutil.copyfileobj(source, target, 1 << 20)


def _remove_abandoned(temporary: Path) -> None:
    """Remove what writers killed long ago left behind."""
    with suppress(OSError):
        for path in temporary.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_S:
                    path.unlink()


def _opened(path: Path) -> io.BufferedReader:
    """A file for reading; never waits, as opening a named pipe would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise ObjectError("is no regular file", where=str(path), fix="put a file in its place")


@contextmanager
def _explained(path: Path, *, writing: bool = False) -> Iterator[None]:
    """Turn an OSError about `path` into a StoreError that says what to do."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if not writing and number in {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}:
            raise NotFoundError("there is no object under this key", where=str(path)) from error
        fallback = (f"the file system refused: {error.strerror or error}", "")
        what, fix = _EXPLANATIONS.get(number, fallback)
        kind = ObjectError if number in _OF_ONE_OBJECT and not writing else StoreError
        raise kind(what, where=str(path), fix=fix) from error


_FULL = ("the disk is full", "free some space and run the same command again; what is complete is kept")
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
#: What concerns one path, and nothing beside it.
_OF_ONE_OBJECT = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG})
_CONFLICT = (
    "this key would be both an object and a folder of objects",
    "choose a key that is not part of another one's path",
)
_EXPLANATIONS = {
    errno.EEXIST: _CONFLICT,
    errno.ENOTDIR: _CONFLICT,
    errno.EISDIR: _CONFLICT,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: ("the disk quota is used up", _FULL[1]),
    errno.EACCES: ("permission denied", "check the owner and the mode of this path"),
    errno.EPERM: ("operation not permitted", "check the owner and the attributes of this path"),
    errno.EROFS: ("the file system is read-only", "use a directory that can be written"),
    errno.EIO: ("the disk reports an input/output error", "check the disk"),
    errno.ENAMETOOLONG: ("the path is too long for this file system", "use a store nearer to the root"),
}
