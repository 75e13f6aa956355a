"""URIs in what is stored: relative to the store that it lies in, so that a directory or a bucket can move.

A URI of something in the same store is written as its key there (`models/sha256-…`); what lies elsewhere has a scheme
and stays as it is. 0.1.0 wrote every URI in full: those are read as they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from viper.errors import StoreError
from viper.store.base import check_key, child_uri

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SQLITE = "sqlite:///"


def relative_uri(store_uri: str, uri: str) -> str:
    """`uri` as it is stored in the store at `store_uri`: a key, when it lies in that store.

    `s3://b/run?endpoint=…` and `s3://b/run/models/m?endpoint=…` → `models/m`.
    """
    store, there = urlsplit(store_uri), urlsplit(uri)
    if (there.scheme, there.netloc, there.query) != (store.scheme, store.netloc, store.query) or not there.scheme:
        return uri
    inside = store.path.rstrip("/") + "/"
    if not there.path.startswith(inside):
        return uri
    key = there.path.removeprefix(inside).rstrip("/")
    if there.scheme == "file":
        key = unquote(key)
    try:
        return key if resolve_uri(store_uri, key) == uri.rstrip("/") else uri
    except StoreError:  # no key
        return uri


def resolve_uri(store_uri: str, uri: str) -> str:
    """What is stored, in full; raises `StoreError` when it is neither a URI nor a key of the store."""
    return uri if _SCHEME.match(uri) else child_uri(store_uri, check_key(uri))


def relative_database(store_uri: str, tracking_uri: str) -> str:
    """A tracking URI as it is stored: an SQLite file in the same folder as a store, or in that, by its path from the
    store (`../mlflow.db`), since the two of them move together; every other in full."""
    store = urlsplit(store_uri)
    if store.scheme != "file" or not tracking_uri.startswith(f"{_SQLITE}/"):
        return tracking_uri
    place, database = unquote(store.path), tracking_uri.removeprefix(_SQLITE)
    if os.path.normpath(database) != database or Path(database).parent not in (Path(place), Path(place).parent):
        return tracking_uri
    return os.path.relpath(database, place)


def resolve_database(store_uri: str, tracking_uri: str) -> str:
    """What is stored, in full."""
    store = urlsplit(store_uri)
    if store.scheme != "file" or _SCHEME.match(tracking_uri):
        return tracking_uri
    return _SQLITE + os.path.normpath(Path(unquote(store.path)) / tracking_uri)
