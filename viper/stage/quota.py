"""How many parts a stage needs: it stops once it has what it was asked for, whichever shard made it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from viper.stage.manifest import PartRecord

#: Counter of a part: rows that count towards the quota, where these are not simply the accepted ones.
USABLE = "usable"


def usable(record: PartRecord) -> int:
    """Rows of a part that count towards the quota."""
    return record.counters.get(USABLE, record.accepted)


@dataclass(frozen=True)
class Quota:
    """`target` usable rows out of parts of which part i can give at most `most[i]`. Pure."""

    target: int
    most: Sequence[int]

    def complete(self, done: Mapping[int, PartRecord]) -> int | None:
        """Parts of the finished stage: up to the first with which the target is reached, all of them when it never
        is; None while one of them is missing. A function of the parts' content: not of who made which when."""
        found = 0
        for index in range(len(self.most)):
            if found >= self.target:
                return index
            if index not in done:
                return None
            found += usable(done[index])
        return len(self.most)

    def wanted(self, done: Mapping[int, PartRecord]) -> int:
        """Parts, from the first on, that should give the target by what the finished ones gave.

        As long as none has finished, each is taken to give all it can: too few are caught up with, too many are paid.
        """
        possible = sum(self.most[i] for i in done)
        given = sum(usable(record) for record in done.values())
        share = given / possible if possible else 1.0
        expected = 0.0
        for index, most in enumerate(self.most):
            if expected >= self.target - 1e-9:
                return index
            expected += usable(done[index]) if index in done else most * share
        return len(self.most)


def candidates(samples: int, expected_acceptance: float) -> int:
    """Candidates of which validation should accept `samples`."""
    return math.ceil(samples / expected_acceptance - 1e-9)
