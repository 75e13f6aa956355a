"""Draws scenes: 96×96 pixels, one 32×32 cell per grid cell, in well under two milliseconds a picture.

Coloured rules on two sides of every cell tell its row and column, because a Qwen2.5-VL vision tower knows places
only relative to each other. What a picture's seed decides (offset and shade of each cell, pixel noise) is nuisance:
the same seed with an edited scene leaves everything that was not edited pixel for pixel where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.smallworld.scenes import BACKGROUND_COLORS, COLORS, Background, Scene, Thing

CELL_PIXELS: Final = 32
IMAGE_PIXELS: Final = 3 * CELL_PIXELS
HALF_WIDTH: Final = {"small": 7, "big": 11}
"""Pixels from a thing's centre to its edge."""
COLUMN_RULES: Final = ((230, 60, 60), (60, 200, 60), (70, 70, 230))
ROW_RULES: Final = ((230, 200, 40), (40, 200, 220), (210, 60, 210))
RULE_PIXELS: Final = 2
PATTERN_PERIOD: Final = 8
PATTERN_CONTRAST: Final = 28
TEXTURE_PERIOD: Final = 4
DARK: Final = 3
"""Texture marks are the thing's colour divided by this."""

Pixels = NDArray[np.float32]
Light = tuple[float, float, float]
DUSK: Final[Light] = (0.6, 0.75, 1.0)
"""The blue light of every picture of the world."""


@dataclass(frozen=True)
class Style:
    """How much a picture's seed disturbs it. All in pixels or 8-bit levels.

    `jitter`: largest offset of a thing from its cell's centre, per axis. `shade`: largest change of a thing's colour,
    per channel. `noise`: standard deviation of the pixel noise. `light`: factor on red, green and blue, the same for
    every picture.
    """

    jitter: int
    shade: int
    noise: float
    light: Light = DUSK


WORLD: Final = Style(jitter=1, shade=6, noise=8.0)
"""The style of the world's pictures: training pools, held-out questions, tools."""
STUDIO: Final = Style(jitter=1, shade=0, noise=6.0, light=(1.0, 1.0, 1.0))
"""White light, clean colours: what the starter model has been brought up on."""


@dataclass(frozen=True)
class Nuisance:
    """What a seed decides: `offsets` [9, 2] (x, y) and `shades` [9, 3] per cell, `noise` [96, 96, 3]."""

    offsets: NDArray[np.int64]
    shades: NDArray[np.int64]
    noise: Pixels


def nuisance(seed: int, style: Style = WORLD) -> Nuisance:
    """The disturbance number `seed`."""
    rng = np.random.default_rng(seed)
    return Nuisance(
        rng.integers(-style.jitter, style.jitter + 1, (9, 2)),
        rng.integers(-style.shade, style.shade + 1, (9, 3)),
        rng.standard_normal((IMAGE_PIXELS, IMAGE_PIXELS, 3), dtype=np.float32) * np.float32(style.noise),
    )


