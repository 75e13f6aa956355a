"""Text is made clean where it comes in: what every model, file and server says passes here before anything keeps it.

A store, Parquet, JSON, MLflow, XML and HTML do not take the same text: half an emoji (a lone surrogate) cannot be
encoded at all, a NUL ends a string in some databases, other controls are not allowed in XML and HTML. What cannot be
kept everywhere becomes U+FFFD, so that a reader sees that something was there; what means a line break becomes one.
Nothing else changes: no normal form is chosen here, since a name in NFC is another name than one in NFD.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, Literal

#: What stands for what is not shown.
HIDDEN = "…"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}:/{0,2}[^\s/'\"<>][^\s'\"<>]*")
#: User and password of a URL; AWS' secrets have slashes in them, passwords have `@`. `hf://org/name@revision` has none.
_PERSON = re.compile(r"(?<=://)(?:[^/?#:@]{0,500}:.{0,500}|[^/?#]{0,500})(?:@|%40)")
_VALUE = re.compile(r"([?&;#][^=?&;#]*=)([^?&;#]*)")
_SECRET = re.compile(
    r"([?&;#][^=?&;#\s]*(?:amz|sig|token|key|secret|passw|pwd|auth|credential|session)[^=?&;#\s]*=)[^\s&;#'\"]*", re.I
)
#: Fields of a query that are shown: those that ours have.
_SHOWN = re.compile(r"[?&](endpoint|count|seed|mode)=", re.I)
REPLACEMENT = "\ufffd"
#: Vertical tab, form feed and NEL break lines (Unicode's UAX #14); few readers know it.
_BREAKS = re.compile("[\x0b\x0c\x85]")
#: Controls but tab, line feed and carriage return; surrogates; the 66 code points that are no characters.
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
_MOST_MARKS, _JOINER = 30, "\u034f"
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")

#: `user:password@host`, also behind `//`, where no scheme stands before it; no tag with a digest.
_BARE_PERSON = re.compile(r"(?<![\w./:@%+~-])(?://)?[\w.%+~-]{1,64}:[^\s/@'\"]{1,256}@(?!sha\d+:)(?=\w)")


def clean(text: str) -> str:
    """The text as everything can keep it; clean text comes back as it is, and a second pass changes nothing.

    The halves of a character that came apart (a surrogate pair) are put together; one alone becomes U+FFFD, as do
    controls and non-characters.
    """
    if text.isprintable():
        return text
    text = _PAIR.sub(_joined, text)
    return _UNFIT.sub(REPLACEMENT, _BREAKS.sub("\n", text))


def without_credentials(text: str) -> str:
    """The text with user, password and the values of queries and fragments in its URLs replaced: it may go into a log.

    What ViPER itself writes into a query (`?endpoint=`, `?count=`) stays.
    """
    if ":" not in text and "=" not in text:
        return text
    text = _URL.sub(lambda url: _anonymous(url[0]), text)
    return _SECRET.sub(rf"\1{HIDDEN}", _BARE_PERSON.sub(f"{HIDDEN}@", text))


def _anonymous(url: str) -> str:
    def value(found: re.Match[str]) -> str:
        plain = _SHOWN.fullmatch(found[1]) and "%40" not in found[2]
        return found[0] if plain else f"{found[1]}{HIDDEN}"

    return _VALUE.sub(value, _PERSON.sub(f"{HIDDEN}@", url))


def decoded(data: bytes) -> str:
    """Bytes that should be UTF-8 as clean text: a byte order mark in front is dropped, what is no UTF-8 is U+FFFD."""
    return clean(data.decode("utf-8", errors="replace").removeprefix("\ufeff"))


def clean_json(value: Any) -> Any:
    """What JSON was read to, with every text in it clean, keys too: escapes (`\\ud83d`) bring in what no file holds.

    A copy; works for any depth. Of two keys that become the same, the later one stays.
    """
    root: list[Any] = [None]
    stack: list[tuple[Any, Any, Any]] = [(root, 0, value)]
    while stack:
        owner, place, item = stack.pop()
        if isinstance(item, str):
            owner[place] = clean(item)
        elif isinstance(item, dict):
            made = dict.fromkeys(clean(k) if isinstance(k, str) else k for k in item)
            owner[place] = made
            # The last of equal keys is popped last.
            stack.extend((made, clean(k) if isinstance(k, str) else k, v) for k, v in reversed(item.items()))
        elif isinstance(item, list | tuple):
            copy: list[Any] = [None] * len(item)
            owner[place] = copy
            stack.extend((copy, i, v) for i, v in enumerate(item))
        else:
            owner[place] = item
    return root[0]


def load_json(data: str | bytes) -> Any:
    """JSON as people and servers write it, as clean text: a byte order mark and raw controls in strings are taken.

    Raises `ValueError` for what is no JSON, and for what is nested deeper than can be read.
    """
    text = decoded(data) if isinstance(data, bytes) else clean(data.removeprefix("\ufeff"))
    try:
        return clean_json(json.loads(text, strict=False))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def normal(form: Literal["NFC", "NFKC"], text: str) -> str:
    """A normal form in time that grows with the length.

    Putting a run of combining marks into order takes time with its square; after 30 of them a joiner that shows nothing
    ends a run (Stream-Safe Text Format, Unicode's UAX #15).
    """
    return text if text.isascii() else unicodedata.normalize(form, _stream_safe(text))


def _stream_safe(text: str) -> str:
    made: list[str] = []
    begin = marks = 0
    for place, character in enumerate(text):
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks > _MOST_MARKS:
            made += [text[begin:place], _JOINER]
            begin, marks = place, 1
    return "".join([*made, text[begin:]]) if made else text


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")
