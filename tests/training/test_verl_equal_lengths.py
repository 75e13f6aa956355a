"""verl cuts a batch of image positions into passes, also when all its rows are equally long."""

from __future__ import annotations

import numpy as np
import pytest

from support.verl_environment import ask

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("lengths", [[5, 5, 5, 5], [5, 6, 7, 5], [9]])
def test_rows_of_any_lengths_are_cut_and_picked(lengths: list[int]) -> None:
    rows = [(np.arange(4 * n).reshape(4, n) + 100 * i).tolist() for i, n in enumerate(lengths)]
    found = ask("verl_equal_lengths.py", [lengths, 2 if len(lengths) > 1 else 1])
    assert found["cut"] == rows
    assert found["picked"] == rows[::-1]
    assert found["values"] == np.concatenate(rows, axis=1).tolist()
