"""Statistics of the evaluation, against values worked out by hand or by SciPy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from viper.evaluation.statistics import compare, comparisons, mcnemar, paired_interval, score, scores, wilson


def test_the_wilson_interval_of_half_of_a_hundred() -> None:
    # z = 1.959964, z²/n = .0384146: centre .5, half .5·z/√(n + z²) = .979982/10.190264 = .0961685
    assert wilson(50, 100) == pytest.approx((0.5 - 0.0961685, 0.5 + 0.0961685), abs=1e-6)


def test_the_wilson_interval_at_the_ends_stays_inside_and_is_not_empty() -> None:
    # k = 0: high = z²/(n + z²) = 3.841459/13.841459
    assert wilson(0, 10) == pytest.approx((0, 0.2775328), abs=1e-6)
    assert wilson(10, 10) == pytest.approx((1 - 0.2775328, 1), abs=1e-6)
    assert wilson(0, 0) == (0, 1)


@settings(deadline=None, max_examples=50)  # SciPy's first import is slow
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_agrees_with_scipy(case: tuple[int, int]) -> None:
    from scipy.stats import binomtest

    k, n = case
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_more_right_than_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="5 correct of 4"):
        wilson(5, 4)


def test_mcnemar_by_hand() -> None:
    # 2 wins, 8 losses: P(≤ 2 of 10) = (1 + 10 + 45)/1024, P(≥ 2) = 1 - 11/1024
    two_sided, worse, better = mcnemar(2, 8)
    assert worse == pytest.approx(56 / 1024)
    assert better == pytest.approx(1013 / 1024)
    assert two_sided == pytest.approx(112 / 1024)


def test_without_discordant_pairs_nothing_is_significant() -> None:
    assert mcnemar(0, 0) == (1, 1, 1)
    assert mcnemar(4, 4)[0] == 1


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_agrees_with_the_binomial_test(wins: int, losses: int) -> None:
    from scipy.stats import binomtest

    if wins + losses == 0:
        return
    two_sided, worse, better = mcnemar(wins, losses)
    n = wins + losses
    assert two_sided == pytest.approx(binomtest(wins, n).pvalue, rel=1e-6)
    assert worse == pytest.approx(binomtest(wins, n, alternative="less").pvalue, rel=1e-6)
    assert better == pytest.approx(binomtest(wins, n, alternative="greater").pvalue, rel=1e-6)


def test_the_paired_interval_by_hand() -> None:
    # n = 98, 19 wins, 9 losses: (20 - 10)/100 = .1; half = z·√((.3 - .01)/100) = 1.959964·.0538516
    assert paired_interval(19, 9, 98) == pytest.approx((0.1 - 0.1055473, 0.1 + 0.1055473), abs=1e-6)


def test_the_paired_interval_stays_between_minus_one_and_one() -> None:
    low, high = paired_interval(30, 0, 30)
    assert 0 < low < high == 1
    assert paired_interval(0, 30, 30) == (-1, -low)


def test_a_comparison_counts_only_discordant_pairs() -> None:
    before = [True, True, False, False, False]
    after = [True, False, True, True, False]
    c = compare(before, after)
    assert (c.n, c.wins, c.losses, c.difference) == (5, 2, 1, pytest.approx(0.2))
    assert c.p_worse == pytest.approx(7 / 8)
    assert c.low < c.difference < c.high


def test_unpaired_verdicts_are_refused() -> None:
    with pytest.raises(ValueError, match="not paired"):
        compare([True], [True, False])
    with pytest.raises(ValueError, match="different questions"):
        comparisons({"a": ("x", True)}, {"b": ("x", True)})


def test_scores_are_told_by_domain_and_overall() -> None:
    verdicts = {"1": ("fine", True), "2": ("coarse", False), "3": ("fine", False)}
    result = scores(verdicts)
    assert list(result) == ["fine", "coarse", "overall"]
    assert (result["fine"]["n"], result["fine"]["correct"], result["fine"]["accuracy"]) == (2, 1, 0.5)
    assert (result["overall"]["n"], result["overall"]["correct"]) == (3, 1)
    assert scores({}) == {}


def test_the_order_of_questions_does_not_matter_to_a_comparison() -> None:
    before = {"1": ("fine", True), "2": ("coarse", False), "3": ("fine", False)}
    after = {"3": ("fine", True), "2": ("coarse", False), "1": ("fine", True)}
    assert comparisons(before, after)["fine"]["wins"] == 1
    assert comparisons(before, after)["coarse"]["wins"] == 0


def test_nothing_asked_scores_nothing() -> None:
    assert score([]).n == 0
    assert (score([]).low, score([]).high) == (0, 1)
