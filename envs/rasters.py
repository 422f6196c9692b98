"""Shapes drawn on a grid of cells: a cell is covered if its middle is.

Row 0 is the greatest y (the north), column 0 the least x; distances in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Raster:
    """A grid on the floor or on a table.

    Attributes:
        left: least x of the first column, metres.
        top: greatest y of the first row, metres.
        cell: side of a cell, metres.
        rows: number of rows.
        columns: number of columns.
    """

    left: float
    top: float
    cell: float
    rows: int
    columns: int

    def __post_init__(self) -> None:
        """Refuse an empty grid."""
        if not (np.isfinite((self.left, self.top)).all() and 0 < self.cell < np.inf):
            raise ValueError("a raster needs a finite corner and a cell above 0")
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"a raster needs cells, got {self.rows} x {self.columns}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def empty(self) -> Mask:
        """Nothing covered."""
        return np.zeros(self.shape, np.bool_)

    def disc(self, mask: Mask, x: float, y: float, radius: float) -> None:
        """Cover a disc."""
        part, dx, dy = self._near(x, y, radius)
        mask[part] |= dx * dx + dy * dy <= radius * radius

    def square(self, mask: Mask, x: float, y: float, yaw: float, half: ArrayLike) -> None:
        """Cover a rectangle.

        Args:
            mask: changed in place.
            x: of its middle.
            y: of its middle.
            yaw: of its first side, radians.
            half: `(2,)` half its sides.
        """
        a, b = np.broadcast_to(np.asarray(half, np.float64), (2,)).tolist()
        part, dx, dy = self._near(x, y, float(np.hypot(a, b)))
        along = np.cos(yaw) * dx + np.sin(yaw) * dy
        across = np.cos(yaw) * dy - np.sin(yaw) * dx
        mask[part] |= (np.abs(along) <= a) & (np.abs(across) <= b)

    def boxes(self, mask: Mask, boxes: NDArray[np.float64]) -> None:
        """Cover `(N, 4)` x0, y0, x1, y1; at least a cell wide each, so that no wall has holes."""
        for x0, y0, x1, y1 in boxes.tolist():
            wide = [max(0.0, self.cell - (high - low)) / 2 for low, high in ((x0, x1), (y0, y1))]
            first, last = self._span(x0 - wide[0] - self.left, x1 + wide[0] - self.left)
            upper, lower = self._span(self.top - y1 - wide[1], self.top - y0 + wide[1])
            mask[max(upper, 0) : max(lower, 0), max(first, 0) : max(last, 0)] = True

    def _span(self, low: float, high: float) -> tuple[int, int]:
        """Cells whose middles lie between two distances from the corner."""
        return int(np.ceil(low / self.cell - 0.5)), int(np.floor(high / self.cell - 0.5)) + 1

    def _near(
        self, x: float, y: float, reach: float
    ) -> tuple[tuple[slice, slice], NDArray[np.floating], NDArray[np.floating]]:
        """A part of the grid around a point, and how far its middles lie from it in x and y."""
        first, last = self._span(x - reach - self.left, x + reach - self.left)
        upper, lower = self._span(self.top - y - reach, self.top - y + reach)
        rows = np.arange(max(upper, 0), min(max(lower, 0), self.rows))
        columns = np.arange(max(first, 0), min(max(last, 0), self.columns))
        dx = self.left + (columns + 0.5) * self.cell - x
        dy = self.top - (rows + 0.5) * self.cell - y
        part = (
            slice(max(upper, 0), max(upper, 0) + len(rows)),
            slice(max(first, 0), max(first, 0) + len(columns)),
        )
        return part, dx[None, :], dy[:, None]
