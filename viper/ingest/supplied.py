"""Files of supplied samples: JSONL or Parquet in anybody's column names, row by row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from viper.errors import InputError, NotFoundError
from viper.jsonl import beside
from viper.spec.options import ExternalColumns
from viper.store import ObjectStore

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_SHOWN_ERRORS = 5
#: Where a file marks the places of its images in the text: here they all come before it.
_MARKER = re.compile(r"<image(?:_\d+)?>\s*")
_BOXED = re.compile(r"^\$*\\boxed\{(.*)\}\$*$", re.DOTALL)


@dataclass(frozen=True)
class SuppliedRow:
    """A row in our words. `images`: paths beside the file, or encoded images. `ground_truth`: a text, or sentences."""

    place: str
    prompt: str
    images: tuple[str | bytes, ...]
    ground_truth: str | tuple[str, ...]


class _File(Protocol):
    """Rows as they are in the file. `place(i)` says where row i (from 0) is, `rows` yields those of a range."""

    count: int

    def place(self, index: int) -> str: ...

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]: ...


class Supplied:
    """A file of samples; `store` holds the images beside it. Open it with `open_supplied`."""

    def __init__(self, uri: str, digest: str, store: ObjectStore, file: _File, columns: ExternalColumns) -> None:
        self.uri, self.digest, self.store = uri, digest, store
        self._file, self._columns = file, columns

    def __len__(self) -> int:
        return self._file.count

    def check(self) -> None:
        """Raises `InputError` naming the rows that are no samples: a column that is missing, or of another type.

        Images are not looked at: one that cannot be used costs its row, not the file.
        """
        c = self._columns
        errors = []
        for index, values in enumerate(self._file.rows(0, len(self), (c.prompt, c.ground_truth))):
            problem = _text_problem(values, c.prompt) or _truth_problem(values, c.ground_truth)
            errors += [f"{self._file.place(index)}, {problem}"] if problem else []
        if errors:
            more = f"\n  … and {len(errors) - _SHOWN_ERRORS} more" if len(errors) > _SHOWN_ERRORS else ""
            raise InputError(
                "unusable rows:\n  " + "\n  ".join(errors[:_SHOWN_ERRORS]) + more,
                where=self.uri,
                fix=f"each row has {{{c.prompt}, {c.images}, {c.ground_truth}}}; recipe.external.columns names others",
            )

    def rows(self, start: int, stop: int) -> Iterator[SuppliedRow]:
        """Rows of a range; `check` has let them pass."""
        c = self._columns
        found = self._file.rows(start, stop, (c.prompt, c.images, c.ground_truth))
        for index, values in enumerate(found, start):
            truth = values[c.ground_truth]
            yield SuppliedRow(
                self._file.place(index),
                _MARKER.sub("", values[c.prompt]).strip(),
                _images(values.get(c.images)),
                _unboxed(truth) if isinstance(truth, str) else tuple(map(_unboxed, truth)),
            )


def open_supplied(uri: str, columns: ExternalColumns, work_dir: Path) -> Supplied:
    """Opens a file by its ending: `.parquet`, else JSONL.

    Args:
        work_dir: a Parquet file is brought here to be read in pieces.

    Raises `InputError` when there is no such file, or it is not what its ending says; `StoreError`.
    """
    store, key = beside(uri)
    parquet = uri.partition("?")[0].endswith(".parquet")
    try:
        if not parquet:
            data = store.get(key)
            return Supplied(uri, hashlib.sha256(data).hexdigest(), store, _Lines(uri, data), columns)
        path = work_dir / "samples.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, path)
    except NotFoundError:
        raise InputError("there is no such file", where=uri, fix="correct recipe.external.uri") from None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Supplied(uri, digest, store, _Parquet(uri, path, columns), columns)


class _Lines:
    """JSONL; empty lines do not count."""

    def __init__(self, uri: str, data: bytes) -> None:
        try:
            lines = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as e:
            raise InputError(f"is not UTF-8: {e}", where=uri, fix="save the file as UTF-8") from None
        self._lines = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
        self.count = len(self._lines)

    def place(self, index: int) -> str:
        return f"line {self._lines[index][0]}"

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        for _, line in self._lines[start:stop]:
            try:
                value = json.loads(line)
            except ValueError as e:
                value = {"": f"is not JSON: {e}"}
            yield value if isinstance(value, dict) else {"": "is not a JSON object"}


class _Parquet:
    """Parquet, read in batches."""

    def __init__(self, uri: str, path: Path, columns: ExternalColumns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file: pq.ParquetFile = pq.ParquetFile(path)
        except pa.ArrowInvalid as e:
            raise InputError(f"is not a Parquet file: {e}", where=uri) from None
        names = self._file.schema_arrow.names
        wanted = (columns.prompt, columns.images, columns.ground_truth)
        if missing := [n for n in wanted if n not in names]:
            raise InputError(
                f"has no column {', '.join(missing)}; its columns are {', '.join(names)}",
                where=uri,
                fix="say in recipe.external.columns what they are called",
            )
        self.count = int(self._file.metadata.num_rows)

    def place(self, index: int) -> str:
        return f"row {index + 1}"

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any]]:
        passed = 0
        for group in range(self._file.num_row_groups):
            size = self._file.metadata.row_group(group).num_rows
            if passed + size > start and passed < stop:
                here = passed
                for batch in self._file.iter_batches(64, row_groups=[group], columns=list(columns)):
                    if here + len(batch) > start and here < stop:
                        first = max(0, start - here)
                        yield from batch.slice(first, min(len(batch), stop - here) - first).to_pylist()
                    here += len(batch)
            passed += size


def _text_problem(values: Mapping[str, Any], name: str) -> str:
    if "" in values:
        return str(values[""])
    if name not in values:
        return f"{name}: is missing"
    text = values[name]
    if not isinstance(text, str):
        return f"{name}: is {type(text).__name__}, not a text"
    return "" if text.strip() else f"{name}: is empty"


def _truth_problem(values: Mapping[str, Any], name: str) -> str:
    truth = values.get(name)
    if isinstance(truth, list):
        return "" if all(isinstance(t, str) for t in truth) else f"{name}: is a list of other things than texts"
    problem = _text_problem(values, name)
    return "" if problem.endswith("is empty") else problem  # a row without an answer is left out, not an error


def _images(value: Any) -> tuple[str | bytes, ...]:
    """Paths or bytes; also of Hugging Face's `{bytes, path}`. Anything else counts as no image."""
    if isinstance(value, list):
        return tuple(image for item in value for image in _images(item))
    if isinstance(value, dict):
        return _images(value.get("bytes") or value.get("path"))
    return (value,) if isinstance(value, str | bytes) and value else ()


def _unboxed(text: str) -> str:
    r"""Without the `\boxed{…}` that answers for verifiers are wrapped in."""
    found = _BOXED.match(text.strip())
    return found[1].strip() if found else text.strip()
