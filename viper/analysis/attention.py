"""How much a Qwen2.5-VL-like model looks at each place of an image while it answers; imports torch.

The attention weights of the answer's tokens over the image's tokens, averaged over heads, layers and tokens: what the
library's eager attention computes while it generates. No layer's weights are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from viper.engines.memory import empty_cache
from viper.engines.model_directory import check_model_directory
from viper.errors import UnfitEngineError


@dataclass(frozen=True)
class Look:
    """Where a model looked. `weights`: shape (rows, columns) of the image's tokens, share of all attention; they sum to
    `image_share`. `answer`: what it said meanwhile."""

    weights: NDArray[np.float32]
    answer: str

    @property
    def image_share(self) -> float:
        """Share of attention that fell on the image, 0 to 1."""
        return float(self.weights.sum())


class AttentionModel:
    """A model directory whose attention can be looked at.

    Args:
        device: a torch device.
        max_pixels: larger images are reduced to this area, since the weights of a layer take memory with its square.

    Raises `InputError` for an incomplete directory, `UnfitEngineError` for a model without image tokens in a grid.
    """

    def __init__(self, model_dir: Path, device: str, max_pixels: int) -> None:
        check_model_directory(model_dir)
        self._processor: Any = AutoProcessor.from_pretrained(model_dir, trust_remote_code=False)
        self._model: Any = AutoModelForImageTextToText.from_pretrained(
            model_dir,
            dtype="auto",
            use_safetensors=True,
            trust_remote_code=False,
            # The vision tower's weights are not looked at.
            attn_implementation={"text_config": "eager", "vision_config": "sdpa"},
        )
        self._model.to(device).eval()
        self._place, self._max_pixels = str(model_dir), max_pixels
        merge = getattr(self._processor.image_processor, "merge_size", None)
        if merge is None or getattr(self._model.config, "image_token_id", None) is None:
            raise UnfitEngineError("the model has no grid of image tokens", where=self._place, fix="take a Qwen2.5-VL")
        self._merge, self._image_token = int(merge), int(self._model.config.image_token_id)

    def close(self) -> None:
        """Drops the model."""
        self._model = None
        empty_cache()

    def look(self, image: Image.Image, prompt: str, tokens: int) -> Look:
        """Answers a prompt about an image greedily, at most `tokens` long, and measures where it looked meanwhile."""
        with torch.inference_mode():
            inputs = self._inputs(image, prompt)
            asked = inputs["input_ids"].shape[1]
            seen = (inputs["input_ids"][0] == self._image_token).nonzero()[:, 0]
            with self._watched(seen) as looks:
                made = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False, repetition_penalty=1.0)
            if not looks:
                raise UnfitEngineError("the model gives no attention weights", where=self._place)
            weights = torch.stack(looks).mean(0)
            _, height, width = inputs["image_grid_thw"][0].tolist()
            grid = weights.reshape(height // self._merge, width // self._merge).cpu().numpy()
        answer = self._processor.tokenizer.decode(made[0, asked:], skip_special_tokens=True)
        return Look(grid.astype(np.float32), str(answer))

    def _inputs(self, image: Image.Image, prompt: str) -> Any:
        image = _reduced(image, self._max_pixels)
        message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
        text = self._processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        return self._processor(text=[text], images=[image], return_tensors="pt").to(self._model.device)

    @contextmanager
    def _watched(self, seen: Any) -> Iterator[list[Any]]:
        """Collects, token by token and layer by layer, the attention with which a token is chosen, averaged over the
        heads, on the places `seen`: shape (len(seen),)."""
        looks: list[Any] = []

        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if weights is not None and weights.dim() == 4:  # batch, heads, asking, asked
                looks.append(weights[0, :, -1, seen].float().mean(0))

        with _hooks(self._model, keep):
            yield looks


@contextmanager
def _hooks(model: Any, keep: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Hooks on the attention of the language model."""
    handles = [
        module.register_forward_hook(keep)
        for name, module in model.named_modules()
        if name.endswith("self_attn") and "visual" not in name and "vision" not in name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _reduced(image: Image.Image, max_pixels: int) -> Image.Image:
    area = image.width * image.height
    if area <= max_pixels:
        return image
    scale = (max_pixels / area) ** 0.5
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)
