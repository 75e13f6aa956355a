"""Pure parts of the trainers."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.reward.equations import RewardParameters
from viper.spec import RewardSettings, TrainingSettings
from viper.training.settings import GrpoSettings, SftSettings, data_order, group_advantages


@given(st.integers(1, 30), st.integers(0, 100), st.integers(0, 100), st.integers(0, 5))
def test_every_pass_over_the_data_takes_every_sample_once(samples: int, start: int, count: int, seed: int) -> None:
    whole = data_order(samples, 0, start + count, seed)
    assert data_order(samples, start, count, seed) == whole[start:]
    for begin in range(0, len(whole) - samples + 1, samples):
        assert sorted(whole[begin : begin + samples]) == list(range(samples))


def test_the_order_differs_between_passes_and_between_seeds() -> None:
    passes = {tuple(data_order(20, 20 * i, 20, 0)) for i in range(4)} | {tuple(data_order(20, 0, 20, 1))}
    assert len(passes) == 5


def test_what_a_recipe_leaves_out_is_the_same_for_the_trainer_and_the_reward() -> None:
    recipe = TrainingSettings().model_dump(exclude={"micro_batch"}) | RewardSettings().model_dump()
    assert {name: getattr(GrpoSettings(), name) for name in recipe} == recipe
    assert asdict(RewardParameters()) == RewardSettings().model_dump()


def test_steps_come_from_epochs_unless_they_are_given() -> None:
    assert GrpoSettings(batch_prompts=128, epochs=2).total_steps(7000) == 110
    assert GrpoSettings(batch_prompts=128).total_steps(3) == 1
    assert GrpoSettings(steps=7).total_steps(7000) == 7
    assert SftSettings(batch=32, epochs=3).total_steps(1000) == 94


def test_the_learning_rate_warms_up_linearly_and_stays() -> None:
    warm = GrpoSettings(learning_rate=1.0, warmup_steps=4)
    assert [warm.learning_rate_at(s) for s in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert GrpoSettings(learning_rate=1.0).learning_rate_at(0) == 1.0


REWARDS = st.lists(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.7, 1.0]), min_size=5, max_size=5), min_size=1)


@given(REWARDS)
def test_advantages_are_centred_scaled_and_ordered_as_the_rewards(rewards: list[list[float]]) -> None:
    table = np.array(rewards)
    found = group_advantages(table)
    assert found.sum(1) == pytest.approx(0, abs=1e-4)
    for row, advantage in zip(table, found, strict=True):
        if len(set(row)) == 1:
            assert (advantage == 0).all()
        else:
            assert advantage.std(ddof=1) == pytest.approx(1, abs=0.01)
            assert (np.diff(advantage[np.argsort(row)]) >= 0).all()
