"""Intervals and tests for success rates.

Written out rather than taken from SciPy, whose `stats` takes two seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wilson_interval(successes: int, episodes: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    It stays inside [0, 1] and is honest at 0 and 100%, where the normal interval has no width.

    Args:
        successes: number of successes.
        episodes: number of episodes, at least 1.
        confidence: coverage, in (0, 1).

    Returns:
        The lower and the upper end.

    Raises:
        ValueError: if the counts are impossible.
    """
    _check_counts(successes, episodes)
    z = _normal_quantile(confidence)
    rate = successes / episodes
    shrink = 1.0 + z * z / episodes
    centre = (rate + z * z / (2 * episodes)) / shrink
    spread = rate * (1.0 - rate) / episodes + z * z / (4.0 * episodes * episodes)
    half = z / shrink * math.sqrt(spread)
    # At the ends the formula gives 0 and 1 only up to rounding.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == episodes else min(1.0, centre + half)
    return low, high


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact McNemar test on paired outcomes.

    Under the null hypothesis each discordant pair falls either way with probability one half, so
    the p value is a binomial tail, doubled and cut at 1.
    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
    proportions or percentages", in its exact form.

    Args:
        only_first: pairs in which only the first policy succeeded.
        only_second: pairs in which only the second succeeded.

    Returns:
        The p value; 1 when no pair is discordant.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts must not be negative, got {only_first} and {only_second}")
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(only_first, only_second) + 1))
    # Integers until the last division: 2 to the 1100 is no float.
    return min(1.0, 2 * tail / (1 << discordant))


@dataclass(frozen=True)
class PairedTest:
    """Paired comparison of two policies on the same seeds.

    Attributes:
        both: pairs in which both succeeded.
        only_first: pairs in which only the first succeeded.
        only_second: pairs in which only the second succeeded.
        neither: pairs in which both failed.
        p: two-sided exact McNemar p value.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def paired_test(first: Sequence[bool], second: Sequence[bool]) -> PairedTest:
    """Count the pairs and test them.

    Args:
        first: outcomes of the first policy, one a seed.
        second: outcomes of the second on the same seeds in the same order.
    """
    if len(first) != len(second):
        raise ValueError(f"pairs need equal lengths, got {len(first)} and {len(second)} outcomes")
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    both = sum(a and b for a, b in pairs)
    return PairedTest(
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=len(pairs) - both - only_first - only_second,
        p=mcnemar_exact(only_first, only_second),
    )


@dataclass(frozen=True)
class FailureRatio:
    """How many times more often a reference fails.

    Attributes:
        ratio: failure rate of the reference over that of the policy; above 1 the policy is the
            better one. `None` when the policy never failed, where the ratio has no bound.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    ratio: float | None
    low: float
    high: float


def failure_ratio(
    failures: int,
    episodes: int,
    reference_failures: int,
    reference_episodes: int,
    confidence: float = 0.95,
) -> FailureRatio:
    """Ratio of the failure rate of a reference to that of a policy, with its interval.

    The interval is Katz's log interval with 0.5 added to each failure and episode count
    (Katz et al. 1978; the correction as in Pettigrew et al. 1986), so it exists when either never
    failed. It treats the episodes of the two as independent; on shared seeds, where successes
    agree more often than chance, it is wider than it need be.

    Args:
        failures: failures of the policy.
        episodes: its episodes.
        reference_failures: failures of the reference.
        reference_episodes: its episodes.
        confidence: coverage, in (0, 1).
    """
    _check_counts(failures, episodes)
    _check_counts(reference_failures, reference_episodes)
    z = _normal_quantile(confidence)
    a, n = failures + 0.5, episodes + 0.5
    b, m = reference_failures + 0.5, reference_episodes + 0.5
    centre = math.log((b / m) / (a / n))
    half = z * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
    exact = (reference_failures / reference_episodes) / (failures / episodes) if failures else None
    return FailureRatio(exact, math.exp(centre - half), math.exp(centre + half))


def median_and_p95(values: Sequence[float]) -> tuple[float, float]:
    """Median and 95th percentile, by linear interpolation between the sorted values."""
    if not values:
        raise ValueError("median and p95 need at least one value, got none")
    ordered = sorted(values)

    def quantile(q: float) -> float:
        place = q * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    return quantile(0.5), quantile(0.95)


def _check_counts(part: int, whole: int) -> None:
    if whole < 1 or not 0 <= part <= whole:
        raise ValueError(
            f"a count must be between 0 and the episodes, of which one is needed: {part} of {whole}"
        )


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


def group_draws(groups: int, draws: int, seed: int = 0) -> NDArray[np.float64]:
    """How often each group is drawn in each draw of a bootstrap over groups, `(draws, groups)`."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(groups, np.full(groups, 1.0 / groups), draws).astype(float)


def resampled_means(
    values: NDArray[np.float64], groups: ArrayLike, draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Bootstrapped means where values of one group are no independent ones.

    Groups are drawn whole: instructions of one path, searches in one house.

    Args:
        values: `(N, M)`.
        groups: `(N,)` labels.
        draws: how many.
        seed: of the draws; the same groups are drawn for every set of values.

    Returns:
        `(draws, M)` means; their quantiles are percentile intervals.

    Raises:
        ValueError: for no values.
    """
    if not len(values):
        raise ValueError("a mean needs at least one value, got none")
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, group, values)
    drawn = group_draws(len(names), draws, seed)
    return (drawn @ sums) / (drawn @ np.bincount(group).astype(float))[:, None]
