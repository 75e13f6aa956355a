"""The bootstrap of benchmark scores, against plain resampling and against what must hold."""

from __future__ import annotations

import random
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viper.evaluation.benchmarks import Verdict, headline
from viper.evaluation.bootstrap import difference, interval


def answers(right: list[bool]) -> dict[str, Verdict]:
    return {f"q{i}": Verdict(r, "A") for i, r in enumerate(right)}


def sets(right: list[bool]) -> dict[str, Verdict]:
    """Sets of four questions: two pairs, two figures."""
    found = {}
    for i, r in enumerate(right):
        cluster, figure, question = f"s{i // 4}", i // 2 % 2, i % 2
        found[f"q{i}"] = Verdict(r, "1", groups=(f"q:{cluster}/{question}", f"f:{cluster}/{figure}"), cluster=cluster)
    return found


def test_the_interval_of_an_accuracy_is_that_of_plain_resampling() -> None:
    right = [i % 3 != 0 for i in range(150)]
    found = interval({"a": answers(right)})
    rng = np.random.default_rng(5)
    means = rng.choice(np.array(right, dtype=float), size=(20_000, len(right))).mean(axis=1)
    assert found.value == pytest.approx(2 / 3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))), abs=0.01)


def test_a_composite_score_is_resampled_by_whole_sets() -> None:
    rng = random.Random(3)
    verdicts = sets([rng.random() < 0.8 for _ in range(160)])
    found = interval({"hallusion": verdicts})
    assert found.value == pytest.approx(headline(list(verdicts.values())))
    groups = [[v for v in verdicts.values() if v.cluster == f"s{s}"] for s in range(40)]
    drawn = []
    for _ in range(2000):
        chosen = [
            # A set that is drawn twice is two sets.
            Verdict(v.correct, "1", groups=tuple(f"{g}#{n}" for g in v.groups))
            for n, group in enumerate(rng.choices(groups, k=40))
            for v in group
        ]
        drawn.append(headline(chosen))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.02)


def test_pairing_finds_a_difference_that_intervals_apart_do_not() -> None:
    before = [i % 2 == 0 for i in range(400)]
    after = [r or i % 40 == 1 for i, r in enumerate(before)]  # ten won, none lost
    one, other = (interval({"a": answers(r)}) for r in (before, after))
    found = difference({"a": answers(before)}, {"a": answers(after)})
    assert one.high > other.low
    assert found.difference == pytest.approx(10 / 400)
    assert found.low > 0
    assert found.p_better < 0.001
    assert found.p_worse > 0.5


def test_equal_answers_are_no_evidence() -> None:
    same = {"a": answers([True, False, True]), "b": sets([True] * 8)}
    found = difference(same, same)
    assert (found.difference, found.low, found.high, found.p_worse, found.p_better) == (0, 0, 0, 1, 1)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=5, max_size=80))
def test_exchanging_the_models_exchanges_the_evidence(pairs: list[tuple[bool, bool]]) -> None:
    before, after = ({"a": answers([p[i] for p in pairs])} for i in (0, 1))
    found, turned = difference(before, after), difference(after, before)
    assert turned.difference == pytest.approx(-found.difference)
    assert turned.p_better == pytest.approx(found.p_worse, abs=0.05)
    assert found.low - 1e-12 <= found.difference <= found.high + 1e-12 or len(pairs) < 10


def test_the_mean_weighs_benchmarks_alike_whatever_their_size() -> None:
    small, large = answers([True] * 10), answers([False] * 1000)
    found = interval({"small": small, "large": large})
    assert found.value == pytest.approx(fmean([1, 0]))
    gain = difference({"small": answers([False] * 10), "large": large}, {"small": small, "large": large})
    assert gain.difference == pytest.approx(0.5)


def test_the_same_answers_give_the_same_figures() -> None:
    rng = random.Random(1)
    before, after = ({"a": answers([rng.random() < 0.5 for _ in range(60)])} for _ in range(2))
    assert difference(before, after) == difference(before, after)
    assert interval(before) == interval(before)


def test_models_that_were_asked_different_things_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different questions"):
        difference({"a": answers([True])}, {"a": answers([True, False])})
    with pytest.raises(ValueError, match="different benchmarks"):
        difference({"a": answers([True])}, {"b": answers([True])})
