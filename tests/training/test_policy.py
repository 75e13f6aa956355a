"""The shared-prompt policy against the plain path of transformers."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_qwen import samples

from viper.errors import InputError
from viper.training.local.policy import Policy, _draw, backward

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return Policy(tiny_model)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_logprobs(policy: Policy, row: Any, ids: list[int], temperature: float) -> torch.Tensor:
    """One prompt with one output, no padding, through the processor and the model as transformers offers them."""
    content = [*({"type": "image"} for _ in row.images), {"type": "text", "text": row.prompt}]
    text = policy.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = policy.processor(text=[text], images=list(row.images), return_tensors="pt")
    whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
    logits = policy.model(
        input_ids=whole,
        attention_mask=torch.ones_like(whole),
        pixel_values=inputs["pixel_values"],
        image_grid_thw=inputs["image_grid_thw"],
        mm_token_type_ids=(whole == policy.model.config.image_token_id).int(),
    ).logits[0, -len(ids) - 1 : -1]
    return (logits / temperature).log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampling_scoring_and_the_plain_path_give_equal_log_probabilities_and_gradients(
    policy: Policy, temperature: float
) -> None:
    rows = samples(6)
    prompts = policy.encode(rows, 100)
    drawn = policy.sample(prompts, 3, 8, temperature, generator())
    owner = torch.arange(6).repeat_interleave(3)
    policy.model.zero_grad()
    scored = policy.completion_logprobs(prompts, owner, drawn.ids, drawn.mask, temperature)
    scored.sum().backward()
    shared = {n: p.grad.clone() for n, p in policy.model.named_parameters()}
    policy.model.zero_grad()
    for i in range(18):
        ids = drawn.ids[i, : int(drawn.mask[i].sum())].tolist()
        expected = plain_logprobs(policy, rows[i // 3], ids, temperature)
        expected.sum().backward()
        for found in (scored[i, : len(ids)], drawn.logprobs[i, : len(ids)]):
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(shared[name], parameter.grad, atol=2e-3, rtol=1e-3)
    assert (scored * (1 - drawn.mask)).abs().sum() == 0


def test_one_seed_gives_one_batch_of_outputs_and_another_seed_another(policy: Policy) -> None:
    prompts = policy.encode(samples(4), 100)
    first, again, other = (policy.sample(prompts, 4, 12, 1.0, generator(s)) for s in (1, 1, 2))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.logprobs, again.logprobs)
    assert first.ids.shape != other.ids.shape or not torch.equal(first.ids, other.ids)


def test_an_output_ends_with_its_end_token_or_is_not_finished(policy: Policy) -> None:
    drawn = policy.sample(policy.encode(samples(8), 100), 8, 12, 1.0, generator())
    assert 0 < int(drawn.finished.sum()) < 64
    for ids, mask, finished in zip(drawn.ids, drawn.mask, drawn.finished.tolist(), strict=True):
        length = int(mask.sum())
        assert int(mask[:length].sum()) == length
        assert (ids[length:] == policy.pad).all()
        assert policy.eos[0] not in ids[: length - 1]
        assert finished == (int(ids[length - 1]) == policy.eos[0])
        assert finished or length == drawn.ids.shape[1]


def test_temperature_zero_takes_the_likeliest_token_like_transformers(policy: Policy) -> None:
    rows = samples(3)
    drawn = policy.sample(policy.encode(rows, 100), 1, 10, 0.0, generator())
    for row, ids, mask in zip(rows, drawn.ids.tolist(), drawn.mask.tolist(), strict=True):
        sampled = ids[: sum(mask)]
        content = [*({"type": "image"} for _ in row.images), {"type": "text", "text": row.prompt}]
        text = policy.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = policy.processor(text=[text], images=list(row.images), return_tensors="pt")
        expected = policy.model.generate(**inputs, max_new_tokens=10, do_sample=False, suppress_tokens=policy.banned)[
            0, inputs["input_ids"].shape[1] :
        ].tolist()
        assert sampled == expected[: len(sampled)]


def test_image_and_padding_tokens_are_never_sampled(policy: Policy) -> None:
    drawn = policy.sample(policy.encode(samples(8), 100), 16, 16, 5.0, generator())
    names = {policy.processor.tokenizer.convert_ids_to_tokens(int(i)) for i in drawn.ids[drawn.mask.bool()].unique()}
    assert names.isdisjoint({"<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"})
    assert "<|im_end|>" in names


def test_drawing_follows_the_probabilities_and_never_takes_a_zero() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0, 3.0, 0.0]]).repeat(4000, 1)
    share = np.bincount(_draw(weights, generator())[:, 0].numpy(), minlength=5) / 4000
    assert share[[0, 2, 4]].sum() == 0
    assert share[3] == pytest.approx(0.75, abs=0.03)


def test_selected_prompts_equal_prompts_encoded_alone(policy: Policy) -> None:
    rows = samples(7)
    everything = policy.encode(rows, 100)
    order = random.Random(0).sample(range(7), 4)
    chosen, alone = everything.select(order), policy.encode([rows[i] for i in order], 100)
    width = alone.input_ids.shape[1]
    assert torch.equal(chosen.input_ids[:, -width:], alone.input_ids)
    assert torch.equal(chosen.next_position, alone.next_position)
    assert torch.equal(chosen.pixel_values, alone.pixel_values)
    assert torch.equal(chosen.image_grid_thw, alone.image_grid_thw)
    assert chosen.image_counts == alone.image_counts


def test_a_prompt_over_the_limit_is_named(policy: Policy) -> None:
    with pytest.raises(InputError, match=r"sample sample-3: the prompt has .* tokens, the limit is 15"):
        policy.encode(samples(4)[3:], 15)


def test_a_directory_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model directory"):
        Policy(tmp_path / "nothing")


def test_outputs_are_decoded_without_end_and_padding(policy: Policy) -> None:
    drawn = policy.sample(policy.encode(samples(6), 100), 4, 12, 1.0, generator())
    texts = policy.decode(drawn)
    assert not any("<|" in text for text in texts)
    assert any("<think>" in text for text in texts)


@pytest.mark.parametrize(
    "mark", ["<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>", "<|video_pad|>", "<image>"]
)
def test_a_mark_in_a_caption_is_text(policy: Policy, mark: str) -> None:
    """A model that writes a mark of the chat template wrote text: no image is missing, no message ends."""
    rows = samples(2)
    marked = [dataclasses.replace(rows[0], prompt=f"{mark} {rows[0].prompt}"), rows[1]]
    prompts = policy.encode(marked, 200)
    image = policy.model.config.image_token_id
    plain = policy.encode(rows, 200)
    assert [int((ids == image).sum()) for ids in prompts.input_ids] == [
        int((ids == image).sum()) for ids in plain.input_ids
    ]
    hidden, _ = policy.prefix(prompts)
    assert bool(torch.isfinite(hidden).all())
    ends = policy.processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|image_pad|>"])
    assert not set(policy.response_ids(f"A ring. {mark}", 100, "s")[:-1]) & set(ends)


def test_gradients_have_the_same_bits_whatever_the_threads_do() -> None:
    """Rows that every thread adds to: with atomic operations no two runs are alike."""
    before, weights = torch.get_num_threads(), torch.randn(8, 64, generator=generator(), requires_grad=True)
    rows, factors = torch.arange(8).repeat(5000), torch.randn(40000, 64, generator=generator(1))
    torch.set_num_threads(max(2, before))
    found = []
    try:
        for _ in range(5):
            own = weights.detach().requires_grad_()
            backward((own[rows] * factors).sum())
            found.append(own.grad)
    finally:
        torch.set_num_threads(before)
    first, *others = [gradient.tolist() for gradient in found if gradient is not None]
    assert others == [first] * 4
    assert not torch.are_deterministic_algorithms_enabled()
