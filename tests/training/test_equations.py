"""Equations 5 to 9 of the paper, as an independent reference has them, against what is run on one machine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equations
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from loss_cases import BOUNDS, Case, cases, trl_loss
from numpy.typing import NDArray
from tiny_qwen import samples

from viper.digests import digest_of
from viper.reward.equations import RewardParameters, score_batch
from viper.training.local.policy import Policy, PromptBatch
from viper.training.local.trl_loss import SharedPromptGrpo
from viper.training.settings import GrpoSettings, group_advantages

pytestmark = pytest.mark.torch

# ---- equations 5 to 7: reward ----

WORDS = (
    "a red cube",
    "left of it",
    "two cats",
    "the sky is grey",
    "nothing here",
    "blue",
    "rain",
    "a tall man, sitting",
)
_texts = st.lists(st.sampled_from(WORDS), max_size=6)


class Directions:
    """Embeds a sentence as a direction that depends on it and a seed: cosines of all sizes."""

    engine_id = "directions"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def embed(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([self.row(s) for s in sentences])
        return rows.astype(np.float32)

    def row(self, sentence: str) -> NDArray[np.float64]:
        seed = int(digest_of([self._seed, sentence]).rpartition(":")[2][:8], 16)
        row = np.random.default_rng(seed).normal(size=3)
        return row / np.linalg.norm(row)

    def cosine(self, one: str, other: str) -> float:
        return float(self.row(one) @ self.row(other))


@given(
    sequences=_texts,
    truths=st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    thought=st.booleans(),
    finished=st.booleans(),
    tau=st.sampled_from([0.3, 0.85, 0.999]),
    weight=st.sampled_from([0.05, 0.3]),
    seed=st.integers(0, 10**6),
)
def test_the_reward_is_equations_5_to_7(
    *, sequences: list[str], truths: list[str], thought: bool, finished: bool, tau: float, weight: float, seed: int
) -> None:
    model = Directions(seed)
    assume(all(abs(model.cosine(s, g) - tau) > 1e-5 for s in sequences for g in truths))
    output = ("<think>I look.</think>" if thought else "") + json.dumps({"refinement": sequences})
    parameters = RewardParameters(tau, weight, 1 - weight)
    (found,) = score_batch([output], [truths], model, parameters, [finished])
    # What was cut off at the token limit is no answer: nothing is said in it.
    correct = equations.correctness(sequences if finished else [], truths, model.cosine, tau)
    assert found.correctness == pytest.approx(correct, abs=1e-9)
    expected = equations.reward(thought and finished, correct, weight, 1 - weight)
    assert found.reward == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_advantages_are_the_papers_but_for_an_epsilon(rewards: list[float]) -> None:
    spread = float(np.std(rewards, ddof=1))
    assume(spread > 1e-6)
    found = group_advantages(np.array([rewards]))[0]
    papers = equations.advantages(rewards)
    assert found == pytest.approx(papers * spread / (spread + 1e-4), rel=1e-4, abs=1e-6)
    assert np.abs(found - papers).max() <= np.abs(papers).max() * 1e-4 / spread + 1e-5


# ---- equations 8 and 9: the objective, by TRL's code with this project's configuration ----


@pytest.fixture(scope="module")
def trainer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> SharedPromptGrpo:
    settings = GrpoSettings(batch_prompts=4, mini_batch_prompts=2, group_size=3, max_response_tokens=8)
    assert (settings.clip_low, settings.clip_high) == BOUNDS[:2]
    return SharedPromptGrpo(Policy(tiny_model), settings, tmp_path_factory.mktemp("trl"))


@pytest.fixture(scope="module")
def prompts(trainer: SharedPromptGrpo) -> PromptBatch:
    return trainer.policy.encode(samples(1), 100)


def check(found: tuple[float, list[list[float]]], case: Case) -> None:
    expected = -equations.objective(case.current, case.old, case.advantages, BOUNDS)
    assert found[0] == pytest.approx(expected, rel=1e-6, abs=1e-7)
    gradient = equations.gradient(case.current, case.old, case.advantages, BOUNDS)
    for row, wanted in zip(found[1], gradient, strict=True):
        assert row == pytest.approx(wanted, rel=1e-6, abs=1e-7)


@given(case=cases())
def test_the_loss_and_its_gradient_are_equation_8(trainer: SharedPromptGrpo, prompts: PromptBatch, case: Case) -> None:
    def put(logprobs: Any) -> None:
        trainer.policy.completion_logprobs = lambda *_: logprobs  # type: ignore[method-assign]

    check(trl_loss(trainer, prompts, case, put), case)


@given(case=cases())
def test_the_reference_s_gradient_is_the_slope_of_its_objective(case: Case) -> None:
    step = 1e-7
    gradient = equations.gradient(case.current, case.old, case.advantages, BOUNDS)
    for i, row in enumerate(case.current):
        for j in range(len(row)):
            moved = [list(r) for r in case.current]
            moved[i][j] += step
            up = -equations.objective(moved, case.old, case.advantages, BOUNDS)
            moved[i][j] -= 2 * step
            down = -equations.objective(moved, case.old, case.advantages, BOUNDS)
            assert (up - down) / (2 * step) == pytest.approx(gradient[i][j], rel=1e-4, abs=1e-6)
