"""Captions of one picture and verdicts on two, by the engine `transformers`, with outputs of a fixed length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu import shapes
from benchmarks.gpu.measure import Kit
from benchmarks.gpu.parts.similarity import picture
from benchmarks.gpu.weights import random_weights


def seven(kit: Kit) -> None:
    """Qwen2.5-VL-7B."""
    _answers(kit, "qwen2.5-vl-7b", "7B", captions=(1, 4, 12), verdicts=(1, 6))


def three(kit: Kit) -> None:
    """Qwen2.5-VL-3B."""
    _answers(kit, "qwen2.5-vl-3b", "3B", captions=(1, 12), verdicts=(6,))


def _answers(kit: Kit, name: str, called: str, captions: tuple[int, ...], verdicts: tuple[int, ...]) -> None:
    from viper.engines.base import Sampling, VlmRequest
    from viper.engines.transformers_vlm import TransformersVlm
    from viper.prompts import PromptSet
    from viper.spec.engines import GenerationSettings

    directory = shapes.language_model(name, kit.scratch / name, tiny=kit.tiny)
    size = kit.chosen((1536, 1152), (56, 56))
    prompts = PromptSet.load("viper").templates
    asked = {1: prompts["caption"], 2: prompts["judge"]}
    with random_weights(kit.device):
        settings = GenerationSettings()
        engine = TransformersVlm(directory, kit.device, settings)
        used = {"weights": kit.used(), "planned": TransformersVlm.memory_needed(directory, settings)}
        for images, what, tokens, batches in (
            (1, "caption", kit.chosen(256, 6), kit.chosen(captions, captions[:2])),
            (2, "verdict", kit.chosen(64, 4), kit.chosen(verdicts, verdicts[:1])),
        ):
            for batch in batches:
                requests = [
                    VlmRequest(tuple(picture(*size, number=2 * row + i) for i in range(images)), asked[images])
                    for row in range(batch)
                ]
                sampling = Sampling(max_tokens=tokens)
                kit.measure(
                    f"{called}: {what}, batch {batch}",
                    f"{tokens} tokens about {images} of {size[0]}×{size[1]}, {batch} at once",
                    lambda given=requests, how=sampling: _full(engine, engine.generate(given, how), how.max_tokens),
                    calls=batch,
                    repetitions=2,
                    rate={
                        **{"work": "write", "engine": "transformers", "billions": shapes.shape(name)["billions"]},
                        **{"batch": batch, "images": images, "tokens": tokens},
                    },
                    memory={"interface": "vlm", "engine": "transformers", "model": name, **used},
                )


def _full(engine: Any, outputs: Sequence[Any], tokens: int) -> None:
    """Refuses what is not what the figure says: shorter outputs, smaller batches because memory did not suffice."""
    if engine._batches_that_fit.size < len(outputs):
        raise RuntimeError(f"memory suffices for {engine._batches_that_fit.size} at once, and not for {len(outputs)}")
    for output in outputs:
        if output.tokens != tokens:
            raise RuntimeError(f"an output has not its {tokens} tokens: {output}")
