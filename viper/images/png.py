"""What a PNG carries beside its picture: notes and profiles of any size, which nobody looks at here."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

#: More than this Pillow refuses to hold of one note (`PngImagePlugin.MAX_TEXT_CHUNK`), and of all (a margin below
#: `MAX_TEXT_MEMORY`): a workflow of ComfyUI is larger.
NOTE_BYTES, ALL_NOTES_BYTES = 1 << 20, 1 << 25
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NOTES = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})


def without_heavy_notes(data: bytes) -> bytes:
    """The file without the notes and profiles that Pillow would refuse it for; the same object when there is none."""
    if not data.startswith(_SIGNATURE):
        return data
    heavy, total = [], 0
    for start, end, kind in _chunks(data):
        if kind in _NOTES:
            size = _unpacked(kind, data[start + 8 : end - 4])
            total += size
            if size > NOTE_BYTES or total > ALL_NOTES_BYTES:
                heavy.append((start, end))
    if not heavy:
        return data
    kept, place = [], 0
    for start, end in heavy:
        kept.append(data[place:start])
        place = end
    return b"".join([*kept, data[place:]])


def _chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Start, end and kind of every whole chunk."""
    place = len(_SIGNATURE)
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        yield place, end, data[place + 4 : place + 8]
        place = end


def _unpacked(kind: bytes, body: bytes) -> int:
    """Bytes of a note once it is unpacked; of a large one, some number above `NOTE_BYTES`."""
    name, _, rest = body.partition(b"\0")
    if kind == b"iTXt" and rest[:1] == b"\1":
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif kind in (b"zTXt", b"iCCP"):
        rest = rest[1:]
    else:
        return len(body)
    try:
        return len(name) + len(zlib.decompressobj().decompress(rest, NOTE_BYTES + 1))
    except zlib.error:
        return len(body)
