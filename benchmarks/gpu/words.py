"""Tokenizers and processors without a download: learnt from our own prompts, so that words are tokens as usual.

Vocabularies of the models are the real ones; only what stands for which id is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
#: As Qwen2.5-VL's own for one turn of a user.
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in c %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: A caption of about two hundred words.
CAPTION = " ".join(
    f"At the {place} of the image a {size} {color} object with a {texture} surface stands in front of the background."
    for place, size, color, texture in (
        ("top left", "small", "red", "striped"),
        ("top right", "large", "blue", "plain"),
        ("center", "tall", "green", "dotted"),
        ("bottom left", "narrow", "white", "rough"),
        ("bottom right", "wide", "black", "shiny"),
        ("left edge", "round", "yellow", "wooden"),
        ("right edge", "flat", "brown", "metallic"),
        ("upper edge", "thin", "gray", "woven"),
        ("lower edge", "thick", "orange", "cracked"),
        ("middle", "square", "purple", "smooth"),
    )
)


def _corpus() -> Iterator[str]:
    from viper.prompts import PromptSet

    yield from PromptSet.load("viper").templates.values()
    yield CAPTION
    yield "system user assistant describe the image, its color, shape, size, texture, quantity, text, and objects"


def tokenizer(most: int) -> Any:
    """A byte-level BPE of at most `most` tokens, Qwen's special tokens among them."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    backend: Any = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(most, 4000),
        min_frequency=1,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_corpus(), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **_named(eos="<|im_end|>", pad="<|endoftext|>"),
        additional_special_tokens=list(SPECIAL[1:]),
        model_max_length=131_072,
        padding_side="left",
    )
    made.chat_template = CHAT
    return made


def sentence_tokenizer(most: int) -> Any:
    """As XLM-RoBERTa's: a sentence between <s> and </s>, ids of the four special tokens in its order."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    backend: Any = Tokenizer(models.WordLevel(**_named(unk=special[3])))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=min(most, 4000), special_tokens=special, show_progress=False)
    backend.train_from_iterator(_corpus(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **_named(bos="<s>", cls="<s>", pad="<pad>", eos="</s>", sep="</s>", unk="<unk>"),
        model_max_length=8192,
        padding_side="right",
    )


def _named(**tokens: str) -> dict[str, str]:
    return {f"{name}_token": token for name, token in tokens.items()}


def processor(words: Any, *, tiny: bool) -> Any:
    """Qwen2.5-VL's processor with the published limits of pixels, or with pictures of few tokens."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    pixels = {"min_pixels": 56 * 56, "max_pixels": 56 * 56} if tiny else {"min_pixels": 3136, "max_pixels": 12_845_056}
    size = {**pixels, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**size),
        tokenizer=words,
        video_processor=Qwen2VLVideoProcessor(**size),
        chat_template=CHAT,
    )


def save_generation_config(directory: Path, words: Any) -> None:
    """Outputs do not end, and have no picture marks: their length is what is asked for."""
    ids = {token: words.convert_tokens_to_ids(token) for token in SPECIAL}
    content = {
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "suppress_tokens": sorted(ids.values()),
    }
    (directory / "generation_config.json").write_text(json.dumps(content) + "\n", "utf-8")
