"""Reads the small world's English the way its tools do: leniently.

`viper.smallworld.language` reads exactly the sentences it writes. The reconstructor and the editor stand for models
that take any English, so this reader accepts synonyms, other word orders and left-out words, and ignores what it does
not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Final, Literal

from viper.smallworld.scenes import ATTRIBUTES, BACKGROUND_COLORS, CELLS, PATTERNS

Verb = Literal["add", "remove", "move", "change"]

# Synonyms are shared by every tool that reads; the training of the similarity model draws its paraphrases elsewhere.
_DIRECTIONS: Final[dict[str, str]] = {
    **dict.fromkeys(("top", "upper", "above", "uppermost", "north"), "top"),
    **dict.fromkeys(("bottom", "lower", "below", "lowest", "south"), "bottom"),
    **dict.fromkeys(("left", "leftmost", "west"), "left"),
    **dict.fromkeys(("right", "rightmost", "east"), "right"),
    **dict.fromkeys(("center", "centre", "middle", "central"), "center"),
}
_SIZE_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("small", "little", "tiny", "smaller", "minor"), "small"),
    **dict.fromkeys(("big", "large", "huge", "bigger", "larger"), "big"),
}
_COLOR_WORDS: Final[dict[str, str]] = {"violet": "purple", "rose": "pink"}
_SHAPE_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("disc", "disk", "dot", "round"), "circle"),
    "box": "square",
    "rhombus": "diamond",
    "plus": "cross",
    **dict.fromkeys(("donut", "doughnut", "hoop"), "ring"),
}
_TEXTURE_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("plain", "solid", "uniform", "unpatterned"), "plain"),
    **dict.fromkeys(("striped", "stripy", "stripes", "lined"), "striped"),
    **dict.fromkeys(("dotted", "spotted", "speckled", "dots"), "dotted"),
}
_GROUND_WORDS: Final[dict[str, str]] = {
    **dict.fromkeys(("smooth", "plain", "solid", "uniform"), "smooth"),
    **dict.fromkeys(("lined", "striped", "stripes", "lines"), "lined"),
    **dict.fromkeys(("checked", "checkered", "chequered", "checkerboard"), "checked"),
}
_GROUND_COLOR_WORDS: Final[dict[str, str]] = {"grey": "gray", "turquoise": "teal", "sand": "beige"}
_VERBS: Final[dict[str, Verb]] = {
    **dict.fromkeys(("remove", "delete", "erase", "drop"), "remove"),
    **dict.fromkeys(("add", "insert", "put", "place", "draw"), "add"),
    **dict.fromkeys(("move", "shift", "relocate", "drag", "transfer"), "move"),
    **dict.fromkeys(("change", "turn", "make", "paint", "recolor", "replace", "set", "alter", "switch"), "change"),
}
_MARKS: Final[dict[str, str]] = {
    **dict.fromkeys(("to", "into", "with", "onto", "becomes"), "to"),
    "from": "from",
    **dict.fromkeys(("background", "backdrop"), "background"),
    **dict.fromkeys(("nothing", "empty", "no", "missing", "not", "without"), "absent"),
    **dict.fromkeys(("color", "colour"), "name:color"),
    **dict.fromkeys(("texture", "pattern"), "name:texture"),
    "size": "name:size",
    **dict.fromkeys(("shape", "form"), "name:shape"),
}
_THING_VALUES: Final[dict[str, tuple[str, str]]] = {
    **{word: (name, word) for name, words in ATTRIBUTES.items() for word in words},
    **{
        word: (name, value)
        for name, synonyms in (
            ("size", _SIZE_WORDS),
            ("texture", _TEXTURE_WORDS),
            ("color", _COLOR_WORDS),
            ("shape", _SHAPE_WORDS),
        )
        for word, value in synonyms.items()
    },
}
_GROUND_VALUES: Final[dict[str, tuple[str, str]]] = {
    **{word: ("pattern", word) for word in PATTERNS},
    **{word: ("color", word) for word in BACKGROUND_COLORS},
    **{word: ("pattern", value) for word, value in _GROUND_WORDS.items()},
    **{word: ("color", value) for word, value in _GROUND_COLOR_WORDS.items()},
}


@dataclass(frozen=True)
class Term:
    """One thing a word says: `kind` is an attribute, `cell`, `verb` or `mark`."""

    kind: str
    value: str


@dataclass(frozen=True)
class Mention:
    """A thing as far as the text describes it: only the attributes said; `cell` is None when no place is said."""

    attributes: Mapping[str, str]
    cell: int | None


@dataclass(frozen=True)
class Reading:
    """What a caption says. `background` may hold `pattern`, `color`, both or neither."""

    background: Mapping[str, str]
    things: tuple[Mention, ...]


@dataclass(frozen=True)
class Instruction:
    """What an editing instruction asks for.

    `of` is what it acts on (for the background: `old` values it claims). `new` are the attributes to give, `target`
    the cell to move to. `background` tells that `of`/`new` speak about the background.
    """

    verb: Verb
    of: Mention
    new: Mapping[str, str] = field(default_factory=dict)
    target: int | None = None
    background: bool = False


class Unreadable(ValueError):  # noqa: N818 - it is an answer ("could not read that"), not a fault
    """The instruction cannot be read; the text of the exception says why, for the editor's note."""


def words(text: str) -> list[str]:
    """Lower-case words; hyphens and punctuation separate."""
    return re.findall(r"[^\W\d_]+", text.lower())


