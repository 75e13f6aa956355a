"""Random batches for the loss: outputs of several lengths, ratios on both sides of both bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from equations import Bounds
from hypothesis import strategies as st
from numpy.typing import NDArray

from viper.training.local.policy import PromptBatch
from viper.training.local.trl_loss import MicroBatch, SharedPromptGrpo

BOUNDS = Bounds(low=0.2, high=0.28)
#: Ratios a hair off the bounds, where the gradient of min() is not unique, prove nothing.
_AWAY = 1e-6


@dataclass(frozen=True)
class Case:
    """B outputs: log-probabilities of their tokens now and when sampled, and one advantage each."""

    current: list[list[float]]
    old: list[list[float]]
    advantages: list[float]

    @property
    def width(self) -> int:
        return max(map(len, self.current))

    def padded(self, rows: Sequence[Sequence[float]], fill: float = 0.0) -> NDArray[np.float64]:
        """(B, T) with what lies beyond an output's end set to `fill`."""
        return np.array([[*row, *[fill] * (self.width - len(row))] for row in rows])

    @property
    def mask(self) -> NDArray[np.float64]:
        return self.padded([[1.0] * len(row) for row in self.current])


_logprob = st.floats(-12, -1e-3)
_bounds = (1 - BOUNDS.low, 1 + BOUNDS.high, 3.0)
_ratio = st.one_of(st.floats(0.05, 6), st.sampled_from([0.79, 0.81, 1.0, 1.27, 1.29, 2.9, 3.1])).filter(
    lambda r: all(abs(r - b) > _AWAY for b in _bounds)
)


@st.composite
def cases(draw: st.DrawFn, outputs: st.SearchStrategy[int] | None = None) -> Case:
    """One to six outputs of one to seven tokens."""
    count = draw(outputs or st.integers(1, 6))
    tokens = st.lists(st.tuples(_logprob, _ratio), min_size=1, max_size=7)
    rows = [draw(tokens) for _ in range(count)]
    advantages = [draw(st.floats(-2, 2).map(lambda a: round(a, 3))) for _ in range(count)]
    old = [[o for o, _ in row] for row in rows]
    current = [[o + float(np.log(r)) for o, r in row] for row in rows]
    return Case(current, old, advantages)


def trl_loss(
    trainer: SharedPromptGrpo, prompts: PromptBatch, case: Case, set_logprobs: Callable[[Any], None]
) -> tuple[float, list[list[float]]]:
    """Loss and its gradient by log π of every token, by TRL's own code; `set_logprobs` puts them in for the model's."""
    current = torch.tensor(case.padded(case.current, -1.0)).requires_grad_()
    set_logprobs(current)
    trainer.model.train()
    count = len(case.current)
    loss, _ = trainer.loss_of(
        MicroBatch(
            prompts,
            torch.zeros(count, dtype=torch.long),
            torch.full((count, case.width), 8),
            torch.tensor(case.mask).long(),
            torch.tensor(case.padded(case.old, -1.0)),
            torch.tensor(case.advantages, dtype=torch.float64),
        )
    )
    loss.backward()
    assert current.grad is not None
    rows = [row[: len(tokens)] for row, tokens in zip(current.grad.tolist(), case.current, strict=True)]
    return loss.item(), rows
