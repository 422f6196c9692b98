"""What has been seen so far, as one bounded cloud of points."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learning.atomic import write_file
from world_models.pathdreamer.guidance import Guidance, PanoramaLike, Points, project, unproject

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
        distance = np.linalg.norm(points.positions - position[:, None], axis=0).astype(np.float32)
        # Of each voxel the nearest; lexsort is stable, so of equals the first pixel.
        order = np.lexsort((distance, voxels))
        first = np.ones(len(order), bool)
        first[1:] = voxels[order][1:] != voxels[order][:-1]
        order = order[first]
        before = len(self)
        self._merge(points.take(order), voxels[order], distance[order])
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
        place = np.searchsorted(self._voxels, voxels)
        known = np.zeros(len(voxels), bool)
        inside = place < len(self._voxels)
        known[inside] = self._voxels[place[inside]] == voxels[inside]
        nearer = known.copy()
        nearer[known] = distance[known] < self._seen_from[place[known]]
        old = self.points
        old.positions[:, place[nearer]] = new.positions[:, nearer]
        old.rgb[place[nearer]] = new.rgb[nearer]
        old.semantic[place[nearer]] = new.semantic[nearer]
        self._seen_from[place[nearer]] = distance[nearer]
        fresh = ~known
        at = place[fresh]
        self.points = Points(
            np.insert(old.positions, at, new.positions[:, fresh], axis=1),
            np.insert(old.rgb, at, new.rgb[fresh], axis=0),
            np.insert(old.semantic, at, new.semantic[fresh]),
        )
        self._voxels = np.insert(self._voxels, at, voxels[fresh])
        self._seen_from = np.insert(self._seen_from, at, distance[fresh])

    def _forget(self, position: NDArray[np.float64]) -> None:
        """Drop what is furthest from `position` where there is too much."""
        if len(self) <= self.config.max_points:
            return
        away = np.linalg.norm(self.points.positions - position[:, None], axis=0)
        kept = np.sort(np.argsort(away, kind="stable")[: self.config.max_points])
        self.points = self.points.take(kept)
        self._voxels, self._seen_from = self._voxels[kept], self._seen_from[kept]


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
        np.stack([table["r"], table["g"], table["b"]], axis=1),
        table["c"].copy(),
    )