@cache
def shape_mask(shape: str, size: str) -> NDArray[np.bool_]:
    """Which pixels a thing covers, square with side 2·half width + 1."""
    half = HALF_WIDTH[size]
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    radius = np.hypot(x, y)
    arm = max(2, half // 3)
    masks = {
        "circle": radius <= half + 0.3,
        "square": np.ones_like(x, bool),
        "triangle": np.abs(x) * 2 <= y + half,
        "diamond": np.abs(x) + np.abs(y) <= half,
        "cross": (np.abs(x) <= arm) | (np.abs(y) <= arm),
        "ring": (radius <= half + 0.3) & (radius > half / 2),
    }
    return np.asarray(masks[shape], dtype=np.bool_)


@cache
def texture_mask(texture: str, size: str) -> NDArray[np.bool_]:
    """Which pixels of a thing are dark marks, same square as `shape_mask`."""
    half = HALF_WIDTH[size]
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    stripes = y % TEXTURE_PERIOD < TEXTURE_PERIOD // 2
    marks = {
        "plain": np.zeros_like(x, bool),
        "striped": stripes,
        "dotted": stripes & (x % TEXTURE_PERIOD < TEXTURE_PERIOD // 2),
    }
    return np.asarray(marks[texture], dtype=np.bool_)


@cache
def _background(pattern: str, color: str) -> Pixels:
    base = np.array(BACKGROUND_COLORS[color], np.float32)
    pixels = np.broadcast_to(base, (IMAGE_PIXELS, IMAGE_PIXELS, 3)).copy()
    y, x = np.mgrid[:IMAGE_PIXELS, :IMAGE_PIXELS]
    half = PATTERN_PERIOD // 2
    marks = {
        "smooth": np.zeros_like(x, bool),
        "lined": y % PATTERN_PERIOD < half,
        "checked": (y % PATTERN_PERIOD < half) ^ (x % PATTERN_PERIOD < half),
    }[pattern]
    pixels[marks] += -PATTERN_CONTRAST if base.mean() > 127 else PATTERN_CONTRAST
    for index in range(3):
        start = slice(index * CELL_PIXELS, index * CELL_PIXELS + RULE_PIXELS)
        pixels[:, start] = COLUMN_RULES[index]
        pixels[start, :] = ROW_RULES[index]
    pixels.flags.writeable = False
    return pixels


def background_pixels(background: Background) -> Pixels:
    """An empty picture with its rules, [96, 96, 3], levels 0 to 255, free to write to."""
    return _background(background.pattern, background.color).copy()


def thing_box(cell: int, size: str, offset: tuple[int, int] = (0, 0)) -> tuple[slice, slice]:
    """Rows and columns that a thing of `size` in `cell` covers, moved by `offset` (x, y) pixels."""
    half = HALF_WIDTH[size]
    x = cell % 3 * CELL_PIXELS + CELL_PIXELS // 2 + offset[0]
    y = cell // 3 * CELL_PIXELS + CELL_PIXELS // 2 + offset[1]
    return slice(y - half, y + half + 1), slice(x - half, x + half + 1)


def draw_thing(
    pixels: Pixels, cell: int, thing: Thing, offset: tuple[int, int] = (0, 0), shade: tuple[int, int, int] = (0, 0, 0)
) -> None:
    """Draws one thing into `pixels` [96, 96, 3] in place, without noise; `shade` is added to its colour."""
    window = pixels[thing_box(cell, thing.size, offset)]
    color = np.array(COLORS[thing.color], np.float32) + np.array(shade, np.float32)
    mask, marks = shape_mask(thing.shape, thing.size), texture_mask(thing.texture, thing.size)
    window[mask] = color
    window[mask & marks] = color / DARK


def to_image(pixels: Pixels, light: Light = WORLD.light) -> Image.Image:
    """The RGB image of a picture [96, 96, 3] drawn in white light (levels 0 to 255, clipped), seen under `light`."""
    return Image.fromarray((pixels.clip(0, 255) * np.array(light, np.float32)).round().astype(np.uint8), "RGB")


def from_image(image: Image.Image, light: Light = WORLD.light) -> Pixels:
    """The levels [height, width, 3] that white light would have shown: undoes `to_image` up to rounding."""
    return np.divide(np.asarray(image.convert("RGB"), np.float32), np.array(light, np.float32), dtype=np.float32)


def render(scene: Scene, seed: int, style: Style = WORLD) -> Image.Image:
    """The picture of `scene` under disturbance `seed`."""
    pixels, disturbance = background_pixels(scene.background), nuisance(seed, style)
    for cell in scene.occupied:
        x, y = disturbance.offsets[cell]
        red, green, blue = disturbance.shades[cell]
        draw_thing(pixels, cell, scene.thing(cell), (int(x), int(y)), (int(red), int(green), int(blue)))
    return to_image(pixels + disturbance.noise, style.light)
