"""One image at a time: every kind of file that people have becomes upright RGB, or a reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from viper.images import ImageLimits, Unusable, decode, encode_png, image_id, prepare
from viper.ingest.near import NearDuplicates

LIMITS = ImageLimits(min_side=32, max_side=256, max_pixels=4_000_000)


def picture(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    """Four quadrants of different colours: turning and mirroring show."""
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.paste((30, 200, 30), (width // 2, 0, width, height // 2))
    image.paste((30, 30, 200), (0, height // 2, width // 2, height))
    return image.convert(mode)


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def quadrants(data: bytes) -> list[tuple[int, ...]]:
    image = decode(data)
    w, h = image.size
    return [tuple(image.getpixel((x, y))) for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)]  # type: ignore[arg-type]


def near(found: list[tuple[int, ...]], wanted: list[tuple[int, ...]], by: int = 12) -> bool:
    return bool(np.abs(np.array(found) - np.array(wanted)).max() <= by)


PLAIN = quadrants(encode_png(picture()))


def refused(data: bytes, limits: ImageLimits = LIMITS) -> Unusable:
    with pytest.raises(Unusable) as caught:
        prepare(data, limits)
    return caught.value


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_an_upright_rgb_image_keeps_its_bytes(form: str, options: dict[str, object]) -> None:
    data = saved(picture(), form, **options)
    prepared = prepare(data, LIMITS)
    assert prepared.data == data
    assert not prepared.changed
    assert (prepared.width, prepared.height) == (64, 48)


def test_a_palette_image_becomes_rgb() -> None:
    prepared = prepare(saved(picture(mode="P"), "PNG"), LIMITS)
    assert prepared.changed
    assert near(quadrants(prepared.data), PLAIN, 40)


def test_a_transparent_palette_image_is_seen_over_white() -> None:
    image = Image.new("P", (64, 48), 1)
    image.putpalette([0, 0, 0, 10, 200, 10])
    image.paste(0, (0, 0, 32, 48))
    prepared = prepare(saved(image, "PNG", transparency=0), LIMITS)
    assert quadrants(prepared.data) == [(255, 255, 255), (10, 200, 10)] * 2


def test_a_cmyk_image_becomes_rgb() -> None:
    prepared = prepare(saved(picture(mode="CMYK"), "JPEG", quality=95), LIMITS)
    assert decode(prepared.data).mode == "RGB"
    assert near(quadrants(prepared.data), PLAIN, 40)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_seen_over_white(mode: str) -> None:
    image = picture(mode=mode)
    image.putalpha(Image.new("L", image.size, 0))
    assert quadrants(prepare(saved(image, "PNG"), LIMITS).data) == [(255, 255, 255)] * 4


def test_grey_sixteen_bit_images_keep_their_brightness() -> None:
    levels = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)
    found = np.asarray(decode(prepare(saved(Image.fromarray(levels), "PNG"), LIMITS).data))
    assert np.abs(found[..., 0].astype(int) - np.rint(levels / 257).astype(int)).max() <= 1


@pytest.mark.parametrize(("values", "last"), [((0.0, 1.0), 255), ((0.0, 255.0), 255), ((-3.0, 5.0), 255)])
def test_float_images_are_scaled(values: tuple[float, float], last: int) -> None:
    levels = np.linspace(*values, 64 * 48).astype(np.float32).reshape(48, 64)
    found = np.asarray(decode(prepare(saved(Image.fromarray(levels), "TIFF"), LIMITS).data))
    assert (found[0, 0, 0], found[-1, -1, 0]) == (0, last)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("longest", [64, 600])
def test_exif_rotated_images_are_turned_upright(orientation: int, longest: int) -> None:
    upright = picture(longest, longest * 3 // 4)
    ways = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if orientation == 1 else upright.transpose(ways[orientation])
    prepared = prepare(saved(stored, "JPEG", quality=95, exif=exif), LIMITS)
    assert prepared.width == min(longest, LIMITS.max_side)
    assert near(quadrants(prepared.data), PLAIN)
    assert prepared.changed == (orientation != 1 or longest > LIMITS.max_side)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_image() -> None:
    assert prepare(saved(picture(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0"), LIMITS).width == 64


def test_an_animation_is_its_first_frame() -> None:
    data = saved(picture(), "GIF", save_all=True, append_images=[Image.new("RGB", (64, 48))])
    assert near(quadrants(prepare(data, LIMITS).data), PLAIN, 40)


@pytest.mark.parametrize("mode", ["1", "L", "LAB", "HSV", "YCbCr", "I", "F", "I;16", "PA", "RGBa", "RGBX"])
def test_every_mode_that_pillow_knows_becomes_rgb(mode: str) -> None:
    prepared = prepare(Image.new(mode, (40, 40)), LIMITS)
    assert decode(prepared.data).mode == "RGB"


def test_large_images_are_scaled_down() -> None:
    prepared = prepare(saved(picture(1000, 500), "PNG"), LIMITS)
    assert (prepared.width, prepared.height) == (256, 128)
    assert prepared.changed


def test_a_zero_byte_file_is_refused() -> None:
    assert refused(b"").reason == "empty-file"


@pytest.mark.parametrize(
    "data", [b"not an image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(50), bytes(1000)]
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    assert refused(data).reason == "unreadable-image"


def test_formats_that_run_other_programs_are_not_opened() -> None:
    assert refused(saved(picture(), "EPS")).reason == "unreadable-image"


def test_a_camera_jpeg_with_a_second_frame_keeps_its_bytes() -> None:
    data = saved(picture(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], quality=95)
    prepared = prepare(data, LIMITS)
    assert prepared.data == data
    assert near(quadrants(prepared.data), PLAIN)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files_are_refused(form: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = saved(noise, form)
    assert refused(data[: int(len(data) * share)]).reason == "unreadable-image"


def test_a_corrupt_png_is_refused() -> None:
    data = bytearray(saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert refused(bytes(data)).reason == "unreadable-image"


def png_header(width: int, height: int) -> bytes:
    """A valid PNG of that size as far as its header goes; its pixels would take gigabytes."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (60_000, 60_000)])
