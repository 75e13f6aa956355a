"""Markers of lists in a plain answer: dropped where they mark items, kept where they are part of what is said.

A dash is a minus, `#7` a number, `A.` the letter of a choice unless a list is there: numbers and letters mark items
when they count on from line to line, or begin with 1; a sign in front of a number when another line has it too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

_SIGNS, _DOTS = "-*+–—", "•‣◦▪●·"
_COUNTED = re.compile(r"\(?(?:(\d{1,3})|([a-zA-Z]))[.)](?=\s)\s*|\((\d{1,3})\)\s*")
_HEADING = re.compile(r"#{1,6}\s++(?=\D)")
_NUMBER = re.compile(r"[.,]?\d|[$\\∞√π(]")
_SENTENCE = re.compile(r"(?!Inf)[A-Z][a-z]|[^\W\d_]{2,}\s+[^\W\d_]{2,}")


def without_markers(lines: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Trimmed lines without markers, and where a line's text begins: behind a marker-like beginning that it keeps.

    Blank lines and those of code fences are left out.
    """
    trimmed = [line for raw in lines if (line := raw.strip()) and not line.startswith("```")]
    counted = [_COUNTED.match(line) for line in trimmed]
    spaced = Counter(line[0] for line in trimmed if line[0] in _SIGNS and line[1:2].isspace())
    marks = _marks(counted)
    for place, line in enumerate(trimmed):
        found = counted[place]
        if found is not None:
            yield (line[found.end() :], 0) if marks[place] and found.end() < len(line) else (line, found.end())
        elif line[0] in _SIGNS:
            yield (line[1:].lstrip() if _is_bullet(line, spaced[line[0]]) else line), 0
        elif line[0] in _DOTS:
            yield (line if line[0] == "·" and line[1:2].isdigit() else line[1:].lstrip()), 0
        else:
            heading = _HEADING.match(line)
            yield line[heading.end() :] if heading else line, 0


def _marks(counted: Sequence[re.Match[str] | None]) -> list[bool]:
    """Which counted beginnings count on, from the one before or to the one after, or are a 1."""
    values = [None if m is None else (m[2] is None, int(m[1] or m[3]) if m[2] is None else ord(m[2])) for m in counted]
    there = [value for value in values if value is not None]
    result, place = [], -1
    for value in values:
        if value is None:
            result.append(False)
            continue
        place += 1
        is_number, number = value
        before = place > 0 and there[place - 1] == (is_number, number - 1)
        after = place + 1 < len(there) and there[place + 1] == (is_number, number + 1)
        result.append(before or after or (is_number and number == 1))
    return result


def _is_bullet(line: str, lines: int) -> bool:
    """Whether the sign in front of a line is a bullet; `lines` is how many begin with it and white space."""
    rest = line[1:]
    if not rest[:1].isspace():
        first = rest[:1]
        if not first or _NUMBER.match(rest) or first in line[0]:
            return False
        cased = first.lower() != first.upper()
        return not cased or bool(_SENTENCE.match(rest))
    return lines > 1 or not _NUMBER.match(rest.lstrip())
