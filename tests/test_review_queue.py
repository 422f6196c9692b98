"""The review queue against cases worked by hand and against the closed forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.review_queue import (
    QueueConfig,
    arrival_wait,
    mean_abnormal,
    overnight_list,
    priority_waits,
    second_moment,
    simulate_queue,
)


def waits(config: QueueConfig, order: str, seeds: int = 12, n: int = 20_000):
    """Mean wait of the first class (0.3 of the cases), of the second, and of all, by seed."""
    threshold = 0.7 if order == "threshold" else None
    rows = []
    for seed in range(seeds):
        scores = np.random.default_rng((99, seed)).random(n)
        times = simulate_queue(config, scores, order, threshold, seed) - config.service_time
        counted = ~np.isnan(times)
        first = scores >= 0.7
        rows.append([times[counted & part].mean() for part in (first, ~first, counted)])
    return np.array(rows)


def assert_within_error(found, expected, sigmas: float = 4.0) -> None:
    error = found.std(ddof=1) / math.sqrt(len(found))
    assert abs(found.mean() - expected) < sigmas * error
    assert error < 0.05 * expected  # or the test could not fail


def test_closed_forms_worked_by_hand() -> None:
    # M/D/1 at 0.8: W0 = 0.8 / 2 = 0.4, in order of arrival 0.4 / 0.2 = 2.
    fixed = QueueConfig(0.8)
    assert second_moment(1.0, "fixed") == 1.0
    assert arrival_wait(fixed) == pytest.approx(2.0)
    # Half of the cases first: rho1 = 0.4, so 0.4 / 0.6 and 0.4 / (0.6 * 0.2).
    assert priority_waits(fixed, (0.5, 0.5)) == pytest.approx((2 / 3, 10 / 3))
    # M/M/1 at 0.5, service 2: W0 = 0.25 * 8 / 2 = 1, in order of arrival rho / (mu - lambda) = 2.
    exponential = QueueConfig(0.25, 2.0, "exponential")
    assert arrival_wait(exponential) == pytest.approx(2.0)
    assert arrival_wait(exponential) == pytest.approx(0.5 / (0.5 - 0.25))


@given(st.floats(0.05, 0.95), st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.booleans())
def test_priorities_keep_the_mean_wait_of_all(rate, weights, fixed) -> None:
    # Kleinrock's conservation law, for classes that take the same time.
    shares = [w / sum(weights) for w in weights]
    config = QueueConfig(rate, service="fixed" if fixed else "exponential")
    told = priority_waits(config, shares)
    mean = sum(share * wait for share, wait in zip(shares, told, strict=True))
    assert mean == pytest.approx(arrival_wait(config))
    assert list(told) == sorted(told)


@pytest.mark.parametrize("service", ["fixed", "exponential"])
def test_two_classes_wait_as_cobham_says(service) -> None:
    config = QueueConfig(0.8, service=service)
    found = waits(config, "threshold")
    for column, expected in enumerate(priority_waits(config, (0.3, 0.7))):
        assert_within_error(found[:, column], expected)
    assert_within_error(found[:, 2], arrival_wait(config))


@pytest.mark.parametrize("service", ["fixed", "exponential"])
def test_order_of_arrival_waits_as_pollaczek_and_khinchine_say(service) -> None:
    config = QueueConfig(0.7, service=service)
    assert_within_error(waits(config, "arrival")[:, 2], arrival_wait(config))


def test_random_order_waits_as_long_and_helps_nobody() -> None:
    config = QueueConfig(0.7)
    found = waits(config, "random")
    for column in range(3):
        assert_within_error(found[:, column], arrival_wait(config))


def test_scores_put_the_highest_first() -> None:
    config = QueueConfig(0.9)
    by_score, by_arrival = waits(config, "score", 4), waits(config, "arrival", 4)
    assert (by_score[:, 0] < 0.5 * by_arrival[:, 0]).all()
    assert (by_score[:, 1] > by_arrival[:, 1]).all()


def test_the_reader_finishes_what_was_begun() -> None:
    # The reader is never idle while somebody waits, and reads one case at a time.
    config = QueueConfig(0.5, warm_up=0.0)
    scores = np.array([0.1, 0.9, 0.5])
    rng = np.random.default_rng((3, 0))
    arrivals = rng.exponential(2.0, 3).cumsum()
    ends = simulate_queue(config, scores, "score", seed=3) + arrivals
    assert ends[0] == pytest.approx(arrivals[0] + 1)
    assert (np.diff(np.sort(ends)) >= 1 - 1e-12).all()
    assert (ends - arrivals >= 1 - 1e-12).all()


def test_a_list_is_worked_off_from_the_top() -> None:
    scores = [0.2, 0.9, 0.9, 0.5]
    np.testing.assert_array_equal(overnight_list(scores), [4, 1, 2, 3])
    np.testing.assert_array_equal(overnight_list(scores, "arrival", service_time=2), [2, 4, 6, 8])
    np.testing.assert_array_equal(overnight_list(scores, "threshold", 0.5), [4, 1, 2, 3])
    assert sorted(overnight_list(scores, "random", seed=5)) == [1, 2, 3, 4]
    # A perfect order: two abnormal of four end after 1 and 2, at random after 2.5 in the mean.
    assert mean_abnormal(overnight_list([0, 1, 0, 1]), [0, 1, 0, 1]) == 1.5


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.integers(0, 99))
def test_no_order_changes_the_mean_of_a_list(scores, seed) -> None:
    n = len(scores)
    for order in ("arrival", "score", "random"):
        assert overnight_list(scores, order, seed=seed).mean() == pytest.approx((n + 1) / 2)


def test_the_same_seed_gives_the_same_queue() -> None:
    scores = np.random.default_rng(0).random(200)
    config = QueueConfig(0.8, service="exponential", warm_up=0.0)
    one, two = (simulate_queue(config, scores, "score", seed=4) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, simulate_queue(config, scores, "score", seed=5))
    # Orders share arrivals and times: the last end is that of all the work.
    by_arrival = simulate_queue(config, scores, "arrival", seed=4)
    assert one.sum() != pytest.approx(by_arrival.sum())


def test_what_cannot_be_is_refused() -> None:
    for build, said in (
        (lambda: QueueConfig(1.0), "never catch up"),
        (lambda: QueueConfig(0.6, 2.0), "never catch up"),
        (lambda: QueueConfig(-1.0), "arrival_rate must be positive"),
        (lambda: QueueConfig(math.nan), "arrival_rate must be positive"),
        (lambda: QueueConfig(0.5, 0.0), "service_time must be positive"),
        (lambda: QueueConfig(0.5, service="slow"), "service must be"),
        (lambda: QueueConfig(0.5, warm_up=1.0), "warm_up must be"),
        (lambda: priority_waits(QueueConfig(0.5), ()), "shares must be"),
        (lambda: priority_waits(QueueConfig(0.5), (0.5, 0.6)), "shares must be"),
        (lambda: simulate_queue(QueueConfig(0.5), []), "scores must be"),
        (lambda: simulate_queue(QueueConfig(0.5), [math.nan]), "scores must be"),
        (lambda: simulate_queue(QueueConfig(0.5), [1.0], "best"), "order must be one of"),
        (lambda: simulate_queue(QueueConfig(0.5), [1.0], "threshold"), "threshold belongs"),
        (lambda: simulate_queue(QueueConfig(0.5), [1.0], "score", 0.5), "threshold belongs"),
        (lambda: overnight_list([1.0], service_time=0), "service_time must be"),
        (lambda: mean_abnormal([1.0], [0]), "no abnormal case"),
        (lambda: mean_abnormal([1.0, 2.0], [1]), "must be"),
    ):
        with pytest.raises(ValueError, match=said):
            build()
