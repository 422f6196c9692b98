"""Features of a view, heading by heading, from a panorama that was seen or predicted.

Panoramas are equirectangular: the middle column looks along +x, columns to the left lie towards +y,
the top row looks up (the frames of this project's simulators and world models).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from agents.vln.places import HEADINGS, Array

HALF_SHARE = 0.02
"""Share of a heading that a class covers where its feature is 1/2."""
_FARTHEST = 10.0


def n_features(n_classes: int) -> int:
    """Features of a heading: one of each class, how far one sees, and how much is known."""
    return n_classes + 2


def view_features(
    classes: NDArray[np.integer] | NDArray[np.floating],
    depth: NDArray[np.floating],
    n_classes: int,
    valid: NDArray[np.bool_] | None = None,
) -> Array:
    """What a panorama shows in each of the 12 headings.

    Args:
        classes: ids `(H, W)`, or probabilities `(n_classes, H, W)`.
        depth: `(H, W)` metres; 0 where there is none.
        n_classes: ids are below it.
        valid: `(H, W)`: pixels that are known; others of ids count for no class. With
            probabilities all pixels count, and this tells how much was seen. All, if None.

    Returns:
        `(12, n_classes + 2)`: for each class `s / (s + HALF_SHARE)` of its share s of the solid
        angle, then the mean depth over 10 m, then the share of valid pixels.

    Raises:
        ValueError: for shapes or ids that do not fit.
    """
    height, width = depth.shape
    seen = np.ones((height, width), bool) if valid is None else np.asarray(valid, bool)
    if classes.shape[-2:] != depth.shape or seen.shape != depth.shape:
        raise ValueError(
            f"classes, depth and valid must agree, got {classes.shape}, {depth.shape}, {seen.shape}"
        )
    rows, columns = _weights(height, width)
    if classes.ndim == 3:
        if len(classes) != n_classes:
            raise ValueError(f"probabilities must be of {n_classes} classes, got {len(classes)}")
        shares = np.einsum("khw,h->kw", classes, rows, optimize=True)
    else:
        if classes.size and int(classes.max()) >= n_classes:
            raise ValueError(f"ids must be below {n_classes}, got {int(classes.max())}")
        shares = np.zeros((n_classes, width), np.float32)
        number = np.arange(width)
        ids = np.where(seen, classes.astype(np.int64), -1)
        for row, weight in zip(ids, rows, strict=True):
            known = row >= 0
            shares[row[known], number[known]] += weight
    shares = shares @ columns
    far = (rows @ np.minimum(depth, _FARTHEST)) @ columns / _FARTHEST
    known_share = (rows @ seen) @ columns
    features = np.concatenate([shares / (shares + HALF_SHARE), far[None], known_share[None]])
    return np.ascontiguousarray(features.T, np.float32)


@lru_cache(maxsize=8)
def _weights(height: int, width: int) -> tuple[Array, Array]:
    """`(H,)` shares of a column's solid angle, and `(W, 12)` shares of a heading's columns."""
    edges = np.sin(0.5 * math.pi - math.pi * np.arange(height + 1) / height)
    rows = (edges[:-1] - edges[1:]) / 2
    # Heading k looks along the azimuth pi / 2 - k pi / 6: where it ends, in columns.
    middles = 0.5 - (0.5 * math.pi - 2 * math.pi * np.arange(HEADINGS) / HEADINGS) / math.tau
    half = 0.5 / HEADINGS
    left = np.arange(width)[:, None] / width
    columns = np.zeros((width, HEADINGS))
    for turn in (-1, 0, 1):
        low, high = middles - half + turn, middles + half + turn
        columns += np.clip(np.minimum(left + 1 / width, high) - np.maximum(left, low), 0, None)
    return rows.astype(np.float32), (columns / columns.sum(0)).astype(np.float32)
