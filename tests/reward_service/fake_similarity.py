"""A fake `SimilarityModel` without torch that can be held: the service's tests start it in a process of its own."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class FakeSimilarity:
    """Counts of words in 64 places; 1 for the same words, less for others.

    The variable `FAKE_SIMILARITY_GATE` names a FIFO. A batch with the word `wait` reads it to its end: who opens it for
    writing knows that the batch is in work, and holds it until it is closed.
    """

    engine_id = "fake-similarity/1"

    def __init__(self) -> None:
        gate = os.environ.get("FAKE_SIMILARITY_GATE")
        self._gate = Path(gate) if gate else None

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        if self._gate is not None and any("wait" in s for s in sentences):
            self._gate.read_text()
        if any("fail" in s for s in sentences):
            raise RuntimeError("the model failed")
        rows = np.zeros((len(sentences), 64), np.float32)
        for row, sentence in zip(rows, sentences, strict=True):
            for word in sentence.lower().split():
                row[zlib.crc32(word.encode()) % 64] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
