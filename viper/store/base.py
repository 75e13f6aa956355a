"""The object-store interface: immutable objects under keys, created whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, runtime_checkable
from urllib.parse import urlsplit, urlunsplit

from viper.errors import AlreadyExistsError, StoreError

RESERVED = ".viper-"
"""Names that start like this belong to the stores themselves (temporary files); no key may use them."""

_MAX_KEY_BYTES = 900  # S3 allows 1,024 for the whole key; the rest is room for the store's own prefix
_MAX_NAME_BYTES = 255  # what file systems, and MinIO on top of them, allow between two slashes


@dataclass(frozen=True)
class ObjectInfo:
    """An object's key, relative to the store, and its size in bytes."""

    key: str
    size: int


@runtime_checkable
class ObjectStore(Protocol):
    """Objects under keys like `synthesize-captions/part-00003.jsonl`.

    Every method raises `StoreError` when the store is down, full or forbids the operation, and when the key is
    malformed (see `check_key`). Methods may be called from several threads and several processes at once.
    Programs make no key that is the folder of another one (`a` and `a/b`): S3 allows it, a directory raises StoreError.
    """

    @property
    def uri(self) -> str:
        """`file:///…` or `s3://bucket/prefix`; `open_store(store.uri)` opens the same store. Holds no credentials."""
        ...

    def get(self, key: str) -> bytes:
        """The object's bytes. Raises NotFoundError."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write an object; a reader sees the old one, the new one or none, never a torn one.

        With `if_absent`, raises AlreadyExistsError when there is an object under the key; of several concurrent writers
        exactly one succeeds.
        """
        ...

    def put_file(self, key: str, path: Path, *, if_absent: bool = False, sha256: str | None = None) -> None:
        """`put` of a file's content, streamed. A known `sha256` (hexadecimal) is what `sha256(key)` can later tell."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Stream an object into `path` (folders are made), which appears whole or not at all. Raises NotFoundError."""
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """The object's key and size, or None."""
        ...

    def sha256(self, key: str) -> str | None:
        """The object's SHA-256 in hexadecimal; None when there is no such object.

        None too when it was written without one and telling it would mean reading the object over the network.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix` (any string, as in S3), ordered by the key's UTF-8 bytes.

        Folders are none, nor are the marks that consoles of S3 make for them (keys that end in a slash).
        """
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""
        ...


def check_key(key: str) -> str:
    """Return `key` when it can name an object in every store, else raise StoreError.

    A key is a relative path with `/` between non-empty names; no `.` or `..`, no control characters or backslashes, at
    most 900 bytes of UTF-8 in all and 255 for each name.
    """

    def refuse(reason: str) -> StoreError:
        return StoreError(f"not a valid object key: {reason}", where=repr(key), fix="use a relative path like a/b.json")

    if not key:
        raise refuse("it is empty")
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise refuse("it is not valid Unicode") from error
    if len(encoded) > _MAX_KEY_BYTES:
        raise refuse(f"{len(encoded)} bytes, more than {_MAX_KEY_BYTES}")
    if key.startswith("/"):
        raise refuse("it is absolute")
    if "\\" in key or any(ord(c) < 0x20 or ord(c) == 0x7F for c in key):
        raise refuse("it has a backslash or a control character")
    for name in key.split("/"):
        if name in {"", ".", ".."}:
            raise refuse(f"it has a path segment {name!r}")
        if len(name.encode()) > _MAX_NAME_BYTES:
            raise refuse(f"the name {name[:20]}… is longer than {_MAX_NAME_BYTES} bytes")
        if name.startswith(RESERVED):
            raise refuse(f"names that start with {RESERVED} are reserved")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` when some valid key could start with it, else raise StoreError."""
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix)
    return prefix


def child_uri(uri: str, key: str) -> str:
    """The URI of what lies under `key` in the store at `uri`: `s3://b/run?endpoint=…` + `models/m` → `s3://b/run/models/m?…`."""
    if not key:
        return uri
    check_key(key)
    parts = urlsplit(uri)
    if parts.scheme == "file":
        from urllib.parse import quote

        key = quote(key)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{key}"))


def put_once(store: ObjectStore, key: str, data: bytes) -> bytes:
    """Stores `data` unless there is an object under the key; returns what is there: the first writer's."""
    try:
        store.put(key, data, if_absent=True)
    except AlreadyExistsError:
        return store.get(key)
    return data


def named_by_content(name: str, digest: str) -> str:
    """A key that says what is under it: `a/b.json` and a hexadecimal digest → `a/b-<16 digits of it>.json`."""
    suffix = PurePosixPath(name).suffix
    return f"{name.removesuffix(suffix)}-{digest[:16]}{suffix}"


def open_source(path: Path) -> IO[bytes]:
    """Open a file that is to be stored. Raises StoreError when it cannot be read."""
    try:
        return path.open("rb")
    except OSError as error:
        raise StoreError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from error
