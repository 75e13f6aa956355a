"""Reads a drawn picture back from its pixels, by classical image analysis: no model, no hidden truth.

Everything is maximum likelihood under Gaussian pixel noise: the background by its median colours, a thing's colour by
the nearest palette entry, its shape, size and place by the template that explains the pixels best against the
background, its texture by the dark marks inside that template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.smallworld import drawing
from viper.smallworld.drawing import CELL_PIXELS, DARK, IMAGE_PIXELS, PATTERN_PERIOD, RULE_PIXELS, Pixels
from viper.smallworld.scenes import (
    ATTRIBUTES,
    BACKGROUND_COLORS,
    CELLS,
    COLORS,
    PATTERNS,
    SHAPES,
    SIZES,
    TEXTURES,
    Background,
    Scene,
    Thing,
)

REACH: Final = CELL_PIXELS // 2 - max(drawing.HALF_WIDTH.values()) - 1
"""Largest offset of a thing from its cell's centre that is looked for, pixels per axis."""
_MISFIT: Final = 60.0
"""Median absolute residual, 8-bit levels, beyond which a picture is not one of this world."""
_SURELY_EMPTY: Final = 3
"""Cells that are taken to be empty: the least disturbed ones. They show the noise."""
_OCCUPIED: Final = 1.2
"""Mean squared residual of a cell, relative to empty cells, beyond which something is there."""
_CANDIDATES: Final = 8
"""Templates per cell whose textures are compared."""
_FOREIGN: Final = 16.3
"""Squared residual of a pixel that background noise exceeds once in a thousand (chi-squared, 3 degrees)."""


@dataclass(frozen=True)
class Sighting:
    """A thing as seen: `offset` (x, y) in pixels from its cell's centre, `shade` added to its palette colour."""

    thing: Thing
    offset: tuple[int, int]
    shade: tuple[int, int, int]

    @property
    def attributes(self) -> dict[str, str]:
        """The thing's attributes by name."""
        return {name: self.thing.value(name) for name in ATTRIBUTES}


@dataclass(frozen=True)
class Sight:
    """What the pixels show; `noise` is the standard deviation of the pixel noise in 8-bit levels."""

    background: Background
    things: tuple[Sighting | None, ...]
    noise: float

    @property
    def scene(self) -> Scene:
        """The scene without the nuisance."""
        return Scene(self.background, tuple(None if seen is None else seen.thing for seen in self.things))

    def pixels(self) -> Pixels:
        """The picture as seen, without noise, [96, 96, 3]."""
        return draw(self.background, self.things)


def draw(background: Background, things: tuple[Sighting | None, ...]) -> Pixels:
    """A noiseless picture, [96, 96, 3], levels 0 to 255 (not clipped)."""
    pixels = drawing.background_pixels(background)
    for cell, seen in enumerate(things):
        if seen is not None:
            drawing.draw_thing(pixels, cell, seen.thing, seen.offset, seen.shade)
    return pixels


@cache
def _palette() -> tuple[list[str], Pixels]:
    return list(COLORS), np.array(list(COLORS.values()), np.float32)


@cache
def _backgrounds() -> tuple[list[Background], Pixels]:
    """All backgrounds and their colour per phase of the pattern, [n, 2, 2, 3]."""
    known = [Background(pattern, color) for pattern in PATTERNS for color in BACKGROUND_COLORS]
    half = PATTERN_PERIOD // 2
    rows = [slice(start, start + half) for start in (PATTERN_PERIOD, PATTERN_PERIOD + half)]  # clear of the rules
    means = [
        [[drawing.background_pixels(ground)[row, column].mean((0, 1)) for column in rows] for row in rows]
        for ground in known
    ]
    return known, np.array(means, np.float32)


@cache
def _phases() -> tuple[NDArray[np.intp], ...]:
    """Flat indices of the pixels of each phase of the pattern (row-major), rules left out."""
    y, x = np.mgrid[:IMAGE_PIXELS, :IMAGE_PIXELS]
    clear = (y % CELL_PIXELS >= RULE_PIXELS) & (x % CELL_PIXELS >= RULE_PIXELS)
    half = PATTERN_PERIOD // 2
    lower, later = y % PATTERN_PERIOD >= half, x % PATTERN_PERIOD >= half
    return tuple(np.flatnonzero(clear & (lower == row) & (later == column)) for row in (0, 1) for column in (0, 1))


@cache
def _templates() -> tuple[list[tuple[str, str, tuple[int, int]]], Pixels]:
    """Every (shape, size, offset) and its mask over one cell, [n, 32·32]."""
    names, masks = [], []
    for shape in SHAPES:
        for size in SIZES:
            for x in range(-REACH, REACH + 1):
                for y in range(-REACH, REACH + 1):
                    names.append((shape, size, (x, y)))
                    masks.append(_placed(drawing.shape_mask(shape, size), size, (x, y)))
    return names, np.array(masks, np.float32).reshape(len(masks), -1)


def _placed(mask: NDArray[np.bool_], size: str, offset: tuple[int, int]) -> NDArray[np.bool_]:
    cell = np.zeros((CELL_PIXELS, CELL_PIXELS), np.bool_)
    cell[drawing.thing_box(0, size, offset)] = mask
    return cell


