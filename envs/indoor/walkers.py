"""People and carts that go about in a house, as a map of what is occupied sees them.

Each walks the shortest way over the house's viewpoints from one to another, at a pace of its own,
rests there for a while and walks on. Who comes near somebody ahead waits until the way is free, at
most `PATIENCE` seconds: then both squeeze past. Seen from above, with everything known: no sensor,
no shadows. Synthetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.indoor.house import House, obstacles
from envs.rasters import Mask, Raster

PATIENCE = 1.5
_GAP = 0.15  # Metres between two bodies, less is near.
_TURN = 0.25  # Metres over which a corner is cut.

Array = NDArray[np.float64]


@dataclass(frozen=True)
class WalkerConfig:
    """Who walks.

    Attributes:
        people: least and greatest number of people.
        carts: least and greatest number of carts.
        pace: least and greatest speed of people, m/s.
        cart_pace: of carts.
        rest: greatest time in seconds spent at a goal.
    """

    people: tuple[int, int] = (4, 8)
    carts: tuple[int, int] = (0, 2)
    pace: tuple[float, float] = (0.6, 1.6)
    cart_pace: tuple[float, float] = (0.4, 0.9)
    rest: float = 2.0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        for name in ("people", "carts", "pace", "cart_pace"):
            low, high = getattr(self, name)
            if not 0 <= low <= high or (name.endswith("pace") and not low > 0):
                raise ValueError(f"{name} must be a least and a greatest value, got {low, high}")
        if self.people[0] + self.carts[0] < 1 or not self.rest >= 0:
            raise ValueError("somebody must walk, and rest no less than 0 s")


class Walker:
    """A disc that walks from goal to goal."""

    def __init__(self, house: House, radius: float, pace: float, rng: np.random.Generator) -> None:
        """Stand somewhere, on the way to somewhere else.

        Args:
            house: whose viewpoints are starts and goals.
            radius: of the body, metres.
            pace: m/s.
            rng: all its choices.
        """
        self.radius, self.pace = radius, pace
        self._graph, self._rng = house.graph, rng
        self._at = int(rng.integers(len(house.graph)))
        self._way = np.empty((0, 2))
        self._next_way()
        # Not all at their starts when the first picture is taken.
        self.place = self._way[0]
        self._gone = float(rng.uniform(0, self._length))
        self.place = self._point(self._gone)
        self._resting = 0.0
        self._waited = 0.0

    def ahead(self, seconds: float) -> Array:
        """`(2,)` where it wants to be."""
        return self._point(min(self._gone + self.pace * seconds, self._length))

    def step(self, seconds: float, others: list[Walker], rest: float) -> None:
        """Move on, or wait."""
        if self._resting > 0:
            self._resting -= seconds
            return
        wanted = self.ahead(seconds)
        if self._blocked(wanted, others) and self._waited < PATIENCE:
            self._waited += seconds
            return
        self._waited = max(0.0, self._waited - seconds / 2)
        self._gone = min(self._gone + self.pace * seconds, self._length)
        self.place = wanted
        if self._gone >= self._length:
            self._next_way()
            self._gone, self._resting = 0.0, float(self._rng.uniform(0, rest))

    def _blocked(self, wanted: Array, others: list[Walker]) -> bool:
        """Whether somebody is near, and going there brings them nearer."""
        for other in others:
            now = float(np.linalg.norm(other.place - self.place))
            then = float(np.linalg.norm(other.place - wanted))
            if then < min(now, self.radius + other.radius + _GAP):
                return True
        return False

    def _next_way(self) -> None:
        graph = self._graph
        goals = [k for k in range(len(graph)) if np.isfinite(graph.distances[self._at, k])]
        goals = [k for k in goals if k != self._at] or [self._at]
        goal = int(self._rng.choice(goals))
        names = graph.shortest_path(graph.viewpoints[self._at], graph.viewpoints[goal])
        points = graph.positions[[graph.index(name) for name in names], :2]
        self._way = _rounded(points)
        steps = np.linalg.norm(np.diff(self._way, axis=0), axis=1)
        self._along = np.concatenate([[0.0], np.cumsum(steps)])
        self._length = float(self._along[-1])
        self._at = goal

    def _point(self, gone: float) -> Array:
        return np.array([np.interp(gone, self._along, self._way[:, axis]) for axis in (0, 1)])


def _rounded(points: Array) -> Array:
    """A way whose corners are cut, `_TURN` metres before and behind each."""
    if len(points) < 3:
        return points
    found = [points[0]]
    for before, corner, after in zip(points[:-2], points[1:-1], points[2:], strict=True):
        for end in (before, after):
            away = end - corner
            length = max(float(np.linalg.norm(away)), 1e-9)
            found.append(corner + away * min(_TURN / length, 0.45))
    return np.array([*found, points[-1]])


def draw_walkers(house: House, config: WalkerConfig, rng: np.random.Generator) -> list[Walker]:
    """People of 0.2 to 0.28 m radius, and carts of 0.3 to 0.4 m."""
    found = []
    kinds = (
        (config.people, config.pace, (0.20, 0.28)),
        (config.carts, config.cart_pace, (0.3, 0.4)),
    )
    for count, pace, radius in kinds:
        for _ in range(int(rng.integers(count[0], count[1] + 1))):
            own = np.random.default_rng(rng.integers(2**63))
            found.append(Walker(house, rng.uniform(*radius), rng.uniform(*pace), own))
    return found


def house_occupancy(
    house: House,
    frames: int,
    seconds: float,
    raster: Raster,
    rng: np.random.Generator,
    config: WalkerConfig | None = None,
) -> tuple[NDArray[np.bool_], Mask]:
    """What walkers and walls cover.

    Args:
        house: in which they walk.
        frames: how many pictures.
        seconds: between two.
        raster: the grid, world frame of the house.
        rng: all that is drawn.
        config: who walks.

    Returns:
        `(T, H, W)` of walkers, and `(H, W)` of walls, furniture and open doors.
    """
    config = config or WalkerConfig()
    walkers = draw_walkers(house, config, rng)
    static = raster.empty()
    raster.boxes(static, obstacles(house.plan, house.furniture))
    moving = np.zeros((frames, *raster.shape), np.bool_)
    for frame in moving:
        for walker in walkers:
            raster.disc(frame, float(walker.place[0]), float(walker.place[1]), walker.radius)
        for k, walker in enumerate(walkers):
            walker.step(seconds, walkers[:k] + walkers[k + 1 :], config.rest)
    return moving, static
