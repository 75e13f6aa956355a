"""The small world's language: every sentence form, written and read back without loss.

Three kinds of text exist. A *caption* states what a picture holds, a *flaw* states what a caption should have said,
and an *operation* is an instruction that turns one picture into another. All are plain English sentences in which the
position comes first, so that the attributes that follow are bound to one cell.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from viper.smallworld.scenes import (
    ATTRIBUTES,
    BACKGROUND_COLORS,
    CELLS,
    PATTERNS,
    Attribute,
    Background,
    Scene,
    Thing,
    random_background,
    random_thing,
)

Category = Literal[
    "Removing/Adding Details", "Changing Spatial Relationships", "Editing Background", "Attribute Tuning"
]
CATEGORIES: Final[tuple[Category, ...]] = (
    "Removing/Adding Details",
    "Changing Spatial Relationships",
    "Editing Background",
    "Attribute Tuning",
)


def _either(words: tuple[str, ...]) -> str:
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


_CELL = _either(CELLS)
_THING = " ".join(f"(?P<{name}>{_either(values)})" for name, values in ATTRIBUTES.items())
_ATTRIBUTE = _either(tuple(ATTRIBUTES))
_VALUE = _either(tuple(value for values in ATTRIBUTES.values() for value in values))
_BACKGROUND = f"{_either(PATTERNS)} {_either(tuple(BACKGROUND_COLORS))}"

_THING_SENTENCE = re.compile(rf"At (?P<cell>{_CELL}) is a {_THING}\.")
_BACKGROUND_SENTENCE = re.compile(rf"The background is (?P<background>{_BACKGROUND})\.")
_ATTRIBUTE_FLAW = re.compile(rf"At (?P<cell>{_CELL}) the (?P<attribute>{_ATTRIBUTE}) is (?P<value>{_VALUE})\.")
_MISSING_FLAW = re.compile(rf"At (?P<cell>{_CELL}) a {_THING} is missing\.")
_NOTHING_FLAW = re.compile(rf"At (?P<cell>{_CELL}) is nothing\.")
_REMOVE = re.compile(rf"Remove the {_THING} at (?P<cell>{_CELL})\.")
_ADD = re.compile(rf"Add a {_THING} at (?P<cell>{_CELL})\.")
_MOVE = re.compile(rf"Move the {_THING} at (?P<cell>{_CELL}) to (?P<target>{_CELL})\.")
_CHANGE_BACKGROUND = re.compile(rf"Change the background from (?P<old>{_BACKGROUND}) to (?P<new>{_BACKGROUND})\.")
_CHANGE_ATTRIBUTE = re.compile(
    rf"Change the (?P<attribute>{_ATTRIBUTE}) of the object at (?P<cell>{_CELL}) "
    rf"from (?P<old>{_VALUE}) to (?P<new>{_VALUE})\."
)


def sentences(text: str) -> list[str]:
    """The sentences of `text`, each ending in a full stop, outer white space removed."""
    return [part.strip() + "." for part in text.split(".") if part.strip()]


# ---------- captions ----------


@dataclass(frozen=True)
class Described:
    """What a caption says. Like a `Scene`, but the background may be unsaid."""

    background: Background | None
    things: tuple[Thing | None, ...]


def thing_words(thing: Thing) -> str:
    """`small striped red ring`."""
    return f"{thing.size} {thing.texture} {thing.color} {thing.shape}"


def background_words(background: Background) -> str:
    """`checked teal`."""
    return f"{background.pattern} {background.color}"


def thing_sentence(cell: int, thing: Thing) -> str:
    """`At top left is a small striped red ring.`"""
    return f"At {CELLS[cell]} is a {thing_words(thing)}."


def background_sentence(background: Background) -> str:
    """`The background is checked teal.`"""
    return f"The background is {background_words(background)}."


def nothing_sentence(cell: int) -> str:
    """`At left is nothing.`"""
    return f"At {CELLS[cell]} is nothing."


def caption(scene: Scene | Described) -> str:
    """The background (when known), then every thing in the order of the cells."""
    said = [] if scene.background is None else [background_sentence(scene.background)]
    said += [thing_sentence(cell, thing) for cell, thing in enumerate(scene.things) if thing is not None]
    return " ".join(said)


def _background(words: str) -> Background:
    pattern, color = words.split()
    return Background(pattern, color)


def _thing(match: re.Match[str]) -> Thing:
    return Thing(*(match[name] for name in ATTRIBUTES))


def parse_caption(text: str) -> Described:
    """Reads a caption; later sentences about a cell win, sentences outside the language are skipped."""
    background: Background | None = None
    things: list[Thing | None] = [None] * len(CELLS)
    for sentence in sentences(text):
        if match := _THING_SENTENCE.fullmatch(sentence):
            things[CELLS.index(match["cell"])] = _thing(match)
        elif match := _BACKGROUND_SENTENCE.fullmatch(sentence):
            background = _background(match["background"])
    return Described(background, tuple(things))


# ---------- flaws of a caption ----------


@dataclass(frozen=True)
class Flaw:
    """One flaw, stated as the truth the caption lacks.

    `cell` is None for the background. `attribute` set: that attribute of the thing there is `value`. Otherwise `thing`
    is the omitted thing, and no `thing` means that the cell is empty.
    """

    cell: int | None
    background: Background | None = None
    attribute: Attribute | None = None
    value: str = ""
    thing: Thing | None = None


def flaw_sentence(flaw: Flaw) -> str:
    """The flaw in words (the forms are listed in the package's README)."""
    if flaw.background is not None:
        return background_sentence(flaw.background)
    assert flaw.cell is not None  # noqa: S101 - only a background flaw has no cell
    if flaw.attribute is not None:
        return f"At {CELLS[flaw.cell]} the {flaw.attribute} is {flaw.value}."
    if flaw.thing is not None:
        return f"At {CELLS[flaw.cell]} a {thing_words(flaw.thing)} is missing."
    return nothing_sentence(flaw.cell)


def parse_flaw(sentence: str) -> Flaw | None:
    """Reads one flaw sentence; None when it is not one."""
    sentence = sentence.strip()
    if match := _BACKGROUND_SENTENCE.fullmatch(sentence):
        return Flaw(None, background=_background(match["background"]))
    if match := _ATTRIBUTE_FLAW.fullmatch(sentence):
        attribute = _attribute(match["attribute"], match["value"])
        return attribute and Flaw(CELLS.index(match["cell"]), attribute=attribute, value=match["value"])
    if match := _MISSING_FLAW.fullmatch(sentence):
        return Flaw(CELLS.index(match["cell"]), thing=_thing(match))
    if match := _NOTHING_FLAW.fullmatch(sentence):
        return Flaw(CELLS.index(match["cell"]))
    return None


def _attribute(name: str, *values: str) -> Attribute | None:
    """The attribute called `name`, when all `values` belong to it."""
    for attribute, words in ATTRIBUTES.items():
        if attribute == name and set(values) <= set(words):
            return attribute
    return None


def flaws(described: Scene | Described, truth: Scene) -> list[Flaw]:
    """Everything in which `described` differs from `truth`, background first, then by cell and attribute."""
    found = [] if described.background == truth.background else [Flaw(None, background=truth.background)]
    for cell, (said, there) in enumerate(zip(described.things, truth.things, strict=True)):
        if said is None and there is not None:
            found.append(Flaw(cell, thing=there))
        elif said is not None and there is None:
            found.append(Flaw(cell))
        elif said is not None and there is not None:
            found += [
                Flaw(cell, attribute=name, value=there.value(name))
                for name in ATTRIBUTES
                if said.value(name) != there.value(name)
            ]
    return found


def correct(described: Scene | Described, flaw: Flaw) -> Described:
    """`described` with one flaw repaired; a flaw about an attribute of an unmentioned thing changes nothing."""
    things = list(described.things)
    if flaw.cell is None:
        return Described(flaw.background, described.things)
    there = things[flaw.cell]
    if flaw.attribute is None:
        things[flaw.cell] = flaw.thing
    elif there is not None:
        things[flaw.cell] = there.changed(flaw.attribute, flaw.value)
    return Described(described.background, tuple(things))


# ---------- operations ----------


@dataclass(frozen=True)
class Add:
    """Puts a thing into an empty cell."""

    cell: int
    thing: Thing


@dataclass(frozen=True)
class Remove:
    """Takes a thing away."""

    cell: int
    thing: Thing


@dataclass(frozen=True)
class Move:
    """Moves a thing into an empty cell."""

    cell: int
    target: int
    thing: Thing


@dataclass(frozen=True)
class ChangeBackground:
    """Replaces the background; `old` and `new` differ."""

    old: Background
    new: Background


@dataclass(frozen=True)
class ChangeAttribute:
    """Replaces one attribute of the thing at `cell`; `old` and `new` differ."""

    cell: int
    attribute: Attribute
    old: str
    new: str


Operation = Add | Remove | Move | ChangeBackground | ChangeAttribute


def operation_sentence(operation: Operation) -> str:
    """The operation as one instruction."""
    match operation:
        case Add(cell, thing):
            return f"Add a {thing_words(thing)} at {CELLS[cell]}."
        case Remove(cell, thing):
            return f"Remove the {thing_words(thing)} at {CELLS[cell]}."
        case Move(cell, target, thing):
            return f"Move the {thing_words(thing)} at {CELLS[cell]} to {CELLS[target]}."
        case ChangeBackground(before, after):
            return f"Change the background from {background_words(before)} to {background_words(after)}."
        case ChangeAttribute(cell, attribute, old, new):
            return f"Change the {attribute} of the object at {CELLS[cell]} from {old} to {new}."


def parse_operation(text: str) -> Operation | None:
    """Reads one instruction; None when it is outside the language or would change nothing."""
    for pattern, read in _OPERATIONS:
        if match := pattern.fullmatch(text.strip()):
            return read(match)
    return None


def _read_move(match: re.Match[str]) -> Operation | None:
    cell, target = CELLS.index(match["cell"]), CELLS.index(match["target"])
    return Move(cell, target, _thing(match)) if cell != target else None


def _read_background_change(match: re.Match[str]) -> Operation | None:
    old, new = _background(match["old"]), _background(match["new"])
    return ChangeBackground(old, new) if old != new else None


def _read_attribute_change(match: re.Match[str]) -> Operation | None:
    old, new = match["old"], match["new"]
    attribute = _attribute(match["attribute"], old, new)
    if attribute is None or old == new:
        return None
    return ChangeAttribute(CELLS.index(match["cell"]), attribute, old, new)


_OPERATIONS: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Operation | None]], ...]] = (
    (_ADD, lambda match: Add(CELLS.index(match["cell"]), _thing(match))),
    (_REMOVE, lambda match: Remove(CELLS.index(match["cell"]), _thing(match))),
    (_MOVE, _read_move),
    (_CHANGE_BACKGROUND, _read_background_change),
    (_CHANGE_ATTRIBUTE, _read_attribute_change),
)


