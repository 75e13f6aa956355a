"""Values on the command line: what is no such number or folder is refused with the words for it."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

from viper.errors import InputError
from viper.spec.forms import DEVICE, WORDS

#: What a database's URI does not take as part of a path.
_ODD = re.compile(r"[?#%\x00-\x1f\x7f]")


def whole(least: int, most: int, name: str) -> Callable[[str], int]:
    """The type of an option that takes a whole number from `least` to `most`."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.lstrip("+-").isdigit() and len(text) < 20 else None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no {name}: a whole number from {least} to {most}")
        return value

    return read


def real(least: float, most: float, name: str) -> Callable[[str], float]:
    """The type of an option that takes a number from `least` to `most`; never nan or infinity."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and least <= value <= most):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is no {name}: a number from {least:g} to {most:g}")
        return value

    return read


#: A version of a registered model.
version = whole(1, 2**31 - 1, "version")
#: τ, weights and shares.
SHARE = real(0, 1, "share")


def device(text: str) -> str:
    """The type of an option that names a torch device."""
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no device: {WORDS[DEVICE]}")
    return text


def folder(path: Path, option: str) -> Path:
    """A folder that is there or can be made; raises `InputError` where a file is in its way."""
    where = f"{option} {str(path)[:200]!r}"
    if "\0" in str(path):
        raise InputError("cannot be a folder: embedded null byte", where=where)
    if option == "--dir" and _ODD.search(str(path.absolute())) and not (path / "run.json").exists():
        raise InputError(
            "holds one of ? # % or a control character, which address another database than the one in that folder",
            where=where,
            fix="choose a --dir without them",
        )
    try:
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
    except OSError as error:
        raise InputError(f"cannot be a folder: {error.strerror}", where=where) from None
    if not there.is_dir():
        raise InputError(f"{there} is a file", where=option, fix="name a folder, there or to be made")
    return path
