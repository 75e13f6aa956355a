"""What a file is that is no image we read, in words for the person who has it. By content: names lie."""

from __future__ import annotations

_CONVERT = "convert it to JPEG or PNG"
#: First bytes, and what has them.
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\x0a", f"JPEG XL: {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"JPEG XL: {_CONVERT}"),
    (b"%!PS", f"PostScript: {_CONVERT}"),
    (b"\xc5\xd0\xd3\xc6", f"PostScript: {_CONVERT}"),
    (b"%PDF-", f"PDF: {_CONVERT}"),
    (b"8BPS", f"Photoshop: {_CONVERT}"),
    (b"v/1\x01", f"OpenEXR: {_CONVERT}"),
    (b"#?RADIANCE", f"Radiance HDR: {_CONVERT}"),
    (b"qoif", f"QOI: {_CONVERT}"),
    (b"DDS ", f"DDS: {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", f"a raw photograph: {_CONVERT}"),
    (b"IIRO", f"a raw photograph: {_CONVERT}"),
    (b"IIU\0", f"a raw photograph: {_CONVERT}"),
    (b"II+\0", f"a BigTIFF of a kind that is not read: {_CONVERT}"),
    (b"MM\0+", f"a BigTIFF of a kind that is not read: {_CONVERT}"),
    (b"II*\0", f"a TIFF of a kind that is not read, or a raw photograph: {_CONVERT}"),
    (b"MM\0*", f"a TIFF of a kind that is not read, or a raw photograph: {_CONVERT}"),
    (b"\xd7\xcd\xc6\x9a", f"a Windows metafile: {_CONVERT}"),
    (b"version https://git-lfs.github.com/", "a pointer of Git LFS: run `git lfs pull`"),
    (b"\x89PNG", "a damaged PNG"),
    (b"\xff\xd8\xff", "a damaged JPEG"),
    (b"GIF8", "a damaged GIF"),
    (b"BM", "a damaged BMP"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "compressed with gzip: unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it"),
    (b"\x7fELF", "a program"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"SIMPLE  =", f"FITS: {_CONVERT}"),
    (b"\x89HDF", "HDF5"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PAR1", "a Parquet file"),
    (b"\0\5\x16\7", "what macOS keeps beside a file"),
)
#: Brands of ISO media files, by how they start.
_BRANDS = (
    (b"hei", f"HEIC: {_CONVERT}"),
    (b"hev", f"HEIC: {_CONVERT}"),
    (b"mif", f"HEIF: {_CONVERT}"),
    (b"msf", f"HEIF: {_CONVERT}"),
    (b"avi", "a damaged AVIF"),
    (b"crx", f"a raw photograph: {_CONVERT}"),
)


def kind_of(data: bytes) -> str:
    """What the bytes seem to be and what to do with it; empty when there is no telling."""
    if data[4:8] == b"ftyp":
        return next((words for brand, words in _BRANDS if data[8:12].startswith(brand)), "a video")
    if data[:4] == b"RIFF":
        return "a damaged WebP" if data[8:12] == b"WEBP" else "a video or sound"
    if data[257:262] == b"ustar":
        return "a TAR archive: unpack it"
    return next((words for start, words in _STARTS if data.startswith(start)), None) or _text_of(data)


def _text_of(data: bytes) -> str:
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = head.lower()
    if b"<svg" in lower:
        return f"SVG: {_CONVERT}"
    if lower.startswith((b"<!doctype html", b"<html")):
        return "a web page, such as an error message that was saved in its place"
    if not data.strip(b"\0"):
        return "nothing but zeros, as a transfer that broke off leaves them"
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # a letter may be cut off at the end
            return ""
        text = head[: error.start].decode()
    return "text" if text and all(c.isprintable() or c in "\r\n\t" for c in text) else ""
