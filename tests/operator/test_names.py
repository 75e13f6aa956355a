"""Names of children: readable, unique, and short enough for their pods."""

from __future__ import annotations

import itertools

import pytest

from viper.methods.stages import FREEZE, STAGES
from viper_operator.names import JOB_NAME_LENGTH, job_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (job_name("it", "train-captions"), "it-train-captions"),
        (job_name("it", "train-captions", retry=2), "it-train-captions-r2"),
        (job_name("it", "train-captions", attempt=3), "it-train-captions-a3"),
        (job_name("it", "train-captions", retry=1, attempt=2), "it-train-captions-r1-a2"),
    ],
)
def test_a_name_says_what_it_is_for(name: str, expected: str) -> None:
    assert name == expected


def test_names_fit_and_differ_whatever_the_iteration_is_called() -> None:
    iterations = ["a", "a" * 49 + "b", "a" * 49 + "c", "a-" * 24 + "bc"]
    rounds = [{"retry": r, "attempt": a} for r in (0, 1, 12) for a in (1, 2, 21)]
    every = [job_name(i, s, **k) for i, s, k in itertools.product(iterations, (FREEZE, *STAGES), rounds)]
    assert len(set(every)) == len(every)
    assert max(len(n) for n in every) == JOB_NAME_LENGTH
    assert not any("--" in n.replace("a-", "") for n in every)
