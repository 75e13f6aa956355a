"""One bad object costs its part of the report: what it is made from may be torn, of another shape, or not ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from viper.errors import ViperError

T = TypeVar("T")
#: What reading and showing stored JSON and Parquet of another shape raises.
UNREADABLE = (
    ViperError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def guarded(problems: list[str], what: str, make: Callable[[], T], instead: T) -> T:
    """What `make` returns; `instead`, and a problem of the report, where it cannot."""
    try:
        return make()
    except UNREADABLE as error:
        problems.append(f"{what}: {why(error)}")
        return instead


def why(error: Exception) -> str:
    """Why something cannot be shown, on one line."""
    if isinstance(error, ViperError):
        text = f"{error.where}: {error.what}" if error.where else error.what
    else:
        text = f"is not as it is written by ViPER ({type(error).__name__}: {error})"
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"
