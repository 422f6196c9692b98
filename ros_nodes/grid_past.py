"""The last frames of a stream of grids, as a forecaster wants them; no ROS."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learning.grid_sequence import GridSequence
from robots.streaming import SECOND

Map = NDArray[np.float32]


class GridPast:
    """Keeps frames of rising stamps; picks those that lie whole steps apart."""

    def __init__(self, frames: int, step: float, tolerance: float = 0.3) -> None:
        """Hold nothing yet.

        Args:
            frames: that are wanted.
            step: seconds between them.
            tolerance: share of the step by which a frame may miss its time.
        """
        if frames < 1 or not step > 0 or not 0 < tolerance < 0.5:
            raise ValueError(f"frames and step must be positive, got {frames} and {step}")
        self.frames, self.step = frames, step
        self._slack = round(tolerance * step * SECOND)
        self._kept: deque[tuple[int, Map]] = deque()

    def __len__(self) -> int:
        """Number of frames that are kept."""
        return len(self._kept)

    @property
    def newest(self) -> int | None:
        """Stamp of the newest frame, nanoseconds."""
        return self._kept[-1][0] if self._kept else None

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def add(self, stamp: int, values: Map) -> None:
        """Keep a frame.

        Raises:
            ValueError: if it is no newer than the newest.
        """
        newest = self.newest
        if newest is not None and stamp <= newest:
            late = (newest - stamp) / SECOND
            raise ValueError(f"a frame is {late:.3f} s older than the newest one, or it again")
        self._kept.append((stamp, values))
        oldest = stamp - round((self.frames - 1) * self.step * SECOND) - 2 * self._slack
        while self._kept[0][0] < oldest:
            self._kept.popleft()

    def pick(self) -> list[tuple[int, Map]] | None:
        """The frames that are wanted, oldest first; None while one is missing."""
        if not self._kept:
            return None
        stamps = np.array([stamp for stamp, _ in self._kept])
        found = []
        for back in reversed(range(self.frames)):
            wanted = int(stamps[-1]) - round(back * self.step * SECOND)
            nearest = int(np.abs(stamps - wanted).argmin())
            if abs(int(stamps[nearest]) - wanted) > self._slack:
                return None
            found.append(self._kept[nearest])
        return found


def as_sequence(
    picked: list[tuple[int, Map]], step: float, cell: float, static: Map | None, channels: Any
) -> GridSequence:
    """Frames as forecasters take them, at exactly the step they expect.

    Args:
        picked: stamps and frames.
        step: seconds.
        cell: metres.
        static: `(H, W)` what never moves; None for nothing.
        channels: names; `occupancy`, and perhaps `static`.

    Raises:
        ValueError: for a channel that no grid tells.
    """
    layers = []
    for name in channels:
        if name == "occupancy":
            layers.append(np.stack([values for _, values in picked]))
        elif name == "static":
            still = np.zeros_like(picked[-1][1]) if static is None else static
            layers.append(np.broadcast_to(still, (len(picked), *still.shape)))
        else:
            raise ValueError(f"the model wants a channel {name!r}; grids tell occupancy and static")
    return GridSequence(
        frames=np.stack(layers, axis=1).astype(np.float32),
        channels=tuple(channels),
        times=np.arange(len(picked), dtype=np.int64),
        cell=cell,
        name="grids of a topic",
        tick=step,
    )
