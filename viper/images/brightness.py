"""Greys of more than eight bits, as eight: files rarely say what their white is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Cameras and scanners write 10, 12 or 14 bits into samples of 16: the least that holds the brightest value is white.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
_FLOAT_WHITES = (1.0, 255.0, 65535.0)
#: Beyond this a value is a mark for "nothing measured here", as are NaN and infinity.
_NO_VALUE = 1e30
_STRIP = 1 << 16


def eight_bit(image: Image.Image, sixteen_bit: bool) -> Image.Image:
    """A grey image of mode I;16…, I or F in mode L.

    Args:
        sixteen_bit: its values are those of unsigned samples of 16 bits.

    Black is 0. White is what the values can be: 1.0, 255 or 65535 for floats; 8, 10, 12, 14 or 16 bits for samples of
    16; the brightest value for anything else, for which there is no telling. With negative values the darkest is
    black, unless it lies further below all others than they span, as −9999 does: then it means "no value".
    """
    values = np.asarray(image)
    low, high = _range(values)
    white = high
    if low == 0.0:
        whites = _FLOAT_WHITES if values.dtype.kind == "f" else _WHITES if sixteen_bit else _WHITES[:1]
        white = next((w for w in whites if high <= w), high)
    factor = 255.0 / ((white - low) or 1.0)
    scaled = np.empty(values.shape, np.uint8)
    for place in _strips(values):
        strip = np.asarray(values[place], np.float64)
        strip = np.nan_to_num(strip, nan=low, posinf=white, neginf=low)
        scaled[place] = np.rint((np.clip(strip, low, white) - low) * factor)
    return Image.fromarray(scaled)


def _range(values: NDArray[np.generic]) -> tuple[float, float]:
    """Black and the brightest value."""
    low, high = _extremes(values, -np.inf)
    if low < 0:
        second, _ = _extremes(values, low)
        if second - low > high - second:
            low = second
    return min(low, 0.0), high


def _extremes(values: NDArray[np.generic], above: float) -> tuple[float, float]:
    """Least and greatest value of those above `above`; 0, 0 without any."""
    low, high = np.inf, -np.inf
    for place in _strips(values):
        strip = np.asarray(values[place], np.float64)
        strip = strip[(np.abs(strip) < _NO_VALUE) & (strip > above)]
        if strip.size:
            low, high = min(low, float(strip.min())), max(high, float(strip.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _strips(values: NDArray[np.generic]) -> Iterator[slice]:
    """Rows, a few at a time: the values as float64 are eight times as large as the image."""
    rows = max(1, _STRIP // max(1, values.shape[1]))
    return (slice(start, start + rows) for start in range(0, values.shape[0], rows))
