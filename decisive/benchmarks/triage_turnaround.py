"""What an order by score is worth: simulated turnaround of abnormal cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.abnormality_scores import rates_at
from perception.review_queue import (
    QueueConfig,
    arrival_wait,
    mean_abnormal,
    overnight_list,
    priority_waits,
    simulate_queue,
)

_REPLICATIONS = 20
_CASES = 20_000  # Of one simulated queue.
_LISTS = 200
Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


def turnaround(
    scores: Floats,
    labels: NDArray[np.int64],
    threshold: float,
    prevalence: float = 0.2,
    utilisation: float = 0.9,
    seed: int = 0,
) -> dict[str, Any]:
    """Mean turnaround of abnormal cases in a queue and on an overnight list, in reading times.

    Cases are drawn from the scored ones, with replacement.

    Args:
        scores: `(N,)`.
        labels: `(N,)` 0 and 1.
        threshold: of the two-class order.
        prevalence: share of abnormal cases that are drawn.
        utilisation: of the reader.
        seed: of all draws.
    """
    config = QueueConfig(utilisation)
    kinds = [np.flatnonzero(labels == kind) for kind in (0, 1)]
    queue: dict[str, list[float]] = {"arrival": [], "random": [], "threshold": [], "score": []}
    lists: dict[str, list[float]] = {"random": [], "score": []}
    for replication in range(_REPLICATIONS):
        case, abnormal = _cases(kinds, _CASES, prevalence, (seed, replication))
        for order, found in queue.items():
            limit = threshold if order == "threshold" else None
            times = simulate_queue(config, scores[case], order, limit, replication)  # type: ignore[arg-type]
            found.append(mean_abnormal(times, abnormal))
    for replication in range(_LISTS):
        case, abnormal = _cases(kinds, 100, prevalence, (seed, 10_000 + replication))
        for order, found in lists.items():
            times = overnight_list(scores[case], order, seed=replication)  # type: ignore[arg-type]
            found.append(mean_abnormal(times, abnormal))
    point = rates_at(threshold, scores, labels)
    first = prevalence * point.sensitivity + (1 - prevalence) * (1 - point.specificity)
    waits = priority_waits(config, (first, 1 - first))
    expected = point.sensitivity * waits[0] + (1 - point.sensitivity) * waits[1] + 1
    return {
        "prevalence": prevalence,
        "utilisation": utilisation,
        "queue": {order: _mean(found) for order, found in queue.items()},
        "closed_form": {"arrival": arrival_wait(config) + 1, "threshold": expected},
        "overnight_list": {order: _mean(found) for order, found in lists.items()},
    }


def _cases(
    kinds: Sequence[Rows], n: int, prevalence: float, seed: tuple[int, int]
) -> tuple[Rows, NDArray[np.bool_]]:
    """Rows of drawn cases and whether each is abnormal; at least one is."""
    rng = np.random.default_rng(seed)
    abnormal = rng.random(n) < prevalence
    abnormal[-1] |= not abnormal.any()
    rows = np.where(abnormal, rng.choice(kinds[1], n), rng.choice(kinds[0], n))
    return rows, abnormal


def _mean(values: Sequence[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "standard_error": float(np.std(values, ddof=1) / np.sqrt(len(values))),
    }