def category(operation: Operation) -> Category:
    """The paper's edit category of an operation."""
    match operation:
        case Add() | Remove():
            return "Removing/Adding Details"
        case Move():
            return "Changing Spatial Relationships"
        case ChangeBackground():
            return "Editing Background"
        case ChangeAttribute():
            return "Attribute Tuning"


def apply(scene: Scene, operation: Operation) -> Scene | None:
    """The scene after `operation`; None when what it names is not there or the target is taken."""
    match operation:
        case Add(cell, thing):
            return scene.with_thing(cell, thing) if scene.things[cell] is None else None
        case Remove(cell, thing):
            return scene.with_thing(cell, None) if scene.things[cell] == thing else None
        case Move(cell, target, thing):
            possible = scene.things[cell] == thing and scene.things[target] is None
            return scene.with_thing(cell, None).with_thing(target, thing) if possible else None
        case ChangeBackground(before, after):
            return Scene(after, scene.things) if scene.background == before else None
        case ChangeAttribute(cell, attribute, old, new):
            there = scene.things[cell]
            if there is None or there.value(attribute) != old:
                return None
            return scene.with_thing(cell, there.changed(attribute, new))


def random_operation(rng: random.Random, scene: Scene, kind: Category | None = None) -> Operation:
    """A possible operation on `scene`; uniform over the categories, then over everything inside one."""
    kind = kind or rng.choice(CATEGORIES)
    cell = rng.choice(scene.occupied)
    there, target = scene.thing(cell), rng.choice(scene.free)
    if kind == "Removing/Adding Details":
        return Remove(cell, there) if rng.random() < 0.5 else Add(target, random_thing(rng))
    if kind == "Changing Spatial Relationships":
        return Move(cell, target, there)
    if kind == "Editing Background":
        new = random_background(rng)
        while new == scene.background:
            new = random_background(rng)
        return ChangeBackground(scene.background, new)
    attribute = rng.choice(tuple(ATTRIBUTES))
    old = there.value(attribute)
    new_value = rng.choice([value for value in ATTRIBUTES[attribute] if value != old])
    return ChangeAttribute(cell, attribute, old, new_value)


def difference(before: Scene, after: Scene) -> Operation | None:
    """The one operation that turns `before` into `after`; None when there is no single one."""
    changed = [cell for cell in range(len(CELLS)) if before.things[cell] != after.things[cell]]
    if before.background != after.background:
        return None if changed else ChangeBackground(before.background, after.background)
    if len(changed) == 1:
        cell = changed[0]
        old, new = before.things[cell], after.things[cell]
        if old is None:
            return Add(cell, after.thing(cell))
        if new is None:
            return Remove(cell, old)
        names = [name for name in ATTRIBUTES if old.value(name) != new.value(name)]
        return ChangeAttribute(cell, names[0], old.value(names[0]), new.value(names[0])) if len(names) == 1 else None
    if len(changed) == 2:
        for cell, target in (changed, changed[::-1]):
            thing = before.things[cell]
            if thing is not None and after.things[cell] is None and before.things[target] is None:
                return Move(cell, target, thing) if after.things[target] == thing else None
    return None
