"""What lies beside a supplied file: names that its rows give, and the images behind them."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from viper.errors import InputError, NotFoundError, ObjectError, StoreError
from viper.images import ImageLimits, Unusable
from viper.store import ObjectStore, check_key, open_store

_SHOWN = 80
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
#: What no path is: hundreds of characters of the alphabet of base64.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{300,}={0,2}")


def beside(uri: str) -> tuple[ObjectStore, str]:
    """The store of the file's folder, and its name there: images then are keys beside it, wherever it lies.

    Raises `InputError`, `StoreError` when there can be no such place.
    """
    if "://" not in uri:
        folder, _, key = uri.rpartition("/")
        return open_store(folder or ("/" if uri.startswith("/") else ".")), key
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InputError(f"is no address: {error}", where=uri, fix="name a path, file:// or s3://") from None
    folder, _, key = parts.path.rpartition("/")
    return open_store(urlunsplit(parts._replace(path=folder or "/"))), key


def key_of(name: str) -> str:
    """The key of the image that a row calls `name`: a path below the file's folder, `./` and `//` in it or not.

    Raises `Unusable` for anything else: nothing is fetched from elsewhere.
    """
    problem = _problem(name)
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not problem and ".." in parts:
        problem = "leads out of the file's folder: put the image beside the file"
    if not problem and not parts:
        problem = "names no file"
    if problem:
        raise Unusable("unreadable-image", f"image {shortened(name)}: not a valid object key: it {problem}")
    try:
        return check_key("/".join(parts))
    except StoreError as error:
        raise Unusable("unreadable-image", f"image {shortened(name)}: {error.what}") from None


def _problem(name: str) -> str:
    checks = (
        (name.startswith("data:") or _BASE64.fullmatch(name), "is encoded data: put it into a file and give its path"),
        (any(ord(c) < 0x20 or ord(c) == 0x7F for c in name), "has a control character"),
        (_DRIVE.match(name) or name.startswith(("/", "~/")), "is absolute: give a path below the file's folder"),
        (_URL.match(name), "is a URL, and nothing is fetched: put the image beside the file"),
        ("\\" in name, "has a backslash: write /"),
        (name.endswith("/"), "names a folder"),
    )
    return next((words for found, words in checks if found), "")


def read_beside(store: ObjectStore, name: str, limits: ImageLimits) -> bytes:
    """The bytes of the image that a row calls `name`; an accented name may be composed in one and not in the other.

    Raises:
        Unusable: there is none, or it cannot be one.
        StoreError: the store fails; the image may well be fine.
    """
    try:
        for key in _spellings(key_of(name)):
            if (there := store.stat(key)) is not None:
                break
        else:
            raise NotFoundError("there is no such object")
        if there.size > limits.max_bytes:
            raise Unusable("too-large", f"{there.size} bytes cannot be an image of {limits.max_pixels} pixels")
        return store.get(key)
    except NotFoundError:
        raise Unusable("unreadable-image", f"there is no image {shortened(name)} beside the file") from None
    except ObjectError as error:
        raise Unusable("unreadable-image", f"image {shortened(name)}: {error.what}") from None


def _spellings(key: str) -> list[str]:
    """The key as it is, then in the normal forms: macOS takes `é` apart in the names of files that it packs."""
    found = [key]
    for other in (unicodedata.normalize("NFC", key), unicodedata.normalize("NFD", key)):
        with suppress(StoreError):  # the other may be longer than a name can be
            found.append(check_key(other))
    return list(dict.fromkeys(found))


def shortened(name: str) -> str:
    """A name as a person is told it: encoded images are long."""
    return repr(name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…")
