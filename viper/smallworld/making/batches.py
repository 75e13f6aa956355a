"""Lessons and prompts of the small world as model inputs, without the processor's cost per picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from viper.smallworld.drawing import IMAGE_PIXELS
from viper.smallworld.model import END, IMAGE, MERGE, PATCH, VISION_END, VISION_START

_GRID: Final = IMAGE_PIXELS // PATCH // MERGE
TOKENS_PER_IMAGE: Final = _GRID * _GRID
_MEAN: Final = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD: Final = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def patches(images: Sequence[Image.Image]) -> Tensor:
    """What the processor's `pixel_values` would be: [images·36, 1536] float32 for 96×96 RGB pictures."""
    levels = np.stack([np.asarray(image) for image in images]).astype(np.float32)
    scaled = (levels / 255 - _MEAN) / _STD
    count = len(images)
    split = scaled.reshape(count, _GRID, MERGE, PATCH, _GRID, MERGE, PATCH, 3).transpose(0, 1, 4, 2, 5, 7, 3, 6)
    twice = np.repeat(split[:, :, :, :, :, :, None], 2, axis=6)  # one frame stands for two of a video
    return torch.from_numpy(np.ascontiguousarray(twice).reshape(count * TOKENS_PER_IMAGE * MERGE**2, -1))


class Coder:
    """Texts to token ids, and rows to padded batches."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (VISION_START, IMAGE, VISION_END, END)}
        self._picture = [ids[VISION_START], *[ids[IMAGE]] * TOKENS_PER_IMAGE, ids[VISION_END]]
        self._image, self.end, self.pad = ids[IMAGE], ids[END], int(tokenizer.pad_token_id)

    def prompt(self, images: int, text: str) -> list[int]:
        """Ids of a prompt with `images` pictures before `text`."""
        return self._picture * images + self.text(text) + [self.end]

    def text(self, text: str) -> list[int]:
        """Ids of a bare text."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def batch(
        self,
        images: Sequence[Sequence[Image.Image]],
        prompts: Sequence[list[int]],
        answers: Sequence[list[int]] | None = None,
        left: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Model inputs and labels [rows, length] (−100 wherever no answer stands); `left` pads for generation."""
        answers = answers or [[] for _ in prompts]
        length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.full((len(prompts), length), self.pad)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            start = length - len(prompt) - len(answer) if left else 0
            middle, stop = start + len(prompt), start + len(prompt) + len(answer)
            ids[row, start:stop] = torch.tensor(prompt + answer)
            mask[row, start:stop] = 1
            labels[row, middle:stop] = torch.tensor(answer, dtype=torch.long)
        shown = [image for row_images in images for image in row_images]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "pixel_values": patches(shown),
            "image_grid_thw": torch.tensor([[1, _GRID * MERGE, _GRID * MERGE]] * len(shown)),
            "mm_token_type_ids": (ids == self._image).int(),
        }
        return inputs, labels
