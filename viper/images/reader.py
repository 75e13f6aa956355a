"""The one door by which images come in: any file a person has becomes upright RGB with an id, or a reason why not.

Nothing else opens an image (`PIL.Image.open` is banned elsewhere, see pyproject.toml): what is read, how much memory it
may take and which way is up is decided here, for pools, supplied files, stored rows and what engines send back.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import EpsImagePlugin, Image, ImageOps, UnidentifiedImageError

from viper.errors import InputError
from viper.images.brightness import eight_bit
from viper.images.budget import DECODING
from viper.images.kinds import kind_of
from viper.images.png import without_heavy_notes

#: What is opened, by content. Not everything Pillow knows: its EPS reader, for one, runs an external program. MPO comes
#: with JPEG: Pillow has no reader of that name, and asking for one is an error.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
#: Formats that every consumer can read; their bytes are kept when the pixels need no change. MPO is the JPEG of cameras
#: that append a preview or a depth map; its first frame is the photograph.
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP", "MPO"})
#: The longer side by the shorter one: processors of Qwen2.5-VL refuse more.
MAX_ASPECT = 200
#: Pillow refuses images of more pixels by itself.
PILLOW_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
_ORIENTATION = 0x0112
_DNG_VERSION, _SUBFILE, _PHOTOMETRIC = 50706, 254, 262
#: Bytes a pixel that a decoder needs beside the picture (whole coefficients, planes of int32, the canvas of a frame),
#: that the picture takes in a mode, and that converting it takes at most.
_DECODER_BYTES = {"JPEG": 6, "MPO": 6, "WEBP": 12, "AVIF": 12, "JPEG2000": 16, "GIF": 4}
_MODE_BYTES = {"1": 1, "L": 1, "P": 1}
_CONVERTING_BYTES = 8
#: Files of more bytes are read one at a time.
LARGE_FILE = 1 << 26
_STRIP_ROWS = 256
_HIDDEN = "viper.hidden"
_ICON = b"\0\0\1\0"
#: Levels of a channel within which a lossy file of one colour stays.
_NOISE = 2
# `Limits.max_pixels` decides; above twice Pillow's own limit (179 million pixels) Pillow refuses by itself.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Libraries that open images themselves, such as that of the benchmarks' data sets, run no other program either.
EpsImagePlugin.gs_binary = False


class Unusable(Exception):  # noqa: N818 - an answer ("this image cannot be used, because"), not a fault
    """An image that cannot be used: `reason` is a stable identifier, `detail` says more to a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class ImageLimits:
    """Pixels: `min_side` after scaling, `max_side` scaled down to, `max_pixels` refused before decoding. `max_aspect`:
    the longer side by the shorter one."""

    min_side: int
    max_side: int
    max_pixels: int
    max_aspect: float = MAX_ASPECT

    @property
    def max_bytes(self) -> int:
        """No file within `max_pixels` is larger: 8 bytes a pixel (16-bit RGBA, uncompressed) and headers."""
        return 8 * self.max_pixels + (1 << 20)


#: What is supplied to be asked about or learnt from, as it is: nothing is scaled.
SUPPLIED = ImageLimits(min_side=8, max_side=65_536, max_pixels=100_000_000)
#: Anything that Pillow opens.
ANY = ImageLimits(min_side=1, max_side=1 << 31, max_pixels=PILLOW_PIXELS, max_aspect=float("inf"))


@dataclass(frozen=True)
class Prepared:
    """`data` is an encoded image whose RGB pixels have `image_id`; `changed` when it is not the source's bytes.
    `blank`: the colour of an empty page or a dead frame, `white` or `black`; empty when there is something to see."""

    data: bytes
    image_id: str
    phash: int
    width: int
    height: int
    changed: bool
    blank: str = ""


