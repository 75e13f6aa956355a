"""Scenes of the small world: what can be in a picture, drawn at random from a seed, with exact truth.

A scene is a 3×3 grid of cells over a background; two to four cells hold one thing each. Cells are numbered row by row
from the top left. Everything is frozen and hashable, so that two sets of scenes can be compared for overlap.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final, Literal

Attribute = Literal["size", "texture", "color", "shape"]

SIZES: Final = ("small", "big")
TEXTURES: Final = ("plain", "striped", "dotted")
COLORS: Final = {
    "red": (215, 40, 40),
    "green": (50, 165, 70),
    "blue": (45, 85, 215),
    "yellow": (235, 215, 55),
    "purple": (140, 60, 175),
    "orange": (240, 140, 40),
    "pink": (240, 140, 185),
    "brown": (130, 85, 50),
}
SHAPES: Final = ("circle", "square", "triangle", "diamond", "cross", "ring")
ATTRIBUTES: Final[dict[Attribute, tuple[str, ...]]] = {
    "size": SIZES,
    "texture": TEXTURES,
    "color": tuple(COLORS),
    "shape": SHAPES,
}
PATTERNS: Final = ("smooth", "lined", "checked")
BACKGROUND_COLORS: Final = {
    "white": (245, 245, 245),
    "gray": (150, 150, 150),
    "black": (20, 20, 20),
    "beige": (225, 205, 170),
    "teal": (70, 150, 150),
    "navy": (25, 35, 90),
}
CELLS: Final = (
    "top left",
    "top",
    "top right",
    "left",
    "center",
    "right",
    "bottom left",
    "bottom",
    "bottom right",
)
MIN_THINGS: Final = 2
MAX_THINGS: Final = 4


@dataclass(frozen=True)
class Thing:
    """One object: size × texture × colour × shape, each a word of the vocabulary above."""

    size: str
    texture: str
    color: str
    shape: str

    def value(self, attribute: Attribute) -> str:
        """The word of one attribute."""
        return str(getattr(self, attribute))

    def changed(self, attribute: Attribute, value: str) -> Thing:
        """The same thing with one attribute replaced."""
        return replace(self, **{attribute: value})


@dataclass(frozen=True)
class Background:
    """A pattern (`smooth`, `lined`, `checked`) in one colour."""

    pattern: str
    color: str


@dataclass(frozen=True)
class Scene:
    """`things` has one entry per cell (nine); `None` is an empty cell."""

    background: Background
    things: tuple[Thing | None, ...]

    @property
    def occupied(self) -> tuple[int, ...]:
        """Cells that hold a thing, ascending."""
        return tuple(cell for cell, thing in enumerate(self.things) if thing is not None)

    @property
    def free(self) -> tuple[int, ...]:
        """Empty cells, ascending."""
        return tuple(cell for cell, thing in enumerate(self.things) if thing is None)

    def thing(self, cell: int) -> Thing:
        """The thing at `cell`; raises `KeyError` when the cell is empty."""
        thing = self.things[cell]
        if thing is None:
            raise KeyError(CELLS[cell])
        return thing

    def with_thing(self, cell: int, thing: Thing | None) -> Scene:
        """The scene with one cell replaced."""
        return replace(self, things=(*self.things[:cell], thing, *self.things[cell + 1 :]))


def random_thing(rng: random.Random) -> Thing:
    """Every attribute uniform and independent."""
    return Thing(*(rng.choice(values) for values in ATTRIBUTES.values()))


def random_background(rng: random.Random) -> Background:
    """Pattern and colour uniform and independent."""
    return Background(rng.choice(PATTERNS), rng.choice(tuple(BACKGROUND_COLORS)))


def random_scene(rng: random.Random, fewest: int = MIN_THINGS, most: int = MAX_THINGS) -> Scene:
    """A scene with `fewest` to `most` things in distinct cells, all choices uniform."""
    cells = set(rng.sample(range(len(CELLS)), rng.randint(fewest, most)))
    background = random_background(rng)
    return Scene(background, tuple(random_thing(rng) if cell in cells else None for cell in range(len(CELLS))))


def scene_from_seed(seed: int) -> Scene:
    """The scene number `seed` of the world: the same on every machine."""
    return random_scene(random.Random(f"scene-{seed}"))
