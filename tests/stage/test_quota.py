"""How many parts a stage needs."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from viper.stage.manifest import PartRecord
from viper.stage.quota import Quota, candidates


def record(index: int, usable: int) -> PartRecord:
    return PartRecord(index=index, key="k", digest="d", rows=8, accepted=8, counters={"usable": usable})


def records(counts: dict[int, int]) -> dict[int, PartRecord]:
    return {index: record(index, usable) for index, usable in counts.items()}


def test_a_stage_ends_with_the_part_that_reaches_its_target() -> None:
    quota = Quota(10, [8] * 5)
    assert quota.complete(records({0: 6, 1: 4, 2: 8})) == 2
    assert quota.complete(records({0: 6, 2: 8})) is None, "part 1 may be enough"
    assert quota.complete(records(dict.fromkeys(range(5), 1))) == 5, "all there is"


def test_at_first_each_part_is_taken_to_give_all_it_can_and_later_what_the_others_gave() -> None:
    quota = Quota(16, [8] * 10)
    assert quota.wanted({}) == 2
    assert quota.wanted(records({0: 4, 1: 4})) == 4
    assert quota.wanted(records({0: 0, 1: 0})) == 10, "nothing so far: all that is left"


def test_candidates_are_rounded_up() -> None:
    assert candidates(3000, 0.5) == 6000
    assert candidates(9, 0.9) == 10
    assert candidates(1, 1.0) == 1


@given(st.lists(st.integers(0, 8), min_size=1, max_size=20), st.integers(1, 100), st.integers(0, 2**32))
def test_in_whatever_order_parts_are_made_the_stage_ends_with_the_same_ones(
    usable: list[int], target: int, seed: int
) -> None:
    quota = Quota(target, [8] * len(usable))
    everything = records(dict(enumerate(usable)))
    expected = quota.complete(everything)
    done: dict[int, PartRecord] = {}
    rng = random.Random(seed)
    while (parts := quota.complete(done)) is None:
        missing = [i for i in range(quota.wanted(done)) if i not in done]
        assert missing, "an unfinished stage always has something to do"
        made = rng.choice(missing)
        done[made] = everything[made]
    assert parts == expected
