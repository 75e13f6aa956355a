"""What a supplied row may say: text without marks that are not text, images, an answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from viper.images import Unusable
from viper.jsonl import Number
from viper.prompts import chat_mark
from viper.text import clean
from viper.words import plural

#: Where a file marks the places of its images in the text: here they all come before it.
_MARK = re.compile(r"<image(?:[ _]?\d+)?>", re.IGNORECASE)
_MARKS_BEFORE = re.compile(rf"\s*+(?:(?:{_MARK.pattern}\s*+)+(?:[,:;，：；、]\s*+)?)?", re.IGNORECASE)
_MARKS_ALONE = re.compile(rf"^[ \t]*(?:{_MARK.pattern}[ \t]*)+$\n?", re.IGNORECASE | re.MULTILINE)
_MARKS_BETWEEN = re.compile(rf"(?<=[.?!。？！\n])\s*+(?:{_MARK.pattern}\s*+)+(?=\S)", re.IGNORECASE)
#: What a sentence ends with before marks that follow it.
_ENDS = ".?!:;。?!:"
_SHOWN = 40


def prompt_of(text: str, images: int) -> str:
    """A prompt without the marks of its images, which all come before it.

    Raises `Unusable`: `image-marks` when there are others than one for each image, one for all of them or none, or one
    stands within a sentence, which without it would be another one; `chat-marks` for marks of a chat template.
    """
    no_chat_marks(text)
    marks = _MARK.findall(text)
    if (len(marks) > 1 and len(marks) != images) or len(marks) > images:
        raise Unusable(
            "image-marks", f"the prompt has {plural(len(marks), 'mark')} {marks[0]}, the row {plural(images, 'image')}"
        )
    if not marks:
        return text.strip()
    bare = _MARKS_BEFORE.sub("", text, count=1)
    bare = _MARKS_ALONE.sub("", bare)
    bare = _without_marks_after(bare)
    if images == 1:  # of several images each may belong to the sentence before its mark
        bare = _MARKS_BETWEEN.sub(lambda found: _between(found, bare), bare)
    if within := _MARK.search(bare):
        raise Unusable("image-marks", f"{within[0]} stands within a sentence: images are shown before the prompt")
    if not bare.strip():
        raise Unusable("invalid-row", "the prompt has nothing but marks")
    return bare.strip()


def _between(found: re.Match[str], text: str) -> str:
    """What stays of marks between two sentences; they stay where a sentence goes on behind them."""
    if text[found.end()].islower():
        return found[0]
    return "" if text[found.start() - 1] == "\n" else "\n" if "\n" in found[0] else " "


def _without_marks_after(text: str) -> str:
    """Without the marks at the end, where they follow a sentence or stand on a line of their own."""
    end = len(text)
    for mark in reversed(list(_MARK.finditer(text))):
        if text[mark.end() : end].strip():
            break
        end = mark.start()
    before = text[:end].rstrip()
    return before if before.endswith(tuple(_ENDS)) or "\n" in text[len(before) : end] else text


def no_chat_marks(text: str) -> None:
    """Raises `Unusable` for a text that a chat template or a processor would take for more than text."""
    if mark := chat_mark(text):
        raise Unusable("chat-marks", f"{mark[:_SHOWN]} is a mark of a chat template: give the text alone")


def text_of(values: Mapping[str, Any], name: str) -> str:
    """A text that a row has to have; raises `Unusable` (`invalid-row`)."""
    value = _there(values, name)
    if not isinstance(value, str):
        raise Unusable("invalid-row", f"{name}: is {_called(value)}, not a text")
    if not value.strip():
        raise Unusable("invalid-row", f"{name}: is empty")
    return clean(value)


def truth_of(values: Mapping[str, Any], name: str) -> str | tuple[str, ...]:
    """The answer of a row, a text or several; numbers, booleans, dates and times as they are written.

    Raises `Unusable`: `no-ground-truth` when there is none, `invalid-row` for what is no answer.
    """
    value = _there(values, name)
    if isinstance(value, list | tuple):
        truth: str | tuple[str, ...] = tuple(_answer(item, f"{name}.{number}") for number, item in enumerate(value))
    elif _is_null(value):
        raise Unusable("no-ground-truth", f"the row has no answer: {name} is null")
    else:
        truth = _answer(value, name)
    for text in (truth,) if isinstance(truth, str) else truth:
        no_chat_marks(text)
    return truth


def images_of(value: Any) -> tuple[str | bytes, ...]:
    """Paths or bytes, also of Hugging Face's `{bytes, path}`; raises `Unusable` for an entry that is neither."""
    if value is None or value in ("", []):
        return ()
    if isinstance(value, list | tuple):
        found: list[str | bytes] = []
        for number, item in enumerate(value, 1):
            images = images_of(item)
            if not images:
                raise Unusable("unreadable-image", f"image {number} is {_called(item)}")
            found += images
        return tuple(found)
    if isinstance(value, dict):
        return images_of(value.get("bytes") or value.get("path"))
    if isinstance(value, str | bytes):
        return (value,)
    raise Unusable("unreadable-image", f"an image is {_called(value)}, not a path")


def _there(values: Mapping[str, Any], name: str) -> Any:
    if name not in values:
        raise Unusable("invalid-row", f"{name}: is missing")
    return values[name]


def _answer(value: Any, name: str) -> str:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Number):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal) and not _is_null(value):
        return str(value)
    if isinstance(value, date | time) and not isinstance(value, datetime):
        return value.isoformat()
    raise Unusable("invalid-row", f"{name}: is {_called(value)}, not a text")


def _is_null(value: Any) -> bool:
    """Parquet made from a table has NaN where there is nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _called(value: Any) -> str:
    names: tuple[tuple[bool, str], ...] = (
        (_is_null(value), "null"),
        (value == "", "empty"),
        (isinstance(value, bool), "a boolean"),
        (isinstance(value, Number | int | float | Decimal), "a number"),
        (isinstance(value, list | tuple), "a list"),
        (isinstance(value, Mapping), "an object"),
        (isinstance(value, str), "a text"),
        (isinstance(value, bytes), "bytes"),
    )
    return next((words for found, words in names if found), f"a {type(value).__name__}")
