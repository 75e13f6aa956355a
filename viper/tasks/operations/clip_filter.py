"""The first filter on edits: CLIP score between original and edited image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.engines.base import ImageSimilarityModel
from viper.spec.recipe import ChangeFilter, ClipFilter

#: Levels of 255 from which a cell counts as changed.
CHANGED_LEVELS = 12


def clip_scores(
    model: ImageSimilarityModel, originals: Sequence[Image.Image], edited: Sequence[Image.Image]
) -> list[float]:
    """Cosine of each pair, six digits. An original that occurs several times (same object) is embedded once; all
    embeddings are one call."""
    if not edited:
        return []
    unique = list({id(image): image for image in originals}.values())
    place = {id(image): i for i, image in enumerate(unique)}
    embedded: NDArray[np.float32] = model.embed_images([*unique, *edited])
    first = embedded[[place[id(image)] for image in originals]].astype(np.float64)
    second = embedded[len(unique) :].astype(np.float64)
    scores = np.nan_to_num((first * second).sum(axis=1), nan=-1.0)  # a broken embedding resembles nothing
    return [round(float(score), 6) for score in scores]


def changed_share(original: Image.Image, edited: Image.Image) -> float:
    """Share of the picture that an edit changed: of the cells of a 64×64 grid, those in which a channel moved by more
    than 12 of 255 levels. Averaging over cells leaves out the noise of encoding; six digits."""
    grid = (64, 64)
    before, after = (
        np.asarray(image.convert("RGB").resize(grid, Image.Resampling.BOX), np.int16) for image in (original, edited)
    )
    return round(float((np.abs(before - after).max(axis=2) > CHANGED_LEVELS).mean()), 6)


def change_problem(share: float, limits: ChangeFilter) -> str:
    """`unchanged` when an edit changed less of the picture than it should, `redrawn` when more; else empty."""
    if share < limits.min_share:
        return "unchanged"
    return "redrawn" if share > limits.max_share else ""


def threshold(scores: Sequence[float], limits: ClipFilter) -> float:
    """The lowest score that passes: `min_score`, or the quantile `min_quantile` of these scores (nearest rank)."""
    if limits.min_quantile is None or not scores:
        return limits.min_score
    ordered = sorted(scores)
    return ordered[min(len(ordered) - 1, int(limits.min_quantile * len(ordered)))]


def clip_problem(score: float, limits: ClipFilter, lowest: float | None = None) -> str:
    """`clip-drift` when the edit left the image, `clip-unchanged` when nothing visible changed, empty otherwise.

    `lowest`: the threshold instead of `limits.min_score`.
    """
    if score < (limits.min_score if lowest is None else lowest):
        return "clip-drift"
    return "clip-unchanged" if limits.max_score < 1 and score > limits.max_score else ""
