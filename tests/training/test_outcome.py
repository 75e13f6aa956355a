"""Which step is chosen, when nothing can be learnt any more, and what is on record of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.errors import StageError
from viper.training.outcome import best_step, record_result, recorded_result, stop_when_collapsed


@given(st.dictionaries(st.integers(0, 50), st.sampled_from([0.1, 0.2, 0.3]), min_size=1))
def test_the_best_step_is_the_earliest_of_the_highest_scores(scores: dict[int, float]) -> None:
    best = best_step(scores, 99)
    assert all((scores[best], -best) >= (score, -step) for step, score in scores.items())
    assert best_step({}, 99) == 99


def test_a_run_has_collapsed_when_no_group_has_told_anything_for_long(tmp_path: Path) -> None:
    nothing, something = {"groups/signal": 0.0, "reward/mean": 0.05}, {"groups/signal": 0.1, "reward/mean": 0.1}
    stop_when_collapsed([nothing] * 2, 3, tmp_path)
    stop_when_collapsed([nothing, something, nothing], 3, tmp_path)
    with pytest.raises(StageError, match=r"same reward for 3 steps \(mean 0.050\)"):
        stop_when_collapsed([something, nothing, nothing, nothing], 3, tmp_path)


def test_a_result_is_that_of_the_run_that_recorded_it(tmp_path: Path) -> None:
    assert recorded_result(tmp_path, "mine") is None
    made = record_result(tmp_path, "mine", 4, 2, [{"step": 1.0}])
    assert recorded_result(tmp_path, "mine") == made
    assert (made.model_dir, made.steps, made.best_step) == (tmp_path / "model", 4, 2)
    with pytest.raises(StageError, match="other settings"):
        recorded_result(tmp_path, "another")
