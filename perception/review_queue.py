"""What an order of review is worth: cases in a queue with one reader, and a list left overnight.

Cases come at random, one reader takes them one after another and never stops in the middle of one.
The order is that of arrival, of scores (most abnormal first), of two classes by a threshold, or
random. Turnaround is the time from arrival to the end of reading.

| symbol | here |
|---|---|
| lambda | `arrival_rate` |
| E[S], E[S^2] | `service_time`, `second_moment(...)` |
| rho | `utilisation`: lambda E[S] |
| W0 = lambda E[S^2] / 2 | work that an arriving case finds in hand |

Sources: Cobham 1954, "Priority Assignment in Waiting Line Problems" (waits of priority classes);
Pollaczek and Khinchine (first in, first out); Nabulsi et al. 2021 (the use for radiographs).
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Service = Literal["fixed", "exponential"]
Order = Literal["arrival", "score", "threshold", "random"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class QueueConfig:
    """A queue with one reader.

    Attributes:
        arrival_rate: cases a unit of time, Poisson.
        service_time: mean time to read a case.
        service: whether all take that time, or exponential times of that mean.
        warm_up: share of the cases, the first ones, that do not count: the queue begins empty.
    """

    arrival_rate: float
    service_time: float = 1.0
    service: Service = "fixed"
    warm_up: float = 0.1

    def __post_init__(self) -> None:
        """Refuse queues that cannot be, or grow without end."""
        for name in ("arrival_rate", "service_time"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive, got {value}")
        if self.service not in get_args(Service):
            raise ValueError(f"service must be fixed or exponential, got {self.service!r}")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up must be in [0, 1), got {self.warm_up}")
        if self.utilisation >= 1:
            raise ValueError(
                f"arrival_rate * service_time must be below 1, got {self.utilisation:.3g}: "
                "the reader would never catch up; a list that is worked off is overnight_list"
            )

    @property
    def utilisation(self) -> float:
        """Share of the time that the reader is busy."""
        return self.arrival_rate * self.service_time


def second_moment(service_time: float, service: Service) -> float:
    """Mean square of the time to read a case."""
    return service_time**2 * (1 if service == "fixed" else 2)


def arrival_wait(config: QueueConfig) -> float:
    """Mean wait in order of arrival: W0 / (1 - rho); in random order it is the same."""
    return _work_in_hand(config) / (1 - config.utilisation)


def priority_waits(config: QueueConfig, shares: Sequence[float]) -> tuple[float, ...]:
    """Mean wait of each priority class, first to be read first, in order of arrival within.

    Cobham 1954: W_k = W0 / ((1 - s_{k-1}) (1 - s_k)), s_k the utilisation by classes 1 to k.

    Args:
        config: of the queue; all classes take the same time to read.
        shares: of the cases, of each class; they sum to 1.

    Raises:
        ValueError: for shares that are no such shares.
    """
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError(f"shares must be at least 0 and sum to 1, got {list(shares)}")
    below, waits = 0.0, []
    for share in shares:
        up_to = below + share * config.utilisation
        waits.append(_work_in_hand(config) / ((1 - below) * (1 - up_to)))
        below = up_to
    return tuple(waits)


def _work_in_hand(config: QueueConfig) -> float:
    return config.arrival_rate * second_moment(config.service_time, config.service) / 2


def simulate_queue(
    config: QueueConfig,
    scores: ArrayLike,
    order: Order = "score",
    threshold: float | None = None,
    seed: int = 0,
) -> Floats:
    """Turnaround of each case, in the order in which they come.

    Arrivals and reading times follow from the seed alone, so that orders are compared on the same
    cases.

    Args:
        config: of the queue.
        scores: `(N,)` of the cases in order of arrival, high for abnormal.
        order: who is read next when the reader is free: who came first, who has the highest score,
            whose score is at least `threshold` (who came first among them), or anybody.
        threshold: of that order.
        seed: of arrivals, times and random order.

    Returns:
        `(N,)` times from arrival to the end of reading; NaN for the first `warm_up` of the cases.

    Raises:
        ValueError: for scores or orders that cannot be.
    """
    values = _scores(scores)
    keys = _keys(values, order, threshold, np.random.default_rng((seed, 1)))
    rng = np.random.default_rng((seed, 0))
    n = len(values)
    arrivals = rng.exponential(1 / config.arrival_rate, n).cumsum()
    services = np.full(n, config.service_time)
    if config.service == "exponential":
        services = rng.exponential(config.service_time, n)
    ends = _serve(arrivals.tolist(), services.tolist(), keys.tolist())
    turnaround = ends - arrivals
    turnaround[: int(config.warm_up * n)] = math.nan
    return turnaround


def _serve(arrivals: list[float], services: list[float], keys: list[float]) -> Floats:
    """When each case is done; the smallest key is read first, then who came first."""
    n, come, now = len(arrivals), 0, 0.0
    ends = np.empty(n)
    waiting: list[tuple[float, int]] = []
    for _ in range(n):
        if not waiting:
            now = max(now, arrivals[come])
        while come < n and arrivals[come] <= now:
            heapq.heappush(waiting, (keys[come], come))
            come += 1
        _, case = heapq.heappop(waiting)
        now += services[case]
        ends[case] = now
    return ends


def overnight_list(
    scores: ArrayLike,
    order: Order = "score",
    threshold: float | None = None,
    service_time: float = 1.0,
    seed: int = 0,
) -> Floats:
    """Turnaround of each case of a list that is there in the morning and worked off.

    Args:
        scores: `(N,)` of the cases in order of arrival.
        order: as of `simulate_queue`.
        threshold: as of `simulate_queue`.
        service_time: time to read a case.
        seed: of random order.

    Returns:
        `(N,)` times from the start of work to the end of reading.

    Raises:
        ValueError: for scores, orders or times that cannot be.
    """
    if not (math.isfinite(service_time) and service_time > 0):
        raise ValueError(f"service_time must be positive, got {service_time}")
    values = _scores(scores)
    keys = _keys(values, order, threshold, np.random.default_rng((seed, 1)))
    turnaround = np.empty(len(values))
    turnaround[np.argsort(keys, kind="stable")] = service_time * np.arange(1, len(values) + 1)
    return turnaround


def mean_abnormal(turnaround: ArrayLike, abnormal: ArrayLike) -> float:
    """Mean turnaround of the abnormal cases, of those that count.

    Raises:
        ValueError: if shapes differ or no abnormal case counts.
    """
    times, chosen = np.asarray(turnaround, np.float64), np.asarray(abnormal, bool)
    if times.shape != chosen.shape or times.ndim != 1:
        raise ValueError(
            f"turnaround and abnormal must be (N,) each, got {times.shape} and {chosen.shape}"
        )
    counted = times[chosen & ~np.isnan(times)]
    if not len(counted):
        raise ValueError("no abnormal case counts, so there is no mean of their turnaround")
    return float(counted.mean())


def _scores(scores: ArrayLike) -> Floats:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"scores must be (N,) finite numbers, one at least, got {values.shape}")
    return values


def _keys(
    values: Floats, order: Order, threshold: float | None, rng: np.random.Generator
) -> Floats:
    if (order == "threshold") != (threshold is not None):
        raise ValueError("a threshold belongs to order threshold, and to no other")
    if order == "arrival":
        return np.zeros(len(values))
    if order == "random":
        return rng.random(len(values))
    if order == "score":
        return -values
    if order == "threshold" and threshold is not None:
        return (values < threshold).astype(np.float64)
    raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
