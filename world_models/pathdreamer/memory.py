"""What has been seen so far, as one bounded cloud of points."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from learning.atomic import write_file
from world_models.pathdreamer.guidance import (
    Guidance,
    PanoramaLike,
    Points,
    as_bytes,
    as_numbers,
    project,
    unproject,
)

_T = TypeVar("_T", bound=np.generic)
_BITS = 21
_HALF = 1 << (_BITS - 1)
_VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("r", "u1"), ("g", "u1"), ("b", "u1"), ("c", "u1")]
)
_LAYOUT = (
    "property float x\nproperty float y\nproperty float z\n"
    "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar class\n"
    "end_header\n"
)


@dataclass(frozen=True)
class MemoryConfig:
    """How much is kept.

    Attributes:
        voxel: edge in metres of the cubes of which each keeps one point.
        max_points: how many points are kept at most.
    """

    voxel: float = 0.02
    max_points: int = 2_000_000

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: for a value out of range.
        """
        if not 1e-4 <= self.voxel <= 10.0:
            raise ValueError(f"voxel must be in [0.0001, 10] m, got {self.voxel}")
        if not 1 <= self.max_points < 2**32:
            raise ValueError(f"max_points must be in [1, 2**32), got {self.max_points}")


class PointMemory:
    """Points of all panoramas that were added, at most one a voxel.

    A voxel keeps the point that was seen from nearest, whole: channels of several points are never
    mixed. Beyond `max_points` those furthest from where one stood last are forgotten. (The public
    release keeps two clouds that grow for ever.)
    """

    def __init__(self, config: MemoryConfig | None = None) -> None:
        """Start with nothing."""
        self.config = config or MemoryConfig()
        self.points = Points.none()
        """What is kept, in the order of the voxels."""
        self._voxels = np.zeros(0, np.int64)
        self._seen_from = np.zeros(0, np.float32)

    def __len__(self) -> int:
        """Number of points."""
        return len(self.points)

    def add(self, seen: PanoramaLike, mask: NDArray[np.bool_] | None = None) -> int:
        """Remember a panorama.

        Args:
            seen: what was seen, and from where.
            mask: `(H, W)`: only these pixels, such as those that a model has filled.

        Returns:
            How many points are new.

        Raises:
            ValueError: for a panorama that `unproject` refuses, or further from the origin than
                the voxels can count (2**20 of them).
        """
        points = unproject(seen, mask)
        cells = np.floor(points.positions / self.config.voxel)
        if cells.size and np.abs(cells).max() >= _HALF:
            raise ValueError(f"positions must stay within {_HALF * self.config.voxel:g} m")
        whole = cells.astype(np.int64) + _HALF
        voxels = (whole[0] << (2 * _BITS)) | (whole[1] << _BITS) | whole[2]
        position = np.asarray(seen.position, float)
        distance = _distance(points.positions, position).astype(np.float32)
        chosen = _nearest_of_each(voxels, distance)
        before = len(self)
        self._merge(points.take(chosen), voxels[chosen], distance[chosen])
        added = len(self) - before
        self._forget(position)
        return added

    def guidance(
        self, camera: NDArray[np.floating], size: tuple[int, int], max_depth: float = math.inf
    ) -> Guidance:
        """How the memory looks from `camera`; see `world_models.pathdreamer.reprojection`."""
        return project(self.points, camera, size, max_depth)

    def _merge(self, new: Points, voxels: NDArray[np.int64], distance: NDArray[np.float32]) -> None:
        """Put points of distinct voxels, in their order, among those that are kept."""
        if not len(self):
            self.points, self._voxels, self._seen_from = new, voxels, distance
            return
        place = np.searchsorted(self._voxels, voxels)
        near = np.minimum(place, len(self) - 1)
        known = self._voxels.take(near) == voxels
        nearer = np.flatnonzero(known & (distance < self._seen_from.take(near)))
        where, better, old = place[nearer], new.take(nearer), self.points
        old.positions[:, where] = better.positions
        old.channels[where] = better.channels
        self._seen_from[where] = distance[nearer]
        fresh = np.flatnonzero(~known)
        # Those before move the others on: the numbers of the new among all.
        at = place[fresh] + np.arange(len(fresh))
        added = new.take(fresh)
        channels = _spliced(as_numbers(old.channels), as_numbers(added.channels), at)
        rows = zip(old.positions, added.positions, strict=True)
        self.points = Points(np.stack([_spliced(a, b, at) for a, b in rows]), as_bytes(channels))
        self._voxels = _spliced(self._voxels, voxels[fresh], at)
        self._seen_from = _spliced(self._seen_from, distance[fresh], at)

    def _forget(self, position: NDArray[np.float64]) -> None:
        """Drop what is furthest from `position` where there is too much."""
        if len(self) <= self.config.max_points:
            return
        away = _distance(self.points.positions, position)
        most = self.config.max_points
        limit = np.partition(away, most - 1)[most - 1]
        near = away < limit
        near[np.flatnonzero(away == limit)[: most - int(near.sum())]] = True
        kept = np.flatnonzero(near)
        self.points = self.points.take(kept)
        self._voxels, self._seen_from = self._voxels[kept], self._seen_from[kept]


