"""Images that look alike: by perceptual hash, by embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
