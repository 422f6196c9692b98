"""A box that the tip of an arm must not leave, checked along the ways of its joints. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robots.kinematics import Chain

Array = NDArray[np.float64]

MOST = 20_000
"""Points looked at on one way; a longer one is no way that an arm goes between two commands."""
PART = 512


@dataclass(frozen=True)
class TipBox:
    """Where the tip may be.

    Between two points that are looked at, the tip is less than half of `resolution` away from one
    of them: what passes leaves the box by no more than that.

    Attributes:
        chain: the arm; its joints are the axes of the commands, in order.
        low: `(3,)` least x, y, z in the base's frame, metres.
        high: `(3,)` greatest.
        resolution: greatest way of the tip between two points, metres.
    """

    chain: Chain
    low: tuple[float, ...]
    high: tuple[float, ...]
    resolution: float = 0.002

    def __post_init__(self) -> None:
        """Refuse a box that holds nothing."""
        if len(self.low) != 3 or len(self.high) != 3:
            raise ValueError(
                f"a box has 3 least and 3 greatest coordinates, got {self.low} and {self.high}"
            )
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"a box needs low < high, got {self.low} and {self.high}")
        if not 0 < self.resolution < math.inf:
            raise ValueError(f"resolution must be positive, got {self.resolution}")

    def is_left(self, start: Array, end: Array) -> bool:
        """Whether the tip is outside at the end of a way, or before.

        Where it starts does not count: that has passed already.

        Args:
            start: `(n,)` joints, rad or m.
            end: `(n,)`; between them every joint moves evenly.
        """
        way = np.abs(np.asarray(end) - start)
        turns = self.chain.turns
        # How far the tip comes at most, for any joints whatever.
        longest = self.chain.reach * float(way[turns].sum()) + float(way[~turns].sum())
        if not longest < MOST * self.resolution:
            return True
        n = max(math.ceil(longest / self.resolution), 1)
        shares = np.arange(1, n + 1) / n
        for first in range(0, n, PART):
            part = shares[first : first + PART, None]
            tips = self.chain.forward(start + part * (end - start))[:, :3, 3]
            if not ((tips >= self.low) & (tips <= self.high)).all():
                return True
        return False
