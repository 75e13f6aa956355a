"""Trains the starter model: supervised lessons until every output form is fluent, perception is not."""

from __future__ import annotations

import argparse
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import torch

from viper.engines.vision_batching import batch_vision_attention
from viper.smallworld.drawing import STUDIO, Style
from viper.smallworld.making.batches import Coder
from viper.smallworld.making.lessons import (
    ALL_FORMS,
    COMPARING,
    EDITING,
    PICKING,
    SEEING,
    TASKS,
    Lesson,
    Mix,
    Teacher,
)
from viper.smallworld.model import Shape, build_model, build_processor, save

MICRO_BATCHES = 2


@dataclass(frozen=True)
class Round:
    """One training run with its own optimiser and its own stream of lessons.

    `phases` are (steps, mix of lessons). The learning rate warms up over 100 steps and, over the last `decay` share of
    the steps, falls linearly to a tenth.
    """

    phases: tuple[tuple[int, Mix], ...]
    seed: int
    decay: float = 0.0

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(steps for steps, _ in self.phases)

    def mix(self, step: int) -> Mix:
        """Weights of the lessons at step `step` (from 1)."""
        ends = list(accumulate(steps for steps, _ in self.phases))
        return self.phases[bisect_left(ends, step)][1]

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at step `step` (from 1)."""
        falling = 0.1 + 0.9 * (self.steps - step) / (self.decay * self.steps) if self.decay else 1.0
        return min(1.0, step / 100, falling)


ROUNDS: Final = (
    Round(((500, SEEING), (500, COMPARING), (2000, ALL_FORMS)), seed=0),
    # Which picture is which had not been learnt by then; without it no edit can be read off two pictures.
    Round(((300, PICKING), (300, EDITING), (1200, TASKS)), seed=1, decay=0.3),
)
"""How the shipped starter was trained."""


@dataclass(frozen=True)
class StarterPlan:
    """`rounds` one after the other, `batch` lessons a step, AdamW with peak `learning_rate`; `seed` of the weights."""

    rounds: tuple[Round, ...] = ROUNDS
    batch: int = 32
    learning_rate: float = 1.5e-3
    seed: int = 0
    style: Style = STUDIO
    shape: Shape = field(default_factory=Shape)


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


def train_starter(
    out: Path, plan: StarterPlan, progress: Callable[[int, int, float], None] = lambda step, steps, loss: None
) -> None:
    """Trains and writes the model directory `out`. The same plan gives the same weights on the same machine.

    `progress` gets (step, steps in all, smoothed loss in nats a token) every 50 steps.
    """
    processor = build_processor()
    model = build_model(processor.tokenizer, plan.shape, plan.seed)
    batch_vision_attention(model)
    coder = Coder(processor.tokenizer)
    model.train()
    done, steps, smoothed = 0, sum(part.steps for part in plan.rounds), 0.0
    for part in plan.rounds:
        teacher = Teacher(random.Random(part.seed), plan.style)
        optimizer = torch.optim.AdamW(model.parameters(), plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in range(1, part.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * part.rate(step)
            loss = lesson_loss(model, coder, [teacher.lesson(part.mix(step)) for _ in range(plan.batch)])
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            smoothed = loss if step == 1 else 0.95 * smoothed + 0.05 * loss
            done += 1
            if done % 50 == 0:
                progress(done, steps, smoothed)
    model.eval()
    save(model, processor, out)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m viper.smallworld.making.starter --out DIR`: trains and writes the starter that the package ships."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--seed", type=int, default=0, help="added to the seeds of weights and lessons (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; the result depends on it in the last bits")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    plan = StarterPlan(seed=given.seed)
    rounds = tuple(replace(part, seed=part.seed + given.seed) for part in plan.rounds)
    started = time.monotonic()

    def report(step: int, steps: int, loss: float) -> None:
        seconds = time.monotonic() - started
        left = seconds / step * (steps - step)
        print(f"step {step}/{steps}  loss {loss:.3f}  {seconds:.0f} s, {left:.0f} s left", flush=True)

    train_starter(given.out, replace(plan, rounds=rounds), report)


if __name__ == "__main__":
    main()
