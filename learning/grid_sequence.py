"""Frames on one grid, one after the other: what forecasts read and are compared with.

Rain from a radar, or a map of what is occupied: the first channel is the quantity that is
forecast, the others say more of the same places. Nothing here knows a file format.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

MAX_NAME = 200
"""Characters of a name."""


@dataclass(frozen=True)
class GridSequence:
    """Frames of several channels on one grid.

    Attributes:
        frames: `(T, C, H, W)` float32; NaN is no data, infinite values are refused.
        channels: names of the channels; the first is what is forecast: `rain_rate` in mm/h, or
            `occupancy` in [0, 1].
        times: `(T,)` int64 seconds since the epoch, strictly rising. A sequence faster than a
            second counts in ticks: see `tick`.
        cell: metres of a side of a cell.
        name: of the event, one line.
        origin: metres, x and y of the outer corner of the first cell. Row 0 is the northern (top)
            row of a radar's picture.
        tick: seconds of one unit of `times`; 1 but for sequences faster than that (0.1 at 10 Hz).
    """

    frames: NDArray[np.float32]
    channels: tuple[str, ...]
    times: NDArray[np.int64]
    cell: float
    name: str = "grids"
    origin: tuple[float, float] = (0.0, 0.0)
    tick: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        _check_frames(self.frames, self.channels)
        _check_times(self.times, len(self.frames))
        for what, length in (("cell", self.cell), ("tick", self.tick)):
            if not (np.isfinite(length) and length > 0):
                raise ValueError(f"{what} must be a length above 0, got {length}")
        if len(self.origin) != 2 or not np.isfinite(self.origin).all():
            raise ValueError(f"origin must be x and y in metres, got {self.origin}")
        if not self.name or len(self.name) > MAX_NAME or not self.name.isprintable():
            raise ValueError(f"name must be one line of 1 to {MAX_NAME} characters")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.frames.shape[2], self.frames.shape[3]

    @property
    def seconds(self) -> NDArray[np.float64]:
        """`(T,)` seconds since the first frame."""
        return (self.times - self.times[0]) * self.tick

    @property
    def step(self) -> float:
        """Seconds between frames: the median.

        Raises:
            ValueError: if there is but one frame.
        """
        if len(self) < 2:
            raise ValueError("one frame has no step; give two or more")
        return float(np.median(np.diff(self.times))) * self.tick

    @property
    def quantity(self) -> NDArray[np.float32]:
        """`(T, H, W)`: the first channel, a view."""
        return self.frames[:, 0]

    def crop(self, top: int, left: int, height: int, width: int) -> GridSequence:
        """A rectangle of the grid, all frames; a view.

        Raises:
            ValueError: if it leaves the grid.
        """
        rows, columns = self.shape
        inside = 0 <= top <= rows - height and 0 <= left <= columns - width
        if height < 1 or width < 1 or not inside:
            raise ValueError(
                f"crop of {height} x {width} cells from row {top}, column {left} leaves the grid "
                f"of {rows} x {columns}"
            )
        return replace(
            self,
            frames=self.frames[:, :, top : top + height, left : left + width],
            origin=(self.origin[0] + left * self.cell, self.origin[1] - top * self.cell),
        )

    def center_crop(self, height: int, width: int) -> GridSequence:
        """The middle of the grid; of an odd rest, the larger half lies below and right."""
        rows, columns = self.shape
        return self.crop((rows - height) // 2, (columns - width) // 2, height, width)

    def window(self, start: int, stop: int) -> GridSequence:
        """Frames `start` to before `stop`; a view.

        Raises:
            ValueError: if there are no such frames.
        """
        if not 0 <= start < stop <= len(self):
            raise ValueError(f"frames {start} to {stop} are not among the {len(self)} there are")
        return replace(self, frames=self.frames[start:stop], times=self.times[start:stop])

    def index_of(self, time: int) -> int:
        """Where the frame of a time is.

        Raises:
            ValueError: if there is none at exactly this time.
        """
        found = int(np.searchsorted(self.times, time))
        if found == len(self) or self.times[found] != time:
            raise ValueError(
                f"{self.name} has no frame at {time}; it has {len(self)} from {self.times[0]} to "
                f"{self.times[-1]}"
            )
        return found

    def gaps(self, tolerance: float = 0.25) -> tuple[int, ...]:
        """Frames after which one or more are missing.

        Args:
            tolerance: share of the step that a frame may come late.
        """
        if len(self) < 2:
            return ()
        late = np.diff(self.times) * self.tick > (1 + tolerance) * self.step
        return tuple(int(frame) for frame in np.flatnonzero(late))


def _check_frames(frames: NDArray[np.float32], channels: tuple[str, ...]) -> None:
    if frames.dtype != np.float32 or frames.ndim != 4 or not frames.size:
        raise ValueError(
            "frames must be float32 (T, C, H, W) with at least one value, got "
            f"{frames.dtype} {frames.shape}"
        )
    if len(channels) != frames.shape[1] or len(set(channels)) < len(channels):
        raise ValueError(
            f"channels must be {frames.shape[1]} different names, one for each, got {channels}"
        )
    if not all(isinstance(name, str) and name for name in channels):
        raise ValueError(f"channels must be names, got {channels}")
    if any(np.isinf(frame).any() for frame in frames):
        raise ValueError("frames must not hold infinite values; NaN is no data")
    if channels[0] == "occupancy" and any(_outside(frame[0]) for frame in frames):
        raise ValueError("occupancy must be in [0, 1]")


def _outside(values: NDArray[np.float32]) -> bool:
    return bool((values < 0).any() or (values > 1).any())  # NaN compares false: it is allowed


def _check_times(times: NDArray[np.int64], n: int) -> None:
    if times.dtype != np.int64 or times.shape != (n,):
        raise ValueError(
            f"times must be int64 ({n},), one for each frame, got {times.dtype} {times.shape}"
        )
    if (np.diff(times) <= 0).any():
        raise ValueError("times must rise strictly: a frame is repeated or out of order")
