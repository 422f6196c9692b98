"""From a sequence of grids to what MetNet-2 reads: the past of one moment, carried along or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from learning.grid_sequence import GridSequence
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.motion import displacements, estimate_motion, sources, warp_part

Window = tuple[int, int, int, int]
_CELL_TOLERANCE = 0.25
_HOUR = 3600.0
_DAY, _YEAR = 86_400.0, 365.2425 * 86_400.0
_HALF = 0.5
"""Share of a cell's sources that must be known for the cell to be."""


@dataclass(frozen=True)
class Past:
    """The frames that a forecast starts from.

    Attributes:
        frames: `(T, C, H, W)`, oldest first: `channels`, then `still`; NaN where unknown.
        ages: `(T,)` seconds before the newest; 0 for the last.
        there: which of them there were; the others are NaN.
        time: seconds since the epoch of the newest.
        corner: metres, x and y of the corner of the first cell.
    """

    frames: Tensor
    ages: tuple[float, ...]
    there: tuple[bool, ...]
    time: float
    corner: tuple[float, float]


def check_sequence(sequence: GridSequence, config: MetNet2Config) -> None:
    """Refuse a sequence that a model cannot read.

    Raises:
        ValueError: if it shows something else, on other cells, or too rarely.
    """
    if config.quantity not in sequence.channels:
        raise ValueError(
            f"{sequence.name} holds {', '.join(sequence.channels)}, the model forecasts "
            f"{config.quantity}"
        )
    if abs(math.log(sequence.cell / config.cell)) > math.log(1 + _CELL_TOLERANCE):
        raise ValueError(
            f"{sequence.name} has cells of {sequence.cell:g} m, the model was made for "
            f"{config.cell:g} m; resample it"
        )
    if len(sequence) > 1 and sequence.step > 1.5 * config.frame_step:
        raise ValueError(
            f"{sequence.name} has a frame every {sequence.step:g} s, the model looks at one every "
            f"{config.frame_step:g} s; too rare"
        )


def past_of(sequence: GridSequence, index: int, config: MetNet2Config) -> Past:
    """The past of a frame: for each time that the model looks at, the nearest frame.

    A frame that is missing (none within half a step) is unknown everywhere.

    Args:
        sequence: see `check_sequence`.
        index: of the newest frame.
        config: of the model.
    """
    seconds = sequence.seconds - sequence.seconds[index]
    rows, columns = sequence.shape
    names = (*config.channels, *config.still)
    frames = np.full((config.n_frames, len(names), rows, columns), np.nan, np.float32)
    ages, there = [], []
    for k in range(config.n_frames):
        wanted = -config.frame_step * (config.n_frames - 1 - k)
        near = int(np.argmin(np.abs(seconds[: index + 1] - wanted)))
        found = abs(float(seconds[near]) - wanted) < config.frame_step / 2
        there.append(found)
        ages.append(float(-seconds[near]) if found else -wanted)
        if found:
            for c, name in enumerate(names):
                if name in sequence.channels:
                    frames[k, c] = sequence.frames[near, sequence.channels.index(name)]
    return Past(
        torch.from_numpy(frames),
        tuple(ages),
        tuple(there),
        float(sequence.times[index]) * sequence.tick,
        sequence.origin,
    )


