"""How much of a radar's picture is the one before it: a mosaic may refresh in pieces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learning.grid_sequence import GridSequence


def repeated_shares(sequence: GridSequence) -> NDArray[np.float64]:
    """Of the cells that are wet in either of two consecutive frames, how many did not change.

    Rain moves: nearly all wet cells should differ. A forecast of no change looks good where a
    picture repeats the one before; score such an event at leads beyond the repetition.

    Args:
        sequence: of `T` frames.

    Returns:
        `(T - 1,)` in [0, 1]; NaN where both frames are dry.
    """
    shares = np.full(len(sequence) - 1, np.nan)
    for k in range(len(shares)):
        before, after = sequence.quantity[k], sequence.quantity[k + 1]
        wet = (before > 0) | (after > 0)
        if wet.any():
            shares[k] = float((before[wet] == after[wet]).mean())
    return shares
