"""When two texts are the same text."""

from __future__ import annotations

import re

#: What belongs to a number: its sign, its point, what stands between digits, its per cent; a bracket of an interval.
_OF_NUMBERS = re.compile(
    r"(?<![^\W_])[-+−–](?=[.,]?\d)|(?<=\d)[.,:/^*×](?=\d)|(?<![^\W_])[.,](?=\d)|(?<=\d)[%°'\"](?!\w)"
    r"|(?<=[^\W_])\^(?=[-+\w])|[(\[](?=[-+−–]?[.,]?\d)|(?<=\d)[)\]]"
)


def comparable(text: str) -> str:
    """Text without case, punctuation and extra spaces: equal for what a person would call the same sentence.

    What makes one number another (`-5`, `3.5`, `(0, 1]`) stays.
    """
    folded = text.casefold()
    kept = {found.start() for found in _OF_NUMBERS.finditer(folded)}
    return " ".join("".join(c if c.isalnum() or i in kept else " " for i, c in enumerate(folded)).split())
