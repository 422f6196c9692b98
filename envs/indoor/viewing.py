"""The 36 views of Room-to-Room, and which viewpoints lie where in them.

As in Matterport3DSimulator with discretised viewing angles: 12 headings by 3 elevations, 30 degrees
apart. Views 0 to 11 look down, 12 to 23 level, 24 to 35 up; within each, view 0 looks along +y and
the rest follow clockwise. Angles are radians: headings clockwise from +y, elevations upwards.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from envs.indoor.graph import NavigationGraph

HEADINGS = 12
VIEWS = 36
STEP = math.pi / 6.0
"""Between two views, both ways."""
HALF_WIDTH = math.radians(60.0) * 640 / 480 / 2
"""Half the horizontal field of view, 40 degrees: as Matterport3DSimulator has it, which multiplies
the vertical field (60 degrees) by width over height."""
HALF_HEIGHT = math.radians(30.0)

Array = NDArray[np.float64]
Ints = NDArray[np.intp]


def view_of(heading: float, elevation: float) -> int:
    """The view nearest to a direction.

    Args:
        heading: radians clockwise from +y, any number of turns.
        elevation: radians upwards; beyond 15 degrees it is the view down or up.
    """
    # Halves away from zero, as C's `lround` has it.
    step = math.floor((heading % (2.0 * math.pi)) / STEP + 0.5) % HEADINGS
    level = 1 + (elevation > STEP / 2) - (elevation < -STEP / 2)
    return HEADINGS * level + step


def angles_of(view: int) -> tuple[float, float]:
    """Heading in [0, 2 pi) and elevation of the middle of a view."""
    return STEP * (view % HEADINGS), STEP * (view // HEADINGS - 1)


def turned(view: int, right: int = 0, up: int = 0) -> int:
    """The view after turning by steps of 30 degrees; looking up and down ends at the last row."""
    level = min(max(view // HEADINGS + up, 0), VIEWS // HEADINGS - 1)
    return HEADINGS * level + (view + right) % HEADINGS


def turns_between(view: int, other: int) -> int:
    """Fewest turns of 30 degrees, about either axis, from one view to another."""
    around = (other - view) % HEADINGS
    return min(around, HEADINGS - around) + abs(other // HEADINGS - view // HEADINGS)


def seen_in(headings: Array, elevations: Array) -> NDArray[np.bool_]:
    """Which views show which directions.

    The fields of view are taken as rectangles of angles, 80 by 60 degrees.

    Args:
        headings: `(N,)` radians.
        elevations: `(N,)` radians.

    Returns:
        `(N, 36)`.
    """
    view_heading, view_elevation = _ANGLES.T
    across = np.abs(_wrapped(np.asarray(headings)[:, None] - view_heading))
    upright = np.abs(np.asarray(elevations)[:, None] - view_elevation)
    return (across <= HALF_WIDTH) & (upright <= HALF_HEIGHT)


@dataclass(frozen=True)
class Ways:
    """Ways that leave a viewpoint, the one nearest to the middle of the view first.

    Attributes:
        viewpoints: `(n,)` indices of where they lead.
        headings: `(n,)` relative to the view, radians in [-pi, pi), positive to the right.
        elevations: `(n,)` relative to the view, radians.
        distances: `(n,)` metres.
    """

    viewpoints: Ints
    headings: Array
    elevations: Array
    distances: Array


class Surroundings:
    """What lies around the viewpoints of a graph."""

    def __init__(self, graph: NavigationGraph) -> None:
        """Measure the directions of all ways of a graph."""
        self.graph = graph
        self._around: list[tuple[Ints, Array, Array, Array]] = []
        for here, names in enumerate(graph.neighbors):
            others = np.array(names, np.intp)
            east, north, up = (graph.positions[others] - graph.positions[here]).T
            level = np.hypot(east, north)
            headings, elevations = np.arctan2(east, north), np.arctan2(up, level)
            self._around.append((others, headings, elevations, np.hypot(level, up)))
        self._ahead: dict[int, tuple[int, ...]] = {}

    def ways(self, viewpoint: int, view: int, restricted: bool = False) -> Ways:
        """Ways that leave a viewpoint.

        Args:
            viewpoint: where one stands.
            view: which way one looks.
            restricted: only those within the horizontal field of view, whatever their elevation.
        """
        others, headings, elevations, distances = self._around[viewpoint]
        heading, elevation = angles_of(view)
        right, up = _wrapped(headings - heading), elevations - elevation
        off = right * right + up * up
        if restricted:
            seen = np.flatnonzero(np.abs(right) <= HALF_WIDTH)
            order = seen[np.argsort(off[seen], kind="stable")]
        else:
            order = np.argsort(off, kind="stable")
        return Ways(others[order], right[order], up[order], distances[order])

    def direction(self, viewpoint: int, other: int) -> tuple[float, float]:
        """Heading and elevation in which a neighbour lies, radians.

        Raises:
            ValueError: if it is no neighbour.
        """
        others, headings, elevations, _ = self._around[viewpoint]
        found = np.flatnonzero(others == other)
        if not len(found):
            names = self.graph.viewpoints
            raise ValueError(f"no way leads straight from {names[viewpoint]} to {names[other]}")
        return float(headings[found[0]]), float(elevations[found[0]])

    def ahead(self, viewpoint: int) -> tuple[int, ...]:
        """Where "forward" leads from a viewpoint in each of the 36 views; -1 where nowhere."""
        if viewpoint not in self._ahead:
            others, headings, elevations, _ = self._around[viewpoint]
            view_headings, view_elevations = _ANGLES.T
            right = _wrapped(headings - view_headings[:, None])
            off = right**2 + (elevations - view_elevations[:, None]) ** 2
            off[np.abs(right) > HALF_WIDTH] = math.inf
            # The last column wins where no way is in view.
            blind = np.full((VIEWS, 1), np.finfo(float).max)
            found = np.concatenate([off, blind], axis=1).argmin(axis=1)
            self._ahead[viewpoint] = tuple(np.append(others, -1)[found].tolist())
        return self._ahead[viewpoint]


@lru_cache(maxsize=128)
def surroundings_of(graph: NavigationGraph) -> Surroundings:
    """Surroundings of a graph, kept for the next who asks."""
    return Surroundings(graph)


def _wrapped(angle: Array) -> Array:
    """Angles in [-pi, pi)."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi


_ANGLES = np.array([angles_of(view) for view in range(VIEWS)])
