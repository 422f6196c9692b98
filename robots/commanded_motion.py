"""What a robot was told to do, as a function of time: displacements from recorded commands."""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SECOND = 1_000_000_000
LARGEST = 1e6
"""Greatest number in a command, of any unit: what is beyond is a mistake."""


class VelocityTrack:
    """Velocity commands; each acts from its stamp until the next, or for `hold` seconds."""

    def __init__(self, hold: float = math.inf) -> None:
        """Start without commands.

        Args:
            hold: longest time in seconds that a velocity acts, as the robot's own watchdog has it.
        """
        self._hold = hold * SECOND
        self._stamps: list[int] = []
        self._velocities: list[Array] = []

    def add(self, stamp: int, velocity: Array) -> None:
        """A command.

        Args:
            stamp: nanoseconds; commands may come out of order. The first of a stamp counts: a
                simulator that waits for a command takes no second one.
            velocity: `(n,)` m/s or rad/s.
        """
        values = finite(velocity)
        place = bisect.bisect_left(self._stamps, stamp)
        if place == len(self._stamps) or self._stamps[place] != stamp:
            self._stamps.insert(place, stamp)
            self._velocities.insert(place, values)

    def exactly(self, stamp: int) -> Array | None:
        """`(n,)` the command of exactly this stamp, None if there is none."""
        place = bisect.bisect_left(self._stamps, stamp)
        found = place < len(self._stamps) and self._stamps[place] == stamp
        return self._velocities[place] if found else None

    def displacement(self, begin: int, end: int) -> Array | None:
        """`(n,)` integral of the velocity from `begin` to `end`, nanoseconds; None: no commands."""
        if not self._stamps:
            return None
        total = np.zeros_like(self._velocities[0])
        first = max(bisect.bisect_right(self._stamps, begin) - 1, 0)
        for i in range(first, len(self._stamps)):
            stamp = self._stamps[i]
            if stamp >= end:
                break
            following = self._stamps[i + 1] if i + 1 < len(self._stamps) else math.inf
            until = min(following, stamp + self._hold, end)
            total += self._velocities[i] * (max(until - max(stamp, begin), 0) / SECOND)
        return total

    def forget(self, before: int) -> None:
        """Drop what no longer acts at `before`, nanoseconds."""
        keep = max(bisect.bisect_right(self._stamps, before) - 1, 0)
        del self._stamps[:keep], self._velocities[:keep]


class PositionTrack:
    """Position commands: straight ways between the points of a chunk, rest after its end."""

    def __init__(self) -> None:
        """Start without commands."""
        self._stamps: list[int] = []
        self._positions: list[Array] = []

    def add(self, stamp: int, positions: Array, times: Array) -> None:
        """A chunk; it replaces what is left of the last one.

        Args:
            stamp: nanoseconds at which it begins.
            positions: `(T, n)` metres or rad.
            times: `(T,)` seconds after the stamp, increasing; 0 means at once.
        """
        points = finite(positions)
        present = self.position(stamp)
        keep = bisect.bisect_right(self._stamps, stamp)
        del self._stamps[keep:], self._positions[keep:]
        self._append(stamp, points[0] if present is None else present)
        for point, seconds in zip(points, times, strict=True):
            self._append(stamp + round(float(seconds) * SECOND), point)

    def _append(self, stamp: int, position: Array) -> None:
        self._stamps.append(stamp)
        self._positions.append(position)

    def position(self, stamp: int) -> Array | None:
        """`(n,)` commanded position at a time in nanoseconds; None before any command."""
        if not self._stamps:
            return None
        place = bisect.bisect_right(self._stamps, stamp)
        if place == 0 or place == len(self._stamps):
            return self._positions[max(place - 1, 0)]
        begin, end = self._stamps[place - 1], self._stamps[place]
        share = (stamp - begin) / (end - begin)
        first, second = self._positions[place - 1], self._positions[place]
        return first + share * (second - first)

    def displacement(self, begin: int, end: int) -> Array | None:
        """`(n,)` way of the commanded position from `begin` to `end`, nanoseconds; None: none."""
        start, stop = self.position(begin), self.position(end)
        return None if start is None or stop is None else stop - start

    def forget(self, before: int) -> None:
        """Drop what no longer matters at `before`, nanoseconds."""
        keep = max(bisect.bisect_right(self._stamps, before) - 1, 0)
        del self._stamps[:keep], self._positions[:keep]


def finite(values: Array) -> Array:
    """The values as an array of their own.

    Raises:
        ValueError: if one is NaN or beyond `LARGEST`: nobody could learn from such a command.
    """
    array = np.array(values, dtype=np.float64)
    if not (np.abs(array) <= LARGEST).all():
        raise ValueError(f"a recorded command must be finite, got {array.tolist()}")
    return array
