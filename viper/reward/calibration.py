"""Can a similarity model tell a wrong detail from other words, at τ? Asked before GPU-hours are spent on its reward.

A sentence counts as right when its cosine with a ground truth reaches τ (equation 6). A model that puts "the cup is
left of the plate" above τ of "the cup is right of the plate" rewards both, and a policy trained on it learns nothing
about left and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from viper.engines.base import SimilarityModel
from viper.errors import InputError
from viper.reward.equations import RewardParameters
from viper.reward.sentences import normalise
from viper.text import load_json
from viper.words import plural

PARAPHRASE: Final = "paraphrase"
#: Fewer pairs of a kind say little: at 20 a share is known to ±20 percentage points.
FEW: Final = 20


@dataclass(frozen=True)
class Pair:
    """A ground truth and what may be said of it. `kind`: `paraphrase`, or what is wrong (`attribute`, …)."""

    truth: str
    said: str
    kind: str


@dataclass(frozen=True)
class CalibrationLimits:
    """From when on a model is warned of: paraphrases that hit too rarely, counterfactuals that hit too often."""

    paraphrases: float = 0.8
    counterfactuals: float = 0.05


@dataclass(frozen=True)
class KindOfPairs:
    """One kind: how many pairs, the share at or above τ, three quantiles of the cosine.

    `separation` is the probability that a paraphrase is nearer to its ground truth than such a sentence to its own
    (area under the ROC curve; 0.5 is chance); None for paraphrases themselves.
    """

    kind: str
    pairs: int
    hits: float
    low: float
    median: float
    high: float
    separation: float | None


@dataclass(frozen=True)
class Calibration:
    """What was measured. `best_tau`, of those nearest to τ, maximises paraphrases' hits minus the worst kind's hits."""

    tau: float
    kinds: tuple[KindOfPairs, ...]
    best_tau: float
    best_paraphrases: float
    best_counterfactuals: float
    warnings: tuple[str, ...]


def calibrate(
    model: SimilarityModel,
    pairs: Sequence[Pair],
    tau: float = RewardParameters.tau,
    limits: CalibrationLimits | None = None,
) -> Calibration:
    """Measures a model on pairs; raises `InputError` when there is no paraphrase or nothing to tell it from."""
    kinds = list(dict.fromkeys([PARAPHRASE, *(pair.kind for pair in pairs)]))
    texts = list(dict.fromkeys(normalise(text) for pair in pairs for text in (pair.truth, pair.said)))
    if len(kinds) < 2 or all(pair.kind != PARAPHRASE for pair in pairs):
        raise InputError(
            "pairs of both sorts are needed: paraphrases, and sentences in which something is wrong",
            where="--pairs",
            fix=f"give rows with the kind {PARAPHRASE!r} and rows with kinds of their own, such as 'relation'",
        )
    place = {text: i for i, text in enumerate(texts)}
    rows = model.embed(texts)
    truths, said = (
        [place[normalise(text)] for text in side] for side in zip(*((p.truth, p.said) for p in pairs), strict=True)
    )
    cosines: NDArray[np.float64] = (rows[truths] * rows[said]).sum(1).astype(np.float64)
    by_kind = {kind: cosines[[pair.kind == kind for pair in pairs]] for kind in kinds}
    measured = tuple(_measured(kind, values, by_kind[PARAPHRASE], tau) for kind, values in by_kind.items())
    best = max({tau, *cosines.tolist()}, key=lambda t: (_margin(by_kind, t), -abs(t - tau)))
    hits = _shares(by_kind, best)
    worst = max(share for kind, share in hits.items() if kind != PARAPHRASE)
    warnings = _warnings(measured, tau, limits or CalibrationLimits(), (best, hits[PARAPHRASE], worst))
    return Calibration(tau, measured, best, hits[PARAPHRASE], worst, warnings)


def _measured(kind: str, values: NDArray[np.float64], right: NDArray[np.float64], tau: float) -> KindOfPairs:
    low, median, high = np.quantile(values, (0.05, 0.5, 0.95)).tolist()
    ahead = None
    if kind != PARAPHRASE:
        difference = right[:, None] - values[None, :]
        ahead = float((difference > 0).mean() + (difference == 0).mean() / 2)
    return KindOfPairs(kind, len(values), float((values >= tau).mean()), low, median, high, ahead)


def _shares(by_kind: dict[str, NDArray[np.float64]], tau: float) -> dict[str, float]:
    return {kind: float((values >= tau).mean()) for kind, values in by_kind.items()}


def _margin(by_kind: dict[str, NDArray[np.float64]], tau: float) -> float:
    shares = _shares(by_kind, tau)
    return shares.pop(PARAPHRASE) - max(shares.values())


def _warnings(
    measured: Sequence[KindOfPairs], tau: float, limits: CalibrationLimits, best: tuple[float, float, float]
) -> tuple[str, ...]:
    found = []
    for kind in measured:
        if kind.kind == PARAPHRASE and kind.hits < limits.paraphrases:
            found.append(
                f"{kind.hits:.0%} of the paraphrases reach τ = {tau:g}, fewer than {limits.paraphrases:.0%}: what is "
                "right but worded otherwise goes unrewarded"
            )
        if kind.kind != PARAPHRASE and kind.hits > limits.counterfactuals:
            found.append(
                f"{kind.hits:.0%} of the sentences with one {kind.kind} changed reach τ = {tau:g}, more than "
                f"{limits.counterfactuals:.0%}: the reward cannot tell them from the truth"
            )
        if kind.pairs < FEW:
            found.append(f"only {plural(kind.pairs, 'pair')} of the kind {kind.kind!r}: its figures say little")
    if any("τ" in text for text in found):
        other, right, wrong = best
        enough = right >= limits.paraphrases and wrong <= limits.counterfactuals
        found.append(
            f"τ = {other:.3f} would do: {right:.0%} of the paraphrases and at most {wrong:.0%} of a kind reach it"
            if enough
            else f"no τ separates them well enough; the best, {other:.3f}, takes {right:.0%} of the paraphrases and "
            f"{wrong:.0%} of the kind that is worst: use another similarity model"
        )
    return tuple(found)


def read_pairs(path: Path) -> list[Pair]:
    """Rows `{"truth": …, "said": …, "kind": …}` of a JSONL file; raises `InputError` naming the first bad line."""
    pairs = []
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:  # not UTF-8, or a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be read: {reason}", where=str(path)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = load_json(line)
        except ValueError as error:
            raise InputError(f"is not JSON: {error}", where=f"{path}:{number}") from error
        wanted = ("truth", "said", "kind")
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) and row[key].strip() for key in wanted):
            raise InputError(
                "expected texts under truth, said and kind",
                where=f"{path}:{number}",
                fix='write {"truth": "The cup is left.", "said": "The cup is right.", "kind": "relation"}',
            )
        pairs.append(Pair(row["truth"], row["said"], row["kind"].strip()))
    return pairs
