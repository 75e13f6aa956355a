"""Settings and results of the trainers; no deep-learning import, so that planning code can use them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from viper.spec import RewardSettings, TrainingSettings

_TRAINING, _REWARD = TrainingSettings(), RewardSettings()

Selection = Literal["last", "heldOutReward", "heldOutPerception"]


@dataclass(frozen=True)
class GrpoSettings:
    """One GRPO run; names and defaults are the recipe's (`recipe.*.training`), but for `micro_batch`.

    A step is one batch of rollouts and `batch_prompts / mini_batch_prompts` optimiser updates on it. `micro_batch`
    bounds the outputs of one forward and backward pass and changes memory, not the result. `collapse_steps` steps in a
    row in which every group's rewards are equal stop the run.
    """

    steps: int | None = _TRAINING.steps
    epochs: float = _TRAINING.epochs
    batch_prompts: int = _TRAINING.batch_prompts
    mini_batch_prompts: int = _TRAINING.mini_batch_prompts
    micro_batch: int = 160
    group_size: int = _TRAINING.group_size
    temperature: float = _TRAINING.temperature
    max_prompt_tokens: int = _TRAINING.max_prompt_tokens
    max_response_tokens: int = _TRAINING.max_response_tokens
    learning_rate: float = _TRAINING.learning_rate
    warmup_steps: int = _TRAINING.warmup_steps
    weight_decay: float = _TRAINING.weight_decay
    max_grad_norm: float = _TRAINING.max_grad_norm
    clip_low: float = _TRAINING.clip_low
    clip_high: float = _TRAINING.clip_high
    tau: float = _REWARD.tau
    format_weight: float = _REWARD.format_weight
    correct_weight: float = _REWARD.correct_weight
    save_every: int = _TRAINING.save_every
    select: Selection = _TRAINING.select
    held_out_limit: int = 256
    collapse_steps: int = 20
    seed: int = 0
    threads: int | None = None

    def total_steps(self, samples: int) -> int:
        """Steps for a data set of that many samples: `steps`, else as many as `epochs` passes need."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * samples / self.batch_prompts))

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, then constant (verl's default); `step` counts from 0."""
        return self.learning_rate * min(1.0, (step + 1) / (self.warmup_steps or 1))


@dataclass(frozen=True)
class SftSettings:
    """Supervised fine-tuning before RL (cold start)."""

    epochs: float = 1.0
    batch: int = 32
    micro_batch: int = 32
    learning_rate: float = 1e-5
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_prompt_tokens: int = 10240
    max_response_tokens: int = 4096
    save_every: int = 100
    seed: int = 0
    threads: int | None = None

    def total_steps(self, samples: int) -> int:
        """Optimiser updates for a data set of that many samples."""
        return max(1, math.ceil(self.epochs * samples / self.batch))


@dataclass(frozen=True)
class StepMetrics:
    """What one step measured. `values` are named like MLflow metrics; times are apart because they never repeat.

    `step` counts from 1. `values` of GRPO: `reward/{mean,std,correct,format}`, `groups/signal` (share of prompts whose
    outputs differ in reward), `shadow/{recall,items,duplicates,distinct}`, `output/{tokens,finished,entropy}` (tokens
    per output, share that ended by itself, nats per token), `clip/{low,high}` (shares of tokens), `loss`, `grad_norm`,
    `learning_rate`, and at checkpoints `held_out/reward` and `held_out/perception`.
    """

    step: int
    steps: int
    values: Mapping[str, float]
    seconds: float
    items_per_second: float
    eta_seconds: float


@dataclass(frozen=True)
class GrpoResult:
    """`model_dir` holds the selected step's model; `best_step` 0 is the model the run started from."""

    model_dir: Path
    steps: int
    best_step: int
    history: tuple[Mapping[str, float], ...] = field(default=(), repr=False)
    rollouts: Path | None = None


@dataclass(frozen=True)
class SftResult:
    """The fine-tuned model and one row of metrics per step."""

    model_dir: Path
    steps: int
    history: tuple[Mapping[str, float], ...] = field(default=(), repr=False)


def data_order(samples: int, start: int, count: int, seed: int) -> list[int]:
    """Items `start … start+count-1` of the endless stream of shuffled passes over `samples` rows.

    A pure function of its arguments, so that a resumed run sees the data that an undisturbed one would.
    """
    order: list[int] = []
    position = start
    while len(order) < count:
        epoch, offset = divmod(position, samples)
        permutation = np.random.default_rng([seed, epoch]).permutation(samples)
        part = permutation[offset : offset + count - len(order)].tolist()
        order += part
        position += len(part)
    return order


def group_advantages(rewards: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(R_i − mean) / (std + 1e-4) over each row of (U, G); std with Bessel's correction, as TRL and verl compute it.

    A group of equal rewards gives exactly 0: rounding in the mean must not invent a signal.
    """
    r = rewards.astype(np.float64)
    scaled = (r - r.mean(1, keepdims=True)) / (r.std(1, ddof=1, keepdims=True) + 1e-4)
    equal = (r == r[:, :1]).all(1, keepdims=True)
    return np.where(equal, 0.0, scaled).astype(np.float32)