def _distance(positions: NDArray[np.float32], position: NDArray[np.float64]) -> NDArray[np.float64]:
    """`(N,)` metres, in double precision; row by row, which takes a third of the time of `norm`."""
    squared = np.zeros(positions.shape[1])
    for row, value in zip(positions, position, strict=True):
        offset = row - value
        offset *= offset
        squared += offset
    return np.sqrt(squared, out=squared)


def _nearest_of_each(voxels: NDArray[np.int64], distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Number of the nearest point in every voxel, of equals the first, in the order of voxels."""
    order = np.argsort(voxels)
    ordered = voxels[order]
    start = np.flatnonzero(np.diff(ordered, prepend=-1))
    # Distance above, number below: their least is the nearest, of equals the first.
    key = (distance.view(np.uint32).astype(np.int64) << 32)[order] | order
    return np.minimum.reduceat(key, start) & 0xFFFF_FFFF if len(key) else key


def _spliced(old: NDArray[_T], new: NDArray[_T], at: NDArray[np.int64]) -> NDArray[_T]:
    """`(N + M,)`: `new` at the `(M,)` places `at`, which rise, and `old` at the others."""
    both = np.empty(len(old) + len(new), old.dtype)
    others = np.ones(len(both), bool)
    others[at] = False
    both[at] = new
    both[others] = old
    return both


def write_ply(path: Path, points: Points) -> None:
    """Write points as a binary PLY file, which MeshLab, CloudCompare and Open3D read.

    Raises:
        OSError: if the file cannot be written; an older one is untouched.
    """
    table = np.zeros(len(points), _VERTEX)
    table["x"], table["y"], table["z"] = points.positions
    table["r"], table["g"], table["b"] = points.rgb.T
    table["c"] = points.semantic
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{_LAYOUT}"
    write_file(path, header.encode() + table.tobytes())


def read_ply(path: Path) -> Points:
    """Read a file that `write_ply` wrote.

    Raises:
        ValueError: for any other file.
        OSError: where it cannot be read.
    """
    data = path.read_bytes()
    start = "ply\nformat binary_little_endian 1.0\nelement vertex "
    head, mark, body = data.partition(_LAYOUT.encode())
    count = head[len(start) :].decode("ascii", "replace").strip()
    if not mark or not head.startswith(start.encode()) or not count.isdecimal():
        raise ValueError(f"{path} is not a PLY file of coloured, labelled points")
    if len(body) != int(count) * _VERTEX.itemsize:
        raise ValueError(f"{path} should hold {count} points, but has {len(body)} bytes of them")
    table = np.frombuffer(body, _VERTEX)
    return Points(
        np.stack([table["x"], table["y"], table["z"]]),
        np.stack([table[name] for name in "rgbc"], axis=1),
    )
