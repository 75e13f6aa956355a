"""Training: a sample forward and backward, log-probabilities of an answer in chunks, a step of the local trainer."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.gpu import shapes, words
from benchmarks.gpu.measure import Kit
from benchmarks.gpu.parts.similarity import picture
from benchmarks.gpu.weights import random_weights

_MODEL, _CALLED = "qwen2.5-vl-7b", "7B"


def sample(kit: Kit) -> None:
    """Forward and backward, and log-probabilities, of Qwen2.5-VL-7B as `transformers` has it, in bfloat16.

    The prompt with its images and the answer are one row; layers are computed again in the backward pass, and the
    vocabulary's logits are made for some tokens at a time.
    """
    import torch
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    directory = shapes.language_model(_MODEL, kit.scratch / _MODEL, tiny=kit.tiny)
    size, answer = kit.chosen((1536, 1152), (56, 56)), kit.chosen(4096, 12)
    dtype = torch.bfloat16 if kit.cuda else torch.float32
    settings = {"billions": shapes.shape(_MODEL)["billions"], "tokens": answer}
    with random_weights(kit.device):
        model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(directory, dtype=dtype)
        processor = AutoProcessor.from_pretrained(directory)
        used = {"interface": "trainer", "model": _MODEL, "weights": kit.used()}
        rows = {
            n: _row(kit, model, processor, [picture(*size, number=i) for i in range(n)], answer) for n in (1, 2, 3, 4)
        }
        model.train()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for attention, name in _attentions(kit, model):
            for images in kit.chosen((1, 4, 2, 3), (1, 2)):
                row = rows[images]
                tokens = row["input_ids"].shape[1]
                kit.measure(
                    f"{_CALLED}: forward and backward, {images} × {size[0]}×{size[1]}, {attention}",
                    f"{tokens:,} tokens, {answer:,} of them an answer; layers computed again",
                    lambda given=row: _backward(model, given, answer, kit.chosen(1024, 5)),
                    repetitions=2,
                    rate={"work": "finetune", "images": images, **settings},
                    memory={**used, "engine": name},
                )
                model.zero_grad(set_to_none=True)
        model.eval()
        model.set_attn_implementation("sdpa")
        for chunk in kit.chosen((1024, 4096), (5, 12)):
            kit.measure(
                f"{_CALLED}: log-probabilities of {answer:,} tokens, {chunk:,} at a time",
                "one forward pass without gradients, logits of so many tokens at a time",
                lambda each=chunk: _scored(model, rows[1], answer, each),
                repetitions=2,
                rate={"work": "score", "images": 1, **settings},
                memory={**used, "engine": "sdpa"},
            )


def _attentions(kit: Kit, model: Any) -> Iterator[tuple[str, str]]:
    """`sdpa`, and what `--attention` names: one that transformers knows, or `module:function` of its interface."""
    model.set_attn_implementation("sdpa")
    yield "sdpa", "sdpa"
    if asked := kit.options.attention:
        try:
            model.set_attn_implementation(_registered(asked) if ":" in asked else asked)
        except Exception as error:
            kit.leave_out(f"attention {asked}", f"{type(error).__name__}: {error}")
            return
        yield asked, asked


def _registered(place: str) -> str:
    """Registers an attention function under a name of the kit's, with the masks of `sdpa`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    module, _, function = place.partition(":")
    name = f"kit_{function}"
    AttentionInterface.register(name, getattr(importlib.import_module(module), function))
    AttentionMaskInterface.register(name, sdpa_mask)
    return name


def _row(kit: Kit, model: Any, processor: Any, pictures: Sequence[Any], answer: int) -> dict[str, Any]:
    """Inputs of the model: a prompt with pictures, and an answer of random tokens behind it."""
    import torch

    content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": words.CAPTION}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    row: dict[str, Any] = dict(processor(text=[text], images=list(pictures), return_tensors="pt"))
    made = torch.randint(len(words.SPECIAL), 500, (1, answer), generator=torch.Generator().manual_seed(0))
    row["input_ids"] = torch.cat([row["input_ids"], made], 1)
    row["attention_mask"] = torch.ones_like(row["input_ids"])
    if "mm_token_type_ids" in row:
        row["mm_token_type_ids"] = torch.cat([row["mm_token_type_ids"], torch.zeros_like(made)], 1)
    row["pixel_values"] = row["pixel_values"].to(model.dtype)
    return {name: value.to(kit.device) for name, value in row.items()}


