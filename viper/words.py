"""Words of messages: counts with their nouns, texts put together, how long something took. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def plural(number: float, noun: str, form: str = "") -> str:
    """A number with its noun: `1 step`, `24 steps`, `1,024 images` where `form` is `,`.

    The one place where a number meets its noun (`tests/text/test_words.py` looks for others).
    """
    return f"{number:{form}} {noun if number == 1 else plural_of(noun)}"


def plural_of(noun: str) -> str:
    """The plural of a noun whose last word is the one that changes: `entry`, `failed attempt`, `box`."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def joined(texts: Iterable[str], between: str = "; ") -> str:
    """Texts in one line: of each but the last, the stop at its end goes; empty ones are left out."""
    said = [line for text in texts if (line := one_line(text))]
    return between.join([*(text.rstrip(".") for text in said[:-1]), *said[-1:]])


def in_brackets(text: str) -> str:
    """` (text)`, to be said after something; the stop at its end goes, and without a text there are no brackets."""
    line = one_line(text).rstrip(".")
    return f" ({line})" if line else ""


def one_line(text: str) -> str:
    """The text in one line: tables and terminals cut at the first line break."""
    return " ".join(text.split())


def duration(seconds: float, decimals: int = 0) -> str:
    """`41 s`, `12 min 03 s`, `5 h 20 min`; `decimals` only below a minute."""
    s = round(seconds)
    if s < 60:
        return f"{seconds:.{decimals}f} s"
    return f"{s // 60} min {s % 60:02d} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60:02d} min"


def took(wall: float, work: float | None, what: str = "") -> str:
    """How long something took: `75 s, of which 15.6 s in 24 steps`.

    Args:
        wall: seconds from its beginning to its end.
        work: seconds of the work itself, where known; said when a tenth or more of `wall`, and a second, went elsewhere
            (starting, loading, waiting).
        what: what was worked on, e.g. `24 steps`.
    """
    if not _differs(wall, work) or work is None:
        return duration(wall, 1)
    return f"{duration(wall, 1)}, of which {duration(work, 1)} in {what or 'the work itself'}"


def own_time(wall: float | None, work: float | None) -> str:
    """`15.6 s of that in the work itself`, to be said after `wall`; empty where the two hardly differ."""
    return f"{duration(work, 1)} of that in the work itself" if work and wall and _differs(wall, work) else ""


def _differs(wall: float, work: float | None) -> bool:
    return work is not None and 0 < work <= wall - max(1.0, wall / 10)


def probability(p: float) -> str:
    """A p-value: `0.000366`, `0.04`, `1.00`; a whole number reads as a count."""
    return f"{p:.2f}" if p > 0.995 else f"{p:.3g}"
