"""Scoring of a batch of requests: `score_batch` over a similarity model that remembers ground truths."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import SimilarityModel
from viper.training.reward import Reward, RewardParameters, score_batch
from viper.training.sentences import normalise


@dataclass(frozen=True)
class ScoreItem:
    """One output with its ground truth; `finished` is False when it was cut off at the token limit."""

    output: str
    ground_truth: tuple[str, ...]
    finished: bool = True


class RememberedTruths:
    """A `SimilarityModel` that embeds ground-truth sentences once.

    A group's outputs share their ground truth, and every epoch brings it again; sentences of outputs are new each time
    and are not kept.

    Args:
        capacity: most sentences that are kept; the one used longest ago goes first. At BGE-M3's 1,024 dimensions one
            takes 4 KiB.
    """

    def __init__(self, model: SimilarityModel, capacity: int = 65_536) -> None:
        self._model, self._capacity = model, capacity
        self._rows: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._truths: frozenset[str] = frozenset()
        self.hits = self.misses = 0

    @property
    def engine_id(self) -> str:
        """That of the model."""
        return self._model.engine_id

    def __len__(self) -> int:
        return len(self._rows)

    def expect(self, truths: Iterable[str]) -> None:
        """Names the sentences of the next `embed` that are ground truths."""
        self._truths = frozenset(map(normalise, truths))

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(sentences), d), rows of unit length."""
        known = {s: self._rows[s] for s in sentences if s in self._rows}
        missing = [s for s in dict.fromkeys(sentences) if s not in known]
        self.hits += sum(s in known for s in self._truths)
        self.misses += sum(s in self._truths for s in missing)
        fresh = np.asarray(self._model.embed(missing)) if missing or not known else np.empty((0, 0), np.float32)
        if fresh.ndim != 2 or len(fresh) != len(missing) or not np.isfinite(fresh).all():
            return fresh  # score_batch says what is wrong; nothing of it is remembered
        known |= dict(zip(missing, fresh, strict=True))
        for sentence in self._truths & known.keys():
            self._rows[sentence] = known[sentence].copy()
            self._rows.move_to_end(sentence)
        while len(self._rows) > self._capacity:
            self._rows.popitem(last=False)
        return np.stack([known[s] for s in sentences]) if sentences else fresh


class Scorer:
    """Scores batches of items by equations 5 to 7; not for several threads at once."""

    def __init__(self, similarity: SimilarityModel, parameters: RewardParameters, truths: int = 65_536) -> None:
        self.similarity = RememberedTruths(similarity, truths)
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
