"""Where images come from: named entries in a fixed order, read one at a time."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

from PIL import Image

from viper.errors import InputError, NotFoundError, ObjectError, SpecError, StoreError
from viper.extensions import reader, written
from viper.images import Unusable
from viper.store import ObjectStore, check_key, open_store
from viper.store.places import expanded

#: Suffixes of images, those that are not read too: such a file is a row that says why not. Whatever the suffix, a file
#: is read by its content.
SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in re.findall(
        r"\S+",
        "jpg jpeg jpe jfif pjpeg pjp mpo png apng webp bmp dib gif tif tiff avif avifs jp2 j2k j2c jpc jpf jpx "
        "ppm pgm pbm pnm pfm tga icb vda vst ico "
        # not read
        "heic heif heics hif jxl svg svgz eps ps ai psd psb xcf pcx qoi exr hdr dds fits fit dcm cur icns wmf emf "
        "dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 pef srw raw 3fr iiq x3f",
    )
)
#: What is a suffix at all: `.jpg_large`, `.01` and `.jpg?width=640` are none, and such a file is looked at.
_SUFFIX = re.compile(r"\.(?=[a-z0-9]*[a-z])[a-z0-9]{1,12}", re.ASCII)
#: Files of other suffixes are counted under this many of them; the rest is `OTHERS`.
COUNTED = 20
OTHERS, LINKS = "others", "links to folders"


@dataclass(frozen=True)
class PoolEntry:
    """One image of a pool. `name` orders it and tells a person where it is; `size` in bytes, -1 while unknown."""

    name: str
    size: int = -1


@dataclass(frozen=True)
class Listing:
    """A pool's images, ordered by name, and how many files there are beside them, by suffix."""

    entries: list[PoolEntry]
    left_out: dict[str, int] = field(default_factory=dict)


class Source(Protocol):
    """A pool of images."""

    @property
    def uri(self) -> str: ...

    @property
    def enumerable(self) -> bool:
        """True when the entries have to be looked up, so that they may change while a stage runs."""
        ...

    def listing(self) -> Listing:
        """All that is there; raises `InputError` when there is no such pool."""
        ...

    def read(self, name: str) -> bytes | Image.Image:
        """One image; raises `viper.images.Unusable` when this one cannot be had."""
        ...


def open_source(uri: str) -> Source:
    """The pool at a folder path, `file://…`, `s3://bucket/prefix`, or of an extension's scheme.

    Raises `SpecError` when the URI cannot be understood.
    """
    scheme = urlsplit(uri).scheme
    if (own := reader("pools", uri)) is not None:
        return cast(Source, own.open(uri))
    if scheme == "s3":
        return StoreSource(open_store(uri))
    if scheme == "file":
        return FolderSource(Path(unquote(urlsplit(uri).path)))
    if "://" in uri:
        raise SpecError(
            f"there are no images of kind {scheme}://",
            where="spec.images.uri",
            fix=f"use a folder, file:///folder, s3://bucket/prefix or {written('pools')}",
        )
    return FolderSource(expanded(uri))


def suffix_of(name: str) -> str:
    """The suffix by which a file is known to be no image; empty when it may be one."""
    suffix = Path(name.rpartition("/")[2]).suffix.lower().strip()
    return suffix if _SUFFIX.fullmatch(suffix) and suffix not in SUFFIXES else ""


def is_hidden(name: str) -> bool:
    """Hidden files and folders (`.thumbnails/`, `._photo.jpg`) belong to programs, and are left out without a word."""
    return any(part.startswith(".") for part in name.split("/"))


def _sorted_out(files: Iterable[PoolEntry], links: int = 0) -> Listing:
    entries: list[PoolEntry] = []
    others: Counter[str] = Counter()
    for entry in files:
        if is_hidden(entry.name):
            continue
        if suffix := suffix_of(entry.name):
            others[suffix] += 1
        else:
            entries.append(entry)
    counted = dict(sorted(sorted(others.items(), key=lambda x: (-x[1], x[0]))[:COUNTED]))
    if rest := others.total() - sum(counted.values()):
        counted[OTHERS] = rest
    if links:
        counted[LINKS] = links
    return Listing(sorted(entries, key=lambda entry: os.fsencode(entry.name)), counted)


@dataclass(frozen=True)
class FolderSource:
    """Image files below a folder, recursively; links to files are followed, links to folders are not."""

    folder: Path
    enumerable: bool = True

    @property
    def uri(self) -> str:
        return str(self.folder)

    def listing(self) -> Listing:
        if not self.folder.is_dir():
            what = "is a file, not a folder" if self.folder.exists() else "there is no such folder"
            raise InputError(what, where=self.uri, fix="set spec.images.uri to a folder that holds images")

        def refuse(error: OSError) -> None:
            raise InputError(
                f"the folder cannot be read: {error.strerror}",
                where=str(error.filename),
                fix="give the user that runs this permission to read it",
            )

        found, links = [], 0
        for folder, folders, files in os.walk(self.folder, onerror=refuse):
            inside = Path(folder).relative_to(self.folder)
            found += [PoolEntry(name, self._size(name)) for name in ((inside / file).as_posix() for file in files)]
            links += sum((Path(folder) / name).is_symlink() for name in folders if not is_hidden(name))
        return _sorted_out(found, links)

    def _size(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except OSError:  # a broken link: reading it will tell
            return -1

    def read(self, name: str) -> bytes:
        path = self.folder / name
        try:
            if path.exists() and not path.is_file():
                raise Unusable("unreadable-image", "is not a regular file")
            return path.read_bytes()
        except OSError as error:
            raise Unusable("unreadable-image", error.strerror or str(error)) from None


@dataclass(frozen=True)
class StoreSource:
    """Image objects below the prefix of an object store."""

    store: ObjectStore
    enumerable: bool = True

    @property
    def uri(self) -> str:
        return self.store.uri

    def listing(self) -> Listing:
        # A key that ends in a slash is the mark of a folder.
        return _sorted_out(PoolEntry(o.key, o.size) for o in self.store.list() if not o.key.endswith("/"))

    def read(self, name: str) -> bytes:
        try:
            check_key(name)
        except StoreError as error:
            raise Unusable("unreadable-image", error.what) from None
        try:
            return self.store.get(name)
        except NotFoundError:
            raise Unusable("unreadable-image", "the object is gone") from None
        except ObjectError as error:  # any other StoreError stops the stage: the image may well be fine
            raise Unusable("unreadable-image", error.what) from None
