"""Occupancy grids to arrays and back: pure functions, no node, no graph; readers trust nothing.

In arrays row 0 is the one farthest from the origin of the message along its y (the north, where it
is not turned), and values are probabilities in [0, 1], NaN unknown. Messages count rows from the
origin on, in percent, -1 unknown.
"""

from __future__ import annotations

import array
import math
from typing import NamedTuple

import numpy as np
from builtin_interfaces.msg import Time
from nav_msgs.msg import MapMetaData, OccupancyGrid
from numpy.typing import NDArray
from std_msgs.msg import Header

MAX_CELLS = 4_000_000
"""Largest grid that is read: 200 x 200 m at 0.1 m."""
UNKNOWN = -1
_NEAR = 1e-6


class Geometry(NamedTuple):
    """Where the cells of a grid are.

    Attributes:
        frame: that the origin is in.
        cell: metres.
        rows: number of rows.
        columns: number of columns.
        pose: x, y, z of the origin and its quaternion xyzw.
    """

    frame: str
    cell: float
    rows: int
    columns: int
    pose: tuple[float, ...]

    def same(self, other: Geometry) -> bool:
        """Whether cells of both are the same places."""
        return (
            (self.frame, self.rows, self.columns) == (other.frame, other.rows, other.columns)
            and math.isclose(self.cell, other.cell, rel_tol=1e-5)
            and all(abs(a - b) < _NEAR for a, b in zip(self.pose, other.pose, strict=True))
        )

    def words(self) -> str:
        """For people."""
        return f"{self.rows} x {self.columns} cells of {self.cell:g} m in {self.frame!r}"


def read_grid(message: OccupancyGrid) -> tuple[NDArray[np.float32], Geometry]:
    """Probabilities of a grid, and where its cells are.

    Raises:
        ValueError: for no or too many cells, data that do not fit, values outside -1 to 100, or a
            geometry that is not finite.
    """
    info = message.info
    rows, columns = int(info.height), int(info.width)
    if not 1 <= rows * columns <= MAX_CELLS:
        raise ValueError(f"a grid must have 1 to {MAX_CELLS} cells, got {rows} x {columns}")
    if len(message.data) != rows * columns:
        raise ValueError(f"{rows} x {columns} cells need as many values, got {len(message.data)}")
    origin = info.origin
    pose = (
        origin.position.x, origin.position.y, origin.position.z,
        origin.orientation.x, origin.orientation.y, origin.orientation.z, origin.orientation.w,
    )  # fmt: skip
    if not all(map(math.isfinite, pose)) or not 0 < info.resolution < math.inf:
        raise ValueError("resolution and origin of a grid must be finite, the first above 0")
    values = np.asarray(message.data, np.int8).reshape(rows, columns)
    if values.min() < UNKNOWN or values.max() > 100:
        raise ValueError(f"values must be -1 to 100, got {values.min()} to {values.max()}")
    found = (values / 100).astype(np.float32)
    found[values == UNKNOWN] = np.nan
    geometry = Geometry(message.header.frame_id, float(info.resolution), rows, columns, pose)
    return np.ascontiguousarray(found[::-1]), geometry


def grid_message(
    probability: NDArray[np.floating], geometry: Geometry, stamp: Time, valid_at: Time
) -> OccupancyGrid:
    """A forecast as a grid.

    Args:
        probability: `(H, W)` in [0, 1], NaN unknown.
        geometry: of the grids it was made from.
        stamp: of the newest of them.
        valid_at: when it will be so; goes into `info.map_load_time`.

    Raises:
        ValueError: if the shape is not the geometry's.
    """
    if probability.shape != (geometry.rows, geometry.columns):
        raise ValueError(f"expected {geometry.words()}, got {probability.shape}")
    percent = np.rint(100 * np.clip(probability, 0, 1))
    values = np.where(np.isnan(percent), UNKNOWN, percent).astype(np.int8)[::-1]
    info = MapMetaData(
        map_load_time=valid_at,
        resolution=geometry.cell,
        width=geometry.columns,
        height=geometry.rows,
    )
    position, turn = info.origin.position, info.origin.orientation
    position.x, position.y, position.z = geometry.pose[:3]
    turn.x, turn.y, turn.z, turn.w = geometry.pose[3:]
    message = OccupancyGrid(header=Header(stamp=stamp, frame_id=geometry.frame), info=info)
    message.data = array.array("b", values.tobytes())
    return message
