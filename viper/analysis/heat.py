"""Attention as pictures: the image, then each checkpoint's heat over it, then what changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Grid = NDArray[np.float32]
#: Longer side of one picture, px, and the strip for its name.
SIDE, STRIP, GAP = 320, 22, 6
#: Brightest at this quantile: single tokens that gather attention whatever the image shows would darken all others.
_QUANTILE = 0.98
_HEAT = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32)
_CHANGE = np.array([(33, 102, 172), (247, 247, 247), (178, 24, 43)], np.float32)


def panel(image: Image.Image, grids: Mapping[str, Grid]) -> Image.Image:
    """One row: the image, its heat for each checkpoint on one scale, and the last minus the first of them.

    Args:
        grids: by the checkpoint's name, in order; each of shape (rows, columns), equal for all.
    """
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    if max(small.size) < SIDE:
        scale = SIDE / max(small.size)
        size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
        small = small.resize(size, Image.Resampling.NEAREST)
    every = np.concatenate([g.ravel() for g in grids.values()])
    top = float(np.quantile(every, _QUANTILE)) or 1.0
    pictures = [("image", small)]
    pictures += [(name, _over(small, _coloured(_HEAT, grid / top, small.size), 0.6)) for name, grid in grids.items()]
    names = list(grids)
    if len(names) > 1:
        change = grids[names[-1]] - grids[names[0]]
        most = float(np.abs(change).max()) or 1.0
        shown = _coloured(_CHANGE, 0.5 + 0.5 * change / most, small.size)
        pictures.append((f"{names[-1]} - {names[0]}, up to {100 * most:.2g} %", _over(small, shown, 0.7)))
    return _row(pictures)


def _coloured(scale: NDArray[np.float32], values: Grid, size: tuple[int, int]) -> Image.Image:
    """Values 0 to 1 as colours, smoothly enlarged."""
    levels = Image.fromarray(np.clip(values, 0, 1).astype(np.float32), "F").resize(size, Image.Resampling.BICUBIC)
    at = np.clip(np.asarray(levels), 0, 1) * (len(scale) - 1)
    low = np.minimum(at.astype(int), len(scale) - 2)
    share = (at - low)[..., None]
    return Image.fromarray(((1 - share) * scale[low] + share * scale[low + 1]).round().astype(np.uint8))


def _over(image: Image.Image, colours: Image.Image, share: float) -> Image.Image:
    """Colours over a grey version of the image."""
    return Image.blend(image.convert("L").convert("RGB"), colours, share)


def _row(pictures: list[tuple[str, Image.Image]]) -> Image.Image:
    width, height = pictures[0][1].size
    sheet = Image.new("RGB", (len(pictures) * (width + GAP) - GAP, height + STRIP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for number, (name, picture) in enumerate(pictures):
        x = number * (width + GAP)
        draw.text((x + 2, 3), name, fill="black", font=font)
        sheet.paste(picture, (x, STRIP))
    return sheet
