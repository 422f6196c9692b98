"""Pictures of what perception tasks say: classes, distances, directions and edges in colours."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from decisive.pictures import Pixels

CLASS_COLORS = np.array(
    [
        (222, 222, 222),
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
        (120, 94, 60),
        (60, 60, 60),
        (150, 220, 180),
        (130, 80, 190),
    ],
    np.uint8,
)
"""The first class, such as the table, pale, then the palette of Okabe and Ito and four more; of
more classes the colours come again, but for the first."""
_TINT = 141  # of 256


def class_colors(classes: NDArray[np.uint8]) -> Pixels:
    """Colours `(..., 3)` of classes of any shape."""
    rest = len(CLASS_COLORS) - 1
    table = CLASS_COLORS[[0, *(1 + k % rest for k in range(255))]]
    return table[classes]


def tile(kind: str, answer: NDArray[Any]) -> Pixels:
    """One answer as a picture `(H, W, 3)`.

    Args:
        kind: of its target, see `perception.multi_task_set.Target`; no numbers.
        answer: `(H, W)` classes, values (white is the least, as near things) or probabilities of a
            mask (black is sure), or `(H, W, 3)` directions (red x, green y, blue z).
    """
    if kind == "classes":
        return class_colors(answer)
    if kind == "directions":
        return np.rint((np.asarray(answer, np.float32) + 1) / 2 * 255).astype(np.uint8)
    if kind == "mask":
        grey = np.rint(255 * (1 - np.asarray(answer, np.float32))).astype(np.uint8)
    else:
        span = max(float(np.ptp(answer)), 1e-6)
        grey = ((answer.max() - answer) / span * 255).astype(np.uint8)
    return grey[..., None].repeat(3, -1)


def class_overlay(image: Pixels, classes: NDArray[np.uint8]) -> Pixels:
    """Colours of classes over an image of any size; the first class is left clear.

    Args:
        image: `(H, W, 3)`.
        classes: `(h, w)`, over the whole of the image.
    """
    height, width = image.shape[:2]
    shown = np.asarray(
        Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST), np.uint8
    )
    # In whole numbers, and only where there is something: 640 x 480 floats took 20 ms.
    there = shown > 0
    drawn = np.array(image)
    below = image[there].astype(np.uint32)
    above = class_colors(shown[there]).astype(np.uint32)
    drawn[there] = ((256 - _TINT) * below + _TINT * above + 128) >> 8
    return drawn
