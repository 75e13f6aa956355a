"""A Qwen2.5-VL of a million and a half parameters, with its tokenizer and processor, in Hugging Face layout."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from viper.prompts import PromptSet
from viper.smallworld.drawing import IMAGE_PIXELS, STUDIO
from viper.smallworld.making.lessons import ALL_FORMS, Teacher

END: Final = "<|im_end|>"
PAD: Final = "<|endoftext|>"
IMAGE: Final = "<|image_pad|>"
VISION_START: Final = "<|vision_start|>"
VISION_END: Final = "<|vision_end|>"
THINK: Final = ("<think>", "</think>")
SPECIAL: Final = (PAD, "<|im_start|>", END, VISION_START, VISION_END, IMAGE, "<|video_pad|>")
PATCH: Final = 16
MERGE: Final = 2

# Pictures first, in order, then the text; the answer follows the end mark directly.
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>{% endfor %}"
)

# Word groups that always stand together become one token, as do the frames of the JSON answers.
_PHRASES: Final = (
    *(" top left", " top right", " bottom left", " bottom right"),
    *(
        "top left",
        "top right",
        "bottom left",
        "bottom right",
        "The background is",
        " The background is",
        " is a",
        " is missing",
    ),
    *(" of the object at", "Change the", "Remove the", "Move the", "Add a", " is nothing", "What is the"),
    *('{"refinement": ["', '{"refinement": []}', '", "', '"]}', '"}', '{"analysis": "', '", "chosen_category": "'),
    *('", "reasoning": "It is subtle."}', '{"entity_to_edit": "', '", "editing_instruction": "'),
    *('{"is_valid": true}', '{"is_valid": false, "reason": "It was not done."}', "Attribute Tuning"),
    *("Changing Spatial Relationships", "Editing Background", "Removing/Adding Details"),
    *(" Think, then answer.", " object at", " objects at"),
)
_ESCAPES: Final = {ord(character): "\\" + character for character in '{}[].?"/'}
_SPLIT: Final = "|".join(
    [
        *(phrase.translate(_ESCAPES) for phrase in sorted(_PHRASES, key=len, reverse=True)),
        r" ?\w+",
        r" ?[^\w\s]",
        r"\s+",
    ]
)


def _corpus() -> Iterator[str]:
    teacher = Teacher(random.Random(0), STUDIO)
    for index in range(6000):
        name = list(ALL_FORMS)[index % len(ALL_FORMS)]
        lesson = getattr(teacher, name)()
        yield lesson.prompt
        yield lesson.answer
    yield from _PHRASES * 3
    yield from (word for text in PromptSet.load("smallworld").templates.values() for word in text.split())


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that can write any text, and in which every word of the small world is one token."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000,
        min_frequency=2,
        special_tokens=[*SPECIAL, *THINK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer)
    # One token each, but text like any other: decoding must not drop the reasoning's frame.
    state = json.loads(backend.to_str())
    for added in state["added_tokens"]:
        added["special"] = added["content"] not in THINK
    backend = Tokenizer.from_str(json.dumps(state))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=1024,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def build_processor() -> Qwen2_5_VLProcessor:
    """The processor: one picture is 96×96 pixels, 36 patches, 9 tokens (one per cell)."""
    size = {"min_pixels": IMAGE_PIXELS**2, "max_pixels": IMAGE_PIXELS**2}
    patches = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**size, **patches),
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**size, **patches),
        chat_template=CHAT_TEMPLATE,
    )


@dataclass(frozen=True)
class Shape:
    """Sizes of the model: language model first, then the vision tower."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    vision_hidden: int = 96
    vision_layers: int = 2
    vision_heads: int = 4


def build_model(tokenizer: Any, shape: Shape | None = None, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """An untrained model for `tokenizer`. Weights depend on `seed` alone."""
    shape = shape or Shape()
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    quarter = shape.hidden // shape.heads // 2  # rotary frequencies a head, divided over time, height and width
    sides = quarter * 3 // 8
    rope = {"rope_type": "default", "mrope_section": [quarter - 2 * sides, sides, sides], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": shape.hidden,
            "intermediate_size": shape.hidden * 2,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.heads,
            "max_position_embeddings": 1024,
            "rope_parameters": rope,
            "bos_token_id": None,
            "eos_token_id": ids[END],
            "pad_token_id": ids[PAD],
            "tie_word_embeddings": True,
            # .06 learns faster than the default .02 at this width.
            "initializer_range": 0.06,
        },
        vision_config={
            "depth": shape.vision_layers,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_hidden * 2,
            "num_heads": shape.vision_heads,
            "out_hidden_size": shape.hidden,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "fullatt_block_indexes": list(range(shape.vision_layers)),
            "window_size": IMAGE_PIXELS,
            "initializer_range": 0.06,
        },
        image_token_id=ids[IMAGE],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
        tie_word_embeddings=True,
        eos_token_id=ids[END],
        pad_token_id=ids[PAD],
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    generation = model.generation_config
    generation.eos_token_id = ids[END]
    generation.pad_token_id = ids[PAD]
    # A sampled image token would have no picture behind it and break the next forward pass, whoever samples.
    generation.suppress_tokens = sorted(id_ for token, id_ in ids.items() if token != END)
    return model


def save(model: Any, processor: Any, directory: Path) -> None:
    """Writes safetensors, configuration, tokenizer and processor, loadable by the Auto classes."""
    model.save_pretrained(directory, safe_serialization=True)
    processor.save_pretrained(directory)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
