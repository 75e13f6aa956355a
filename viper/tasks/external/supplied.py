"""Files of supplied samples: JSONL, one JSON list or Parquet in anybody's column names, row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from viper.beside import beside
from viper.errors import InputError, NotFoundError, ObjectError
from viper.images import Unusable
from viper.ingest.rows import images_of, prompt_of, text_of, truth_of
from viper.jsonl import Lines, unusable
from viper.spec.options import ExternalColumns
from viper.store import ObjectStore
from viper.tasks.external.unwrapped import unwrapped

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


@dataclass(frozen=True)
class SuppliedRow:
    """A row in our words. `images`: paths beside the file, or encoded images. `ground_truth`: a text, or sentences.
    `problem`: why it cannot be used as far as its words go, and what could not be read of it is empty."""

    place: str
    prompt: str = ""
    images: tuple[str | bytes, ...] = ()
    ground_truth: str | tuple[str, ...] = ""
    problem: Unusable | None = None


class _File(Protocol):
    """Rows as they are in the file. `place(i)` says where row i (from 0) is, `rows` yields those of a range, or why one
    is none; `hint` what the file seems to be instead."""

    count: int

    def place(self, index: int) -> str: ...

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any] | Unusable]: ...

    def hint(self) -> str: ...


class Supplied:
    """A file of samples; `store` holds the images beside it. Open it with `open_supplied`."""

    def __init__(self, uri: str, digest: str, store: ObjectStore, file: _File, columns: ExternalColumns) -> None:
        self.uri, self.digest, self.store = uri, digest, store
        self._file, self._columns = file, columns

    def __len__(self) -> int:
        return self._file.count

    def check(self) -> None:
        """Raises `InputError` when no row at all is a sample, as when columns have other names; the first are named.

        A row that is none costs itself, and so do its images, which are not looked at here.
        """
        c = self._columns
        errors = []
        for index, values in enumerate(self._file.rows(0, len(self), (c.prompt, c.ground_truth, c.images))):
            try:
                if isinstance(values, Unusable):
                    raise values
                text_of(values, c.prompt)
                truth_of(values, c.ground_truth)
                if c.images in values:
                    return
                raise Unusable("invalid-row", f"{c.images}: is missing")
            except Unusable as problem:
                if problem.reason == "no-ground-truth":  # its columns are there: it is left out, not an error
                    return
                errors.append(f"{self._file.place(index)}, {problem.detail}")
        if errors:
            fix = f"each row has {{{c.prompt}, {c.images}, {c.ground_truth}}}; recipe.external.columns names others"
            raise unusable(self.uri, errors, self._file.hint(), fix)

    def rows(self, start: int, stop: int) -> Iterator[SuppliedRow]:
        """Rows of a range; one that is no sample has a `problem`."""
        c = self._columns
        found = self._file.rows(start, stop, (c.prompt, c.images, c.ground_truth))
        for index, values in enumerate(found, start):
            place = self._file.place(index)
            try:
                yield self._row(place, values)
            except Unusable as problem:
                yield SuppliedRow(place, problem=problem)

    def _row(self, place: str, values: Mapping[str, Any] | Unusable) -> SuppliedRow:
        if isinstance(values, Unusable):
            raise values
        c = self._columns
        prompt, truth = text_of(values, c.prompt), truth_of(values, c.ground_truth)
        images = images_of(values.get(c.images))
        if not images:
            raise Unusable("no-image", "the row has no image")
        return SuppliedRow(
            place,
            prompt_of(prompt, len(images)),
            images,
            _unwrapped(truth),
        )


def open_supplied(uri: str, columns: ExternalColumns, work_dir: Path) -> Supplied:
    """Opens a file by its ending: `.parquet` or `.pq`, else JSONL.

    Args:
        work_dir: a Parquet file is brought here to be read in pieces.

    Raises `InputError` when there is no such file, or it is not what its ending says; `StoreError`.
    """
    store, key = beside(uri)
    parquet = uri.partition("?")[0].lower().endswith((".parquet", ".pq"))
    try:
        if not parquet:
            data = store.get(key)
            return Supplied(uri, hashlib.sha256(data).hexdigest(), store, _Lines(uri, data), columns)
        path = work_dir / "samples.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        store.get_file(key, path)
    except NotFoundError:
        raise InputError("there is no such file", where=uri, fix="correct recipe.external.uri") from None
    except ObjectError as e:
        raise InputError(f"cannot be read: {e.what}", where=uri, fix=e.fix or "correct recipe.external.uri") from None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Supplied(uri, digest, store, _Parquet(uri, path, columns), columns)


class _Lines:
    """JSONL, or one JSON list."""

    def __init__(self, uri: str, data: bytes) -> None:
        self._lines = Lines(uri, data)
        self.count = len(self._lines)

    def place(self, index: int) -> str:
        return self._lines.place(index)

    def hint(self) -> str:
        return self._lines.hint()

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any] | Unusable]:
        for index in range(start, min(stop, self.count)):
            try:
                yield self._lines.row(index)
            except ValueError as e:
                yield Unusable("invalid-row", str(e))


class _Parquet:
    """Parquet, read in batches."""

    def __init__(self, uri: str, path: Path, columns: ExternalColumns) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            self._file: pq.ParquetFile = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as e:
            raise InputError(f"is not a Parquet file: {e}", where=uri) from None
        self._uri = uri
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

    def hint(self) -> str:
        return ""

    def rows(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[Mapping[str, Any] | Unusable]:
        import pyarrow as pa

        try:
            for batch in self._batches(start, stop, columns):
                yield from _rows(batch)
        except (pa.ArrowException, OSError) as e:
            raise InputError(f"is a damaged Parquet file: {e}", where=self._uri, fix="copy it again") from None

    def _batches(self, start: int, stop: int, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        passed = 0
        for group in range(self._file.num_row_groups):
            size = self._file.metadata.row_group(group).num_rows
            if passed + size > start and passed < stop:
                here = passed
                for batch in self._file.iter_batches(64, row_groups=[group], columns=list(columns)):
                    if here + len(batch) > start and here < stop:
                        first = max(0, start - here)
                        yield batch.slice(first, min(len(batch), stop - here) - first)
                    here += len(batch)
            passed += size


def _rows(batch: pa.RecordBatch) -> Iterator[Mapping[str, Any] | Unusable]:
    """The rows of a batch; a text that is no UTF-8 or a date beyond the calendar is told when it is read, and costs its
    row."""
    try:
        yield from _values(batch)
    except (ValueError, OverflowError):
        for index in range(len(batch)):
            try:
                yield from _values(batch.slice(index, 1))
            except UnicodeDecodeError:
                yield Unusable("invalid-row", "is not UTF-8")
            except (ValueError, OverflowError) as error:
                yield Unusable("invalid-row", f"cannot be read: {error}")


def _values(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Plain values; a number of fewer than 64 bits as it is written: 0.1, not 0.10000000149011612."""
    import numpy as np
    import pyarrow as pa

    rows: list[dict[str, Any]] = batch.to_pylist()
    for field in batch.schema:
        if pa.types.is_float32(field.type) or pa.types.is_float16(field.type):
            written = np.float32 if pa.types.is_float32(field.type) else np.float16
            for row in rows:
                value = row[field.name]
                row[field.name] = None if value is None else float(str(written(value)))
    return rows


def _unwrapped(truths: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Answers without what they are wrapped in for verifiers."""
    if isinstance(truths, str):
        return unwrapped(truths)
    made = map(unwrapped, truths)
    return tuple(t for truth in made for t in ((truth,) if isinstance(truth, str) else truth))
