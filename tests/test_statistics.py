"""Intervals and tests against numbers worked by hand."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decisive.statistics import (
    failure_ratio,
    mcnemar_exact,
    median_and_p95,
    paired_test,
    wilson_interval,
)


def test_wilson_of_nine_in_ten():
    # z = 1.96, z^2 = 3.8416: centre (0.9 + 0.19208) / 1.38416 = 0.788984,
    # half width 1.96 / 1.38416 * sqrt(0.009 + 0.009604) = 0.193142.
    low, high = wilson_interval(9, 10)
    assert low == pytest.approx(0.595842, abs=1e-4)
    assert high == pytest.approx(0.982126, abs=1e-4)


def test_wilson_without_a_failure_is_the_closed_form():
    # With p = 1 the lower end is 1 / (1 + z^2 / n): 100 / 103.8415 and 200 / 203.8415.
    assert wilson_interval(100, 100) == (pytest.approx(0.963006, abs=1e-5), 1.0)
    assert wilson_interval(200, 200) == (pytest.approx(0.981155, abs=1e-5), 1.0)
    assert wilson_interval(0, 100) == (0.0, pytest.approx(1 - 0.963006, abs=1e-5))


def test_wilson_of_a_paper_example():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3:
    # 81 of 263 gives 0.2553 to 0.3662; 15 of 148 gives 0.0624 to 0.1605.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_rate_and_mirrors(counts):
    successes, episodes = counts
    low, high = wilson_interval(successes, episodes)
    assert 0.0 <= low <= successes / episodes <= high <= 1.0
    mirrored = wilson_interval(episodes - successes, episodes)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high))


def test_more_episodes_narrow_the_interval():
    widths = [high - low for low, high in (wilson_interval(9 * n, 10 * n) for n in (1, 10, 100))]
    assert widths == sorted(widths, reverse=True)
    assert wilson_interval(9, 10, confidence=0.5)[0] > wilson_interval(9, 10)[0]


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes, episodes):
    with pytest.raises(ValueError, match="count"):
        wilson_interval(successes, episodes)
    with pytest.raises(ValueError, match="count"):
        failure_ratio(successes, episodes, 1, 10)


def test_confidence_outside_its_range_is_refused():
    with pytest.raises(ValueError, match="confidence"):
        wilson_interval(1, 2, confidence=1.0)


def test_mcnemar_worked_by_hand():
    # 8 discordant pairs, 1 against 7: 2 * (1 + 8) / 256.
    assert mcnemar_exact(1, 7) == pytest.approx(18 / 256)
    assert mcnemar_exact(7, 1) == pytest.approx(18 / 256)
    # 10 against 0: 2 / 1024.
    assert mcnemar_exact(10, 0) == pytest.approx(2 / 1024)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(3, 3) == 1.0


@pytest.mark.parametrize(("first", "second"), list(product(range(5), range(5))))
def test_mcnemar_counts_every_sequence_of_coin_flips(first, second):
    n = first + second
    far = abs(first - second)
    as_far = sum(abs(2 * sum(flips) - n) >= far for flips in product((0, 1), repeat=n))
    assert mcnemar_exact(first, second) == pytest.approx(as_far / 2**n)


def test_mcnemar_of_thousands_of_pairs_does_not_overflow():
    assert 0.0 < mcnemar_exact(900, 1100) < 1e-4
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def test_pairs_are_counted_into_four_cells():
    first = [True, True, False, False, True]
    second = [True, False, True, False, False]
    test = paired_test(first, second)
    assert (test.both, test.only_first, test.only_second, test.neither) == (1, 2, 1, 1)
    assert test.p == 1.0
    with pytest.raises(ValueError, match="equal lengths"):
        paired_test(first, second[:-1])


def test_failure_ratio_of_the_papers_insertion():
    # Florence et al. 2021: real insertion 83.3% against 6.7% success, 5.6 times the failures.
    found = failure_ratio(failures=5, episodes=30, reference_failures=28, reference_episodes=30)
    assert found.ratio == pytest.approx(5.6)
    # log interval with halves added: log((28.5/30.5) / (5.5/30.5)) -+ 1.96 sqrt(1/5.5 - 1/30.5
    # + 1/28.5 - 1/30.5) = 1.64517 -+ 1.96 * 0.389134
    assert found.low == pytest.approx(math.exp(1.645170 - 1.959964 * 0.389134), rel=1e-3)
    assert found.high == pytest.approx(math.exp(1.645170 + 1.959964 * 0.389134), rel=1e-3)


def test_failure_ratio_without_failures_has_no_value_but_a_lower_end():
    found = failure_ratio(0, 100, 50, 100)
    assert found.ratio is None
    assert 5.0 < found.low < found.high


def test_failure_ratio_of_equals_is_one_and_swapping_inverts():
    same = failure_ratio(7, 50, 7, 50)
    assert same.ratio == 1.0
    assert same.low * same.high == pytest.approx(1.0)
    one, other = failure_ratio(3, 40, 12, 50), failure_ratio(12, 50, 3, 40)
    assert one.low == pytest.approx(1 / other.high)
    assert one.high == pytest.approx(1 / other.low)


def test_median_and_p95_interpolate():
    assert median_and_p95([3.0, 1.0, 2.0]) == (2.0, pytest.approx(2.9))
    assert median_and_p95([float(i) for i in range(101)]) == (50.0, 95.0)
    assert median_and_p95([4.0]) == (4.0, 4.0)
    with pytest.raises(ValueError, match="at least one"):
        median_and_p95([])
