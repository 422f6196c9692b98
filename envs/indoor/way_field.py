"""How dear the way to a target is from every place around, on a grid of cells.

A field is the least cost of walking to its target: metres, dearer near furniture and walls. Going
downhill in it is a good way from anywhere, so that whoever was pushed aside finds back.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.indoor.ground import Ground

Array = NDArray[np.float64]

CELL = 0.05
"""Size of a cell in metres."""
ROOMY = 0.45
"""Metres of clearance from which on a way costs its length and no more."""
CRAMPED = 4.0
"""What the closest squeeze costs a metre beyond its length."""

_NEIGHBORS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a floor in cells.

    Attributes:
        low: x and y of the middle of the first cell.
        clearance: `(X, Y)` of the middle of each cell, metres; ends at `ROOMY`.
        price: `(X, Y)` cost of a metre in each cell, infinite where the body cannot be.
    """

    low: Array
    clearance: Array
    price: Array

    def points(self) -> Array:
        """`(X, Y, 2)` middles of the cells."""
        cells = np.stack(np.meshgrid(*map(np.arange, self.price.shape), indexing="ij"), axis=-1)
        return self.low + CELL * cells

    def cell(self, xy: Array) -> tuple[int, int]:
        """Cell of a point, the nearest one where it is outside."""
        i, j = np.rint((xy - self.low) / CELL).astype(int).clip(0, np.array(self.price.shape) - 1)
        return int(i), int(j)

    def part(self, low: Array, high: Array) -> tuple[slice, slice]:
        """Cells between two corners."""
        i, j = self.cell(low)
        k, m = self.cell(high)
        return slice(i, k + 1), slice(j, m + 1)


def open_window(ground: Ground, low: Array, high: Array, radius: float) -> Window:
    """Look at the part of a floor between two corners.

    Args:
        ground: the floor.
        low: its lower corner.
        high: its upper corner.
        radius: of the body.
    """
    low = np.floor(low / CELL) * CELL
    shape = np.maximum(np.ceil((high - low) / CELL).astype(int) + 1, 3)
    clearance = np.full(shape, ROOMY)
    xs, ys = (low[k] + CELL * np.arange(shape[k]) for k in (0, 1))
    for block_low, block_high in zip(ground.low, ground.high, strict=True):
        # Only cells nearer than ROOMY to a box can know of it.
        i = slice(*np.searchsorted(xs, (block_low[0] - ROOMY, block_high[0] + ROOMY)))
        j = slice(*np.searchsorted(ys, (block_low[1] - ROOMY, block_high[1] + ROOMY)))
        dx = np.maximum(np.maximum(block_low[0] - xs[i], xs[i] - block_high[0]), 0.0)
        dy = np.maximum(np.maximum(block_low[1] - ys[j], ys[j] - block_high[1]), 0.0)
        np.minimum(clearance[i, j], np.hypot(dx[:, None], dy), out=clearance[i, j])
    tight = (ROOMY - clearance) / (ROOMY - radius)
    price = np.where(clearance < radius, math.inf, 1.0 + CRAMPED * tight**2)
    return Window(low, clearance, price)


def cost_to_go(price: Array, seeds: Array) -> Array:
    """Least cost of walking from each cell to where the seeds are.

    Args:
        price: `(X, Y)` cost of a metre.
        seeds: `(X, Y)` cost of ending in each cell; infinite where one may not end.

    Returns:
        `(X, Y)`; infinite where there is no way.
    """
    cost = np.pad(seeds, 1, constant_values=math.inf)
    cost[1:-1, 1:-1][np.isinf(price)] = math.inf
    x, y = price.shape
    inner = cost[1:-1, 1:-1]
    ways = []
    padded = np.pad(price, 1, constant_values=math.inf)
    for i, j in _NEIGHBORS:
        mean = 0.5 * (price + padded[1 + i : 1 + i + x, 1 + j : 1 + j + y])
        there = cost[1 + i : 1 + i + x, 1 + j : 1 + j + y]
        ways.append((there, CELL * math.hypot(i, j) * mean))
    while True:
        before = inner.copy()
        for there, length in ways:
            np.minimum(inner, there + length, out=inner)
        if np.array_equal(before, inner):
            return before


def downhill(cost: Array, start: tuple[int, int], count: int) -> list[tuple[int, int]]:
    """Cells of the cheapest way, at most `count` of them, without the start.

    From where there is no way it first leads to the cheapest cell within two of the start.
    """
    x, y = cost.shape
    here, found = start, list[tuple[int, int]]()
    while len(found) < count:
        span = 1 if np.isfinite(cost[here]) else 2
        around = [
            (i, j)
            for i in range(max(0, here[0] - span), min(x, here[0] + span + 1))
            for j in range(max(0, here[1] - span), min(y, here[1] + span + 1))
        ]
        best = min(around, key=lambda cell: float(cost[cell]))
        if best == here or not np.isfinite(cost[best]):
            break
        here = best
        found.append(here)
    return found
