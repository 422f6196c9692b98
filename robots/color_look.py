"""How a picture looks: colours of its left, middle and right, whatever the light.

Each channel is first brought to one mean, as the grey-world assumption has it (Buchsbaum 1980, "A
spatial processor model for object colour perception"), so that exposure and white balance of the
camera count little; then colours are counted in cubes of a quarter of each channel (Swain and
Ballard 1991, "Color indexing"). The square roots of the shares have length 1, and their dot product
is the Bhattacharyya coefficient of two pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

COLUMNS = 3
"""Of a picture, from left to right, each counted alone."""
LEVELS = 4
"""Of each channel."""
WIDTH = COLUMNS * LEVELS**3
"""Numbers of a look."""
MEAN = 110.0
"""That every channel is brought to."""
_MOST = 96  # Pixels of a side that are counted at most, evenly spaced.


def color_look(picture: NDArray[np.uint8], balanced: bool = True) -> NDArray[np.float32]:
    """The look of a picture.

    Args:
        picture: `(H, W, 3)` uint8 RGB, at least as many columns as `COLUMNS`.
        balanced: whether channels are brought to one mean first.

    Returns:
        `(WIDTH,)` float32 of length 1.

    Raises:
        ValueError: for another kind or shape.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}")
    if picture.shape[0] < 1 or picture.shape[1] < COLUMNS:
        raise ValueError(f"a picture must have {COLUMNS} columns at least, got {picture.shape}")
    small = picture[_rows(picture.shape[0])][:, _rows(picture.shape[1])].astype(np.float64)
    if balanced:
        means = small.reshape(-1, 3).mean(0)
        small = np.minimum(small * (MEAN / np.maximum(means, 1.0)), 255.0)
    cubes = (small * (LEVELS / 256.0)).astype(np.intp) @ (LEVELS**2, LEVELS, 1)
    shares = [
        np.bincount(part.ravel(), minlength=LEVELS**3) / part.size
        for part in np.array_split(cubes, COLUMNS, axis=1)
    ]
    return np.sqrt(np.concatenate(shares) / COLUMNS).astype(np.float32)


def _rows(n: int) -> NDArray[np.intp]:
    """Indices of at most `_MOST` of n rows, evenly."""
    return np.arange(n) if n <= _MOST else ((np.arange(_MOST) + 0.5) * n / _MOST).astype(np.intp)
