"""Small buildings and files for the tests of Room-to-Room."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.indoor.graph import NavigationGraph

DATA = Path(os.environ.get("DECISIVE_DATA", Path(__file__).parents[1] / "../shared/data"))

needs_data = pytest.mark.skipif(
    not (DATA / "r2r").is_dir() or not (DATA / "mp3d_connectivity").is_dir(),
    reason="the Room-to-Room data are absent (set DECISIVE_DATA)",
)


def street(n: int = 6, spacing: float = 2.0) -> NavigationGraph:
    """Viewpoints a, b, c, ... in a line to the east, each joined to the next."""
    return chain(np.column_stack([spacing * np.arange(n), np.zeros(n), np.full(n, 1.5)]))


def horseshoe() -> NavigationGraph:
    """Two corridors 1 m apart with a wall between them, joined at their far end.

    a(0,0) b(4,0) c(8,0) d(8,1) e(4,1) f(0,1): f is 1 m from a as the crow flies, 17 m on foot.
    """
    level = [[0, 0], [4, 0], [8, 0], [8, 1], [4, 1], [0, 1]]
    return chain(np.column_stack([np.array(level, float), np.full(6, 1.5)]))


def chain(positions: np.ndarray) -> NavigationGraph:
    """Viewpoints a, b, c, ... each joined to the next."""
    n = len(positions)
    return joined(positions, list(itertools.pairwise(range(n))))


def joined(positions: np.ndarray, edges: Sequence[tuple[int, int]]) -> NavigationGraph:
    """Viewpoints a, b, c, ... with edges."""
    n = len(positions)
    adjacent = np.zeros((n, n), bool)
    for a, b in edges:
        adjacent[a, b] = adjacent[b, a] = True
    names = [chr(ord("a") + k) for k in range(n)]
    return NavigationGraph("case", names, np.asarray(positions, float), adjacent)


def entry(**changes: Any) -> dict[str, Any]:
    """An entry of a Room-to-Room file."""
    whole = {
        "scan": "case",
        "path_id": 7,
        "path": ["a", "b", "c"],
        "heading": 1.0,
        "distance": 4.0,
        "instructions": ["Go east.", "Walk to the third point.", "Stop at c."],
    }
    return {**whole, **changes}
