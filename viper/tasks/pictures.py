"""What diffusion models hand back: whether it is a picture at all."""

from __future__ import annotations

from PIL import Image


def broken(image: Image.Image, size: tuple[int, int]) -> str:
    """Why an image cannot be one that was asked for in this (width, height); empty when it can.

    NaN in the latents ends as an image of one colour, usually black.
    """
    if image.size != size:
        return f"it is {image.width}×{image.height} px, not {size[0]}×{size[1]}"
    if single := image.getcolors(maxcolors=1):
        return f"all its pixels are {single[0][1]}"
    return ""
