"""What a forecast must beat: that all stays as it is, and that all goes on as it goes.

Both give a value in [0, 1] or in mm/h for every cell and lead. On maps of what is occupied the
second follows every connected thing by its middle; `spread` softens either with time, so that they
are probabilities and not certain of what they cannot know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from learning.grid_sequence import GridSequence

Floats = NDArray[np.float32]

HISTORY = 6
"""Frames that a velocity is measured over, at most."""
_REACH = 1.5
"""A thing is followed to the nearest middle within so many of its own diameters."""


@dataclass(frozen=True)
class Mover:
    """A connected thing.

    Attributes:
        cells: `(H, W)` where it is in the last frame.
        velocity: `(2,)` rows and columns per second.
    """

    cells: NDArray[np.bool_]
    velocity: NDArray[np.float64]


def persistence(
    sequence: GridSequence, leads: Sequence[float], spread: Sequence[float] | None = None
) -> Floats:
    """The newest frame, for every lead.

    Args:
        sequence: the past.
        leads: seconds.
        spread: cells of blur for each lead (standard deviation); None for none.

    Returns:
        `(L, H, W)`; NaN where the newest frame has no data.
    """
    last = sequence.quantity[-1]
    return np.stack([blurred(last, width) for width in _widths(spread, leads)])


def constant_velocity(
    sequence: GridSequence, leads: Sequence[float], spread: Sequence[float] | None = None
) -> Floats:
    """Every connected thing goes on at the velocity of its last frames; for occupancy.

    Args:
        sequence: the past, of occupancy.
        leads: seconds.
        spread: as of `persistence`.

    Returns:
        `(L, H, W)` in [0, 1]; NaN where the newest frame has no data. A thing that moves a part of
        a cell covers its cells in part. Where things meet, the probability is that of either.
    """
    if sequence.channels[0] != "occupancy":
        raise ValueError(f"things move on maps of occupancy, got {sequence.channels[0]!r}")
    unknown = np.isnan(sequence.quantity[-1])
    things = movers(sequence)
    found = np.empty((len(leads), *sequence.shape), np.float32)
    for place, (lead, width) in enumerate(zip(leads, _widths(spread, leads), strict=True)):
        free = np.ones(sequence.shape, np.float32)
        for thing in things:
            moved = _shifted(thing.cells, thing.velocity * lead)
            free *= 1 - moved
        found[place] = blurred(1 - free, width)
    found[:, unknown] = np.nan
    return found


def movers(sequence: GridSequence) -> list[Mover]:
    """Connected things of the newest frame, and how fast they were over the last ones."""
    frames = np.nan_to_num(sequence.quantity[-HISTORY:]) >= 0.5
    seconds = sequence.seconds[-HISTORY:]
    labels, n = _labelled(frames[-1])
    middles = [_middles(frame) for frame in frames[:-1]]
    found = []
    for k in range(1, n + 1):
        cells = labels == k
        track = [_middle(cells)]
        reach = _REACH * 2 * np.sqrt(cells.sum() / np.pi)
        for earlier in reversed(middles):
            if not len(earlier):
                break
            away = np.linalg.norm(earlier - track[-1], axis=1)
            if away.min() > reach:
                break
            track.append(earlier[int(away.argmin())])
        found.append(Mover(cells, _slope(np.array(track[::-1]), seconds[-len(track) :])))
    return found


def _middles(frame: NDArray[np.bool_]) -> NDArray[np.float64]:
    labels, n = _labelled(frame)
    return np.array([_middle(labels == k) for k in range(1, n + 1)]).reshape(-1, 2)


def _labelled(frame: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Connected things by number, corners touching, and how many there are."""
    found: Any = ndimage.label(frame, np.ones((3, 3)))
    return found


def _middle(cells: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.argwhere(cells).mean(axis=0)


def _slope(track: NDArray[np.float64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares velocity of a track, `(2,)`; 0 of one point."""
    t = seconds - seconds.mean()
    total = float(t @ t)
    return t @ track / total if total > 0 else np.zeros(2)


def _shifted(cells: NDArray[np.bool_], by: NDArray[np.float64]) -> Floats:
    sharp = cells.astype(np.float32)
    return np.asarray(ndimage.shift(sharp, by, order=1, prefilter=False), np.float32)


def _widths(spread: Sequence[float] | None, leads: Sequence[float]) -> Sequence[float]:
    widths = [0.0] * len(leads) if spread is None else list(spread)
    if len(widths) != len(leads) or not all(width >= 0 for width in widths):
        raise ValueError(f"spread must be {len(leads)} widths, one for each lead, got {widths}")
    return widths


def blurred(values: Floats, width: float) -> Floats:
    """A map, blurred by a Gaussian of `width` cells; beyond its edge nothing is."""
    if not width:
        return values.astype(np.float32)
    unknown = np.isnan(values)
    found = ndimage.gaussian_filter(np.where(unknown, 0, values), width, mode="constant")
    return np.where(unknown, np.nan, found).astype(np.float32)
