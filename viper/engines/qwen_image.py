"""Text to image by Qwen-Image, the paper's reconstructor, over diffusers' `QwenImagePipeline`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from PIL import Image

from viper.engines.base import Reconstruction
from viper.engines.diffusion import DiffusionEngine, working_size
from viper.spec.engines import DiffusionSettings
from viper.words import plural

#: Largest `max_sequence_length` that the pipeline takes; its call would cut at 512 if not told.
MOST_TOKENS: Final = 1024
#: The size that memory is planned for: the model's own.
PLANNED_PIXELS: Final = 1024 * 1024


class QwenImageReconstructor(DiffusionEngine[DiffusionSettings]):
    """The `Reconstructor` over a directory of Qwen-Image.

    The text encoder takes 1024 tokens after the template's beginning, its end included. A longer caption gets no image
    but a note of how many tokens are too many.

    Each image has a generator of its own, and captions of unequal length are masked (they were not always: diffusers'
    issue 12294), so what is drawn does not depend on the batch. In float32 pixels agree; in bfloat16 a batch rounds
    differently than one image alone, and only `batch: 1` repeats an image exactly. With the first-block cache, which
    decides for a batch as a whole, images are always made one at a time.
    """

    classes: ClassVar[tuple[str, ...]] = ("QwenImagePipeline",)
    name: ClassVar[str] = "qwen-image"
    where: ClassVar[str] = "spec.engines.reconstruction"

    def __init__(self, directory: Path, device: str = "cpu", settings: DiffusionSettings | None = None) -> None:
        super().__init__(directory, device, settings or DiffusionSettings())

    def _batch_size(self) -> int:
        return self._settings.batch if self._settings.cache == "none" else 1

    @classmethod
    def memory_needed(cls, directory: Path, settings: DiffusionSettings) -> int:
        """Bytes on the device for images of 1024² (`diffusion_files.memory_plan`)."""
        return cls._plan(directory, settings, PLANNED_PIXELS, settings.batch if settings.cache == "none" else 1)

    def reconstruct(self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> list[Reconstruction]:
        """See `Reconstructor.reconstruct`.

        Drawn in the nearest size of whole patches (16 pixels), then scaled to `size`. Raises `ValueError` when the
        lengths differ, `EngineError` when memory does not suffice for one image.
        """
        given = list(zip(captions, seeds, strict=True))
        results: list[Reconstruction | None] = [self._too_long(caption) for caption, _ in given]
        rows = [row for row, note in enumerate(results) if note is None]
        # Captions of like length together: little of a batch is padding.
        rows.sort(key=lambda row: len(given[row][0]))

        def draw(batch: Sequence[int]) -> list[Image.Image | str]:
            return self._draw([given[row] for row in batch], size)

        for row, made in zip(rows, self._each(rows, draw), strict=True):
            results[row] = Reconstruction(None, made) if isinstance(made, str) else Reconstruction(made)
        return [result for result in results if result is not None]

    def _draw(self, given: Sequence[tuple[str, int]], size: tuple[int, int]) -> list[Image.Image | str]:
        width, height = working_size(size, None, self._pipeline.vae_scale_factor * 2)
        made = self._run(
            given,
            [seed for _, seed in given],
            prompt=[caption for caption, _ in given],
            width=width,
            height=height,
            max_sequence_length=MOST_TOKENS,
        )
        return [
            one if isinstance(one, str) or one.size == size else one.resize(size, Image.Resampling.LANCZOS)
            for one in made
        ]

    def _too_long(self, caption: str) -> Reconstruction | None:
        pipeline = self._pipeline
        text = pipeline.prompt_template_encode.format(caption)
        most = min(pipeline.tokenizer_max_length, MOST_TOKENS)
        tokens = len(pipeline.tokenizer(text)["input_ids"]) - pipeline.prompt_template_encode_start_idx
        if tokens <= most:
            return None
        return Reconstruction(
            None, f"the caption is {plural(tokens - most, 'token')} too long for the text encoder, which takes {most}"
        )
