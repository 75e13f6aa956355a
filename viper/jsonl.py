"""JSONL: files that people supply, read row by row, every bad row named with its line; and files of our own."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from viper.beside import beside
from viper.errors import InputError, NotFoundError, ObjectError
from viper.images.kinds import kind_of
from viper.store import ObjectStore
from viper.text import clean_json

_SHOWN_ERRORS = 5
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\r\n]*")
#: First bytes of text that is not UTF-8; UTF-32's are looked for first, of which UTF-16's are the beginning.
_ENCODINGS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Number:
    """A number as it is written: `3.10` is not `3.1`, and 5,000 digits are no integer that Python reads."""

    text: str


class Lines:
    """The rows of a JSONL file, or of one JSON list; they are parsed when they are asked for. Empty lines do not count.

    Args:
        uri: named in errors.
        data: the file.

    Raises:
        InputError: the file is not UTF-8, or is one list that breaks off.
    """

    def __init__(self, uri: str, data: bytes) -> None:
        _check_encoding(uri, data)
        data = data.removeprefix(_BOM)
        self._listed = data.lstrip()[:1] == b"[" and not _are_rows(data)
        if self._listed:
            self._rows: list[tuple[int, bytes | str]] = list(_items(uri, data))
        else:
            lines = data.split(b"\n" if b"\n" in data else b"\r")
            self._rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        self._hint = _SPREAD if _is_spread(data) else "" if data[:1] in (b"{", b"[", b"") else kind_of(data)

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, index: int) -> str:
        """Where row `index` (from 0) is, for a person."""
        line, _ = self._rows[index]
        return f"item {index + 1}, line {line}" if self._listed else f"line {line}"

    def row(self, index: int) -> dict[str, Any]:
        """Row `index`, its numbers as `Number`s, NaN and infinities as None; raises `ValueError` with what is wrong."""
        _, text = self._rows[index]
        try:
            value = parsed(text if isinstance(text, str) else text.removeprefix(_BOM).decode())
        except UnicodeDecodeError as e:
            raise ValueError(f"is not UTF-8 at byte {e.start + 1}: save the file as UTF-8") from None
        if not isinstance(value, dict):
            raise ValueError("is not a JSON object")
        return value

    def hint(self) -> str:
        """What the whole file seems to be that has no row; empty when there is no telling."""
        return "" if self._hint in ("", "text") else f" (the file is {self._hint})"


def parsed(text: str) -> Any:
    """JSON as it may be supplied; raises `ValueError` in a person's words, also for a key that is there twice."""
    try:
        return _DECODER.decode(text.strip())
    except json.JSONDecodeError as e:
        raise ValueError(f"Invalid JSON: {e.msg} at character {e.pos + 1}") from None
    except RecursionError:
        raise ValueError("Invalid JSON: it is nested too deeply") from None


def read_rows(
    uri: str, model: type[Model], convert: Callable[[ObjectStore, Model], Item], unique: str = ""
) -> list[Item]:
    """Reads every row of a file, in order; empty lines are skipped.

    Args:
        uri: a path, file:// or s3://.
        model: what a row has to be.
        convert: makes an item of a row, with the store of the file's folder; its `InputError`s are told with the line.
            Called from several threads.
        unique: the field with the id, which no two rows have alike.

    Raises:
        InputError: the file does not exist or is not UTF-8; or rows of it cannot be used, the first of them named.
    """
    store, key = beside(uri)
    try:
        lines = Lines(uri, store.get(key))
    except NotFoundError:
        raise InputError("there is no such file", where=uri) from None
    except ObjectError as e:
        raise InputError(f"cannot be read: {e.what}", where=uri, fix=e.fix) from None
    seen: set[object] = set()

    def validated(index: int) -> Model | str:
        try:
            row = model.model_validate(clean_json(lines.row(index)))
        except ValidationError as e:
            first = e.errors()[0]
            field = ".".join(map(str, first["loc"]))
            return f"{f', {field}' if field else ''}: {first['msg']}"
        except ValueError as e:
            return f": {e}"
        if unique and getattr(row, unique) in seen:
            return f": the id {getattr(row, unique)!r} is there twice"
        seen.add(getattr(row, unique, None))
        return row

    def converted(row: Model | str) -> Item | str:
        try:
            return row if isinstance(row, str) else convert(store, row)
        except InputError as e:
            return f": {e.what}"

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        made = list(pool.map(converted, map(validated, range(len(lines)))))
    errors = [f"{lines.place(index)}{item}" for index, item in enumerate(made) if isinstance(item, str)]
    items = [item for item in made if not isinstance(item, str)]
    if errors:
        fields = ", ".join(name if f.is_required() else f"{name}?" for name, f in model.model_fields.items())
        raise unusable(uri, errors, lines.hint(), f"each line is a JSON object {{{fields}}}")
    return items