def motion_of(past: Past, config: MetNet2Config) -> Tensor:
    """Motion of the pattern, `(2, h, w)` cells per `frame_step` on every `finest`-th cell.

    Zero in Eulerian coordinates, or where fewer than two frames are there.
    """
    rows, columns = past.frames.shape[-2:]
    finest = config.motion.levels[-1]
    still = torch.zeros(2, -(-rows // finest), -(-columns // finest))
    seen = [k for k, there in enumerate(past.there) if there]
    if config.coordinates == "eulerian" or len(seen) < 2:
        return still
    values = past.frames[seen, 0]
    if config.transform == "log":
        values = torch.log1p(values.clamp_min(0) / config.unit)
    return estimate_motion(values, [-past.ages[k] for k in seen], config.frame_step, config.motion)


def ways(velocity: Tensor, seconds: Sequence[float], config: MetNet2Config) -> Tensor:
    """How far what arrives has come after some durations, `(n, 2, h, w)` in cells."""
    steps = [s / config.frame_step for s in seconds]
    return displacements(velocity, steps, config.motion.levels[-1])


def part_of(fields: Tensor, factor: int, window: Window) -> Tensor:
    """A window of coarse fields, on the fine cells: bilinear.

    Args:
        fields: `(n, 2, h, w)` on every `factor`-th cell.
        factor: cells of a side of a coarse one.
        window: in fine cells; beyond the fields the nearest value holds.

    Returns:
        `(n, 2, rows, columns)`.
    """
    top, left, height, width = window
    first_row, first_column = top // factor - 1, left // factor - 1
    rows = torch.arange(first_row, -(-(top + height) // factor) + 1)
    columns = torch.arange(first_column, -(-(left + width) // factor) + 1)
    rows = rows.clamp(0, fields.shape[-2] - 1)
    columns = columns.clamp(0, fields.shape[-1] - 1)
    part = fields[..., rows, :][..., columns]
    if factor > 1:
        part = F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
    top, left = top - first_row * factor, left - first_column * factor
    return part[..., top : top + height, left : left + width]


def past_frames(
    past: Past, velocity: Tensor | None, config: MetNet2Config, window: Window
) -> Tensor:
    """What the network reads: the past in a window, what moves carried to the newest time.

    Args:
        past: of the whole view.
        velocity: of `motion_of`; None: nothing moves.
        config: of the model.
        window: top row, left column, rows and columns; it may stick out of the view, where all is
            unknown.

    Returns:
        `(T, C + P, rows, columns)`: the channels, NaN where unknown, and the computed planes.
    """
    moving = len(config.channels)
    frames = torch.full((*past.frames.shape[:2], *window[2:]), float("nan"))
    if velocity is None:
        frames[:] = _cut(past.frames, window)
    else:
        old = [k for k, age in enumerate(past.ages) if past.there[k] and age > 0]
        if old:
            found = ways(velocity, [past.ages[k] for k in old], config)
            parts = part_of(found, config.motion.levels[-1], window)
            for k, way in zip(old, parts, strict=True):
                frames[k, :moving] = carried(past.frames[k, :moving], way, window[:2])
        new = [k for k in range(len(frames)) if k not in old]
        frames[new] = _cut(past.frames[new], window)
        frames[:, moving:] = _cut(past.frames[:, moving:], window)
    return torch.cat([frames, _computed(past, config, window)], dim=1)


def carried(planes: Tensor, displacement: Tensor, corner: tuple[int, int]) -> Tensor:
    """Planes moved, means of what is known; NaN where most of the sources are unknown."""
    box = sources(displacement, corner, planes.shape[-2:])
    if box is None:
        return planes.new_full((len(planes), *displacement.shape[-2:]), float("nan"))
    top, left, height, width = box
    part = planes[:, top : top + height, left : left + width]
    both = torch.cat([torch.nan_to_num(part), torch.isfinite(part).to(part.dtype)])
    corner = (corner[0] - top, corner[1] - left)
    values, share = warp_part(both, displacement, corner).chunk(2)
    return torch.where(share > _HALF, values / share.clamp_min(_HALF), float("nan"))


def _cut(planes: Tensor, window: Window) -> Tensor:
    """A window that may stick out; NaN outside."""
    top, left, height, width = window
    rows, columns = planes.shape[-2:]
    out = planes.new_full((*planes.shape[:-2], height, width), float("nan"))
    r0, r1 = max(top, 0), min(top + height, rows)
    c0, c1 = max(left, 0), min(left + width, columns)
    if r0 < r1 and c0 < c1:
        out[..., r0 - top : r1 - top, c0 - left : c1 - left] = planes[..., r0:r1, c0:c1]
    return out


def _computed(past: Past, config: MetNet2Config, window: Window) -> Tensor:
    """`(T, P, rows, columns)`."""
    top, left, height, width = window
    planes: list[Tensor] = []
    for name in config.planes:
        if name == "position":
            x = past.corner[0] + config.cell * (left + torch.arange(width) + 0.5)
            y = past.corner[1] - config.cell * (top + torch.arange(height) + 0.5)
            planes += [x.expand(height, width) / 1e6, y[:, None].expand(height, width) / 1e6]
        else:
            turn = math.tau * past.time / (_DAY if name == "time_of_day" else _YEAR)
            planes += [torch.full((height, width), f(turn)) for f in (math.sin, math.cos)]
    found = torch.stack(planes) if planes else torch.empty(0, height, width)
    return found.float().expand(len(past.frames), -1, -1, -1)


def truth_of(
    sequence: GridSequence, index: int, lead: float, target: str, tolerance: float
) -> np.ndarray | None:
    """What came true.

    Args:
        sequence: holds the future too.
        index: of the newest frame that the forecast knew.
        lead: seconds.
        target: `instantaneous`, or `cumulative`: the mean over the hour that ends then, times one
            hour: of rain in mm/h, the mm.
        tolerance: seconds that a frame may be off.

    Returns:
        `(H, W)`, or None where frames are missing.
    """
    seconds = sequence.seconds - sequence.seconds[index]
    if target == "instantaneous":
        near = int(np.argmin(np.abs(seconds - lead)))
        return sequence.quantity[near] if abs(seconds[near] - lead) <= tolerance else None
    within = np.flatnonzero((seconds > lead - _HOUR + tolerance) & (seconds <= lead + tolerance))
    expected = round(_HOUR / sequence.step)
    if len(within) != expected or abs(seconds[within[-1]] - lead) > tolerance:
        return None
    return np.asarray(sequence.quantity[within].mean(axis=0))
