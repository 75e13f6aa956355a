"""A number of which only the least and the most are known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included; products and quotients are those of numbers that are never negative."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError(f"a range needs 0 ≤ low ≤ high, not {self.low} and {self.high}")

    @classmethod
    def of(cls, value: float | tuple[float, float] | Range) -> Range:
        """A number that is known, a pair, or a range."""
        if isinstance(value, Range):
            return value
        return cls(*value) if isinstance(value, tuple) else cls(value, value)

    @property
    def middle(self) -> float:
        """The geometric mean, as speeds and prices are off by factors; the arithmetic one where an end is 0."""
        return math.sqrt(self.low * self.high) if self.low > 0 else (self.low + self.high) / 2

    def __add__(self, other: float | Range) -> Range:
        more = Range.of(other)
        return Range(self.low + more.low, self.high + more.high)

    def __mul__(self, other: float | Range) -> Range:
        by = Range.of(other)
        return Range(self.low * by.low, self.high * by.high)

    def __truediv__(self, other: float | Range) -> Range:
        """Raises `ZeroDivisionError` when `other` can be 0."""
        by = Range.of(other)
        return Range(self.low / by.high, self.high / by.low)

    def at_most(self, limit: float | Range) -> Range:
        """The smaller of the two, end by end."""
        other = Range.of(limit)
        return Range(min(self.low, other.low), min(self.high, other.high))

    def rounded_up(self, step: float) -> Range:
        """Both ends as whole multiples of `step`."""
        return Range(math.ceil(self.low / step - 1e-9) * step, math.ceil(self.high / step - 1e-9) * step)


ZERO = Range(0.0, 0.0)


def total(ranges: Iterable[Range]) -> Range:
    """Their sum."""
    return reduce(add, ranges, Range(0, 0))  # whole numbers stay whole
