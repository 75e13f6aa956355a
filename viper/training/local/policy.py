"""The policy π_θ: a Qwen2.5-VL with its processor, written so that a group of G outputs pays for its prompt once.

`encode` turns U distinct prompts into one left-padded batch. `sample` runs that batch once, copies its keys and values
G times and decodes; `completion_logprobs` runs it once *with* gradients and scores the sampled outputs against it. Both
give the numbers of the plain path (prompt and output in one row per output, images repeated), to float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import deterministic

from viper.engines.base import RlSample
from viper.errors import InputError
from viper.prompts import without_marks
from viper.text import clean
from viper.words import plural


@dataclass(frozen=True)
class PromptBatch:
    """U encoded prompts, left padded to P tokens: `input_ids`, `attention_mask` (U, P), `position_ids` (3, U, P).

    `next_position` (U,) is the rotary position of the first output token (after an image it is less than the number of
    tokens). `pixel_values` holds the patches of all images in order, `image_counts` the images per prompt.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    next_position: Tensor
    pixel_values: Tensor | None
    image_grid_thw: Tensor | None
    image_counts: tuple[int, ...]

    def select(self, rows: Sequence[int]) -> PromptBatch:
        """The prompts `rows`, in that order."""
        index = torch.as_tensor(rows, device=self.input_ids.device)
        pixels, grids = self.pixel_values, self.image_grid_thw
        if pixels is not None and grids is not None:
            first = [sum(self.image_counts[:r]) for r in rows]
            images = [i for r, f in zip(rows, first, strict=True) for i in range(f, f + self.image_counts[r])]
            patches = torch.split(pixels, grids.prod(-1).tolist())
            pixels = torch.cat([patches[i] for i in images]) if images else None
            grids = grids[torch.as_tensor(images, device=grids.device)] if images else None
        return PromptBatch(
            self.input_ids[index],
            self.attention_mask[index],
            self.position_ids[:, index],
            self.next_position[index],
            pixels,
            grids,
            tuple(self.image_counts[r] for r in rows),
        )


@dataclass(frozen=True)
class Samples:
    """B sampled outputs, right padded to C tokens, end token included: `ids`, `mask`, `logprobs` (B, C).

    `logprobs` are log π_old at the sampling temperature over the whole vocabulary; `entropy` is the mean per-token
    entropy in nats over all outputs; `finished` (B,) is False where the token limit cut the output off.
    """

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    finished: Tensor
    entropy: float