def unusable(uri: str, errors: list[str], hint: str, fix: str) -> InputError:
    """An error that names the first of many rows."""
    more = f"\n  … and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
    return InputError(f"unusable rows{hint}:\n  " + "\n  ".join(errors[:_SHOWN_ERRORS]) + more, where=uri, fix=fix)


def stored_lines(store: ObjectStore, prefix: str) -> Iterator[bytes]:
    """The lines of all objects below a prefix, in the order of their keys. Hundreds of megabytes take no memory."""
    with tempfile.TemporaryDirectory(prefix="viper-lines-") as scratch:
        path = Path(scratch) / "lines"
        for file in store.list(prefix):
            store.get_file(file.key, path)
            with path.open("rb") as lines:
                yield from lines


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


_DECODER = json.JSONDecoder(
    object_pairs_hook=_once,
    parse_int=Number,
    parse_float=Number,
    parse_constant=lambda _: None,
    strict=False,  # a tab or a line break within a text harms nobody
)


def _check_encoding(uri: str, data: bytes) -> None:
    name = next((name for start, name in _ENCODINGS if data.startswith(start)), "")
    if not name and b"\0" in data[:2]:
        name = "UTF-16 or UTF-32"
    if name:
        raise InputError(
            f"is not UTF-8 but {name}",
            where=uri,
            fix=f"save the file as UTF-8: `iconv -f {name.split()[0]} -t UTF-8 FILE`",
        )


_SPREAD = "JSON with several lines for an object: write one object a line, as `jq -c .` does"


def _is_spread(data: bytes) -> bool:
    """Whether the first line holds nothing but an opening brace."""
    return data[:256].lstrip().partition(b"\n")[0].rstrip() == b"{"


def _are_rows(data: bytes) -> bool:
    """Whether the first line is JSON by itself, and the next one with something on it an object."""
    first, _, rest = data.lstrip().partition(b"\n")
    try:
        json.loads(first)
        return isinstance(json.loads(rest.lstrip().partition(b"\n")[0]), dict)
    except (ValueError, RecursionError):
        return False


def _items(uri: str, data: bytes) -> Iterator[tuple[int, str]]:
    """Line and text of each item of one list; a comma too many at its end is passed over."""

    def broken(what: str, at: int) -> InputError:
        return InputError(
            f"is one JSON list that cannot be read: {what}",
            where=f"{uri}, line {text.count(chr(10), 0, at) + 1}",
            fix="correct it there, or write one JSON object a line",
        )

    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        raise InputError(f"is not UTF-8: {e}", where=uri, fix="save the file as UTF-8") from None
    place, line, counted = _after(text, text.index("[") + 1), 1, 0
    while not text.startswith("]", place):
        try:
            _, end = _PLAIN.raw_decode(text, place)
        except json.JSONDecodeError as e:
            raise broken(e.msg, e.pos) from None
        except RecursionError:
            raise broken("an item is nested too deeply", place) from None
        line, counted = line + text.count("\n", counted, place), place
        yield line, text[place:end]
        place = _after(text, end)
        if text.startswith(",", place):
            place = _after(text, place + 1)
        elif not text.startswith("]", place):
            raise broken("a comma or the closing bracket is missing", place)
    if _after(text, place + 1) < len(text):
        raise broken("something follows its end", place + 1)


#: Finds where an item ends, whatever is wrong within it.
_PLAIN = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)


def _after(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    return found.end() if found else place
