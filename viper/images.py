"""Images at the edge of the system: any file a person has becomes RGB with a content id, or a reason why not."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

#: What is opened, by content. Not everything Pillow knows: its EPS reader, for one, runs an external program. MPO comes
#: with JPEG: Pillow has no reader of that name, and asking for one is an error.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
#: Formats that every consumer can read; their bytes are kept when the pixels need no change. MPO is the JPEG of cameras
#: that append a preview or a depth map; its first frame is the photograph.
KEPT_FORMATS = frozenset({"PNG", "JPEG", "WEBP", "MPO"})
_ORIENTATION = 0x0112
# `Limits.max_pixels` decides; above twice Pillow's own limit (179 million pixels) Pillow refuses by itself.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Unusable(Exception):  # noqa: N818 - an answer ("this image cannot be used, because"), not a fault
    """An image that cannot be used: `reason` is a stable identifier, `detail` says more to a person."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """Pixels: `min_side` after scaling, `max_side` scaled down to, `max_pixels` refused before decoding."""

    min_side: int
    max_side: int
    max_pixels: int

    @property
    def max_bytes(self) -> int:
        """No file within `max_pixels` is larger: 8 bytes a pixel (16-bit RGBA, uncompressed) and headers."""
        return 8 * self.max_pixels + (1 << 20)


@dataclass(frozen=True)
class Prepared:
    """`data` is an encoded image whose RGB pixels have `image_id`; `changed` when it is not the source's bytes."""

    data: bytes
    image_id: str
    phash: int
    width: int
    height: int
    changed: bool


def prepare(source: bytes | Image.Image, limits: Limits) -> Prepared:
    """Decodes, turns upright, converts to RGB and scales down; raises `Unusable` with a reason.

    The bytes are kept when they already are an upright RGB image of an accepted size; otherwise the pixels are encoded
    as PNG. Reasons: `empty-file`, `unreadable-image`, `too-large`, `too-small`.
    """
    if isinstance(source, Image.Image):
        original, image = None, source
    else:
        if not source:
            raise Unusable("empty-file", "the file has no bytes")
        original, image = source, _open(source)
    _check_size(*image.size, limits)
    if original is not None and image.format == "PNG":
        _verify(original)
    keep = original is not None and _is_plain(image) and max(image.size) <= limits.max_side
    try:
        upright = _normalised(image, limits.max_side)
    except MemoryError:
        raise
    except Exception as error:
        # Broken files make the decoders raise nearly anything: OSError, SyntaxError, struct.error, IndexError …
        raise Unusable("unreadable-image", f"{type(error).__name__}: {error}") from None
    if min(upright.size) < limits.min_side:
        raise Unusable("too-small", f"{upright.width}×{upright.height} px, the shorter side is below {limits.min_side}")
    data = original if keep and original is not None else encode_png(upright)
    return Prepared(data, image_id(upright), perceptual_hash(upright), *upright.size, not keep)


def _open(data: bytes) -> Image.Image:
    """Reads the header only."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise Unusable("unreadable-image", "not an image of a known format") from None
    except Image.DecompressionBombError as error:
        raise Unusable("too-large", str(error)) from None
    except MemoryError:
        raise
    except Exception as error:
        raise Unusable("unreadable-image", f"{type(error).__name__}: {error}") from None


def _verify(png: bytes) -> None:
    """Checks every checksum: Pillow decodes a PNG with flipped bits to wrong pixels without a word."""
    try:
        Image.open(io.BytesIO(png), formats=("PNG",)).verify()
    except Exception as error:
        raise Unusable("unreadable-image", f"{type(error).__name__}: {error}") from None


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise Unusable("too-large", f"{width}×{height} px are more than {limits.max_pixels} pixels")
    if min(width, height) < limits.min_side:
        raise Unusable("too-small", f"{width}×{height} px, the shorter side is below {limits.min_side}")


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
    if image.mode in ("RGB", "L", "CMYK") and "transparency" not in image.info:
        # Before anything else loads the pixels: large JPEGs are then reduced while they are decoded.
        image.thumbnail(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    image.load()
    if _orientation(image) != 1:
        image = ImageOps.exif_transpose(image)
    image = to_rgb(image)
    if max(image.size) > max_side:
        image.thumbnail(size, Image.Resampling.LANCZOS)
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: transparency over white, 16-bit, 32-bit and float greys scaled to 8 bit."""
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bit(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _eight_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """The full range of the type that the values fit in: 1.0, 255 or 65535; anything else by its own range."""
    data = np.nan_to_num(np.asarray(values, np.float64))
    low, high = min(float(data.min()), 0.0), float(data.max())
    is_float = values.dtype.kind == "f"
    full = next((f for f in ((1.0, 255.0, 65535.0) if is_float else (65535.0,)) if high <= f), high)
    if low < 0:
        full = high
    scaled: NDArray[np.uint8] = np.rint((data - low) * (255.0 / ((full - low) or 1.0))).astype(np.uint8)
    return scaled


def encode_png(image: Image.Image) -> bytes:
    """PNG bytes without metadata; fast rather than small (noise and photographs hardly compress)."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """A stored image, decoded to RGB."""
    return to_rgb(Image.open(io.BytesIO(data), formats=FORMATS))


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


class NearDuplicates:
    """Remembers 64-bit hashes and finds the first one within `distance` bits; a negative distance finds nothing.

    Finding is one vectorised pass over all remembered hashes: 10,000 images in well under a second in all.
    """

    def __init__(self, distance: int) -> None:
        self._distance, self._count = distance, 0
        self._hashes = np.zeros(1024, np.uint64)

    def add(self, value: int) -> None:
        """Remembers a hash."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.zeros_like(self._hashes)])
        self._hashes[self._count] = value
        self._count += 1

    def find(self, value: int) -> int | None:
        """Number (in order of `add`) of the first remembered hash near `value`."""
        if self._distance < 0 or not self._count:
            return None
        near = np.bitwise_count(self._hashes[: self._count] ^ np.uint64(value)) <= self._distance
        first = int(near.argmax())
        return first if near[first] else None


class NearEmbeddings:
    """Remembers embeddings of unit length and finds the first whose cosine is at least `similarity`; None finds
    nothing."""

    def __init__(self, similarity: float | None) -> None:
        self._similarity, self._count = similarity, 0
        self._rows = np.zeros((0, 0), np.float32)

    def add(self, embedding: NDArray[np.float32]) -> None:
        """Remembers an embedding, shape (d,)."""
        if self._count == len(self._rows):
            more = np.zeros((max(256, len(self._rows)), len(embedding)), np.float32)
            self._rows = np.concatenate([self._rows, more]) if self._count else more
        self._rows[self._count] = embedding
        self._count += 1

    def find(self, embedding: NDArray[np.float32]) -> int | None:
        """Number (in order of `add`) of the first remembered embedding near this one."""
        if self._similarity is None or not self._count:
            return None
        near = self._rows[: self._count] @ embedding >= self._similarity
        first = int(near.argmax())
        return first if near[first] else None