def prepare(source: bytes | Image.Image, limits: ImageLimits) -> Prepared:
    """Decodes, turns upright, converts to RGB and scales down; raises `Unusable` with a reason.

    The bytes are kept when they already are an upright RGB image of an accepted size; otherwise the pixels are encoded
    as PNG. Reasons: `empty-file`, `unreadable-image`, `too-large`, `too-small`, `too-narrow`.
    """
    if isinstance(source, Image.Image):
        _check_size(*source.size, limits)
        upright, keep = _normalised(source, limits.max_side), False
    else:
        image, light = _open(source, limits)
        keep = light is source and _is_plain(image) and max(image.size) <= limits.max_side
        upright = _decoded(image, light, limits)
    data = source if keep and isinstance(source, bytes) else encode_png(upright)
    blank = _blank(upright)
    return Prepared(data, image_id(upright), perceptual_hash(upright), *upright.size, not keep, blank)


def read(data: bytes, max_side: int = ANY.max_side) -> Image.Image:
    """Any image in RGB, upright, scaled down to `max_side`; raises `Unusable` as `prepare` does."""
    image, light = _open(data, ANY)
    return _decoded(image, light, replace(ANY, max_side=max_side))


def reading(size: int) -> AbstractContextManager[None]:
    """Holds what reading and decoding a file of this many bytes may take: a large one is read alone."""
    return DECODING.hold(DECODING.total) if size > LARGE_FILE else nullcontext()


def check(data: bytes, limits: ImageLimits = SUPPLIED) -> bool:
    """Whether the image is upright as it is stored; raises `Unusable` when it cannot be used.

    Everything is decoded, large JPEGs at an eighth of their size.
    """
    image, light = _open(data, limits)
    upright = _orientation(image) == 1
    image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
    _decoded(image, light, ANY)
    return upright


def decode(data: bytes) -> Image.Image:
    """A stored or supplied image in RGB, upright; raises `InputError` when it cannot be read."""
    with _explained():
        return read(data)


def lazily(data: bytes) -> Image.Image:
    """As `decode`; the pixels of a plain image are read on first use."""
    with _explained():
        image, _ = _open(data, ANY)
    return image if _is_plain(image) else decode(data)


def plain(data: bytes) -> bool:
    """Whether every reader sees the same RGB pixels in an image file; raises `InputError` when it is none."""
    with _explained():
        image, light = _open(data, ANY)
    return light is data and _is_plain(image)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Unusable as problem:
        raise InputError(f"an image cannot be read: {problem}", fix="restore the file") from None


