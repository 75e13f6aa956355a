"""Pictures within the area that the settings allow."""

from __future__ import annotations

import math

from PIL import Image

from viper.spec.engines import GenerationSettings


def size_within(width: int, height: int, fewest: int | None, most: int | None) -> tuple[int, int]:
    """The size (width, height) in px of the same aspect whose area is at most `most`, else at least `fewest`."""
    area = width * height
    if most is not None and area > most:
        scale = math.sqrt(most / area)
        return max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    if fewest is not None and area < fewest:
        scale = math.sqrt(fewest / area)
        return math.ceil(width * scale), math.ceil(height * scale)
    return width, height


def within(image: Image.Image, settings: GenerationSettings) -> Image.Image:
    """The image, scaled (bicubic) to the pixels that `settings` allows."""
    size = size_within(image.width, image.height, settings.min_pixels, settings.max_pixels)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
