"""Views without pixels: which categories of objects are seen in which of the 36 views."""

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.equirectangular import directions
from envs.indoor.graph import NavigationGraph
from envs.indoor.viewing import VIEWS, seen_in

SymbolicViews = NDArray[np.uint8]
"""`(N, 36, 41)`: 1 where a category (mpcat40, column 0 unused) is seen in a view, else 0."""

_UNLABELED = 41
"""An id of the mapping that is none of the 40; here it is void."""


def views_of_objects(
    position: NDArray[np.float64], objects: NDArray[np.float64], categories: Sequence[int]
) -> SymbolicViews:
    """Views of things at known places, all of them in sight.

    Args:
        position: `(3,)` of the camera, metres.
        objects: `(M, 3)` of their middles, metres.
        categories: M ids of mpcat40.

    Returns:
        `(36, 41)`.
    """
    views = np.zeros((VIEWS, len(CATEGORIES)), np.uint8)
    if len(objects):
        east, north, up = (objects - position).T
        seen = seen_in(np.arctan2(east, north), np.arctan2(up, np.hypot(east, north)))
        for row, category in zip(seen, categories, strict=True):
            views[row, category] = 1
    return views


def views_of_panorama(semantic: NDArray[np.uint8], enough: float = 0.005) -> SymbolicViews:
    """Views of what a simulator draws.

    Args:
        semantic: `(H, W)` ids of mpcat40, as in `envs.indoor.simulator.Panorama`.
        enough: part of a view that a category must cover to count as seen.

    Returns:
        `(36, 41)`.
    """
    shares = _view_shares(*semantic.shape)
    ids = semantic.ravel()
    covered = [np.bincount(ids, share, len(CATEGORIES)) for share in shares]
    views = (np.array(covered) >= enough).astype(np.uint8)
    views[:, 0] = 0
    return views


@lru_cache(maxsize=4)
def _view_shares(height: int, width: int) -> NDArray[np.float64]:
    """Which part of each view each pixel of a panorama is, `(36, H W)`."""
    x, y, z = directions(height, width).reshape(-1, 3).T
    level = np.hypot(x, y)  # a row's pixels are the smaller the nearer to a pole
    weights = seen_in(np.arctan2(x, y), np.arctan2(z, level)).T * level
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)


def views_of_lists(
    graph: NavigationGraph, lists: Mapping[str, Any], categories: Mapping[str, int]
) -> SymbolicViews:
    """Views from object lists of REVERIE (Qi et al. 2020), which hold what is within 3 m.

    Args:
        graph: gives the order of the viewpoints.
        lists: `{viewpoint: {object: {"name": str, "visible_pos": [view]}}}`.
        categories: id by name, see `read_categories`.

    Raises:
        ValueError: for lists of another form.
    """
    views = np.zeros((len(graph), VIEWS, len(CATEGORIES)), np.uint8)
    for row, viewpoint in zip(views, graph.viewpoints, strict=True):
        try:
            for thing in lists.get(viewpoint, {}).values():
                category = category_of(thing["name"], categories)
                seen = np.asarray(thing["visible_pos"], np.intp)
                if category and len(seen):
                    if seen.min() < 0 or seen.max() >= VIEWS:
                        raise ValueError(f"views are 0 to {VIEWS - 1}, got {seen.tolist()}")
                    row[seen, category] = 1
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{graph.scan}, viewpoint {viewpoint}: not a list of objects: {error!r}"
            ) from None
    return views


def read_categories(path: Path) -> dict[str, int]:
    """Ids of mpcat40 by name, from Matterport3D's `category_mapping.tsv`, plain or gzipped.

    Raises:
        ValueError: for a file without the columns `raw_category`, `category`, `mpcat40index`.
        FileNotFoundError: where it is not.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = list(csv.DictReader(io.StringIO(content.decode()), delimiter="\t"))
        found: dict[str, int] = {}
        # What annotators wrote comes before what it was merged into, common names before rare ones.
        for column in ("raw_category", "category"):
            for row in rows:
                found.setdefault(row[column], int(row["mpcat40index"]))
    except (KeyError, TypeError, ValueError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no category mapping of Matterport3D: {error!r}") from None
    if not found or not all(0 <= value <= _UNLABELED for value in found.values()):
        raise ValueError(f"{path}: ids of mpcat40 must be 0 to {_UNLABELED}")
    return {name: value % _UNLABELED for name, value in found.items()}


def category_of(name: str, categories: Mapping[str, int]) -> int:
    """Category of an object's name.

    REVERIE writes `#` for a space. Where a name is not known, its last word usually says what a
    thing is ("bath cabinet"); where that does not help either, it is among the "objects".

    Args:
        name: as annotated.
        categories: id by name.
    """
    words = name.replace("#", " ").lower().split()
    for start in range(len(words)):
        tail = " ".join(words[start:])
        for candidate in (tail, tail.removesuffix("s")):
            if candidate in categories:
                return categories[candidate]
            if candidate.replace(" ", "_") in ID:
                return ID[candidate.replace(" ", "_")]
    return ID["objects"]
