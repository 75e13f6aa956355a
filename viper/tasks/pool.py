"""The accepted images of an iteration, cut into the parts that synthesis and validation share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image

from viper.images import decode
from viper.ingest.stage import ImageRow
from viper.methods.stages import INGEST
from viper.stage import StageContext

#: Decoded pixels held at once (2**26 are 200 MB): bounds memory whatever the part size.
BATCH_PIXELS = 2**26


@dataclass(frozen=True)
class PoolImage:
    """One accepted image, encoded. `position` is its place in the part."""

    position: int
    image_id: str
    data: bytes
    width: int
    height: int

    def decode(self) -> Image.Image:
        """The pixels, RGB; decode them for a batch at a time."""
        return decode(self.data)


class Pool:
    """Accepted images of `ingest-images` in order, `part_size` to a part."""

    def __init__(self, ctx: StageContext) -> None:
        self._ctx = ctx
        self._size = ctx.frozen.iteration.spec.recipe.part_size
        self._manifest = ctx.manifest(INGEST)
        self._last: tuple[int, list[ImageRow]] | None = None

    @property
    def images(self) -> int:
        """Accepted images."""
        return self._manifest.accepted

    @property
    def parts(self) -> int:
        """Parts of the stages that work on the pool."""
        return -(-self.images // self._size)

    def size(self, index: int) -> int:
        """Images of part `index`."""
        return min(self._size, self.images - index * self._size)

    def part(self, index: int) -> list[PoolImage]:
        """The images of one part; reads only the ingest parts that they lie in."""
        start, rows = index * self._size, []
        stop, passed = start + self.size(index), 0
        for part in self._manifest.parts:
            first, last = max(start - passed, 0), min(stop - passed, part.accepted)
            if first < last:
                rows += self._accepted(part.index)[first:last]
            passed += part.accepted
        return [PoolImage(i, row.image_id, row.image, row.width, row.height) for i, row in enumerate(rows)]

    def _accepted(self, index: int) -> list[ImageRow]:
        if self._last is None or self._last[0] != index:
            part = self._manifest.parts[index]
            rows = self._ctx.read(
                INGEST, part, ImageRow, lambda r: (r.image_id, r.image, r.width, r.height, r.accepted)
            )
            self._last = index, [row for row in rows if row.accepted]
        return self._last[1]


def batches(images: Sequence[PoolImage], copies: int = 1, pixels: int = BATCH_PIXELS) -> Iterator[list[PoolImage]]:
    """Runs of images of which `copies` (the original and what is made of it) have at most `pixels` pixels in all; at
    least one image each. Depends on nothing else, so that a part is always cut the same way."""
    batch: list[PoolImage] = []
    held = 0
    for image in images:
        area = image.width * image.height * copies
        if batch and held + area > pixels:
            yield batch
            batch, held = [], 0
        batch.append(image)
        held += area
    if batch:
        yield batch
