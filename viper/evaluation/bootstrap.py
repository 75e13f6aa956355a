"""Bootstrap of benchmark scores: intervals of one model, paired differences of two, per benchmark and of their mean.

B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993), chapters 13 and 16: percentile intervals, and the
share of resampled differences beyond zero as the one-sided p-value. What is resampled is a cluster (a question, or all
questions of one HallusionBench set, whose qAcc and fAcc go across questions), with its answers by both models.

A score is a mean of ratios of sums (right / asked, pairs all right / pairs, figures all right / figures). Clusters that
contribute the same are one category of a multinomial, so that resampling 23,609 questions costs as much as four.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viper.evaluation.benchmarks import Verdict, levels

RESAMPLES = 10_000
#: Questions in the order asked.
Answers = Mapping[str, Verdict]


@dataclass(frozen=True)
class Interval:
    """A score or difference with the 2.5th and 97.5th percentile of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Score of B minus score of A. `p_worse` tests against "B is worse", `p_better` against "B is better"."""

    difference: float
    low: float
    high: float
    p_worse: float
    p_better: float


def interval(benchmarks: Mapping[str, Answers], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean score of one model over benchmarks (one of them: its score), resampled within each."""
    drawn = [_resampled([a], resamples, seed + i) for i, a in enumerate(benchmarks.values())]
    value, spread = _mean(drawn)
    return Interval(float(value[0]), *_percentiles(spread[:, 0]))


def difference(
    before: Mapping[str, Answers], after: Mapping[str, Answers], resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """The paired difference of the mean scores of two models over the same benchmarks.

    Raises `ValueError` when they did not answer the same questions.
    """
    if before.keys() != after.keys():
        raise ValueError("the two models were asked different benchmarks")
    drawn = [_resampled([before[name], after[name]], resamples, seed + i) for i, name in enumerate(before)]
    value, spread = _mean(drawn)
    gains = spread[:, 1] - spread[:, 0]
    # A difference of zero in a resample speaks for neither side. Rounding must not make one of it.
    worse, better = (int((sign * gains > -1e-12).sum()) for sign in (1, -1))
    return Difference(
        float(value[1] - value[0]),
        *_percentiles(gains),
        p_worse=(1 + worse) / (resamples + 1),
        p_better=(1 + better) / (resamples + 1),
    )


Drawn = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Score of each model, shape (models,), and of each resample, shape (resamples, models)."""


def _mean(drawn: Sequence[Drawn]) -> Drawn:
    return np.mean([v for v, _ in drawn], axis=0), np.mean([s for _, s in drawn], axis=0)


def _percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _resampled(models: Sequence[Answers], resamples: int, seed: int) -> Drawn:
    table = _contributions(models)
    rows, counts = np.unique(table, axis=0, return_counts=True)
    total = int(counts.sum())
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=resamples)
    return _scores(counts[None] @ rows, len(models))[0], _scores(drawn @ rows, len(models))


def _scores(sums: NDArray[np.float64], models: int) -> NDArray[np.float64]:
    """Shape (n, models · levels · 2) of sums → (n, models): the mean of the levels' ratios."""
    by_level = sums.reshape(len(sums), models, -1, 2)
    ratios: NDArray[np.float64] = by_level[..., 0] / np.maximum(by_level[..., 1], 1)
    scores: NDArray[np.float64] = ratios.mean(axis=-1)
    return scores


def _contributions(models: Sequence[Answers]) -> NDArray[np.float64]:
    """One row per cluster: for each model and level, how many of the cluster's groups are all right, and how many."""
    ids = [set(answers) for answers in models]
    if any(other != ids[0] for other in ids) or not ids[0]:
        raise ValueError("the models were asked different questions, or none")
    clusters: dict[str, list[str]] = defaultdict(list)
    for question, verdict in models[0].items():
        clusters[verdict.cluster or question].append(question)
    named = ["", *levels(models[0].values())]
    return np.array(
        [
            [part for answers in models for level in named for part in _level([answers[q] for q in questions], level)]
            for questions in clusters.values()
        ],
        dtype=np.float64,
    )


def _level(verdicts: Iterable[Verdict], level: str) -> tuple[int, int]:
    if not level:
        right = [v.correct for v in verdicts]
        return sum(right), len(right)
    groups: dict[str, bool] = {}
    for v in verdicts:
        for group in v.groups:
            if group.partition(":")[0] == level:
                groups[group] = groups.get(group, True) and v.correct
    return sum(groups.values()), len(groups)
