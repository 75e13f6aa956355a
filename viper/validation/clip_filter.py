"""The first filter on edits: CLIP score between original and edited image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.engines.base import ImageSimilarityModel
from viper.spec.recipe import ClipFilter


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


def clip_problem(score: float, same_pixels: bool, limits: ClipFilter) -> str:
    """`clip-drift` when the edit left the image, `clip-unchanged` when nothing visible changed, empty otherwise."""
    if same_pixels:
        return "clip-unchanged"
    if score < limits.min_score:
        return "clip-drift"
    return "clip-unchanged" if limits.max_score < 1 and score > limits.max_score else ""
