"""Walkers that know the goal: along a shortest way, by panoramic or low-level actions."""

import heapq
import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.indoor.viewing import HEADINGS, VIEWS, Surroundings, turns_between

TOLERANCE = 0.1
"""A diverse walker takes neighbours whose way to the goal is longer by at most this part."""

_LEFT, _RIGHT, _UP, _DOWN = 2, 3, 4, 5


class RouteExpert:
    """Walks to the goal and stops there; `act` may be called from wherever one has got to.

    Low-level actions cannot walk every edge: where two ways leave in almost one direction,
    "forward" always takes the same one. The expert then goes round by what can be walked, and
    stops where nothing leads to the goal.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        goal: int,
        low_level: bool = False,
        mode: str = "consistent",
        seed: int | None = None,
    ) -> None:
        """Plan the ways from everywhere to the goal.

        Args:
            surroundings: of the building.
            goal: index of the viewpoint.
            low_level: whether actions are low-level ones.
            mode: `consistent` or `diverse`; see `R2RNavEnv.expert`.
            seed: of the choices of `diverse`.

        Raises:
            ValueError: for an unknown mode.
        """
        if mode not in ("consistent", "diverse"):
            raise ValueError(f'mode must be "consistent" or "diverse", got {mode!r}')
        self._surroundings = surroundings
        self._graph = surroundings.graph
        self._low_level = low_level
        self._rng = np.random.default_rng(seed) if mode == "diverse" else None
        self._left = _low_level_distances(surroundings, goal) if low_level else (
            self._graph.distances[:, goal]
        )  # fmt: skip
        self._next: tuple[int, int] | None = None  # where one stands, and where to go from there

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.int64]:
        """The next action.

        Args:
            obs: unused.
            info: of the environment; says where one is.
        """
        here = self._graph.index(info["viewpoint"])
        if self._next is None or self._next[0] != here:
            self._next = here, self._choose(here)
        target = self._next[1]
        if target < 0:
            return np.array(0)
        if self._low_level:
            return np.array(self._turn_or_walk(here, int(info["view_index"]), target))
        return np.array(1 + info["candidates"].index(self._graph.viewpoints[target]))

    def _choose(self, here: int) -> int:
        """Neighbour to walk to; -1 to stop."""
        left = self._left
        if left[here] == 0.0 or math.isinf(left[here]):
            return -1
        ahead = self._surroundings.ahead(here)
        others = sorted(set(ahead) - {-1}) if self._low_level else self._graph.neighbors[here]
        costs = {other: self._graph.distances[here, other] + left[other] for other in others}
        best = min(costs, key=lambda other: (costs[other], other))
        if self._rng is None:
            return best
        good = [
            other
            for other in others
            if left[other] < left[here] and costs[other] <= (1 + TOLERANCE) * costs[best]
        ]
        return int(self._rng.choice(good))

    def _turn_or_walk(self, here: int, view: int, target: int) -> int:
        """Low-level action towards a neighbour: the fewest turns, headings before elevations."""
        ahead = self._surroundings.ahead(here)
        views = [other for other in range(VIEWS) if ahead[other] == target]
        wanted = min(views, key=lambda other: (turns_between(view, other), other))
        around = (wanted - view) % HEADINGS
        if around:
            return _RIGHT if around <= HEADINGS // 2 else _LEFT
        if wanted != view:
            return _UP if wanted > view else _DOWN
        return 1


@lru_cache(maxsize=256)
def _low_level_distances(surroundings: Surroundings, goal: int) -> NDArray[np.float64]:
    """Length of the shortest way to a goal that "forward" can walk, from each viewpoint."""
    graph = surroundings.graph
    before: list[set[int]] = [set() for _ in range(len(graph))]
    for place in range(len(graph)):
        for other in set(surroundings.ahead(place)) - {-1}:
            before[other].add(place)
    left = np.full(len(graph), math.inf)
    left[goal] = 0.0
    queue = [(0.0, goal)]
    while queue:
        cost, place = heapq.heappop(queue)
        for other in before[place]:
            through = cost + float(graph.distances[other, place])
            if through < left[other]:
                left[other] = through
                heapq.heappush(queue, (through, other))
    return left
