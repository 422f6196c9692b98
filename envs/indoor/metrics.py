"""How well a walk on a navigation graph follows a reference path: the measures of Room-to-Room.

Every distance is one of the graph: the length of a shortest way. A straight line through a wall is
not a distance here, also not in nDTW, where some continuous versions of the task use it.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.indoor.graph import NavigationGraph

SUCCESS_DISTANCE = 3.0
"""Nearer to the goal than this is success, metres; also the scale of nDTW and CLS."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PathScores:
    """Measures of one walk.

    Attributes:
        navigation_error: metres from where it ends to the goal.
        success: whether that is below 3 m (strictly).
        oracle_error: metres from the nearest viewpoint that it visited to the goal.
        oracle_success: whether that is below 3 m.
        spl: success, weighted by shortest length over length walked (Anderson et al. 2018b).
        ndtw: normalised dynamic time warping (Ilharco et al. 2019, eq. 3), in (0, 1].
        sdtw: the same where it succeeds, else 0.
        cls: coverage weighted by length score (Jain et al. 2019, section 4), in [0, 1].
        path_length: metres walked.
    """

    navigation_error: float
    success: bool
    oracle_error: float
    oracle_success: bool
    spl: float
    ndtw: float
    sdtw: float
    cls: float
    path_length: float


def score_path(
    graph: NavigationGraph, walked: Sequence[str], reference: Sequence[str]
) -> PathScores:
    """Score a walk against the path that an instruction describes.

    Args:
        graph: of the building.
        walked: viewpoints in order; standing still (turning) repeats one and changes nothing.
        reference: viewpoints of the described path; the last is the goal.

    Raises:
        ValueError: for an empty path, an unknown viewpoint, or a step that no edge allows.
    """
    if not walked or not reference:
        raise ValueError(f"paths need a viewpoint, got {len(walked)} and {len(reference)}")
    length = graph.length(walked)
    rows = [graph.index(name) for name in _without_repeats(walked)]
    columns = [graph.index(name) for name in _without_repeats(reference)]
    distances = graph.distances[np.ix_(rows, columns)]
    error, oracle = float(distances[-1, -1]), float(distances[:, -1].min())
    success = error < SUCCESS_DISTANCE
    shortest = graph.distance(walked[0], reference[-1])
    ndtw = normalized_dtw(distances)
    return PathScores(
        navigation_error=error,
        success=success,
        oracle_error=oracle,
        oracle_success=oracle < SUCCESS_DISTANCE,
        spl=spl(success, shortest, length),
        ndtw=ndtw,
        sdtw=ndtw if success else 0.0,
        cls=coverage_by_length(distances, length, graph.length(reference)),
        path_length=length,
    )


def spl(success: bool, shortest: float, walked: float) -> float:
    """Success weighted by path length.

    Source: Anderson et al. 2018, "On evaluation of embodied navigation agents", eq. 1.

    Args:
        success: whether the goal was reached.
        shortest: length of the shortest way from start to goal, metres.
        walked: length of the walk, metres.
    """
    if not success:
        return 0.0
    longer = max(shortest, walked)
    return shortest / longer if longer > 0.0 else 1.0


def normalized_dtw(distances: Array) -> float:
    """exp(-DTW / (|R| 3 m)).

    Source: Ilharco et al. 2019, "General evaluation for instruction conditioned navigation using
    dynamic time warping", eq. 1 to 3.

    Args:
        distances: `(P, R)` graph distances from the viewpoints walked to those of the reference.
    """
    costs = distances.tolist()
    previous = list(itertools.accumulate(costs[0]))
    for row in costs[1:]:
        current = [previous[0] + row[0]]
        for k in range(1, len(row)):
            current.append(row[k] + min(previous[k], previous[k - 1], current[k - 1]))
        previous = current
    return math.exp(-previous[-1] / (len(previous) * SUCCESS_DISTANCE))


def coverage_by_length(distances: Array, walked: float, reference: float) -> float:
    """Path coverage times length score.

    Source: Jain et al. 2019, "Stay on the path: instruction fidelity in vision-and-language
    navigation", section 4.

    Args:
        distances: `(P, R)` as in `normalized_dtw`.
        walked: length of the walk, metres.
        reference: length of the reference path, metres.
    """
    coverage = float(np.exp(-distances.min(axis=0) / SUCCESS_DISTANCE).mean())
    expected = coverage * reference
    spread = expected + abs(expected - walked)
    # A reference of no length, and not a step taken: nothing is too long.
    return coverage * (expected / spread if spread > 0.0 else 1.0)


def _without_repeats(path: Sequence[str]) -> list[str]:
    return [name for name, _ in itertools.groupby(path)]
