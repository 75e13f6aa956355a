"""Equations 5 to 9 of arXiv 2510.24285 in plain NumPy, written from the paper, for comparison with what is run.

Nothing here is taken from the implementations, and nothing is fast: sums are loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Similarity = Callable[[str, str], float]
Tokens = Sequence[Sequence[float]]


class Bounds(NamedTuple):
    """ε of equation 8; `dual` is verl's further bound on the ratio, which the paper does not have."""

    low: float
    high: float
    dual: float = np.inf


def correctness(sequences: Sequence[str], truths: Sequence[str], sim: Similarity, tau: float) -> float:
    """Equation 6: share of hits times share of hit characters; 0 where there is no sequence."""
    hits = [any(sim(s, g) >= tau for g in truths) for s in sequences]
    if not hits:
        return 0.0
    total = sum(len(s) for s in sequences)
    hit_characters = sum(len(s) for s, hit in zip(sequences, hits, strict=True) if hit)
    return sum(hits) / len(hits) * hit_characters / total


def reward(form: bool, correct: float, format_weight: float = 0.05, correct_weight: float = 0.95) -> float:
    """Equations 5 and 7."""
    return format_weight * (1.0 if form else 0.0) + correct_weight * correct


def advantages(rewards: Sequence[float], correction: int = 1, epsilon: float = 0.0) -> Array:
    """(R_i − mean) / (std + ε) over one group. The paper prints neither ε nor whether std divides by G or G − 1."""
    values = np.array(rewards, np.float64)
    mean = sum(values) / len(values)
    std = (sum((r - mean) ** 2 for r in values) / (len(values) - correction)) ** 0.5
    return np.array([(r - mean) / (std + epsilon) for r in values])


def ratio(current: float, old: float) -> float:
    """Equation 9: π_θ / π_old of one token, from log-probabilities."""
    return float(np.exp(current - old))


def objective(current: Tokens, old: Tokens, advantage: Sequence[float], bounds: Bounds) -> float:
    """Equation 8, to be maximised: mean over outputs of the mean over tokens of min(r·A, clip(r, 1−ε_l, 1+ε_h)·A)."""
    means = []
    for tokens, before, a in zip(current, old, advantage, strict=True):
        terms = []
        for now, then in zip(tokens, before, strict=True):
            r = ratio(now, then)
            clipped = min(max(r, 1 - bounds.low), 1 + bounds.high)
            terms.append(min(r * a, clipped * a))
        means.append(sum(terms) / len(terms))
    return sum(means) / len(means)


def gradient(current: Tokens, old: Tokens, advantage: Sequence[float], bounds: Bounds) -> list[list[float]]:
    """d(−objective) / d log π_θ of every token: −A·r / (|o|·G) where no bound holds the term, else 0."""
    found = []
    for tokens, before, a in zip(current, old, advantage, strict=True):
        row = []
        for now, then in zip(tokens, before, strict=True):
            r = ratio(now, then)
            held = r > 1 + bounds.high if a > 0 else r < 1 - bounds.low or r > bounds.dual
            row.append(0.0 if held else -a * r / len(tokens) / len(advantage))
        found.append(row)
    return found


def dual_clip_loss(current: Tokens, old: Tokens, advantage: Sequence[float], bounds: Bounds) -> float:
    """−objective with verl's further bound: with A < 0 a token loses at most −A·`dual` (arXiv 1912.09729)."""
    capped = [
        [min(now, then + np.log(bounds.dual)) if a < 0 else now for now, then in zip(tokens, before, strict=True)]
        for tokens, before, a in zip(current, old, advantage, strict=True)
    ]
    return -objective(capped, old, advantage, bounds)
