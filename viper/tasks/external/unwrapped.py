r"""Ground truths without what they are wrapped in for verifiers: `\boxed{…}`, `<answer>…</answer>`, reasoning before.

What is left is the answer as it is meant: braces of LaTeX inside a box are counted, and an answer of several boxes is
several.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from viper.reader import read

_BOX = re.compile(r"\\(?:boxed|fbox)\s*+\{|[{}]|\\[{}]")
#: What may stand between boxes, and around one, without saying anything.
_BETWEEN = re.compile(
    r"(?:[\s$,;.&，；。、]|\*\*|\\[()\[\],;]|\\q?quad\b|\\text\{\s*+(?:or|and)\s*+\}|\b(?:or|and)\b)*+"
)
_TAG, _END_TAG = "<answer>", "</answer>"


def unwrapped(text: str) -> str | tuple[str, ...]:
    r"""The answer in a supplied one, several where it has several boxes; the text itself where it is in none.

    `$\boxed{3}$ or $\boxed{4}$` are `3` and `4`; `The sum is \boxed{3}.` says more than its box, and stays.
    """
    text = _untagged(text.strip())
    boxes, rest, end = [], [], 0
    for begin, inner, stop in _boxes(text):
        boxes.append(inner.strip())
        rest.append(text[end:begin])
        end = stop
    rest.append(text[end:])
    if not boxes or not all(_BETWEEN.fullmatch(part) for part in rest):
        return text
    found = [box for box in boxes if box]
    return found[0] if len(found) == 1 else tuple(found)


def _untagged(text: str) -> str:
    """Without reasoning and the marks of an answer around all of it."""
    answer = read(text).answer
    inner = answer[len(_TAG) : -len(_END_TAG)]
    tagged = answer[: len(_TAG)].casefold() == _TAG and answer[-len(_END_TAG) :].casefold() == _END_TAG
    return inner.strip() if tagged and _TAG not in inner.casefold() else answer


def _boxes(text: str) -> Iterator[tuple[int, str, int]]:
    """Where each outermost box begins, what is in it, and where it ends; one that does not end is none."""
    depth, begin, inside = 0, -1, 0
    for mark in _BOX.finditer(text):
        opens, closes = mark[0].endswith("{") and mark[0] != "\\{", mark[0] == "}"
        if begin < 0:
            if opens and mark[0] != "{":
                begin, inside, depth = mark.start(), mark.end(), 1
        elif opens:
            depth += 1
        elif closes:
            depth -= 1
            if not depth:
                yield begin, text[inside : mark.start()], mark.end()
                begin = -1
