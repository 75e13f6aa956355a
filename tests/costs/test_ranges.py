"""Arithmetic with numbers of which only the least and the most are known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viper.costs.ranges import Range, total

NUMBERS = st.floats(0.001, 1e6)
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: Range(min(pair), max(pair)))
SHARES = st.floats(0, 1)


def inside(one: Range, share: float) -> float:
    return one.low + share * (one.high - one.low)


@given(RANGES, RANGES, SHARES, SHARES)
def test_results_hold_whatever_the_numbers_really_are(a: Range, b: Range, x: float, y: float) -> None:
    left, right = inside(a, x), inside(b, y)
    for made, real in ((a + b, left + right), (a * b, left * right), (a / b, left / right)):
        assert made.low * (1 - 1e-9) <= real <= made.high * (1 + 1e-9)
    capped = a.at_most(b)
    assert capped.low <= min(left, right) <= capped.high
    assert a.low * (1 - 1e-9) <= a.middle <= a.high * (1 + 1e-9)


def test_a_range_has_a_least_and_a_most_that_are_not_negative() -> None:
    for low, high in ((2, 1), (-1, 1)):
        with pytest.raises(ValueError, match="low ≤ high"):
            Range(low, high)


def test_items_come_in_whole_parts() -> None:
    assert Range(1, 65).rounded_up(64) == Range(64, 128)
    assert Range(64, 128).rounded_up(64) == Range(64, 128)


def test_the_sum_of_nothing_is_nothing() -> None:
    assert total([]) == Range(0, 0)
    assert total([Range(1, 2), Range(3, 5)]) == Range(4, 7)
