"""A whole resource in environment variables, none of which can pass what Linux takes (128 KiB for one string).

A spec of 10 kB is 150 kB once every default of every stage is written out: it is compressed, and cut into pieces.
Base64 keeps Kubernetes from expanding a `$(NAME)` that a prompt may hold.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from viper.errors import SpecError

#: Characters of a piece, and of all of them: an object of the API has room for 1.5 MB.
PIECE, MOST = 65_536, 2**20
#: Bytes of what is packed.
LARGEST = 16 * 2**20


def pack(text: str, where: str) -> list[str]:
    """Pieces of ASCII; raises `SpecError` when `text`, which stands at `where`, is too large in any case."""
    data = text.encode("utf-8", "backslashreplace")
    packed = base64.b64encode(zlib.compress(data, 9)).decode()
    if len(packed) > MOST or len(data) > LARGEST:
        raise SpecError(
            f"is too large: {len(data)} bytes with every default, {len(packed)} of at most {MOST} when compressed",
            where=where,
            fix="shorten env, podTemplate and other long fields of its profile",
        )
    return [packed[i : i + PIECE] for i in range(0, len(packed), PIECE)]


def unpack(pieces: Sequence[str], where: str) -> str:
    """What was packed; raises `SpecError` when pieces are missing or damaged."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.b64decode("".join(pieces), validate=True), LARGEST)
        text = data.decode()
    except (ValueError, zlib.error, binascii.Error) as error:
        raise SpecError(f"is damaged: {error}", where=where) from None
    if not reader.eof:
        raise SpecError("is incomplete: a piece is missing, or it is too large", where=where)
    return text


def variables(name: str, pieces: Sequence[str]) -> dict[str, str]:
    """`NAME_0`, `NAME_1`, …"""
    return {f"{name}_{i}": piece for i, piece in enumerate(pieces)}


def pieces_of(name: str, environment: Mapping[str, str]) -> list[str]:
    """The pieces, in order; empty when there are none."""
    there = takewhile(environment.__contains__, (f"{name}_{i}" for i in count()))
    return [environment[n] for n in there]
