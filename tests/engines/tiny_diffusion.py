"""Qwen-Image and Qwen-Image-Edit as small as they get: the real classes with random weights, in the real layout.

Nothing is simplified but sizes. The VAE of the editing pipeline compresses 16-fold instead of 8-fold, and its processor
shows the text encoder 4 tokens of a picture: the pipeline scales every original to 1024² before it encodes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

_SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
# The words of the pipelines' templates and of the tests' captions become tokens.
_CORPUS = (
    "system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of "
    "the objects and background:\nuser\nassistant\n",
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain how "
    "the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate.",
    "The background is smooth gray. At top left is a small striped red ring. At center is a big plain blue cross.",
    "checked teal top right green star Make Remove",
)
HIDDEN = 32


def tokenizer() -> Any:
    """A byte-level BPE of the class that the published pipelines name."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_CORPUS, trainer)
    model = json.loads(backend.to_str())["model"]
    made = Qwen2Tokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made.add_special_tokens({"additional_special_tokens": list(_SPECIAL)})
    return made


def text_encoder(words: Any) -> Any:
    """A Qwen2.5-VL with one layer each for text and picture."""
    ids = {token: words.convert_tokens_to_ids(token) for token in _SPECIAL}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                **{"vocab_size": len(words), "hidden_size": HIDDEN, "intermediate_size": 64, "num_hidden_layers": 2},
                **{"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096},
                **{"rope_parameters": rope, "bos_token_id": None, "eos_token_id": ids["<|im_end|>"]},
                **{"pad_token_id": ids["<|endoftext|>"], "initializer_range": 0.2},
            },
            vision_config={
                **{"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": HIDDEN},
                **{"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56},
                **{"fullatt_block_indexes": [0], "initializer_range": 0.2},
            },
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
            tie_word_embeddings=False,
        )
    )


def processor(words: Any) -> Any:
    """Shows the text encoder pictures of 4 tokens."""
    size = {"min_pixels": 56**2, "max_pixels": 56**2, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**size),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**size),
        chat_template="{{ messages }}",
    )


def _enliven(module: torch.nn.Module) -> None:
    """Weights large enough that captions show in the pixels: with the default ones all images look the same."""
    for weight in module.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=1.5 / weight[0].numel() ** 0.5)


def _parts(halvings: int) -> dict[str, Any]:
    """Transformer, VAE that halves the sides so many times, scheduler; latents of 4 channels."""
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=3,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=HIDDEN,
        axes_dims_rope=(4, 6, 6),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1] * (halvings + 1),
        num_res_blocks=0,
        temperal_downsample=[False] * halvings,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    for module in (transformer, vae):
        _enliven(module)
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02, use_dynamic_shifting=True
    )
    return {"transformer": transformer, "vae": vae, "scheduler": scheduler}


def save_qwen_image(directory: Path) -> Path:
    """Writes a `QwenImagePipeline`."""
    words = tokenizer()
    parts = _parts(halvings=3)
    pipeline = QwenImagePipeline(text_encoder=text_encoder(words), tokenizer=words, **parts)
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


def save_qwen_image_edit(directory: Path, plus: bool = False) -> Path:
    """Writes a `QwenImageEditPipeline`, or the `…Plus…` of later releases."""
    words = tokenizer()
    parts = _parts(halvings=4)
    cls = QwenImageEditPlusPipeline if plus else QwenImageEditPipeline
    pipeline = cls(text_encoder=text_encoder(words), tokenizer=words, processor=processor(words), **parts)
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory
