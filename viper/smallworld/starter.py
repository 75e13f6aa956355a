"""Trains the starter model: supervised lessons until every output form is fluent, perception is not."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from viper.engines.vision_batching import batch_vision_attention
from viper.smallworld.batches import Coder
from viper.smallworld.drawing import STUDIO, Style
from viper.smallworld.lessons import ALL_FORMS, COMPARING, SEEING, Lesson, Teacher
from viper.smallworld.model import Shape, build_model, build_processor, save

MICRO_BATCHES = 2


@dataclass(frozen=True)
class StarterPlan:
    """`steps` of `batch` lessons each, the first `grounding_steps` captions and questions only.

    `learning_rate` warms up over 100 steps and falls linearly to a tenth over the last `decay` share of the steps.
    """

    steps: int = 4000
    grounding_steps: int = 1000
    batch: int = 32
    learning_rate: float = 1.5e-3
    muon_rate: float = 0.0
    decay: float = 0.2
    seed: int = 0
    style: Style = STUDIO
    shape: Shape = field(default_factory=Shape)

    def mix(self, step: int) -> dict[str, float]:
        """Weights of the lessons at step `step`: seeing first, then comparing, then every output form."""
        if step <= self.grounding_steps // 2:
            return SEEING
        return COMPARING if step <= self.grounding_steps else ALL_FORMS

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at step `step` (from 1)."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, step / 100, 0.1 + 0.9 * left)


def lesson_loss(model: Any, coder: Coder, lessons: Sequence[Lesson]) -> float:
    """Adds the gradient of the mean answer-token loss over `lessons`; returns that loss."""
    rows = [(coder.prompt(len(one.images), one.prompt), [*coder.text(one.answer), coder.end], one) for one in lessons]
    rows.sort(key=lambda row: len(row[0]) + len(row[1]))
    tokens, total = sum(len(answer) for _, answer, _ in rows), 0.0
    size = -(-len(rows) // MICRO_BATCHES)
    for start in range(0, len(rows), size):  # rows of like length together: little padding
        part = rows[start : start + size]
        inputs, labels = coder.batch(
            [row[2].images for row in part], [row[0] for row in part], [row[1] for row in part]
        )
        loss = model(**inputs, labels=labels).loss * ((labels >= 0).sum() / tokens)
        loss.backward()
        total += loss.item()
    return total


def _optimizers(model: Any, plan: StarterPlan) -> list[tuple[Any, float]]:
    """Muon for the matrices inside the layers, AdamW for the rest, each with its peak learning rate."""
    matrices, rest = [], []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
        (matrices if inside and plan.muon_rate else rest).append(parameter)
    optimizers: list[tuple[Any, float]] = [
        (torch.optim.AdamW(rest, plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01), plan.learning_rate)
    ]
    if matrices:
        muon = torch.optim.Muon(matrices, plan.muon_rate, weight_decay=0.01)
        optimizers.append((muon, plan.muon_rate))
    return optimizers


def train_starter(
    out: Path,
    plan: StarterPlan,
    progress: Callable[[int, float, float], None] = lambda step, seconds, loss: None,
    inspect: Callable[[int, Any, Any], None] = lambda step, model, processor: None,
) -> None:
    """Trains and writes the model directory `out`. The same plan gives the same weights on the same machine.

    `progress` gets (step, seconds so far, smoothed loss in nats a token) every 50 steps; `inspect` gets
    (step, model, processor) every 250.
    """
    processor = build_processor()
    model = build_model(processor.tokenizer, plan.shape, plan.seed)
    batch_vision_attention(model)
    coder, teacher = Coder(processor.tokenizer), Teacher(random.Random(plan.seed), plan.style)
    optimizers = _optimizers(model, plan)
    model.train()
    started, smoothed = time.monotonic(), 0.0
    for step in range(1, plan.steps + 1):
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak * plan.rate(step)
        mix = plan.mix(step)
        loss = lesson_loss(model, coder, [teacher.lesson(mix) for _ in range(plan.batch)])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        smoothed = loss if step == 1 else 0.95 * smoothed + 0.05 * loss
        if step % 50 == 0:
            progress(step, time.monotonic() - started, smoothed)
        if step % 250 == 0:
            inspect(step, model, processor)
    model.eval()
    save(model, processor, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m viper.smallworld.starter --out DIR`: trains and writes the starter that the package ships."""
    plan = StarterPlan()
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--steps", type=int, default=plan.steps, help="optimiser steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=plan.seed, help="seed of weights and lessons (default %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the result depends on it in the last bits")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)

    def report(step: int, seconds: float, loss: float) -> None:
        left = seconds / step * (given.steps - step)
        print(f"step {step}/{given.steps}  loss {loss:.3f}  {seconds:.0f} s, {left:.0f} s left", flush=True)

    train_starter(given.out, replace(plan, steps=given.steps, seed=given.seed), report)


if __name__ == "__main__":
    main()
