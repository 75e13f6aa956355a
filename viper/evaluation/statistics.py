"""Accuracies with intervals and paired comparisons of two models on the same questions. Standard library only.

Wilson score interval: E. B. Wilson, JASA 22 (1927). Paired difference: the adjusted Wald interval of D. G. Bonett and
R. M. Price, J. Educ. Behav. Stat. 37 (2012). Test: McNemar's, exact (binomial on the discordant pairs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb, sqrt
from statistics import NormalDist

CONFIDENCE = 0.95
OVERALL = "overall"


@dataclass(frozen=True)
class Score:
    """`correct` of `n` questions; `low` and `high` bound the accuracy at 95 % (Wilson). All 0..1 when n is 0."""

    n: int
    correct: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Model B against model A on the same `n` questions.

    `difference` is accuracy(B) - accuracy(A), `low` and `high` its 95 % interval. `wins`: B right and A wrong; `losses`
    the reverse. `p_two_sided` tests "no difference", `p_worse` tests against "B is worse", `p_better` "B is better".
    """

    n: int
    difference: float
    low: float
    high: float
    wins: int
    losses: int
    p_two_sided: float
    p_worse: float
    p_better: float


def wilson(correct: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The Wilson score interval of a proportion; (0, 1) when nothing was asked."""
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n}")
    if n == 0:
        return 0.0, 1.0
    z = _z(confidence)
    p, zz = correct / n, z * z
    centre, half = p + zz / (2 * n), z * sqrt(p * (1 - p) / n + zz / (4 * n * n))
    # The bounds of 0 of n and n of n are 0 and 1 exactly; rounding must not leave 1e-17 behind.
    low = 0.0 if correct == 0 else (centre - half) / (1 + zz / n)
    high = 1.0 if correct == n else (centre + half) / (1 + zz / n)
    return low, high


def score(correct: Sequence[bool]) -> Score:
    """The accuracy of a list of verdicts."""
    n, right = len(correct), sum(correct)
    low, high = wilson(right, n)
    return Score(n, right, right / n if n else 0.0, low, high)


def mcnemar(wins: int, losses: int) -> tuple[float, float, float]:
    """Exact p-values of `wins` against `losses` when both are equally likely: (two-sided, worse, better).

    `worse` is P(at most this many wins), `better` P(at least this many wins); 1 without discordant pairs.
    """
    n = wins + losses
    worse = sum(comb(n, k) for k in range(wins + 1)) / 2**n
    better = sum(comb(n, k) for k in range(losses + 1)) / 2**n
    return min(1.0, 2 * min(worse, better)), worse, better


def compare(before: Sequence[bool], after: Sequence[bool]) -> Comparison:
    """Compares verdicts on the same questions in the same order; raises `ValueError` when the lengths differ."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} verdicts are not paired")
    n = len(before)
    wins = sum(b and not a for a, b in zip(before, after, strict=True))
    losses = sum(a and not b for a, b in zip(before, after, strict=True))
    low, high = paired_interval(wins, losses, n)
    two_sided, worse, better = mcnemar(wins, losses)
    return Comparison(n, (wins - losses) / n if n else 0.0, low, high, wins, losses, two_sided, worse, better)


def paired_interval(wins: int, losses: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of a difference of paired proportions (Bonett and Price: one pair added to each discordant cell)."""
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = _z(confidence) * sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


Verdicts = Mapping[str, tuple[str, bool]]
"""Question id → (domain, correct)."""


def scores(verdicts: Verdicts) -> dict[str, dict[str, float]]:
    """`Score` of every domain in order of first appearance, then of all questions together, as plain dictionaries."""
    return {d: asdict(score([c for dd, c in verdicts.values() if d in (OVERALL, dd)])) for d in _domains(verdicts)}


def comparisons(before: Verdicts, after: Verdicts) -> dict[str, dict[str, float]]:
    """`Comparison` per domain and overall; raises `ValueError` when the questions are not the same."""
    if set(before) != set(after):
        raise ValueError("the two models were asked different questions")
    result = {}
    for domain in _domains(after):
        ids = [q for q, (d, _) in after.items() if domain in (OVERALL, d)]
        result[domain] = asdict(compare([before[q][1] for q in ids], [after[q][1] for q in ids]))
    return result


def _domains(verdicts: Verdicts) -> list[str]:
    domains = list(dict.fromkeys(d for d, _ in verdicts.values()))
    return [*domains, OVERALL] if verdicts else []
