"""What rendered pictures with instance masks share: what they hold, and ids made into instances."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.clutter_bodies import SPLITS, Split

SIZES = (64, 512)
"""Least and greatest side of a picture, pixels."""


@dataclass(frozen=True)
class InstancePicture:
    """A picture and what it shows.

    Attributes:
        image: `(H, W, 3)` uint8 RGB.
        ids: `(H, W)` uint8: 0 where there is no instance, else 1 + its index.
        classes: `(n,)` int64.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint8]
    classes: NDArray[np.int64]


def check_pictures(size: int, split: str, seed: int, min_share: float) -> None:
    """Refuse what no picture here can be.

    Raises:
        ValueError: one line.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must be {SIZES[0]} to {SIZES[1]} pixels, got {size}")
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    if not 0.0 < min_share < 0.1:
        raise ValueError(f"min_share must be in (0, 0.1), got {min_share}")


def picture_rng(stream: int, split: Split, seed: int, *key: int) -> np.random.Generator:
    """A generator of a split's own.

    Args:
        stream: first spawn key, of one kind of pictures.
        split: as of the configuration.
        seed: as of the configuration.
        key: the picture, and the attempt at it.

    Raises:
        ValueError: for a negative picture.
    """
    if min(key) < 0:
        raise ValueError(f"a picture's number must not be negative, got {min(key)}")
    spawn = (stream, SPLITS.index(split), *key)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=spawn))


def halved_ids(seen: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of a picture drawn at twice its size: what fills most of each pixel's four parts.

    Between the table and a thing that fill two each, it is the thing; between two things, the one
    with the smaller id.

    Args:
        seen: `(2 H, 2 W)` ids of bodies; below 1 is table.

    Returns:
        `(H, W)`, 0 for the table.
    """
    height, width = seen.shape
    squares = np.maximum(seen, 0).reshape(height // 2, 2, width // 2, 2)
    parts = squares.transpose(1, 3, 0, 2).reshape(4, -1)
    ids = parts[0].copy()
    mixed = (parts != ids).any(0)
    parts = parts[:, mixed]
    counts = (parts[:, None] == parts).sum(1)
    # Most parts first, then things before the table, then the smaller id.
    step = int(parts.max(initial=0)) + 1
    rank = (2 * counts + (parts > 0)) * step - parts
    ids[mixed] = np.take_along_axis(parts, rank.argmax(0)[None], 0)[0]
    return ids.reshape(height // 2, width // 2)


def instances(
    seen: NDArray[np.int64], classes: Mapping[int, int], min_share: float
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Instances of a picture of ids of bodies.

    Args:
        seen: `(H, W)` ids of bodies; -1 for none.
        classes: class of each body that is an instance where it is seen.
        min_share: of the picture, that an instance fills. What shows less is none, and its pixels
            belong to none.

    Returns:
        `(H, W)` uint8, 0 or 1 + index, and `(n,)` classes, in the order of `classes`.
    """
    bodies = np.maximum(seen, 0)
    pixels = np.bincount(bodies.ravel(), minlength=max(classes, default=0) + 1)
    least = max(1.0, min_share * seen.size)
    found = [body for body in classes if pixels[body] >= least]
    numbers = np.zeros(len(pixels), np.uint8)
    numbers[found] = np.arange(1, len(found) + 1)
    return numbers[bodies], np.array([classes[body] for body in found], np.int64)
