"""JSONL: files that people supply, read row by row, every bad row named with its line; and files of our own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ValidationError

from viper.errors import InputError, NotFoundError, StoreError
from viper.images import Unusable, check
from viper.store import ObjectStore, open_store

_SHOWN_ERRORS = 5
Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


def read_rows(uri: str, model: type[Model], convert: Callable[[ObjectStore, Model], Item]) -> list[Item]:
    """Reads every row of a file, in order; empty lines are skipped.

    Args:
        uri: a path, file:// or s3://.
        model: what a row has to be.
        convert: makes an item of a row, with the store of the file's folder; its `InputError`s are told with the line.

    Raises:
        InputError: the file does not exist or is not UTF-8; or rows of it cannot be used, the first of them named.
    """
    store, key = beside(uri)
    try:
        text = store.get(key).decode("utf-8")
    except NotFoundError:
        raise InputError("there is no such file", where=uri) from None
    except UnicodeDecodeError as e:
        raise InputError(f"is not UTF-8: {e}", where=uri, fix="save the file as UTF-8") from None
    items: list[Item] = []
    errors: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            items.append(convert(store, model.model_validate_json(line)))
        except ValidationError as e:
            first = e.errors()[0]
            field = ".".join(map(str, first["loc"]))
            errors.append(f"line {number}{f', {field}' if field else ''}: {first['msg']}")
        except InputError as e:
            errors.append(f"line {number}: {e.what}")
    if errors:
        more = f"\n  … and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
        fields = ", ".join(name if f.is_required() else f"{name}?" for name, f in model.model_fields.items())
        raise InputError(
            "unusable rows:\n  " + "\n  ".join(errors[:_SHOWN_ERRORS]) + more,
            where=uri,
            fix=f"each line is a JSON object {{{fields}}}",
        )
    return items


def read_image(store: ObjectStore, key: str) -> bytes:
    """The bytes of an image beside the file, checked to be one; raises `InputError`."""
    try:
        data = store.get(key)
    except NotFoundError:
        raise InputError(f"there is no image {key!r} beside the file") from None
    except StoreError as e:
        raise InputError(f"image {key!r}: {e.what}") from None
    try:
        check(data)
    except Unusable as problem:
        raise InputError(f"the image {key!r} cannot be read ({problem})") from None
    return data


def stored_lines(store: ObjectStore, prefix: str) -> Iterator[bytes]:
    """The lines of all objects below a prefix, in the order of their keys. Hundreds of megabytes take no memory."""
    with tempfile.TemporaryDirectory(prefix="viper-lines-") as scratch:
        path = Path(scratch) / "lines"
        for file in store.list(prefix):
            store.get_file(file.key, path)
            with path.open("rb") as lines:
                yield from lines


def beside(uri: str) -> tuple[ObjectStore, str]:
    """The store of the file's folder, and its name there: images then are keys beside it, wherever it lies."""
    if "://" not in uri:
        folder, _, key = uri.rpartition("/")
        return open_store(folder or ("/" if uri.startswith("/") else ".")), key
    parts = urlsplit(uri)
    folder, _, key = parts.path.rpartition("/")
    return open_store(urlunsplit(parts._replace(path=folder or "/"))), key
