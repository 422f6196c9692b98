"""What a navigator knows of the building it walks: the graph, what it saw, what it imagines.

The arms of a comparison differ in this object only. A viewpoint is an index; its view is an array
`(12, F)`, one row of features for each heading of 30 degrees, row 0 looking along +y and the rest
following clockwise (Room-to-Room's headings), aligned with the world.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

HEADINGS = 12
"""Rows of a view."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Imagined:
    """Views of viewpoints where one has not been.

    Attributes:
        views: `(K, N, 12, F)`: K samples, each one consistent idea of all N viewpoints.
        confidence: `(K, N)` in [0, 1]: 1 is certain; 0 hides the view.
    """

    views: Array
    confidence: Array

    def __post_init__(self) -> None:
        """Refuse shapes that do not agree."""
        if self.views.ndim != 4 or self.views.shape[2] != HEADINGS or not len(self.views):
            raise ValueError(f"views must be (K, N, {HEADINGS}, F), got {self.views.shape}")
        if self.confidence.shape != self.views.shape[:2]:
            raise ValueError(
                f"confidence must be {self.views.shape[:2]}, got {self.confidence.shape}"
            )


class Place(Protocol):
    """A building as a navigator sees it."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """`(N, 3)` of the viewpoints in metres, z up."""
        ...

    def neighbors(self, viewpoint: int) -> Sequence[int]:
        """Viewpoints that can be reached from one in one hop."""
        ...

    def look(self, viewpoint: int) -> Array:
        """`(12, F)` view from a viewpoint; asked only for those where one has been."""
        ...

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        """Views of viewpoints from those of others.

        Args:
            visited: viewpoints where one has been, the present one last.
            unseen: distinct viewpoints where one has not been, near ones first.

        Returns:
            Views in the order of `unseen`; None where nothing is imagined.
        """
        ...


Dream = Callable[["GraphPlace", Sequence[int], Sequence[int]], Imagined]


class GraphPlace:
    """The graph and nothing beyond what was seen from visited viewpoints: the Baseline arm."""

    def __init__(
        self, positions: NDArray[np.float64], neighbors: Sequence[Sequence[int]], views: Array
    ) -> None:
        """Hold the arrays of one building.

        Args:
            positions: `(N, 3)` metres, z up.
            neighbors: of each viewpoint.
            views: `(N, 12, F)`, finite.

        Raises:
            ValueError: where these do not agree.
        """
        n = len(positions)
        if positions.shape != (n, 3) or len(neighbors) != n:
            raise ValueError(
                f"positions must be (N, 3) with neighbours for each, got {positions.shape} and "
                f"{len(neighbors)}"
            )
        if views.ndim != 3 or views.shape[:2] != (n, HEADINGS):
            raise ValueError(f"views must be ({n}, {HEADINGS}, F), got {views.shape}")
        if not (np.isfinite(positions).all() and np.isfinite(views).all()):
            raise ValueError("positions and views must be finite")
        self._positions = np.asarray(positions, np.float64)
        self._neighbors = tuple(tuple(int(b) for b in row) for row in neighbors)
        self.views = np.asarray(views, np.float32)

    @property
    def positions(self) -> NDArray[np.float64]:
        """`(N, 3)` metres."""
        return self._positions

    def neighbors(self, viewpoint: int) -> Sequence[int]:
        """Viewpoints one hop away."""
        return self._neighbors[viewpoint]

    def look(self, viewpoint: int) -> Array:
        """The view from a viewpoint."""
        return self.views[viewpoint]

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        """Nothing."""
        return None


class OraclePlace(GraphPlace):
    """Knows the true view from every viewpoint: the Ground-Truth arm."""

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        """The truth, as one sample."""
        views = self.views[list(unseen)][None]
        return Imagined(views, np.ones(views.shape[:2], np.float32))


class DreamPlace(GraphPlace):
    """Asks a world model what unseen viewpoints look like, and remembers its answers."""

    def __init__(
        self,
        positions: NDArray[np.float64],
        neighbors: Sequence[Sequence[int]],
        views: Array,
        dream: Dream,
    ) -> None:
        """Hold the arrays of one building, and the model.

        Args:
            positions: see `GraphPlace`.
            neighbors: see `GraphPlace`.
            views: see `GraphPlace`.
            dream: called with this place, the visited viewpoints and the unseen ones. It must
                look at visited viewpoints only.
        """
        super().__init__(positions, neighbors, views)
        self._dream = dream

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        """What the model says."""
        return self._dream(self, visited, unseen)