def _open(data: bytes, limits: ImageLimits) -> tuple[Image.Image, bytes]:
    """Reads the header only; also the file that was opened: `data`, or as much of it as Pillow takes."""
    if not data:
        raise Unusable("empty-file", "the file has no bytes")
    if len(data) > limits.max_bytes:
        raise Unusable("too-large", f"{len(data)} bytes cannot be an image of {limits.max_pixels} pixels")
    light = without_heavy_notes(data)
    try:
        # Pillow decodes an icon as it opens it, whatever size its header says.
        with DECODING.hold(DECODING.total) if light.startswith(_ICON) else nullcontext():
            image = Image.open(io.BytesIO(light), formats=FORMATS)
        tags = getattr(image, "tag_v2", {})
        preview = _DNG_VERSION in tags or int(tags.get(_SUBFILE, 0)) & 1
    except UnidentifiedImageError:
        kind = kind_of(data)
        raise Unusable("unreadable-image", f"not an image of a known format{kind and f' ({kind})'}") from None
    except Image.DecompressionBombError as error:
        raise Unusable("too-large", str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(error, data, None) from None
    if preview:
        raise Unusable("unreadable-image", "a raw photograph, whose first picture is a preview: convert it to JPEG")
    _check_size(*image.size, limits)
    return image, light


def _decoded(image: Image.Image, data: bytes, limits: ImageLimits) -> Image.Image:
    """The pixels, normalised; raises `Unusable`."""
    try:
        with DECODING.hold(_memory(image)):
            if image.format == "PNG":
                # Pillow decodes a PNG with flipped bits to wrong pixels without a word: its checksums tell.
                Image.open(io.BytesIO(data), formats=("PNG",)).verify()
            upright = _normalised(image, limits.max_side)
            if upright is not image:
                image.close()  # its pixels go before others are let in
    except MemoryError:
        raise
    except Exception as error:
        # Broken files make the decoders raise nearly anything: OSError, SyntaxError, struct.error, IndexError …
        raise _broken(error, data, image.format) from None
    _check_sides(*upright.size, limits)
    return upright


def _broken(error: Exception, data: bytes, form: str | None) -> Unusable:
    said = str(error).splitlines()
    kind = f"damaged or truncated {form}" if form else kind_of(data) or "a damaged file"
    return Unusable("unreadable-image", f"{kind} ({type(error).__name__}: {said[0][:200] if said else ''})")


def _memory(image: Image.Image) -> int:
    """Bytes that decoding takes at most."""
    mode = 2 if image.mode.startswith("I;16") else _MODE_BYTES.get(image.mode, 4)
    each = _DECODER_BYTES.get(image.format or "", 0) + mode + _CONVERTING_BYTES
    return image.width * image.height * each


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width * height > limits.max_pixels:
        raise Unusable("too-large", f"{width}×{height} px are more than {limits.max_pixels} pixels")
    _check_sides(width, height, limits)


def _check_sides(width: int, height: int, limits: ImageLimits) -> None:
    if min(width, height) < limits.min_side:
        raise Unusable("too-small", f"{width}×{height} px, the shorter side is below {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Unusable("too-narrow", f"{width}×{height} px, one side is more than {limits.max_aspect} times the other")


def _is_plain(image: Image.Image) -> bool:
    return (
        image.format in KEPT_FORMATS
        and image.mode == "RGB"
        and (image.format == "MPO" or getattr(image, "n_frames", 1) == 1)
        and "transparency" not in image.info
        and _orientation(image) == 1
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) when there is none or the EXIF block is broken."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _normalised(image: Image.Image, max_side: int) -> Image.Image:
    """Upright RGB, at most `max_side` long."""
    size = (max_side, max_side)
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16")
    # Facts of the file that what is made of it no longer knows.
    sixteen_bit = image.mode.startswith("I;16") or image.format == "PPM"
    negative = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
    if image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info:
        # Before anything else loads the pixels: large JPEGs are then reduced while they are decoded.
        image.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    if deep:
        image = eight_bit(image, sixteen_bit)
        image = ImageOps.invert(image) if negative else image
    else:
        image = to_rgb(image)
    if max(image.size) > max_side:
        image.thumbnail(size, Image.Resampling.LANCZOS)
    return image.convert("RGB") if deep else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency over white, 16-bit, 32-bit and float greys scaled to 8 bit."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return eight_bit(image, image.mode.startswith("I;16")).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    """A few rows at a time, since four pictures of the whole would be in memory.

    `_HIDDEN` in its info: there are colours below what is transparent.
    """
    made = Image.new("RGB", image.size)
    seen: list[tuple[Any, ...]] = []
    for top in range(0, image.height, _STRIP_ROWS):
        place = (0, top, image.width, min(image.height, top + _STRIP_ROWS))
        rgba = image.crop(place).convert("RGBA")
        made.paste(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"), place[:2])
        seen.append(rgba.convert("RGB").getextrema())
    if any(min(low for low, _ in c) != max(high for _, high in c) for c in zip(*seen, strict=True)):
        made.info[_HIDDEN] = True
    return made


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata; fast rather than small (noise and photographs hardly compress)."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _blank(image: Image.Image) -> str:
    extremes: Any = image.getextrema()
    if image.info.get(_HIDDEN):  # the picture is there, and somebody made it invisible: not an empty page
        return ""
    if all(low >= 255 - _NOISE for low, _ in extremes):
        return "white"
    return "black" if all(high <= _NOISE for _, high in extremes) else ""


def image_id(image: Image.Image) -> str:
    """sha256 over size and RGB pixels: the same picture in another lossless file has the same id."""
    digest = hashlib.sha256(b"RGB %d %d\n" % image.size)
    digest.update(image.tobytes())
    return digest.hexdigest()


def perceptual_hash(image: Image.Image) -> int:
    """64-bit perceptual hash (DCT), as `imagehash.phash` computes it."""
    import imagehash

    bits = imagehash.phash(image).hash.ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
