"""Equation 8 through TRL's own loss code with this project's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny_qwen import samples
from trl import GRPOTrainer

from viper.training.local.policy import Policy
from viper.training.local.rollouts import Rollout, chunk_of, chunk_rows
from viper.training.local.trl_loss import MicroBatch, SharedPromptGrpo, grpo_config
from viper.training.settings import GrpoSettings, group_advantages

pytestmark = pytest.mark.torch

SETTINGS = GrpoSettings(batch_prompts=4, mini_batch_prompts=2, group_size=3, max_response_tokens=8)
MAX_PROMPT = 100


@pytest.fixture(scope="module")
def trainer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> SharedPromptGrpo:
    return SharedPromptGrpo(Policy(tiny_model), SETTINGS, tmp_path_factory.mktemp("trl"))


def test_the_loss_is_equation_8_where_the_clip_bites(
    trainer: SharedPromptGrpo, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Ratios per token; the bounds are 1 − 0.2 and 1 + 0.28. Two outputs with positive, two with negative advantage.
    ratios = [[1.5, 1.1, 0.5], [1.28], [1.5, 0.5], [0.79, 0.81, 1.0, 1.3]]
    advantages = [2.0, 0.5, -1.0, -0.4]
    kept = [
        [1.28, 1.1, 0.5],  # A > 0: above 1.28 is clipped, below 0.8 is not
        [1.28],
        [1.5, 0.8],  # A < 0: below 0.8 is clipped, above 1.28 is not
        [0.8, 0.81, 1.0, 1.3],
    ]
    by_hand = -np.mean([a * np.mean(k) for a, k in zip(advantages, kept, strict=True)])
    assert by_hand == pytest.approx(-(2 * 2.88 / 3 + 0.5 * 1.28 - 1.0 * 1.15 - 0.4 * 3.91 / 4) / 4)

    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]])
    old = torch.log(torch.tensor([0.3, 0.2, 0.1, 0.25]))[:, None].expand(4, 4)
    ratio = torch.ones(4, 4)
    for i, row in enumerate(ratios):
        ratio[i, : len(row)] = torch.tensor(row)
    current = (old + ratio.log()).requires_grad_()
    monkeypatch.setattr(trainer.policy, "completion_logprobs", lambda *_: current)
    trainer.model.train()
    prompts = trainer.policy.encode(samples(4), MAX_PROMPT)
    ids = torch.full((4, 4), 8)
    loss, shares = trainer.loss_of(MicroBatch(prompts, torch.arange(4), ids, mask, old, torch.tensor(advantages)))
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)
    assert shares == {"clip/low": pytest.approx(2 / 10), "clip/high": pytest.approx(1 / 10)}

    loss.backward()
    expected = torch.zeros(4, 4)
    for i, row in enumerate(ratios):
        for j, r in enumerate(row):
            clipped = r > 1.28 if advantages[i] > 0 else r < 0.8
            expected[i, j] = 0 if clipped else -advantages[i] * r / len(row) / 4
    at_bound = torch.zeros(4, 4, dtype=torch.bool)
    at_bound[1, 0] = True  # exactly on the bound the gradient of min() is not unique
    torch.testing.assert_close(current.grad[~at_bound], expected[~at_bound])


def test_advantages_are_trl_s_and_equal_rewards_give_exactly_zero() -> None:
    rewards = np.array([[1.0, 0.05, 0.05], [0.1, 0.1, 0.1], [0.0, 0.5, 1.0]])
    found = group_advantages(rewards)
    std = np.sqrt(((1 - 1.1 / 3) ** 2 + 2 * (0.05 - 1.1 / 3) ** 2) / 2)
    assert found[0] == pytest.approx((rewards[0] - 1.1 / 3) / (std + 1e-4), rel=1e-5)
    assert (found[1] == 0).all()
    assert found[2] == pytest.approx([-0.5 / 0.5001, 0, 0.5 / 0.5001])


class PlainTrl(GRPOTrainer):  # type: ignore[misc]
    """TRL as it is, except that its outputs are given and nothing is reported."""

    given: list[list[int]]

    def _send_telemetry(self) -> None: ...

    def _generate_single_turn(self, *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return self.given, None


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    return found


def test_a_step_has_the_gradients_of_unmodified_trl_on_both_mini_batches(tiny_model: Path, tmp_path: Path) -> None:
    ours = SharedPromptGrpo(Policy(tiny_model), SETTINGS, tmp_path)
    policy, rows = ours.policy, samples(4)
    prompts = policy.encode(rows, MAX_PROMPT)
    drawn = policy.sample(prompts, 3, 8, 1.0, torch.Generator().manual_seed(3))
    rewards = np.array([[1.0, 0.05, 0.3], [0.5, 0.5, 0.5], [0.0, 0.5, 1.0], [0.2, 0.2, 0.9]])
    rollout = Rollout(rows, 3, prompts, drawn, [], [], group_advantages(rewards).reshape(-1))

    theirs_policy = Policy(tiny_model)
    plain = PlainTrl(
        model=theirs_policy.model,
        reward_funcs=lambda **_: rewards.reshape(-1).tolist(),
        args=grpo_config(SETTINGS, tmp_path),
        train_dataset=Dataset.from_dict({"prompt": [""]}),
        processing_class=theirs_policy.processor,
    )
    plain.current_gradient_accumulation_steps = 1
    plain.given = [i[m.bool()].tolist() for i, m in zip(drawn.ids, drawn.mask, strict=True)]
    plain.model.train()
    repeated = [r for r in rows for _ in range(3)]
    batch = plain._generate_and_score_completions(
        [{"prompt": [{"role": "user", "content": r.prompt}], "images": list(r.images)} for r in repeated]
    )
    torch.testing.assert_close(batch["advantages"], torch.from_numpy(rollout.advantages), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(batch["old_per_token_logps"] * drawn.mask, drawn.logprobs, atol=2e-5, rtol=1e-4)
    images = np.cumsum([0, *(len(r.images) for r in repeated)])
    patches = torch.split(batch["pixel_values"], batch["image_grid_thw"].prod(-1).tolist())

    with torch.no_grad():  # weights have moved since the outputs were drawn, as on a second mini-batch
        for mine, other in zip(policy.model.parameters(), theirs_policy.model.parameters(), strict=True):
            step = 0.1 * mine.std() * torch.randn(mine.shape, generator=torch.Generator().manual_seed(mine.numel()))
            mine.add_(step)
            other.add_(step)
    policy.model.train()
    clipped = 0.0
    for begin in (0, 6):
        half = slice(begin, begin + 6)
        chunks = chunk_rows(rollout.advantages, drawn.mask.sum(1).numpy(), range(begin, begin + 6), group=3, limit=2)
        mine = torch.zeros(())
        for part in chunks:
            loss, shares = ours.loss_of(chunk_of(rollout, part))
            (loss * len(part) / 6).backward()
            mine += loss.detach() * len(part) / 6
            clipped += sum(shares.values())
        pixels = range(images[begin], images[begin + 6])
        part = {k: v[half] for k, v in batch.items() if isinstance(v, torch.Tensor) and v.shape[:1] == (12,)}
        part["pixel_values"] = torch.cat([patches[i] for i in pixels])
        part["image_grid_thw"] = batch["image_grid_thw"][pixels.start : pixels.stop]
        part["num_images"] = batch["num_images"][half]
        theirs = plain.compute_loss(plain.model, part)
        theirs.backward()
        assert mine.item() == pytest.approx(theirs.item(), rel=1e-4, abs=1e-6)
        found, expected = gradients(policy.model), gradients(theirs_policy.model)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-4 * float(gradient.abs().max() + 1))
    assert clipped > 0  # the ratio left the bounds somewhere


def test_rows_without_advantage_are_left_out_and_groups_stay_together() -> None:
    advantages = np.array([1, 0, -1, 0, 0, 0, 2, -1, -1, 1, -1, 0.0])
    lengths = np.array([9, 9, 9, 1, 1, 1, 2, 3, 2, 5, 6, 5])
    assert chunk_rows(advantages, lengths, range(12), group=3, limit=5) == [[6, 7, 8, 9, 10], [0, 2]]
    assert chunk_rows(advantages, lengths, range(6, 12), group=3, limit=2) == [[8], [6, 7], [9, 10]]
    assert chunk_rows(np.zeros(12), lengths, range(12), group=3, limit=5) == []
