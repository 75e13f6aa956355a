"""Sentence embeddings of the reward, and image embeddings of the filter."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from benchmarks.gpu import shapes, words
from benchmarks.gpu.measure import Kit
from benchmarks.gpu.weights import random_weights


def embeddings(kit: Kit) -> None:
    """Sentences of two lengths through BGE-M3's engine, a full batch at a time."""
    from viper.engines.bge_m3 import BATCH, BgeM3

    directory = shapes.sentence_model("bge-m3", kit.scratch / "bge-m3", tiny=kit.tiny)
    batch = kit.chosen(BATCH, 4)
    with random_weights(kit.device):
        engine = BgeM3(directory, kit.device, batch)
        engine.embed(["A ring."])
        used = {"weights": kit.used(), "planned": BgeM3.memory_needed(directory)}
        for count in kit.chosen((24, 120), (6, 12)):
            sentences = [_sentence(count, number) for number in range(batch)]
            kit.measure(
                f"embedding of {count} words",
                f"{batch} sentences of {count} words at once",
                lambda given=sentences: engine.embed(given),
                calls=batch,
                rate={"work": "embed", "engine": "bge-m3", "batch": batch, "tokens": count},
                memory={"interface": "similarity", "engine": "bge-m3", "model": "bge-m3", **used},
            )


def _sentence(count: int, number: int) -> str:
    known = words.CAPTION.split()
    return " ".join(known[(number + i) % len(known)] for i in range(count))


def picture(width: int, height: int, number: int = 0) -> Image.Image:
    """A picture with smooth areas and noise."""
    noise: Any = np.random.default_rng(number).integers(0, 64, (height, width, 3), dtype=np.uint8)
    across = np.linspace(0, 190, width, dtype=np.uint8)
    return Image.fromarray(noise + across[None, :, None])


def clip(kit: Kit) -> None:
    """Pairs of original and edit through the CLIP filter's engine, pictures in memory."""
    from viper.engines.open_clip_filter import BATCH, OpenClipFilter

    directory = shapes.clip_model("vit-h-14", kit.scratch / "vit-h-14", tiny=kit.tiny)
    batch, size = kit.chosen(BATCH, 4), kit.chosen((1536, 1152), (96, 72))
    with random_weights(kit.device):
        engine = OpenClipFilter(directory, kit.device, batch)
        pictures = [picture(*size, number) for number in range(batch)]
        engine.embed_images(pictures[:1])
        used = {"weights": kit.used(), "planned": OpenClipFilter.memory_needed(directory, batch_size=batch)}
        kit.measure(
            f"pairs of {size[0]}×{size[1]}",
            f"{batch} pictures of {size[0]}×{size[1]} at once, scaled on the CPU; a pair is two",
            lambda: engine.embed_images(pictures),
            calls=batch // 2,
            rate={"work": "compare", "engine": "open-clip", "batch": batch},
            memory={"interface": "imageSimilarity", "engine": "open-clip", "model": "vit-h-14", **used},
        )
