"""What a round body on the ground meets among upright boxes: room, rays, steps.

Everything that stops a walker in a procedural house is a rectangle along x and y
(`envs.indoor.house.obstacles`), so distances and rays are exact and need no mesh.
World frame, metres; angles in radians, counterclockwise from +x.
"""

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PARTS = 5
"""A step is looked at in so many parts: a body stops at the end of the last one that is free."""

_SLACK = 1e-6
_LEVEL = 1e-12  # stands for no slope at all, so that nothing is divided by zero


class Ground:
    """A floor with boxes on it."""

    def __init__(self, blocks: Array) -> None:
        """Take the boxes.

        Args:
            blocks: `(N, 4)` x0, y0, x1, y1.

        Raises:
            ValueError: for another shape, or boxes that end before they begin.
        """
        blocks = np.asarray(blocks, float)
        if blocks.ndim != 2 or blocks.shape[1] != 4 or not len(blocks):
            raise ValueError(f"blocks must be (N, 4) with N at least 1, got {blocks.shape}")
        if not (blocks[:, :2] <= blocks[:, 2:]).all():
            raise ValueError("each block must be x0, y0, x1, y1 with x0 <= x1 and y0 <= y1")
        self.low, self.high = blocks[:, :2].copy(), blocks[:, 2:].copy()

    def clearance(self, points: Array) -> Array:
        """Distance from each of `(N, 2)` points to the nearest box, 0 inside; `(N,)`."""
        away = np.maximum(self.low - points[:, None], points[:, None] - self.high)
        np.maximum(away, 0.0, out=away)
        return cast(Array, np.sqrt(np.einsum("nki,nki->nk", away, away).min(axis=1)))

    def rays(self, xy: Array, angles: Array, reach: float) -> Array:
        """How far one sees from a point.

        Args:
            xy: `(2,)`, outside every box.
            angles: `(K,)` directions.
            reach: nothing farther is seen.

        Returns:
            `(K,)` distances to the first box, at most `reach`.
        """
        slopes = np.stack((np.cos(angles), np.sin(angles)))[:, :, None]
        per_metre = 1.0 / np.where(np.abs(slopes) < _LEVEL, _LEVEL, slopes)
        low, high = self.low - xy, self.high - xy
        # Boxes beyond reach along an axis cannot be hit.
        near = ((low < reach) & (high > -reach)).all(axis=1)
        # (2, K, N): where each ray passes the two sides of each box along each axis.
        one, other = per_metre * low[near].T[:, None], per_metre * high[near].T[:, None]
        begin = np.minimum(one, other).max(axis=0)
        end = np.maximum(one, other).min(axis=0)
        hit = (begin <= end) & (end > 0.0)
        return cast(Array, np.where(hit, begin, reach).min(axis=1, initial=reach).clip(0.0))

    def walk(self, xy: Array, angle: float, length: float, radius: float) -> tuple[Array, bool]:
        """Move a round body straight ahead until something stops it; it never slides.

        Args:
            xy: `(2,)`, where its middle is.
            angle: direction.
            length: how far to go, at most `PARTS * radius`, lest it jump over a thin box.
            radius: of the body.

        Returns:
            Where its middle is then, and whether it was stopped.
        """
        step = np.array([math.cos(angle), math.sin(angle)]) * length
        way = xy + np.arange(1, PARTS + 1)[:, None] / PARTS * step
        blocked = np.flatnonzero(self.clearance(way) < radius - _SLACK)
        if not len(blocked):
            return way[-1], False
        return (way[blocked[0] - 1] if blocked[0] else xy.copy()), True
