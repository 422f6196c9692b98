"""Navigation graphs, in the JSON format of Matterport3DSimulator's `connectivity/`."""

import gzip
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class NavigationGraph:
    """Viewpoints of one scan and the straight ways between them.

    Only viewpoints that are "included" are in it, as in Room-to-Room. An edge needs both ends to
    agree, and is as long as the straight line (metres).
    """

    def __init__(
        self,
        scan: str,
        viewpoints: Sequence[str],
        positions: Array,
        adjacent: NDArray[np.bool_],
        heights: Array | None = None,
    ) -> None:
        """Build the graph and its shortest ways.

        Args:
            scan: name of the building.
            viewpoints: N distinct names.
            positions: `(N, 3)` of the camera, world frame, metres.
            adjacent: `(N, N)`, symmetric, False on the diagonal.
            heights: `(N,)` of the camera above the floor, metres; 1.5 where it is not known.

        Raises:
            ValueError: where these do not agree.
        """
        n = len(viewpoints)
        positions, adjacent = np.asarray(positions, float), np.asarray(adjacent, bool)
        if not n or len(set(viewpoints)) != n:
            raise ValueError(f"{scan}: needs distinct viewpoints, got {n}")
        if positions.shape != (n, 3) or adjacent.shape != (n, n):
            raise ValueError(
                f"{scan}: {n} viewpoints need positions ({n}, 3) and adjacent ({n}, {n}), got "
                f"{positions.shape} and {adjacent.shape}"
            )
        if not np.isfinite(positions).all():
            raise ValueError(f"{scan}: positions must be finite")
        if (adjacent != adjacent.T).any() or adjacent.diagonal().any():
            raise ValueError(f"{scan}: adjacent must be symmetric, without a viewpoint of its own")
        self.scan = scan
        self.viewpoints = tuple(viewpoints)
        self.positions = positions
        self.adjacent = adjacent
        self.heights = np.full(n, 1.5) if heights is None else np.asarray(heights, float)
        self._index = {name: index for index, name in enumerate(self.viewpoints)}
        lengths = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        self.distances, self._next = _shortest_ways(np.where(adjacent, lengths, math.inf))
        self.neighbors = tuple(tuple(np.flatnonzero(row).tolist()) for row in adjacent)
        """Indices of the viewpoints next to each."""

    def __len__(self) -> int:
        """Number of viewpoints."""
        return len(self.viewpoints)

    def index(self, viewpoint: str) -> int:
        """Index of a viewpoint.

        Raises:
            ValueError: for an unknown one.
        """
        if viewpoint not in self._index:
            raise ValueError(f"{self.scan} has no viewpoint {viewpoint!r} (it has {len(self)})")
        return self._index[viewpoint]

    def distance(self, start: str, goal: str) -> float:
        """Length of the shortest way in metres; infinite where there is none."""
        return float(self.distances[self.index(start), self.index(goal)])

    def shortest_path(self, start: str, goal: str) -> tuple[str, ...]:
        """Viewpoints of a shortest way, both ends included.

        Raises:
            ValueError: where there is none.
        """
        at, end = self.index(start), self.index(goal)
        if math.isinf(self.distances[at, end]):
            raise ValueError(f"{self.scan}: there is no way from {start} to {goal}")
        way = [at]
        while at != end:
            at = int(self._next[at, end])
            way.append(at)
        return tuple(self.viewpoints[i] for i in way)

    def length(self, path: Sequence[str]) -> float:
        """Length of a walk along edges, in metres.

        Raises:
            ValueError: where two successive viewpoints are neither the same nor neighbours.
        """
        total = 0.0
        for before, after in itertools.pairwise(path):
            i, j = self.index(before), self.index(after)
            if i != j and not self.adjacent[i, j]:
                raise ValueError(f"{self.scan}: no way leads straight from {before} to {after}")
            total += float(self.distances[i, j])
        return total

    @classmethod
    def from_connectivity(cls, scan: str, entries: Any) -> "NavigationGraph":
        """Read the list of viewpoints that a `<scan>_connectivity.json` holds.

        Raises:
            ValueError: for what is not such a list.
        """
        try:
            kept = [k for k, entry in enumerate(entries) if entry["included"]]
            poses = [np.array(entries[k]["pose"], float).reshape(4, 4) for k in kept]
            flags = np.array([_flags(entry["unobstructed"], len(entries)) for entry in entries])
            names = [str(entries[k]["image_id"]) for k in kept]
            heights = np.array([float(entries[k]["height"]) for k in kept])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{scan}: not a connectivity list: {error!r}") from None
        adjacent = flags[np.ix_(kept, kept)] if kept else np.zeros((0, 0), bool)
        np.fill_diagonal(adjacent, False)
        positions = np.array([pose[:3, 3] for pose in poses]).reshape(-1, 3)
        return cls(scan, names, positions, adjacent & adjacent.T, heights)

    def connectivity(self) -> list[dict[str, Any]]:
        """The list for a `<scan>_connectivity.json`; cameras face +y, as `heading` 0 does."""
        entries = []
        for name, position, row, height in zip(
            self.viewpoints, self.positions, self.adjacent, self.heights, strict=True
        ):
            pose = np.eye(4)
            # Matterport's cameras look along their own -z, with y up.
            pose[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
            pose[:3, 3] = position
            bits = [bool(flag) for flag in row]
            entries.append(
                {
                    "image_id": name,
                    "pose": [float(value) for value in pose.ravel()],
                    "included": True,
                    "visible": bits,
                    "unobstructed": bits,
                    "height": float(height),
                }
            )
        return entries


def load_graphs(path: Path) -> dict[str, NavigationGraph]:
    """Graphs by scan.

    Args:
        path: a folder of `<scan>_connectivity.json`, one such file, or a JSON object
            `{scan: list}`, plain or gzipped.

    Raises:
        ValueError: for what cannot be read.
        FileNotFoundError: where nothing is.
    """
    if path.is_dir():
        files = sorted(path.glob("*_connectivity.json"))
        if not files:
            raise FileNotFoundError(f"{path} holds no *_connectivity.json")
        return {scan: graph for file in files for scan, graph in load_graphs(file).items()}
    content = read_json(path)
    if isinstance(content, list):
        scan = path.name.split("_connectivity")[0]
        return {scan: NavigationGraph.from_connectivity(scan, content)}
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must hold a list or an object, got {type(content).__name__}")
    return {
        scan: NavigationGraph.from_connectivity(scan, entries) for scan, entries in content.items()
    }


def read_json(path: Path) -> Any:
    """Content of a JSON file, plain or gzipped.

    Raises:
        ValueError: for one that is not JSON.
        FileNotFoundError: where it is not.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _flags(value: Any, count: int) -> NDArray[np.bool_]:
    """A row of flags: Matterport3DSimulator's list of booleans, or a string of 0 and 1."""
    row = np.array([bit in (True, "1") for bit in value], bool)
    if row.shape != (count,):
        raise ValueError(f"{len(row)} flags for {count} viewpoints")
    return row


def _shortest_ways(lengths: Array) -> tuple[Array, NDArray[np.intp]]:
    """All shortest distances, and the first step of each way (Floyd and Warshall)."""
    distances = lengths.copy()
    np.fill_diagonal(distances, 0.0)
    first = np.broadcast_to(np.arange(len(lengths)), lengths.shape).copy()
    for via in range(len(lengths)):
        through = distances[:, via, None] + distances[via]
        shorter = through < distances
        distances[shorter] = through[shorter]
        first = np.where(shorter, first[:, via, None], first)
    return distances, first
