"""Panoramas: which way every pixel looks.

World frame: z up, metres; azimuth counter-clockwise from +x as in REP-103. The middle column of a
panorama looks along +x, columns to the left of it towards +y; the top row looks up. Panoramas are
aligned with the world, so turning on the spot is a roll of the columns.

Room-to-Room's headings are another matter: clockwise from +y. `azimuth_of` converts.
"""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def directions(height: int, width: int) -> Array:
    """Unit vectors through the centres of the pixels.

    Args:
        height: rows, from up (first) to down.
        width: columns, from azimuth pi (first) clockwise to -pi.

    Returns:
        `(height, width, 3)` in the world frame.
    """
    azimuth = math.pi - 2.0 * math.pi * (np.arange(width) + 0.5) / width
    elevation = 0.5 * math.pi - math.pi * (np.arange(height) + 0.5) / height
    level = np.cos(elevation)[:, None]
    return np.stack(
        [
            level * np.cos(azimuth),
            level * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation)[:, None], (height, width)),
        ],
        axis=-1,
    )


def pixels(vectors: Array, height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels that see the given directions.

    Args:
        vectors: `(..., 3)` from the camera, of any length but zero.
        height: rows of the panorama.
        width: its columns.

    Returns:
        Row and column, each `(...)`.
    """
    x, y, z = np.moveaxis(np.asarray(vectors, np.float64), -1, 0)
    azimuth, elevation = np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))
    column = np.floor((math.pi - azimuth) * (width / (2.0 * math.pi))).astype(np.intp) % width
    row = np.floor((0.5 * math.pi - elevation) * (height / math.pi)).astype(np.intp)
    return np.clip(row, 0, height - 1), column


def azimuth_of(heading: float) -> float:
    """Azimuth (counter-clockwise from +x) in [-pi, pi) of a heading (clockwise from +y)."""
    return (0.5 * math.pi - heading + math.pi) % (2.0 * math.pi) - math.pi


def heading_of(azimuth: float) -> float:
    """Heading (clockwise from +y) in [0, 2 pi) of an azimuth (counter-clockwise from +x)."""
    return (0.5 * math.pi - azimuth) % (2.0 * math.pi)
