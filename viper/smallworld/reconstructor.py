"""Text to image in the small world: draws what a caption says, and nothing that it does not say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from PIL import Image

from viper.engines.base import Reconstruction
from viper.smallworld.drawing import IMAGE_PIXELS, WORLD, Style, render
from viper.smallworld.reading import read_caption
from viper.smallworld.scenes import (
    ATTRIBUTES,
    CELLS,
    Background,
    Scene,
    Thing,
    random_background,
    random_thing,
)


def imagined(caption: str, seed: int) -> Scene:
    """The scene a caption makes one imagine.

    What it leaves out is made up from `seed`, as a text-to-image model does: an unsaid background or attribute takes
    a random value, a thing without a place goes to a random free cell. Things it does not mention are not there.
    """
    rng = random.Random(f"imagined-{seed}")
    reading = read_caption(caption)
    background = _background(reading.background, random_background(rng))
    things: list[Thing | None] = [None] * len(CELLS)
    unplaced: list[Thing] = []
    for mention in reading.things:
        thing = _thing(mention.attributes, random_thing(rng))
        if mention.cell is None:
            unplaced.append(thing)
        else:
            things[mention.cell] = thing
    free = [cell for cell, there in enumerate(things) if there is None]
    for cell, thing in zip(rng.sample(free, len(free)), unplaced, strict=False):
        things[cell] = thing
    return Scene(background, tuple(things))


def _background(said: Mapping[str, str], otherwise: Background) -> Background:
    return Background(said.get("pattern", otherwise.pattern), said.get("color", otherwise.color))


def _thing(said: Mapping[str, str], otherwise: Thing) -> Thing:
    return Thing(*(said.get(name, otherwise.value(name)) for name in ATTRIBUTES))


class SmallWorldReconstructor:
    """The `Reconstructor` of the small world. It sees the caption only.

    The seed decides the nuisance (offsets, shades, noise) and whatever the caption leaves open. Sizes other than the
    world's 96×96 are resampled.
    """

    def __init__(self, style: Style = WORLD) -> None:
        self._style = style

    @property
    def engine_id(self) -> str:
        """There are no weights; the style is what changes the pictures."""
        style = self._style
        return f"smallworld-reconstructor/1 jitter={style.jitter} shade={style.shade} noise={style.noise:g}"

    def reconstruct(
        self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int] = (IMAGE_PIXELS, IMAGE_PIXELS)
    ) -> list[Reconstruction]:
        """One image of `size` (width, height) per caption; raises `ValueError` when the lengths differ."""
        images = [
            render(imagined(caption, seed), seed, self._style) for caption, seed in zip(captions, seeds, strict=True)
        ]
        sized = (i if i.size == size else i.resize(size, Image.Resampling.BICUBIC) for i in images)
        return [Reconstruction(image) for image in sized]