class Policy:
    """Model and processor of a Hugging Face directory (safetensors only, no remote code), on a torch device."""

    def __init__(self, model_dir: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration
        from transformers.utils import logging

        from viper.engines.model_directory import check_model_directory
        from viper.engines.vision_batching import batch_vision_attention

        check_model_directory(model_dir)
        logging.disable_progress_bar()  # bars of a fraction of a second would fill the stage's log
        try:
            self.model: Any = Qwen2_5_VLForConditionalGeneration.from_pretrained(
                model_dir, dtype=dtype, use_safetensors=True, local_files_only=True
            )
            self.processor: Any = AutoProcessor.from_pretrained(model_dir, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"the model cannot be loaded: {error}", where=str(model_dir)) from error
        self.model.to(device)
        batch_vision_attention(self.model)
        self.processor.tokenizer.padding_side = "left"
        eos = self.model.generation_config.eos_token_id
        self.eos = [eos] if isinstance(eos, int) else list(eos or [self.processor.tokenizer.eos_token_id])
        self.pad: int = self.processor.tokenizer.pad_token_id
        config = self.model.config
        vision = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        banned = {getattr(config, name, None) for name in vision} | {self.pad}
        banned |= set(self.model.generation_config.suppress_tokens or ())
        # A sampled image token would have no image behind it when the output is scored.
        self.banned = sorted(t for t in banned - set(self.eos) if t is not None)

    def save(self, directory: Path) -> None:
        """Writes model (safetensors), configuration, tokenizer and processor in Hugging Face layout."""
        self.model.save_pretrained(directory)
        self.processor.save_pretrained(directory)

    def encode(self, samples: Sequence[RlSample], max_tokens: int) -> PromptBatch:
        """Chat template, image patches and rotary positions of the prompts; a mark within their text is text.

        Raises:
            InputError: when a prompt has more than `max_tokens` tokens, naming the sample.
        """
        messages = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image"} for _ in s.images),
                        {"type": "text", "text": without_marks(s.prompt)},
                    ],
                }
            ]
            for s in samples
        ]
        texts = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        images = [list(s.images) for s in samples]
        inputs = self.processor(
            text=texts, images=images if any(images) else None, padding=True, padding_side="left", return_tensors="pt"
        ).to(self.model.device)
        lengths = inputs["attention_mask"].sum(1)
        if int(lengths.max()) > max_tokens:
            row = int(lengths.argmax())
            raise InputError(
                f"the prompt has {plural(int(lengths[row]), 'token')}, the limit is {max_tokens}",
                where=f"sample {samples[row].sample_id}",
                fix="raise maxPromptTokens, or lower images.maxSide",
            )
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        grids = inputs.get("image_grid_thw")
        if grids is None:
            position_ids = (mask.cumsum(1) - 1).clamp(min=0).expand(3, -1, -1)
        else:
            position_ids, _ = self.model.model.get_rope_index(
                ids, (ids == self.model.config.image_token_id).int(), image_grid_thw=grids, attention_mask=mask
            )
        # Left padding puts the last prompt token last, but after an image its position need not be the greatest.
        following = position_ids.amax(dim=(0, 2)) + 1
        counts = tuple(len(s.images) for s in samples)
        return PromptBatch(ids, mask, position_ids, following, inputs.get("pixel_values"), grids, counts)

    def response_ids(self, text: str, max_tokens: int, sample_id: str) -> list[int]:
        """Tokens of a response to learn, end token included.

        Raises:
            InputError: when there are more than `max_tokens`, naming the sample.
        """
        ids: list[int] = [
            *self.processor.tokenizer(without_marks(text), add_special_tokens=False)["input_ids"],
            self.eos[0],
        ]
        if len(ids) > max_tokens:
            raise InputError(
                f"the response has {plural(len(ids), 'token')}, the limit is {max_tokens}",
                where=f"sample {sample_id}",
                fix="raise maxResponseTokens, or shorten the response",
            )
        return ids

    def prefix(self, prompts: PromptBatch) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Runs the prompts: last token's hidden state (U, d), and per layer keys and values (U, heads, P, d_head)."""
        from transformers import DynamicCache

        cache = DynamicCache()
        hidden = self.model.model(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            position_ids=prompts.position_ids,
            pixel_values=prompts.pixel_values,
            image_grid_thw=prompts.image_grid_thw,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden[:, -1], [(layer.keys, layer.values) for layer in cache.layers]

    def completion_logprobs(
        self, prompts: PromptBatch, owner: Tensor, ids: Tensor, mask: Tensor, temperature: float
    ) -> Tensor:
        """log π_θ of every output token at `temperature`; gradients flow through the prompts.

        Args:
            prompts: U prompts.
            owner: (B,) the prompt of each output.
            ids: (B, C) outputs, right padded.
            mask: (B, C) 1 on output tokens.
            temperature: the logits' divisor.

        Returns:
            (B, C) log-probabilities, 0 on padding.
        """
        last, layers = self.prefix(prompts)
        states, length, rows = last[owner, None], ids.shape[1] - 1, len(owner)
        if length:  # else every output is its end token, which the prompt's last state predicts
            positions = (prompts.next_position[owner, None] + torch.arange(length, device=ids.device)).expand(3, -1, -1)
            causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
            visible = prompts.attention_mask[owner, None, None].bool().expand(-1, 1, length, -1)
            visible = torch.cat([visible, causal.expand(rows, 1, -1, -1)], -1)
            hidden = self._decode(ids[:, :-1], positions, _bias(visible, last.dtype), _Shared(layers, owner))
            states = torch.cat([states, hidden], 1)
        scored = mask.bool()
        logits = self.model.lm_head(states[scored]).float()
        if temperature != 1:
            logits = logits / temperature
        losses = nn.functional.cross_entropy(logits, ids[scored], reduction="none")
        return torch.zeros(ids.shape, device=ids.device).masked_scatter(scored, -losses)

    def _decode(self, ids: Tensor, positions: Tensor, bias: Tensor, cache: Any) -> Tensor:
        """Hidden states (B, T, d) of tokens (B, T) after what `cache` holds; `bias` (B, 1, T, keys) masks keys."""
        language = self.model.model.language_model
        hidden: Tensor = language(
            inputs_embeds=language.embed_tokens(ids),
            attention_mask={"full_attention": bias},
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    @torch.no_grad()
    def sample(
        self, prompts: PromptBatch, group: int, max_tokens: int, temperature: float, generator: torch.Generator
    ) -> Samples:
        """`group` outputs per prompt (rows `u*group … u*group+group-1` for prompt u); temperature 0 is greedy."""
        last, layers = self.prefix(prompts)
        device = last.device
        owner = torch.arange(len(prompts.input_ids), device=device).repeat_interleave(group)
        total, width = len(owner), prompts.input_ids.shape[1]
        cache = _Growing(layers, owner)
        visible = nn.functional.pad(prompts.attention_mask[owner].bool(), (0, max_tokens), value=True)
        bias = _bias(visible[:, None, None], last.dtype)
        ids = torch.full((total, max_tokens), self.pad, device=device)
        mask = torch.zeros((total, max_tokens), dtype=torch.long, device=device)
        logprobs = torch.zeros((total, max_tokens), device=device)
        rows = torch.arange(total, device=device)  # which output each line is
        live = torch.ones(total, dtype=torch.bool, device=device)
        hidden, position = last[owner], prompts.next_position[owner]
        ends, entropy = torch.tensor(self.eos, device=device), 0.0
        for step in range(max_tokens):
            every = (self.model.lm_head(hidden).float() / (temperature or 1.0)).log_softmax(-1)
            probabilities = every.exp()
            entropy -= float((probabilities * every).sum(1)[live].sum())
            probabilities[:, self.banned] = 0
            token = _draw(probabilities, generator) if temperature else probabilities.argmax(1, keepdim=True)
            out = rows[live]
            ids[out, step], mask[out, step] = token[live, 0], 1
            logprobs[out, step] = every.gather(1, token)[live, 0]
            live &= ~torch.isin(token[:, 0], ends)
            alive = int(live.sum())
            if not alive or step == max_tokens - 1:
                break
            # Copying the cache costs as much as a few steps, so finished lines leave when they are a fifth.
            if alive < 0.8 * len(rows):
                cache.select(live)
                rows, token, position, bias = rows[live], token[live], position[live], bias[live]
                live = live[live]
            positions = position[None, :, None].expand(3, -1, -1)
            hidden = self._decode(token, positions, bias[..., : width + step + 1], cache)[:, -1]
            position = position + 1
        length = int(mask.sum(1).max())
        finished = (torch.isin(ids, ends) & mask.bool()).any(1)
        return Samples(ids[:, :length], mask[:, :length], logprobs[:, :length], finished, entropy / int(mask.sum()))

    def decode(self, samples: Samples) -> list[str]:
        """The outputs' text without end and padding tokens; other special tokens stay visible."""
        drop = {*self.eos, self.pad}
        rows = [[t for t in row if t not in drop] for row in samples.ids.tolist()]
        texts: list[str] = self.processor.tokenizer.batch_decode(rows, skip_special_tokens=False)
        return [clean(text) for text in texts]


_deterministic: Any = deterministic  # a module with properties, which its types do not know


def backward(loss: Tensor) -> None:
    """Adds the gradients of `loss`; on a CPU with the same bits at every run, however loaded the machine is.

    There the threads of `index_put_`, which the gradient of every `x[rows]` is, add with atomic operations, in the
    order in which they happen to come, unless algorithms are to be deterministic.
    """
    if loss.device.type != "cpu":
        torch.autograd.backward(loss)
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = _deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    _deterministic.fill_uninitialized_memory = False  # which is for finding faults, and costs time
    try:
        torch.autograd.backward(loss)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        _deterministic.fill_uninitialized_memory = fill


def _bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores: 0 where a key is visible, else −∞ (made once, not in every layer)."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, -torch.inf)


def _draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """One index per row (R, 1), in proportion to the row's values; a zero is never drawn. `generator`: of the CPU."""
    heap = probabilities.cumsum(1)
    point = torch.rand(len(heap), 1, generator=generator).to(heap.device) * heap[:, -1:]
    return torch.searchsorted(heap, point, right=True).clamp(max=heap.shape[1] - 1)


class _Shared:
    """A prompt's keys and values in front of each of its outputs', with gradients; used for one forward pass."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], owner: Tensor) -> None:
        self._layers, self._owner = layers, owner

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        before_keys, before_values = self._layers[layer]
        return (
            torch.cat([before_keys[self._owner], keys], 2),
            torch.cat([before_values[self._owner], values], 2),
        )


class _Growing:
    """Keys and values of outputs that grow token by token, in buffers with room to spare (no copy per token)."""

    ROOM = 64  # tokens that a buffer has room for at first; then it grows by half

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], owner: Tensor) -> None:
        self._filled = [layers[0][0].shape[2]] * len(layers)
        self._layers = [(_roomy(k[owner], self.ROOM), _roomy(v[owner], self.ROOM)) for k, v in layers]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        begin = self._filled[layer]
        end = self._filled[layer] = begin + keys.shape[2]
        if end > (have := self._layers[layer][0].shape[2]):
            more = max(end - have, have // 2)
            self._layers[layer] = (_roomy(self._layers[layer][0], more), _roomy(self._layers[layer][1], more))
        all_keys, all_values = self._layers[layer]
        all_keys[:, :, begin:end], all_values[:, :, begin:end] = keys, values
        return all_keys[:, :, :end], all_values[:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keeps the lines where `rows` is true."""
        self._layers = [(keys[rows], values[rows]) for keys, values in self._layers]


def _roomy(filled: Tensor, more: int) -> Tensor:
    """A copy of (R, heads, T, d) with room for `more` tokens, whose values are undefined."""
    rows, heads, tokens, size = filled.shape
    buffer = filled.new_empty(rows, heads, tokens + more, size)
    buffer[:, :, :tokens] = filled
    return buffer
