"""A word cloud as SVG: the more often a word, the larger; operations in a colour of their own. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from viper.analysis.reasoning import Words
from viper.words import plural

WIDTH, HEIGHT = 520, 320
SHOWN = 70
_SMALLEST, _LARGEST = 11.0, 46.0
#: Width of a character and height of a line, as shares of the font size: those of common sans-serif fonts, rounded up.
_CHARACTER, _LINE = 0.6, 1.1


@dataclass(frozen=True)
class Placed:
    """A word, the middle of its box, its font size in px, and how often it was said."""

    text: str
    x: float
    y: float
    size: float
    count: int
    operation: bool


def entries(words: Words, most: int = SHOWN) -> list[tuple[str, int, bool]]:
    """The most frequent words and operations: text, count, whether it is an operation."""
    found = [(w, n, False) for w, n in words.words.items()] + [(w, n, True) for w, n in words.operations.items()]
    return sorted(found, key=lambda e: (-e[1], e[0]))[:most]


def layout(found: Sequence[tuple[str, int, bool]], width: int = WIDTH, height: int = HEIGHT) -> list[Placed]:
    """Words from the middle outwards along a spiral, the frequent ones first; one that fits nowhere is left out."""
    if not found:
        return []
    largest, placed = max(n for _, n, _ in found), list[Placed]()
    for text, count, operation in found:
        size = _SMALLEST + (_LARGEST - _SMALLEST) * math.sqrt(count / largest)
        half_w, half_h = 0.5 * size * _CHARACTER * len(text) + 3, 0.5 * size * _LINE
        for turn in range(600):
            angle = 0.35 * turn
            x = width / 2 + 0.9 * turn**0.75 * math.cos(angle) * width / height
            y = height / 2 + 0.9 * turn**0.75 * math.sin(angle)
            inside = half_w <= x <= width - half_w and half_h <= y <= height - half_h
            if inside and not any(_overlap(x, y, half_w, half_h, p) for p in placed):
                placed.append(Placed(text, round(x, 1), round(y, 1), round(size, 1), count, operation))
                break
    return placed


def _overlap(x: float, y: float, half_w: float, half_h: float, p: Placed) -> bool:
    other_w, other_h = 0.5 * p.size * _CHARACTER * len(p.text) + 3, 0.5 * p.size * _LINE
    return abs(x - p.x) < half_w + other_w and abs(y - p.y) < half_h + other_h


def svg(words: Words, title: str, styles: Mapping[bool, str] | None = None) -> str:
    """An `<svg>` element. Words come from a model and are escaped.

    Args:
        styles: attribute of a word by whether it is an operation; by default the report's CSS classes.
    """
    said = styles or {True: 'class="op"', False: 'class="word"'}
    texts = "".join(
        f'<text {said[p.operation]} x="{p.x}" y="{p.y}" font-size="{p.size}"><title>{escape(p.text)}: {p.count}'
        f"</title>{escape(p.text)}</text>"
        for p in layout(entries(words))
    )
    return (
        f'<svg class="cloud" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label={quoteattr(title)} '
        f'text-anchor="middle" dominant-baseline="central">{texts}</svg>'
    )


def page(title: str, pictures: Sequence[tuple[str, Words]]) -> str:
    """A page of its own with several clouds, for MLflow."""
    styles = {True: 'fill="#c2571a" font-weight="600"', False: 'fill="#39424a"'}
    clouds = "".join(
        f"<figure><figcaption>{escape(label)}: {plural(w.outputs, 'output')}, {plural(w.tokens, 'word')}, "
        f"{w.operation_rate:.1f} operations in a thousand</figcaption>{svg(w, label, styles)}</figure>"
        for label, w in pictures
    )
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        "<style>body{font:15px sans-serif}figure{display:inline-block;width:520px;margin:8px}</style>"
        f"<h1>{escape(title)}</h1><p>Words of the reasoning; operations (scan, zoom in, focus on, …) in orange.</p>"
        f"{clouds}</html>\n"
    )
