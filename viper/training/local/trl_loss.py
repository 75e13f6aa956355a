"""Equation 8 through TRL: a `GRPOTrainer` whose loss is TRL's own, fed by the policy's shared-prompt forward pass.

TRL supplies the objective (`_compute_loss`: ratio, decoupled clip, per-output token mean) and the optimiser. Overridden
is only where log-probabilities come from: `Policy.completion_logprobs` runs a prompt once per group instead of once per
output. What is known is not computed again: log π_old was measured while sampling, and outputs whose advantage is
exactly zero have exactly zero gradient, so they are not run (they stay in the mean's denominator).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from viper.training.local.policy import Policy, PromptBatch
from viper.training.settings import GrpoSettings


@dataclass(frozen=True)
class MicroBatch:
    """B outputs of U prompts for one forward and backward pass; tensors as in `Policy.completion_logprobs`."""

    prompts: PromptBatch
    owner: Tensor
    ids: Tensor
    mask: Tensor
    old_logprobs: Tensor
    advantages: Tensor


def grpo_config(settings: GrpoSettings, output_dir: Path, *, use_cpu: bool = True) -> GRPOConfig:
    """The paper's objective in TRL's words."""
    return GRPOConfig(
        output_dir=str(output_dir),
        loss_type="grpo",
        importance_sampling_level="token",
        scale_rewards="group",
        beta=0.0,
        epsilon=settings.clip_low,
        epsilon_high=settings.clip_high,
        num_generations=settings.group_size,
        num_iterations=1,
        temperature=settings.temperature,
        max_completion_length=settings.max_response_tokens,
        per_device_train_batch_size=settings.mini_batch_prompts * settings.group_size,
        steps_per_generation=settings.batch_prompts // settings.mini_batch_prompts,
        gradient_accumulation_steps=1,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        disable_dropout=True,
        use_cpu=use_cpu,
        bf16=False,
        gradient_checkpointing=False,
        seed=settings.seed,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )


def _unused_reward(**_: Any) -> list[float]:
    raise AssertionError("rewards are computed before the loss")


class SharedPromptGrpo(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer as loss and optimiser for `viper.training.local.grpo`, which drives the steps."""

    def __init__(self, policy: Policy, settings: GrpoSettings, output_dir: Path) -> None:
        super().__init__(
            model=policy.model,
            reward_funcs=_unused_reward,
            args=grpo_config(settings, output_dir, use_cpu=policy.model.device.type == "cpu"),
            train_dataset=Dataset.from_dict({"prompt": [""]}),
            processing_class=policy.processor,
        )
        self.policy = policy
        self.current_gradient_accumulation_steps = 1
        self._chunk: MicroBatch | None = None

    def _send_telemetry(self) -> None:
        """Nothing is reported to anyone."""

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        chunk = self._chunk
        if chunk is None:
            result: tuple[Tensor, Tensor | None, Tensor | None] = super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
            return result
        logprobs = self.policy.completion_logprobs(chunk.prompts, chunk.owner, chunk.ids, chunk.mask, self.temperature)
        # TRL only averages the entropies into a metric; ours was measured on every token while sampling.
        return logprobs, torch.zeros_like(logprobs), None

    def loss_of(self, chunk: MicroBatch) -> tuple[Tensor, dict[str, float]]:
        """TRL's loss of the chunk (mean over its outputs), and the token shares `clip/low`, `clip/high`."""
        self._chunk = chunk
        try:
            loss = self.compute_loss(
                self.model,
                {
                    "prompt_ids": chunk.prompts.input_ids[chunk.owner],
                    "prompt_mask": chunk.prompts.attention_mask[chunk.owner],
                    "completion_ids": chunk.ids,
                    "completion_mask": chunk.mask,
                    "advantages": chunk.advantages,
                    "old_per_token_logps": chunk.old_logprobs,
                },
            )
            measured = self._metrics["train"]
            shares = {f"clip/{side}": measured[f"clip_ratio/{side}_mean"][-1] for side in ("low", "high")}
            measured.clear()
            return loss, shares
        finally:
            self._chunk = None
