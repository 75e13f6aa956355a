"""Image files as people's pools have them, drawn here: each of another picture, with what has to become of it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

W, H = 96, 64


@dataclass(frozen=True)
class Animal:
    """A file. `reason`: why it is rejected (`detail` is part of what is said), empty when it is accepted as `picture`
    within `off` levels on average; without a picture it is enough that it is accepted. `listed`: it has a row."""

    name: str
    data: bytes
    picture: Image.Image | None = None
    off: float = 6.0
    reason: str = ""
    detail: str = ""
    listed: bool = True


def picture(number: int, width: int = W, height: int = H) -> Image.Image:
    """Blocks of colours that no other number has, and a black corner: turned, mirrored, inverted or dark, it shows."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(30, 256, (4, 6, 3)).astype(np.uint8)
    blocks[0, 0] = 0
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(rows: np.ndarray[Any, Any], colour: int, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG of 16 bits a sample, with chunks before and after its pixels."""
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), *before, chunk(b"IDAT", body), after, chunk(b"IEND", b"")]
    )


def with_chunks(png: bytes, *chunks: bytes, last: bool = False) -> bytes:
    """A PNG with more chunks, after its header or before its end."""
    place = len(png) - 12 if last else 33
    return png[:place] + b"".join(chunks) + png[place:]


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


_TURNED = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def animals() -> Iterator[Animal]:
    """All of them but what is no plain file."""
    yield from _plain()
    yield from _turned()
    yield from _deep()
    yield from _alpha()
    yield from _noted()
    yield from _refused()
    yield from _named()


def _plain() -> Iterator[Animal]:
    for number, (name, form, options) in enumerate(
        [
            ("plain.jpg", "JPEG", {"quality": 95}),
            ("progressive.jpg", "JPEG", {"quality": 95, "progressive": True}),
            ("plain.png", "PNG", {}),
            ("plain.webp", "WEBP", {"lossless": True}),
            ("plain.avif", "AVIF", {"quality": 95}),
            ("plain.bmp", "BMP", {}),
            ("plain.gif", "GIF", {}),
            ("plain.tif", "TIFF", {}),
            ("deflated.tif", "TIFF", {"compression": "tiff_deflate"}),
            ("plain.tga", "TGA", {}),
            ("plain.ppm", "PPM", {}),
            ("plain.jp2", "JPEG2000", {}),
            ("stream.j2k", "JPEG2000", {"no_jp2": True}),
            ("named.jpg", "PNG", {}),
            ("named.png", "WEBP", {"quality": 95}),
            ("no-suffix", "JPEG", {"quality": 95}),
            ("two.jpg.webp", "WEBP", {"quality": 95}),
            ("LOUD.JPG", "JPEG", {"quality": 95}),
            ("from-the-web.jpg?width=640", "JPEG", {"quality": 95}),
            ("from-the-web.jpg_large", "JPEG", {"quality": 95}),
        ]
    ):
        yield Animal(name, saved(picture(number), form, **options), picture(number), 12)
    first, second = picture(30), picture(31)
    for name, form, more in [
        ("camera.mpo", "MPO", {}),
        ("camera.jpg", "MPO", {}),
        ("moving.gif", "GIF", {"duration": 80}),
        ("moving.apng", "PNG", {"duration": 80}),
        ("moving.webp", "WEBP", {"duration": 80, "lossless": True}),
        ("pages.tif", "TIFF", {}),
    ]:
        first, second = picture(hash_of(name)), picture(hash_of(name) + 1)
        yield Animal(name, saved(first, form, save_all=True, append_images=[second], **more), first, 12)
    icon = picture(40, 128, 128)
    yield Animal("icon.ico", saved(icon, "ICO", sizes=[(128, 128), (16, 16)]), icon)
    photo = saved(picture(41), "JPEG", quality=95)
    yield Animal("motion.jpg", photo + b"a film" * 1000, picture(41), 12)
    yield Animal("grey.jpg", saved(picture(42).convert("L"), "JPEG", quality=95), picture(42).convert("L"))
    yield Animal("cmyk.jpg", saved(picture(43).convert("CMYK"), "JPEG", quality=95), picture(43), 12)
    yield Animal("bits.png", saved(picture(44).convert("1"), "PNG"), picture(44).convert("1"))
    lab = ImageCms.createProfile("LAB")
    made = ImageCms.profileToProfile(picture(45), ImageCms.createProfile("sRGB"), lab, outputMode="LAB")
    assert made is not None
    yield Animal("lab.tif", saved(made, "TIFF"), picture(45), 12)
    panorama = picture(46, 2400, 300)
    yield Animal("panorama.png", saved(panorama, "PNG"), panorama.resize((512, 64), Image.Resampling.LANCZOS))


def hash_of(name: str) -> int:
    return 1000 + 2 * (zlib.crc32(name.encode()) % 100_000)


def _turned() -> Iterator[Animal]:
    for number, (name, form, orientation, options) in enumerate(
        [
            ("turned-3.jpg", "JPEG", 3, {"quality": 95}),
            ("turned-6.jpg", "JPEG", 6, {"quality": 95}),
            ("turned-8.jpg", "JPEG", 8, {"quality": 95}),
            ("turned-6.png", "PNG", 6, {}),
            ("turned-6.webp", "WEBP", 6, {"lossless": True}),
            ("turned-6.avif", "AVIF", 6, {"quality": 95}),
            ("turned-6.mpo", "MPO", 6, {"quality": 95, "save_all": True, "append_images": [picture(50)]}),
        ],
        60,
    ):
        upright = picture(number, H, W)
        stored = upright.transpose(_TURNED[orientation])
        yield Animal(name, saved(stored, form, exif=exif(orientation), **options), upright, 12)
    upright = picture(70, H, W)
    stored = upright.transpose(_TURNED[6])
    yield Animal("turned-6.tif", saved(stored, "TIFF", tiffinfo={274: 6}), upright)
    large = picture(71, 900, 1600)
    data = saved(large.transpose(_TURNED[6]), "JPEG", quality=90, exif=exif(6))
    yield Animal("turned-large.jpg", data, large.resize((288, 512), Image.Resampling.LANCZOS), 12)
    data = saved(large.transpose(_TURNED[8]).crop((0, 0, 1600, 900)), "TIFF", tiffinfo={274: 8})
    yield Animal("turned-large.tif", data, None, reason="near-duplicate")
    yield Animal("turned-0.jpg", saved(picture(72), "JPEG", quality=95, exif=exif(0)), picture(72), 12)


def _deep() -> Iterator[Animal]:
    def grey(number: int) -> tuple[Image.Image, np.ndarray[Any, Any]]:
        image = picture(number).convert("L")
        values = np.asarray(image).copy()
        values[-1, -1] = 255  # what is white is in every picture: nothing else says it
        return Image.fromarray(values), values.astype(np.float64)

    for number, (name, bits) in enumerate(
        [("8-in-16.tif", 8), ("10-in-16.tif", 10), ("12-in-16.tif", 12), ("14-in-16.tif", 14), ("16.tif", 16)], 80
    ):
        image, values = grey(number)
        deep = np.rint(values / 255 * (2**bits - 1)).astype(np.uint16)
        yield Animal(name, tiff(deep, photometric="minisblack"), image)
        image, values = grey(number + 10)
        deep = np.rint(values / 255 * (2**bits - 1)).astype(np.uint16)
        yield Animal(name.replace("tif", "png"), png_of(deep, 0), image)
    image, values = grey(100)
    yield Animal("16.pgm", b"P5 %d %d 65535\n" % (W, H) + (values * 257).astype(">u2").tobytes(), image)
    image, values = grey(101)
    yield Animal("white-is-zero-8.tif", tiff((255 - values).astype(np.uint8), photometric="miniswhite"), image)
    image, values = grey(102)
    inverted = tiff((65535 - values * 257).astype(np.uint16), photometric="miniswhite")
    yield Animal("white-is-zero-16.tif", inverted, image)
    image, values = grey(103)
    yield Animal("int32.tif", tiff((values * 100).astype(np.int32), photometric="minisblack"), image)
    image, values = grey(104)
    yield Animal("int32-of-8.tif", tiff(values.astype(np.int32), photometric="minisblack"), image)
    for number, (name, top) in enumerate(
        [("float-1.tif", 1.0), ("float-255.tif", 255.0), ("float-65535.tif", 65535.0)]
    ):
        image, values = grey(110 + number)
        yield Animal(name, tiff((values / 255 * top).astype(np.float32), photometric="minisblack"), image)
    for number, (name, mark) in enumerate(
        [
            ("no-value-nan.tif", np.nan),
            ("no-value-infinite.tif", -np.inf),
            ("no-value-9999.tif", -9999.0),
            ("no-value-32768.tif", -32768.0),
            ("no-value-float.tif", -3.4028234663852886e38),
        ]
    ):
        image, values = grey(120 + number)
        values[:10], there = mark, np.asarray(image).copy()
        there[:10] = 0
        yield Animal(name, tiff(values.astype(np.float32), photometric="minisblack"), Image.fromarray(there))
    image, values = grey(130)
    yield Animal("below-zero.tif", tiff((values - 128).astype(np.float32), photometric="minisblack"), None)
    deep = np.asarray(picture(131)).astype(np.uint16) * 257
    yield Animal("rgb16.png", png_of(deep.reshape(H, -1, 3), 2), picture(131))
    yield Animal("rgb16.tif", tiff(np.asarray(picture(132)).astype(np.uint16) * 257, photometric="rgb"), picture(132))
    planes = np.ascontiguousarray(np.asarray(picture(133)).transpose(2, 0, 1))
    yield Animal("planes.tif", tiff(planes, photometric="rgb", planarconfig="separate"), picture(133))


def _alpha() -> Iterator[Animal]:
    def over_white(image: Image.Image) -> Image.Image:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")

    image = picture(140).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    yield Animal("alpha.png", saved(image, "PNG"), over_white(image))
    image = picture(141).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    yield Animal("alpha.webp", saved(image, "WEBP", lossless=True, exact=True), over_white(image))
    deep = np.asarray(image := picture(142).convert("RGBA")).astype(np.uint16) * 257
    yield Animal("alpha16.png", png_of(deep, 6), picture(142))
    palette = picture(143).quantize(16)
    shown = palette.convert("RGBA")
    yield Animal("palette.png", saved(palette, "PNG"), shown.convert("RGB"))
    yield Animal("palette.gif", saved(picture(144).quantize(16), "GIF", transparency=3), None)
    yield Animal("colour-key.png", saved(picture(145), "PNG", transparency=(0, 0, 0)), None)
    yield Animal("white.png", saved(Image.new("RGB", (W, H), "white"), "PNG"), reason="blank", detail="white")
    yield Animal("white.jpg", saved(Image.new("RGB", (W + 8, H), "white"), "JPEG"), reason="blank", detail="white")
    yield Animal("black.jpg", saved(Image.new("RGB", (W, H)), "JPEG"), reason="blank", detail="black")
    image = picture(146).convert("P", palette=Image.Palette.ADAPTIVE)
    white = Image.new("RGB", (W, H), "white")
    yield Animal("palette-of-nothing.png", saved(image, "PNG", transparency=bytes(256)), white)
    nothing = Image.new("RGBA", (W, H), (10, 20, 30, 0))
    yield Animal("transparent.png", saved(nothing, "PNG"), reason="blank", detail="white")


def _noted() -> Iterator[Animal]:
    text = PngInfo()
    text.add_text("parameters", "masterpiece, " * 200_000, zip=True)
    yield Animal("workflow.png", saved(picture(150), "PNG", pnginfo=text), picture(150))
    text = PngInfo()
    text.add_itxt("workflow", "node, " * 500_000, zip=True)
    yield Animal("workflow-international.png", saved(picture(151), "PNG", pnginfo=text), picture(151))
    plain = saved(picture(152), "PNG")
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3_000_000)))
    yield Animal("profile.png", with_chunks(plain, profile), picture(152))
    bomb = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(50_000_000)))
    yield Animal("bomb-of-text.png", with_chunks(saved(picture(153), "PNG"), bomb), picture(153))
    late = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(3_000_000)))
    yield Animal("text-at-the-end.png", with_chunks(saved(picture(154), "PNG"), late, last=True), picture(154))
    many = [chunk(b"tEXt", b"k%d\0" % i + b"v" * 900_000) for i in range(70)]
    yield Animal("many-notes.png", with_chunks(saved(picture(155), "PNG"), *many), picture(155))
    odd = chunk(b"iCCP", b"x\0\0" + b"no profile at all")
    yield Animal("broken-profile.png", with_chunks(saved(picture(156), "PNG"), odd), picture(156))


def _refused() -> Iterator[Animal]:
    def no(name: str, data: bytes, detail: str, reason: str = "unreadable-image") -> Animal:
        return Animal(name, data, reason=reason, detail=detail)

    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)
    yield no("phone.heic", heic, "HEIC")
    yield no("phone.HEIF", heic.replace(b"heic", b"mif1", 1), "HEIF")
    yield no("phone.jpg", heic + b"1", "HEIC")
    yield no("new.jxl", b"\xff\x0a" + bytes(200), "JPEG XL")
    yield no("boxed.jxl", b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL")
    yield no("raw.dng", b"II*\0\x08\0\0\0\0\0" + bytes(500), "raw photograph")
    yield no("raw.nef", tiff(np.asarray(picture(160)), photometric="rgb", subfiletype=1), "preview")
    yield no("tagged.dng", tiff(np.asarray(picture(161)), extratags=[(50706, "B", 4, b"\1\4\0\0", True)]), "preview")
    yield no("raw.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw photograph")
    yield no("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "SVG")
    yield no("drawing.eps", saved(picture(162), "EPS"), "PostScript")
    yield no("drawing.jpg", saved(picture(163), "EPS"), "PostScript")
    yield no("page.png", b"%PDF-1.7\n" + bytes(90), "PDF")
    yield no("layers.psd", b"8BPS\0\1" + bytes(90), "Photoshop")
    yield no("light.exr", b"v/1\1" + bytes(90), "OpenEXR")
    yield no("metafile.bmp", b"\xd7\xcd\xc6\x9a" + bytes(90), "metafile")
    yield no("old.pcx", saved(picture(164), "PCX"), "not an image of a known format")
    yield no("float-colours.tif", tiff(np.asarray(picture(165)).astype(np.float32) / 255, photometric="rgb"), "TIFF")
    yield no("404.jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "web page")
    yield no("pointer.png", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull")
    yield no("film.jpg", b"\0\0\0\x18ftypisom" + bytes(90), "video")
    yield no("archive.jpg", b"PK\x03\x04" + bytes(90), "ZIP")
    yield no("words.jpg", "größer, schöner".encode(), "text")
    yield no("zeros.jpg", bytes(5000), "zeros")
    yield no("README", b"These are my photographs.", "text")
    photo = saved(Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)), "JPEG")
    yield no("torn.jpg", photo[: len(photo) * 2 // 3], "truncated JPEG")
    yield no("torn.webp", saved(picture(166, 300, 200), "WEBP", lossless=True)[:-60], "")
    yield no("junk-before.jpg", b"\n\n" + photo, "not an image")
    yield no("header.png", b"\x89PNG\r\n\x1a\n", "PNG")
    yield no("header.jpg", b"\xff\xd8\xff\xe0" + bytes(40), "")
    flipped = bytearray(saved(picture(167), "PNG"))
    flipped[len(flipped) // 2] ^= 0xFF
    yield no("flipped.png", bytes(flipped), "PNG")
    yield no("empty.jpg", b"", "no bytes", "empty-file")
    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    huge = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    yield no("huge.png", huge, "pixels", "too-large")
    yield no("line.png", saved(Image.effect_noise((2000, 1), 99), "PNG"), "2000×1", "too-small")
    yield no("column.png", saved(Image.effect_noise((1, 2000), 99), "PNG"), "1×2000", "too-small")
    yield no("small.png", saved(picture(168, 31, 31), "PNG"), "31×31", "too-small")
    yield no("ribbon.png", saved(Image.effect_noise((40 * 201, 40), 99), "PNG"), "200 times", "too-narrow")
    yield no("thin.png", saved(picture(169, 2048, 64), "PNG"), "512×16", "too-small")
    yield no("bands.tif", tiff(np.zeros((5, W, H), np.uint8), photometric="minisblack"), "", "blank")


def _named() -> Iterator[Animal]:
    for number, name in enumerate(
        [
            "space in name.jpg",
            "100%.jpg",
            "%20x.jpg",
            "#hash.jpg",
            "?query.jpg",
            "naïve-café.jpg",
            "cafe\u0301.jpg",
            "图片.jpg",
            "😀.jpg",
            "'quote\".jpg",
            "a+b&c=d.jpg",
            "new\nline.jpg",
            "back\\slash.jpg",
            "[1].jpg",
            "trailing .jpg",
            "x" * 250 + ".jpg",
            "folder.jpg/in it/ä#1/x y.jpg",
            "photo.2024.01.02",
            "dot at the end.",
            "@eaDir/x.jpg/THUMB.jpg",
        ],
        200,
    ):
        yield Animal(name, saved(picture(number), "JPEG", quality=95), picture(number), 12)
    for name in ("._plain.jpg", "__MACOSX/._x.jpg", ".thumbnails/a.jpg", ".hidden.png"):
        yield Animal(name, saved(picture(230), "JPEG"), listed=False)
    for name in ("notes.txt", "a.caption.txt", "photos.zip", "shard-000000.tar", "Thumbs.db", "meta.JSON"):
        yield Animal(name, b"x", listed=False)


#: What is counted of them, by suffix.
LEFT_OUT = {".txt": 2, ".zip": 1, ".tar": 1, ".db": 1, ".json": 1, "links to folders": 1}


def no_plain_files(folder: Path) -> dict[str, tuple[str, str]]:
    """Makes what is no plain file; name → reason and part of the detail."""
    (folder / "the-link.jpg").symlink_to("plain.jpg")
    (folder / "broken.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "round").symlink_to(".")
    (folder / "device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.jpg")
    return {
        "the-link.jpg": ("duplicate", "the same pixels"),
        "broken.jpg": ("unreadable-image", "No such file"),
        "loop.jpg": ("unreadable-image", "symbolic links"),
        "device.png": ("unreadable-image", "not a regular file"),
        "pipe.jpg": ("unreadable-image", "not a regular file"),
    }
