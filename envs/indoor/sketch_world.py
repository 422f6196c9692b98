"""A small world that needs no data and no licence: sketches of houses, with what is seen in them.

Synthetic throughout. A sketch is a grid of cells joined by openings, a viewpoint in each and a few
objects around it. There are no pixels; views are symbolic. Instructions are put together from
turns and from objects on the way, in English.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.graph import NavigationGraph
from envs.indoor.r2r_data import Instruction
from envs.indoor.simulator import Simulator
from envs.indoor.symbolic import SymbolicViews, views_of_objects

ROWS, COLUMNS = 4, 5
CELL = 2.3
"""Metres between cells; edges of Matterport3D's graphs are 2.27 m long on average."""
CAMERA_HEIGHT = 1.5
SIGHT = 3.0
"""Objects are seen from so far, metres, as in REVERIE."""
PATHS = 8
"""Of each sketch in a split."""

_SCANS = {"train": 24, "val_unseen": 8}
_HEIGHTS = {"lighting": 2.3, "picture": 1.6, "mirror": 1.5, "tv_monitor": 1.2, "plant": 0.6}
_THINGS = tuple(
    ID[name]
    for name in (
        "chair", "table", "picture", "cabinet", "sofa", "bed", "chest_of_drawers", "plant", "sink",
        "toilet", "stool", "mirror", "tv_monitor", "bathtub", "counter", "fireplace", "lighting",
        "shelving", "gym_equipment", "appliances",
    )
)  # fmt: skip


class SketchWorld:
    """Splits `train`, `val_seen` (other paths in the same sketches) and `val_unseen`."""

    splits = ("train", "val_seen", "val_unseen")

    def instructions(self, split: str) -> Sequence[Instruction]:
        """Instructions of a split.

        Raises:
            ValueError: for an unknown split.
        """
        if split not in self.splits:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(self.splits)}")
        return _instructions(split)

    def graph(self, scan: str) -> NavigationGraph:
        """Graph of a sketch.

        Raises:
            ValueError: for an unknown one.
        """
        return _sketch(scan)[0]

    def symbolic_views(self, scan: str) -> SymbolicViews:
        """Categories seen from each viewpoint: what is near, in its own cell or the next."""
        return _views(scan)

    def simulator(self, scan: str) -> Simulator:
        """There is none."""
        raise ValueError("sketches have no pixels; use views=symbolic, or another world")


Sketch = tuple[NavigationGraph, NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]
"""Graph, positions of objects `(M, 3)`, their categories and their cells."""


@lru_cache(maxsize=64)
def _sketch(scan: str) -> Sketch:
    kind, _, number = scan.removeprefix("sketch_").rpartition("_")
    if kind not in _SCANS or scan not in _scans(kind):
        known = f"{_scans('train')[0]} to {_scans('val_unseen')[-1]}"
        raise ValueError(f"unknown scan {scan!r}; known: {known}")
    rng = np.random.default_rng((tuple(_SCANS).index(kind), int(number)))
    n = ROWS * COLUMNS
    row, column = np.divmod(np.arange(n), COLUMNS)
    level = CELL * np.stack([column, row], axis=1) + rng.uniform(-0.4, 0.4, (n, 2))
    positions = np.column_stack([level, np.full(n, CAMERA_HEIGHT)])
    graph = NavigationGraph(
        scan, [f"{scan}_{k:02d}" for k in range(n)], positions, _openings(rng, row, column)
    )
    cells = np.repeat(np.arange(n), rng.integers(1, 4, n))
    categories = rng.choice(_THINGS, len(cells))
    angle = rng.uniform(0.0, 2.0 * math.pi, len(cells))
    height = [_HEIGHTS.get(CATEGORIES[c], 0.5) for c in categories]
    around = level[cells] + np.column_stack([np.cos(angle), np.sin(angle)])
    return graph, np.column_stack([around, height]), categories, cells


@lru_cache(maxsize=64)
def _views(scan: str) -> SymbolicViews:
    graph, objects, categories, cells = _sketch(scan)
    views = []
    for here, position in enumerate(graph.positions):
        away = np.linalg.norm(objects - position, axis=1)
        open_to = (cells == here) | np.isin(cells, graph.neighbors[here])
        seen = np.flatnonzero(open_to & (away <= SIGHT))
        views.append(views_of_objects(position, objects[seen], categories[seen].tolist()))
    return np.array(views)


def _scans(kind: str) -> list[str]:
    return [f"sketch_{kind}_{k:02d}" for k in range(_SCANS[kind])]


def _openings(
    rng: np.random.Generator, row: NDArray[np.intp], column: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """A random tree over the cells, and a third of the openings that it leaves out."""
    n = len(row)
    near = [(a, b) for a, b in itertools.combinations(range(n), 2)
            if abs(row[a] - row[b]) + abs(column[a] - column[b]) == 1]  # fmt: skip
    adjacent = np.zeros((n, n), bool)
    part = list(range(n))
    for k in rng.permutation(len(near)).tolist():
        a, b = near[k]
        if part[a] != part[b] or rng.random() < 1 / 3:
            adjacent[a, b] = adjacent[b, a] = True
            part = [part[b] if p == part[a] else p for p in part]
    return adjacent


@lru_cache(maxsize=4)
def _instructions(split: str) -> tuple[Instruction, ...]:
    found: list[Instruction] = []
    kind = "train" if split == "val_seen" else split
    for number, scan in enumerate(_scans(kind)):
        sketch = _sketch(scan)
        graph = sketch[0]
        rng = np.random.default_rng((2 + SketchWorld.splits.index(split), number))
        # Room-to-Room's paths are shortest ways of four to six edges, of at least 5 m.
        ends = [
            (graph.viewpoints[a], graph.viewpoints[b])
            for a, b in np.argwhere(graph.distances >= 5.0)
            if 5 <= len(graph.shortest_path(graph.viewpoints[a], graph.viewpoints[b])) <= 7
        ]
        # Two halves, so that no path of val_seen is one of train.
        ends = ends[split == "val_seen" :: 2] if kind == "train" else ends
        for k in rng.choice(len(ends), PATHS, replace=False).tolist():
            path = graph.shortest_path(*ends[k])
            path_id = f"{split}-{len(found):03d}"
            heading = float(rng.uniform(0.0, 2.0 * math.pi))
            text = _describe(sketch, path, heading)
            found.append(Instruction(f"{path_id}_0", path_id, scan, path, heading, text))
    return tuple(found)


def _describe(sketch: Sketch, path: Sequence[str], heading: float) -> str:
    graph, _, categories, cells = sketch
    sentences = []
    for before, after in itertools.pairwise(graph.index(name) for name in path):
        east, north, _ = graph.positions[after] - graph.positions[before]
        toward = math.atan2(east, north)
        things = categories[cells == after]
        # The rarest thing says most about where to go.
        rarest = min(things, key=lambda c: (np.sum(categories == c), c))
        landmark = CATEGORIES[int(rarest)].replace("_", " ")
        sentences.append(f"{_turn(toward - heading)} to the {landmark}")
        heading = toward
    return ", then ".join(sentences).capitalize() + ", and stop there."


def _turn(angle: float) -> str:
    """How to go at an angle, positive to the right."""
    angle = (angle + math.pi) % (2.0 * math.pi) - math.pi
    if abs(angle) < math.pi / 6:
        return "go straight on"
    if abs(angle) > 5 * math.pi / 6:
        return "turn around and go"
    side = "right" if angle > 0 else "left"
    return f"turn {side} and go" if abs(angle) > math.pi / 3 else f"bear {side}"
