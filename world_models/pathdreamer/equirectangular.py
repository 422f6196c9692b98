"""Panoramas as `envs.indoor.equirectangular` has them, in single precision.

World frame, z up, metres. The middle column looks along +x, columns to the left of it towards +y,
the top row up. Panoramas are aligned with the world.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

_WITHIN = 1.0 - 2.0**-22
"""One less two units of the last digit of single precision."""


@lru_cache(maxsize=8)
def rays(height: int, width: int) -> Floats:
    """Unit vectors `(3, height * width)` through the centres of the pixels, row by row; read only.

    Raises:
        ValueError: for a size below one pixel.
    """
    if height < 1 or width < 1:
        raise ValueError(f"a panorama has at least one pixel, got {height} x {width}")
    azimuth = math.pi - 2.0 * math.pi * (np.arange(width) + 0.5) / width
    elevation = 0.5 * math.pi - math.pi * (np.arange(height) + 0.5) / height
    level = np.cos(elevation)[:, None]
    shape = (height, width)
    found = np.stack(
        [
            (level * np.cos(azimuth)).ravel(),
            (level * np.sin(azimuth)).ravel(),
            np.broadcast_to(np.sin(elevation)[:, None], shape).ravel(),
        ]
    ).astype(np.float32)
    found.flags.writeable = False
    return found


def flat_pixels(offsets: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Pixel that sees each point, row times width plus column, and its squared distance.

    By torch: NumPy's arc tangent takes a third of the time where the CPU has AVX-512, but more than
    ten times as long where it has not.

    Args:
        offsets: `(3, N)` float32 metres from the camera; overwritten.
        height: rows of the panorama.
        width: its columns.

    Returns:
        `(N,)` int32 and `(N,)` float32. What is not finite, or is not when squared, is infinitely
        far away, in any pixel.
    """
    x, y, z = offsets
    level = x * x
    level.addcmul_(y, y)
    squared = torch.addcmul(level, z, z)
    if not math.isfinite(float(squared.sum())):
        bad = ~squared.isfinite()
        squared.masked_fill_(bad, math.inf)
        level.masked_fill_(bad, 0.0)
        for row in (x, y, z):  # all at once would start threads
            row.masked_fill_(bad, 0.0)
    away = torch.from_numpy(np.sqrt(level.numpy()))  # torch's starts threads at 2048
    azimuth, elevation = y.atan2_(x), z.atan2_(away)
    middle_row, middle_column = squared.new_tensor((0.5 * height, 0.5 * width))
    # A hair less than the whole circle: -pi stays within the last column and straight down within
    # the last row, and nothing is negative, so that truncation is the floor.
    row = torch.sub(middle_row, elevation, alpha=_WITHIN * height / math.pi).to(torch.int32)
    column = torch.sub(middle_column, azimuth, alpha=_WITHIN * width / (2.0 * math.pi))
    return column.to(torch.int32).add_(row, alpha=width), squared
