"""A stage's table as a class: its fields are the columns, in order, and the Arrow schema follows from them.

A row class is a frozen dataclass with slots. A column that was not read is not there: using it raises `AttributeError`
instead of giving a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa

Int32 = Annotated[int, "int32"]
Float32 = Annotated[float, "float32"]
#: Bytes, where a column is called `bytes`.
Binary = bytes
_TYPES = {str: "string", bytes: "binary", bool: "bool_", int: "int64", float: "float64"}


class RowClass(Protocol):
    """An instance of a row class."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


R = TypeVar("R", bound=RowClass)


def schema_of(row: type[RowClass]) -> pa.Schema:
    """The columns of a row class. Every one may be null, as in Arrow itself; `Int32` and `Float32` are narrower.

    Raises `TypeError` for a field that no column can hold.
    """
    import pyarrow as pa

    hints = get_type_hints(row, include_extras=True)
    return pa.schema([(field.name, _arrow(hints[field.name])) for field in fields(row)])


def _arrow(hint: Any) -> pa.DataType:
    import pyarrow as pa

    if get_origin(hint) is Annotated:
        return getattr(pa, hint.__metadata__[0])()
    if get_origin(hint) is list:
        return pa.list_(_arrow(*get_args(hint)))
    if NoneType in (either := get_args(hint)):
        return _arrow(*(of for of in either if of is not NoneType))
    if hint not in _TYPES:
        raise TypeError(f"no column holds {hint}")
    return getattr(pa, _TYPES[hint])()


def names_of(row: type[R], choose: Callable[[R], tuple[object, ...]]) -> list[str]:
    """Names of the columns that are chosen by their attributes: `lambda row: (row.image_id, row.phash)`."""
    each_its_own_name = row_of(row, {field.name: field.name for field in fields(row)})
    return [str(name) for name in choose(each_its_own_name)]


def values_of(row: RowClass | Mapping[str, Any]) -> dict[str, Any]:
    """A row as Arrow takes it."""
    return dict(row) if isinstance(row, Mapping) else {field.name: getattr(row, field.name) for field in fields(row)}


def row_of(row: type[R], values: Mapping[str, Any]) -> R:
    """A row out of what a table has of it; columns that the class does not know are left out."""
    made = object.__new__(row)
    for field in fields(row):
        if field.name in values:
            object.__setattr__(made, field.name, values[field.name])
    return made


def read_rows(table: pa.Table, row: type[R]) -> list[R]:
    """The rows of a table, in order."""
    return [row_of(row, values) for values in table.to_pylist()]
