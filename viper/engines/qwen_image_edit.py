"""Editing by Qwen-Image-Edit: diffusers' `QwenImageEditPipeline`, and `QwenImageEditPlusPipeline` from 2509 on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from PIL import Image

from viper.engines.base import EditResult
from viper.engines.diffusion import DiffusionEngine, working_size
from viper.spec.engines import EditingSettings
from viper.words import plural

#: The area that the pipelines scale every original to before they show it to the model, whatever is asked for.
SHOWN_PIXELS: Final = 1024 * 1024
#: Both pipelines round the sides of what they show to this many pixels.
ROUNDING: Final = 32
#: Longest instruction in tokens. The pipelines do not cut, but the model was not trained on longer ones.
MOST_TOKENS: Final = 1024


class QwenImageEditor(DiffusionEngine[EditingSettings]):
    """The `Editor` over a directory of Qwen-Image-Edit.

    The original is shown to the model at an area of 1024² pixels, which diffusers does not let one change; the edit is
    made at an area of `max_pixels` and scaled back to the original's size. `image_guidance` is not used: the model has
    one guidance. Images are edited one at a time: originals differ in aspect, and the Plus pipeline takes no more.
    """

    classes: ClassVar[tuple[str, ...]] = ("QwenImageEditPipeline", "QwenImageEditPlusPipeline")
    name: ClassVar[str] = "qwen-image-edit"
    where: ClassVar[str] = "spec.engines.editing"
    remedy: ClassVar[str] = "set offload to model or sequential, tiledDecoding to true, or maxPixels to less"

    def __init__(self, directory: Path, device: str = "cpu", settings: EditingSettings | None = None) -> None:
        super().__init__(directory, device, settings or EditingSettings())

    def _batch_size(self) -> int:
        return 1

    def _traits(self) -> list[str]:
        return [*super()._traits(), f"pixels={self._settings.max_pixels}"]

    @classmethod
    def memory_needed(cls, directory: Path, settings: EditingSettings) -> int:
        """Bytes on the device, the original's 1024² beside the edit's pixels (`diffusion_files.memory_plan`)."""
        return cls._plan(directory, settings, SHOWN_PIXELS + settings.max_pixels, 1)

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[EditResult]:
        """See `Editor.edit`. Raises `ValueError` when lengths differ, `EngineError` when memory does not suffice."""
        given = list(zip(images, instructions, seeds, strict=True))
        made = self._each(given, lambda batch: [self._edit(*one) for one in batch])
        return [
            EditResult(image, result) if isinstance(result, str) else EditResult(result)
            for (image, _, _), result in zip(given, made, strict=True)
        ]

    def _edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image | str:
        pipeline: Any = self._pipeline
        if (tokens := len(pipeline.tokenizer(instruction)["input_ids"])) > MOST_TOKENS:
            return f"the instruction is {plural(tokens - MOST_TOKENS, 'token')} too long for the text encoder"
        multiple = max(ROUNDING, pipeline.vae_scale_factor * 2)
        width, height = working_size(image.size, self._settings.max_pixels, multiple)
        (made,) = self._run(
            [instruction], [seed], image=image.convert("RGB"), prompt=[instruction], width=width, height=height
        )
        return made if isinstance(made, str) else made.resize(image.size, Image.Resampling.LANCZOS)