def _see_background(flat: Pixels) -> Background | None:
    known, colors = _backgrounds()
    medians = np.array([np.median(flat[phase[::4]], axis=0) for phase in _phases()], np.float32).reshape(2, 2, 3)
    misfit = np.abs(colors - medians).mean((1, 2, 3))
    best = int(misfit.argmin())
    return known[best] if misfit[best] < _MISFIT / 4 else None


@cache
def _dark(template: int, texture: str) -> Pixels:
    """Which pixels of a template are dark marks, [32·32]."""
    (_, size, offset), mask = _templates()[0][template], _templates()[1][template]
    marks: Pixels = mask * _placed(drawing.texture_mask(texture, size), size, offset).reshape(-1)
    return marks


@dataclass(frozen=True)
class _Coloring:
    """The colour seen in a cell, and per pixel how much better it explains the pixel than the background does."""

    color: str
    shade: tuple[int, int, int]
    as_bright: Pixels
    as_dark: Pixels


def _squared_distance(pixels: Pixels, colors: Pixels) -> Pixels:
    """[n, 3] and [m, 3] to [n, m]."""
    squares: Pixels = np.einsum("ij,ij->i", pixels, pixels)[:, None] + np.einsum("ij,ij->i", colors, colors)
    return squares - 2.0 * (pixels @ colors.T)


def _see_color(window: Pixels, against: Pixels, noise: float) -> _Coloring:
    """`window` [32·32, 3]; `against` [32·32] is the squared distance to the background."""
    foreign = window[against > _FOREIGN * noise**2]
    if len(foreign) < 8:  # faint: take the least background-like pixels
        foreign = window[np.argsort(against)[-8:]]
    names, palette = _palette()
    bright, dark = _squared_distance(foreign, palette), _squared_distance(foreign, palette / np.float32(DARK))
    color = int(np.minimum(bright, dark).sum(0).argmin())
    lit = foreign[bright[:, color] <= dark[:, color]]
    level = lit.mean(0) if len(lit) else palette[color]
    shade = (level - palette[color]).clip(-drawing.WORLD.shade, drawing.WORLD.shade).round()
    seen = (palette[color] + shade)[None].astype(np.float32)
    red, green, blue = (int(value) for value in shade)
    return _Coloring(
        names[color],
        (red, green, blue),
        against - _squared_distance(window, seen)[:, 0],
        against - _squared_distance(window, seen / np.float32(DARK))[:, 0],
    )


def _see_things(colorings: list[_Coloring]) -> list[Sighting]:
    """For each cell the thing that explains its pixels best."""
    shapes, masks = _templates()
    scores = masks @ np.array([np.maximum(seen.as_bright, seen.as_dark) for seen in colorings]).T
    likely = np.argpartition(scores, -_CANDIDATES, axis=0)[-_CANDIDATES:].T
    found = []
    for seen, candidates in zip(colorings, likely, strict=True):
        lit = masks[candidates] @ seen.as_bright
        marks = np.array([[_dark(int(index), texture) for texture in TEXTURES] for index in candidates])
        total = lit[:, None] + marks @ (seen.as_dark - seen.as_bright)
        candidate, texture = divmod(int(total.argmax()), len(TEXTURES))
        shape, size, offset = shapes[candidates[candidate]]
        found.append(Sighting(Thing(size, TEXTURES[texture], seen.color, shape), offset, seen.shade))
    return found


def see(image: Image.Image) -> Sight | None:
    """What `image` shows; None when it is not a picture of this world (other size, no rules, unknown background)."""
    if image.size != (IMAGE_PIXELS, IMAGE_PIXELS):
        return None
    pixels = drawing.from_image(image)
    background = _see_background(pixels.reshape(-1, 3))
    if background is None:
        return None
    ground = drawing.background_pixels(background)
    residual = pixels - ground
    if np.median(np.abs(residual[:RULE_PIXELS])) > _MISFIT or np.median(np.abs(residual[:, :RULE_PIXELS])) > _MISFIT:
        return None
    distance = np.einsum("ijk,ijk->ij", residual, residual)
    energy = distance.reshape(3, CELL_PIXELS, 3, CELL_PIXELS).mean((1, 3)).reshape(-1)
    empty = float(np.sort(energy)[:_SURELY_EMPTY].mean())
    noise = max(1.0, (empty / 3) ** 0.5)
    occupied: dict[int, _Coloring] = {}
    for cell in range(len(CELLS)):
        row, column = cell // 3 * CELL_PIXELS, cell % 3 * CELL_PIXELS
        window = (slice(row, row + CELL_PIXELS), slice(column, column + CELL_PIXELS))
        if energy[cell] > _OCCUPIED * 3 * noise**2:
            occupied[cell] = _see_color(pixels[window].reshape(-1, 3), distance[window].reshape(-1), noise)
    seen = dict(zip(occupied, _see_things(list(occupied.values())), strict=True)) if occupied else {}
    return Sight(background, tuple(seen.get(cell) for cell in range(len(CELLS))), noise)
