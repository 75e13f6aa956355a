"""What a model wrote, read by one rule wherever an answer is taken: synthesis, judges, the reward, the evaluation.

- Reasoning ends at the last `</think>`; without an opening mark (the chat template has written it) all before it is
  reasoning too. What follows is the answer.
- Reasoning that does not end leaves no answer: also one that is opened again after an end.
- An answer that was cut off is no answer.

Everything here takes time that grows with the text's length, not with its square.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from viper.text import clean, clean_json

THINK, END_THINK = "<think>", "</think>"
#: The marks of reasoning that models are published with; a group is there where one ends it.
_MARK = re.compile(
    r"<\s?(/?)\s?(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)\s?>|◁(/?)think▷|\[(/?)THINK\]"
    r"|<\|(?:START|(END))_THINKING\|>|<\|(?:begin|(end))_of_thought\|>|<[|｜](/?)think[|｜]>"
    r"|<\|channel\|>(?:analysis|(final))<\|message\|>",
    re.IGNORECASE,
)
_FENCE = "```"
_LANGUAGE = re.compile(r"[\w+-]*+[ \t]*+\n?")
#: Longest answer that is looked through for JSON, in characters, and how many `{` are tried as an object's beginning.
MAX_CHARACTERS, MAX_STARTS = 1 << 20, 64
_OBJECT = re.compile(r'\{(?=\s*+["}])')

EMPTY, CUT_OFF, UNENDED = "empty", "cut off at the token limit", "the reasoning does not end"


@dataclass(frozen=True)
class Reading:
    """A model's text taken apart; `problem` says why there is no answer, empty when there is one."""

    reasoning: str
    answer: str
    problem: str = ""


def read(text: str, finished: bool = True) -> Reading:
    """Splits what a model wrote into reasoning and answer, both trimmed; never raises.

    Args:
        finished: False when it was cut off, as far as the engine says.
    """
    end = opened = None
    for mark in _MARK.finditer(text):
        if any(mark.groups()):
            end, opened = mark, None
        elif opened is None:
            opened = mark
    if opened is not None:
        before = "" if end is None else text[: end.start()]
        return Reading(_unmarked(f"{before} {text[opened.end() :]}"), "", UNENDED)
    reasoning, answer = ("", text) if end is None else (_unmarked(text[: end.start()]), text[end.end() :])
    answer = answer.strip()
    problem = EMPTY if not answer else "" if finished else CUT_OFF
    return Reading(reasoning, "" if problem else answer, problem)


def _unmarked(reasoning: str) -> str:
    return _MARK.sub(" ", reasoning).strip()


def fenced(text: str) -> Iterator[str]:
    """What is inside ``` fences, in order, without the language's name; a fence that is not closed is none."""
    position = text.find(_FENCE)
    while position >= 0:
        found = _LANGUAGE.match(text, position + len(_FENCE))
        begin = found.end() if found else position + len(_FENCE)
        end = text.find(_FENCE, begin)
        if end < 0:
            return
        yield text[begin:end]
        position = text.find(_FENCE, end + len(_FENCE))


class _Pairs(dict[str, Any]):
    """An object as it was written: `twice` are the keys that it gives different values."""

    twice: frozenset[str] = frozenset()


class Object(NamedTuple):
    """A JSON object in an answer, from `begin` to `end`; `twice` are the keys that it gives different values (the last
    is kept)."""

    value: dict[str, Any]
    twice: frozenset[str]
    begin: int
    end: int


def objects(text: str) -> list[Object]:
    """The JSON objects in an answer, in order, none of them inside another one; fences and prose are passed over.

    Texts are clean, keys too. Raises `ValueError` when the answer is too long, or has too many beginnings of objects,
    to be looked through whole.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"longer than {MAX_CHARACTERS} characters")
    decoder = json.JSONDecoder(strict=False, object_pairs_hook=_pairs)
    found: list[Object] = []
    starts, begin = 0, _OBJECT.search(text)
    while begin is not None:
        starts += 1
        if starts > MAX_STARTS:
            raise ValueError(f"more than {MAX_STARTS} beginnings of JSON objects")
        try:
            value, end = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            end = begin.end()
        else:
            found.append(Object(clean_json(value), value.twice, begin.start(), end))
        begin = _OBJECT.search(text, end)
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    made = _Pairs(pairs)
    if len(made) < len(pairs):
        made.twice = frozenset(clean(key) for key, value in pairs if made[key] != value)
    return made