def _losses(model: Any, row: dict[str, Any], answer: int, chunk: int) -> Iterator[Any]:
    """The answer's summed negative log-probabilities, some tokens at a time."""
    import torch
    from torch.utils.checkpoint import checkpoint

    states = model.model(**row, use_cache=False).last_hidden_state[0, -answer - 1 : -1]

    def of(some: Any, ids: Any) -> Any:
        return torch.nn.functional.cross_entropy(model.lm_head(some).float(), ids, reduction="sum")

    for some, ids in zip(states.split(chunk), row["input_ids"][0, -answer:].split(chunk), strict=True):
        yield checkpoint(of, some, ids, use_reentrant=False) if torch.is_grad_enabled() else of(some, ids)


def _backward(model: Any, row: dict[str, Any], answer: int, chunk: int) -> None:
    (sum(_losses(model, row, answer, chunk)) / answer).backward()


def _scored(model: Any, row: dict[str, Any], answer: int, chunk: int) -> float:
    import torch

    with torch.inference_mode():
        return float(sum(_losses(model, row, answer, chunk)))


def grpo(kit: Kit) -> None:
    """A step of the local trainer with Qwen2.5-VL-3B in float32: sampling five outputs a prompt, and the update."""
    from viper.engines.base import RlSample
    from viper.reward.equations import Reward
    from viper.training.local import grpo as trainer
    from viper.training.settings import GrpoSettings

    name, size, tokens = "qwen2.5-vl-3b", kit.chosen((784, 560), (56, 56)), kit.chosen(256, 6)
    directory = shapes.language_model(name, kit.scratch / name, tiny=kit.tiny)
    settings = GrpoSettings(
        steps=3,
        batch_prompts=2,
        mini_batch_prompts=2,
        group_size=5,
        micro_batch=5,
        max_response_tokens=tokens,
    )
    samples = [RlSample(str(i), words.CAPTION, (picture(*size, number=i),), ("A ring.",)) for i in range(4)]

    def rewards(texts: Sequence[str], *_: Any) -> list[Reward]:
        """As good as chance: outputs of random weights are all worth nothing, and nothing would be learnt from them."""
        worth = [hashlib.sha256(f"{i} {text}".encode()).digest()[0] / 255 for i, text in enumerate(texts)]
        return [Reward(v, 1.0, v, v, 1.0, v, 1, 0.0, "", (), ()) for v in worth]

    with random_weights(kit.device), patch.object(trainer, "score_batch", rewards):
        run = trainer.GrpoRun(directory, samples, [], _Words(), settings, kit.scratch / "run", None, kit.device)
        run.load()
        used = {"interface": "trainer", "engine": "trl", "model": name, "weights": kit.used()}
        steps = iter(range(1, 1000))

        def step() -> None:
            number = next(steps)
            run.update(run.roll_out(number), number)

        outputs = settings.batch_prompts * settings.group_size
        kit.measure(
            f"3B: GRPO step of {outputs} outputs",
            f"two prompts with an image of {size[0]}×{size[1]}, five outputs of {tokens} tokens each; float32, AdamW",
            step,
            repetitions=2,
            rate={
                **{"work": "train", "engine": "trl", "billions": shapes.shape(name)["billions"]},
                **{"rollouts": outputs, "images": 1, "tokens": tokens},
            },
            memory=used,
        )


class _Words:
    """A similarity model that nobody asks."""

    engine_id = "none"

    def embed(self, sentences: Sequence[str]) -> Any:
        return np.ones((len(sentences), 1), np.float32)
