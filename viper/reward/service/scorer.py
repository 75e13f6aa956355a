"""Scoring of a batch of requests: `score_batch` over a similarity model that remembers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import SimilarityModel
from viper.reward.equations import Reward, RewardParameters, score_batch
from viper.reward.sentences import normalise


@dataclass(frozen=True)
class ScoreItem:
    """One output with its ground truth; `finished` is False when it was cut off at the token limit."""

    output: str
    ground_truth: tuple[str, ...]
    finished: bool = True


class Remembering:
    """A `SimilarityModel` that does not embed again what it has embedded lately.

    A group's outputs share their ground truth, and every epoch brings it again; outputs of a group repeat each other's
    sentences, but seldom those of last week. So the two are kept apart, and the sentence used longest ago goes first.

    Args:
        truths: most ground-truth sentences that are kept. At BGE-M3's 1,024 dimensions one takes 4 KiB.
        others: most sentences of outputs.
    """

    def __init__(self, model: SimilarityModel, truths: int = 65_536, others: int = 16_384) -> None:
        self._model = model
        self._truths, self._others = _Kept(truths), _Kept(others)
        self._expected: frozenset[str] = frozenset()
        self.found = self.embedded = 0

    @property
    def engine_id(self) -> str:
        """That of the model."""
        return self._model.engine_id

    def __len__(self) -> int:
        return len(self._truths) + len(self._others)

    def expect(self, truths: Iterable[str]) -> None:
        """Names the sentences of the next `embed` that are ground truths."""
        self._expected = frozenset(map(normalise, truths))

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(sentences), d), rows of unit length."""
        asked = dict.fromkeys(sentences)
        known = {s: row for s in asked for row in (self._truths.get(s, self._others.get(s)),) if row is not None}
        missing = [s for s in asked if s not in known]
        self.found, self.embedded = self.found + len(known), self.embedded + len(missing)
        fresh = np.asarray(self._model.embed(missing)) if missing or not known else np.empty((0, 0), np.float32)
        if fresh.ndim != 2 or len(fresh) != len(missing) or not np.isfinite(fresh).all():
            return fresh  # score_batch says what is wrong; nothing of it is remembered
        known |= dict(zip(missing, fresh, strict=True))
        for sentence, row in known.items():
            (self._truths if sentence in self._expected else self._others).put(sentence, row)
        return np.stack([known[s] for s in sentences]) if sentences else fresh


class _Kept(OrderedDict[str, NDArray[np.float32]]):
    """The rows used last, at most `capacity`."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def put(self, sentence: str, row: NDArray[np.float32]) -> None:
        if sentence not in self:
            self[sentence] = row.copy()  # not a view that keeps a whole batch alive
        self.move_to_end(sentence)
        while len(self) > self._capacity:
            self.popitem(last=False)


class Scorer:
    """Scores batches of items by equations 5 to 7; not for several threads at once."""

    def __init__(self, similarity: SimilarityModel, parameters: RewardParameters) -> None:
        self.similarity = Remembering(similarity)
        self.parameters = parameters

    def __call__(self, items: Sequence[ScoreItem]) -> list[Reward]:
        """One reward per item, in order; raises `StageError` as `score_batch` does."""
        self.similarity.expect(s for item in items for s in item.ground_truth)
        return score_batch(
            [item.output for item in items],
            [item.ground_truth for item in items],
            self.similarity,
            self.parameters,
            [item.finished for item in items],
        )
