"""Object stores: a directory or MinIO (S3), behind one small interface with conditional create."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from viper.errors import NotFoundError, StoreError
from viper.store.base import ObjectInfo, ObjectStore, check_key, child_uri, named_by_content, put_once
from viper.store.directory import DirectoryStore
from viper.store.places import expanded
from viper.store.probe import probe
from viper.store.relative import relative_database, relative_uri, resolve_database, resolve_uri
from viper.store.transfer import (
    DirectoryDigests,
    directory_digest,
    directory_digests,
    directory_in_place,
    download_directory,
    stored_digests,
    upload_directory,
)

__all__ = [
    "DirectoryDigests",
    "DirectoryStore",
    "ObjectInfo",
    "ObjectStore",
    "check_key",
    "child_uri",
    "directory_digest",
    "directory_digests",
    "directory_in_place",
    "download_directory",
    "existing_store",
    "named_by_content",
    "open_store",
    "probe",
    "put_once",
    "relative_database",
    "relative_uri",
    "resolve_database",
    "resolve_uri",
    "split_iteration_path",
    "store_of",
    "stored_digests",
    "upload_directory",
]


_FORMS = "use a path, file:///path or s3://bucket/prefix"


def open_store(uri: str | Path) -> ObjectStore:
    """Open the store at `uri`: a path, `file:///path` or `s3://bucket/prefix`.

    S3: the endpoint is `?endpoint=http://host:9000` in the URI, else the environment's VIPER_S3_ENDPOINT, else AWS;
    credentials are those of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, …), never part of a URI.
    Raises StoreError when the URI cannot be understood. Nothing is contacted before the first operation.
    """
    if isinstance(uri, Path):
        return DirectoryStore(uri)
    try:
        parts = urlsplit(uri)
        if parts.scheme == "s3":
            from viper.store.minio import MinioStore

            return MinioStore.from_uri(uri)
    except ValueError as error:  # brackets, a port that is no number
        raise StoreError(f"not a store URI: {error}", where=uri, fix=_FORMS) from None
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
            raise StoreError("a file URI needs an absolute path", where=uri, fix="write file:///absolute/path")
        return DirectoryStore(Path(unquote(parts.path)))
    # `s3:/bucket`, `minio:9000/bucket`: a slip, and not a folder of that name.
    if not uri or "\0" in uri or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", uri):
        raise StoreError("not a store URI", where=uri or "(empty)", fix=_FORMS)
    return DirectoryStore(expanded(uri))


def existing_store(uri: str | Path) -> ObjectStore:
    """Open a store that is to be read; raises `NotFoundError` where its folder is missing (moved, or not mounted)."""
    store = open_store(uri)
    if isinstance(store, DirectoryStore) and not store.root.is_dir():
        raise NotFoundError(
            "the store is a file" if store.root.exists() else "the store is gone, or never was there",
            where=store.uri,
            fix="mount its volume, or correct its place",
        )
    return store


def store_of(uri: str) -> tuple[ObjectStore, str]:
    """The store and the name of `<store URI>/iterations/<name>`; raises `StoreError`, also when the store is gone."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise StoreError("is not the URI of an iteration", where=uri) from None
    if found := split_iteration_path(parts.path):
        return existing_store(urlunsplit(parts._replace(path=found[0]))), found[1]
    place, _, name = uri.rpartition("/iterations/")  # 0.1.0 wrote it behind `?endpoint=…`
    if place and name and "/" not in name:
        return existing_store(place), name
    raise StoreError("is not the URI of an iteration", where=uri)


def split_iteration_path(path: str) -> tuple[str, str] | None:
    """The store's path and the name in `<store>/iterations/<name>`, with or without a slash after it; None for others.

    By looking from the end: a pattern that looks from the beginning takes time with the square of a row of slashes.
    """
    above, _, name = path.removesuffix("/").rpartition("/")
    if not name or not above.endswith("iterations"):
        return None
    return above.removesuffix("iterations").rstrip("/"), name
