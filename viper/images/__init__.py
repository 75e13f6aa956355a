"""Images at the edge of the system; `viper.images.reader` is the one door by which they come in."""

from viper.images.reader import (
    ANY,
    SUPPLIED,
    ImageLimits,
    Prepared,
    Unusable,
    check,
    decode,
    encode_png,
    image_id,
    lazily,
    perceptual_hash,
    plain,
    prepare,
    read,
    reading,
    to_rgb,
)

__all__ = [
    "ANY",
    "SUPPLIED",
    "ImageLimits",
    "Prepared",
    "Unusable",
    "check",
    "decode",
    "encode_png",
    "image_id",
    "lazily",
    "perceptual_hash",
    "plain",
    "prepare",
    "read",
    "reading",
    "to_rgb",
]