def test_images_of_impossible_size_are_refused_from_their_header(size: tuple[int, int]) -> None:
    problem = refused(png_header(*size), ImageLimits(32, 1536, 50_000_000))
    assert problem.reason == "too-large"
    assert "pixels" in problem.detail


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_within_the_limit_may_be_larger_than_pillow_warns_about() -> None:
    data = saved(Image.new("L", (10_000, 9_100)), "PNG")
    assert prepare(data, ImageLimits(32, 64, 100_000_000)).width == 64


@pytest.mark.parametrize("size", [(31, 200), (200, 31), (1, 1), (5_000, 40)])
def test_images_that_are_or_become_too_small_are_refused(size: tuple[int, int]) -> None:
    assert refused(saved(Image.new("RGB", size), "PNG")).reason == "too-small"


def test_the_id_is_that_of_the_pixels_not_of_the_file() -> None:
    ids = {
        prepare(saved(picture(), form, **o), LIMITS).image_id for form, o in [("PNG", {}), ("BMP", {}), ("TIFF", {})]
    }
    assert ids == {image_id(picture())}
    assert prepare(saved(picture(48, 64), "PNG"), LIMITS).image_id not in ids


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_damaged_files_give_an_image_or_a_reason_and_never_another_error(seed: int, form: str) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(saved(picture(), form))
    for place in rng.integers(0, len(data), 6):
        data[place] = rng.integers(0, 256)
    assert outcome(bytes(data)) in {"image", "unreadable-image", "too-small", "too-large", "too-narrow"}


def outcome(data: bytes) -> str:
    try:
        return "image" if prepare(data, LIMITS).data else ""
    except Unusable as problem:
        return problem.reason


def test_near_duplicates_are_found_at_the_first_that_is_near() -> None:
    seen = NearDuplicates(2)
    for value in (0b0000, 0b1111, (1 << 63) | 0b1111):
        seen.add(value)
    assert [seen.find(v) for v in (0b0001, 0b0111, 1 << 63 | 0b0111, 0b1111 << 20)] == [0, 1, 1, None]
    assert NearDuplicates(2).find(0) is None


def test_a_negative_distance_finds_nothing_and_more_than_the_first_capacity_fits() -> None:
    off, exact = NearDuplicates(-1), NearDuplicates(0)
    for value in range(3000):
        off.add(value)
        exact.add(value)
    assert (off.find(5), exact.find(2999), exact.find(3000)) == (None, 2999, None)


def test_a_recompressed_and_a_scaled_photograph_hash_alike(tmp_path: Path) -> None:
    from skimage.data import astronaut, coffee

    limits = ImageLimits(32, 1536, 10**7)
    photo = Image.fromarray(astronaut())
    a, b, c = (
        prepare(d, limits).phash
        for d in (saved(photo, "PNG"), saved(photo, "JPEG", quality=70), saved(photo.resize((300, 300)), "PNG"))
    )
    other = prepare(Image.fromarray(coffee()), limits).phash
    assert max((a ^ b).bit_count(), (a ^ c).bit_count()) <= 2
    assert (a ^ other).bit_count() > 16


def test_bytes_of_no_format_are_called_that() -> None:
    with pytest.raises(Unusable) as problem:
        prepare(b"not an image at all", LIMITS)
    assert str(problem.value) == "unreadable-image: not an image of a known format (text)"
