"""A Qwen2.5-VL of a few thousand weights with tokenizer and processor, and samples that it can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viper.engines.base import RlSample

WORDS = [
    "red",
    "green",
    "blue",
    "square",
    "circle",
    "left",
    "right",
    "of",
    "the",
    "is",
    "a",
    "above",
    "below",
    "Flaws",
    "Find",
    "<think>",
    "</think>",
    ".",
]
SPECIAL = ["<|endoftext|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
)


def build(directory: Path, seed: int = 0) -> Path:
    """Writes the model with random weights; the same seed gives the same weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    end, padding, unknown = "<|im_end|>", "<|endoftext|>", "?"
    words = {w: i for i, w in enumerate([*SPECIAL, unknown, *WORDS])}
    backend = Tokenizer(models.WordLevel(words, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=end,
        pad_token=padding,
        unk_token=unknown,
        additional_special_tokens=SPECIAL[2:],
        padding_side="left",
    )
    size = {"min_pixels": 56 * 56, "max_pixels": 56 * 112, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**size),
        chat_template=TEMPLATE,
    )
    ids: Any = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": rope,
            "eos_token_id": ids("<|im_end|>"),
            "pad_token_id": ids("<|endoftext|>"),
            "tie_word_embeddings": True,
            "initializer_range": 0.3,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": 16,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "fullatt_block_indexes": [1],
            "window_size": 56,
            "initializer_range": 0.3,
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids("<|im_end|>")
    model.generation_config.pad_token_id = ids("<|endoftext|>")
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def picture(number: int, width: int = 56) -> Image.Image:
    """Noise that depends on the number alone, 56 pixels high."""
    levels = np.random.default_rng(number).integers(0, 255, (56, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def samples(count: int) -> list[RlSample]:
    """Prompts of several lengths with one or two images, one of them wide."""
    return [
        RlSample(
            sample_id=f"sample-{i}",
            prompt=" ".join(["Find the", *WORDS[: i % 4]]),
            images=tuple(picture(10 * i + k, 112 if i % 3 == 2 else 56) for k in range(1 + i % 2)),
            ground_truth=("red square", WORDS[i % 5]),
        )
        for i in range(count)
    ]


class SharedWords:
    """Similarity for tests: cosine of bags of words."""

    engine_id = "shared-words/1"

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[s.split().count(w) for w in WORDS] + [1e-3] for s in sentences], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