def terms(text: str) -> list[Term]:
    """The known words of `text` in order, synonyms resolved, `upper left` and the like joined to one cell."""
    said = words(text)
    values = _GROUND_VALUES if {"background", "backdrop"} & set(said) else _THING_VALUES
    found: list[Term] = []
    directions: list[str] = []
    for word in (*said, ""):
        if word in _DIRECTIONS:
            directions.append(_DIRECTIONS[word])
            continue
        if directions:
            found += [Term("cell", cell) for cell in _cells(directions)]
            directions = []
        if word in _VERBS and not found:
            found.append(Term("verb", _VERBS[word]))
        elif word in values:
            found.append(Term(*values[word]))
        elif word in _MARKS:
            found.append(Term("mark", _MARKS[word]))
    return found


def _cells(directions: Sequence[str]) -> Iterable[str]:
    """Cells named by a run of direction words: `top left`, `left top`, `middle right`, `top center`, `center`."""
    for start in range(0, len(directions), 2):
        pair = directions[start : start + 2]
        named = [word for word in ("top", "bottom", "left", "right") if word in pair]
        name = " ".join(named) or "center"
        if name in CELLS:  # "left right" names no cell
            yield name


def _mention(said: Iterable[Term]) -> Mention:
    """Raises `Unreadable` when an attribute or the place is given two values."""
    attributes: dict[str, str] = {}
    for term in said:
        if term.kind not in ("mark", "verb") and attributes.setdefault(term.kind, term.value) != term.value:
            raise Unreadable(f"the {term.kind} is said to be both {attributes[term.kind]} and {term.value}")
    place = attributes.pop("cell", None)
    return Mention(attributes, None if place is None else CELLS.index(place))


def read_caption(text: str) -> Reading:
    """What `text` says about the picture; sentences that say nothing about it are ignored.

    A sentence holds one or more things, each ending at its shape word; the n-th place belongs to the n-th thing.
    Sentences that deny ("At left is nothing.") add no thing. Later statements about a cell or the background win.
    """
    background: dict[str, str] = {}
    things: list[Mention] = []
    for sentence in re.split(r"[.;!?\n]+", text):
        said = terms(sentence)
        if Term("mark", "absent") in said:
            continue
        if Term("mark", "background") in said:
            background.update({term.kind: term.value for term in said if term.kind in ("pattern", "color")})
            continue
        cells = [CELLS.index(term.value) for term in said if term.kind == "cell"]
        described: dict[str, str] = {}
        shaped: list[dict[str, str]] = []
        for term in said:
            if term.kind in ATTRIBUTES:
                described[term.kind] = term.value
            if term.kind == "shape":
                shaped.append(described)
                described = {}
        if shaped and described:  # "The ring at left is red."
            shaped[-1] = described | shaped[-1]
        places = chain(cells, repeat(None))
        things += [Mention(given, cell) for given, cell in zip(shaped, places, strict=False)]
    return Reading(background, tuple(things))


def read_instruction(text: str) -> Instruction:
    """What `text` asks for; raises `Unreadable` with the reason when that cannot be told."""
    said = terms(text)
    if not said or said[0].kind != "verb":
        raise Unreadable("the instruction does not start with an operation (add, remove, move, change)")
    verb, rest = said[0].value, said[1:]
    if Term("mark", "background") in rest:
        return _background_change(verb, rest)
    if verb == "move":
        return _move(rest)
    if verb == "change":
        return _change(rest)
    of = _mention(rest)
    if verb == "add":
        if of.cell is None or "shape" not in of.attributes:
            raise Unreadable("what to add needs a shape and a place")
        return Instruction("add", of)
    if of.cell is None and not of.attributes:
        raise Unreadable("the instruction does not say what to remove")
    return Instruction("remove", of)


def _split(said: Sequence[Term]) -> tuple[list[Term], list[Term], bool]:
    """The terms before and after `to`; a `from` clause that follows counts as before."""
    before: list[Term] = []
    after: list[Term] = []
    into = before
    for term in said:
        if term == Term("mark", "to"):
            into = after
        elif term == Term("mark", "from"):
            into = before
        else:
            into.append(term)
    return before, after, Term("mark", "to") in said


def _background_change(verb: str, said: Sequence[Term]) -> Instruction:
    before, after, split = _split(said)
    old, new = (before, after) if split else ([], before)
    if verb != "change" or not _mention(new).attributes:
        raise Unreadable("a background can only be changed, and to a known colour or pattern")
    return Instruction("change", _mention(old), _mention(new).attributes, background=True)


def _move(said: Sequence[Term]) -> Instruction:
    before, after, _ = _split(said)
    of, target = _mention(before), _mention(after).cell
    if target is None:
        raise Unreadable("the instruction does not say where to move it")
    if of.cell is None and not of.attributes:
        raise Unreadable("the instruction does not say what to move")
    return Instruction("move", of, target=target)


def _change(said: Sequence[Term]) -> Instruction:
    before, after, split = _split(said)
    if not split:  # "Paint the ring at left blue.": what follows place and shape is new
        named = (index for index, term in enumerate(before) if term.kind in ("cell", "shape"))
        last = max(named, default=len(before))
        before, after = before[: last + 1], before[last + 1 :]
    of, new = _mention(before), _mention(after).attributes
    names = [term.value.removeprefix("name:") for term in before if term.value.startswith("name:")]
    if not new or (names and set(new) != set(names)):
        raise Unreadable(f"no known {names[0] if names else 'attribute'} to change to")
    if of.cell is None and not of.attributes:
        raise Unreadable("the instruction does not say what to change")
    return Instruction("change", of, new)
