"""How a pattern moves: a smooth field of velocities, and where things come from along it.

Velocities are found by least squares on brightness that is carried along (Lucas and Kanade 1981,
"An iterative image registration technique"), in Gaussian windows, from coarse to fine, over all
frames at once. Where there is nothing to see, the field is filled in from around.

Fields are `(2, H, W)`: x (columns, to the right) and y (rows, downwards), in cells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-12


@dataclass(frozen=True)
class MotionConfig:
    """How motion is estimated.

    Attributes:
        window: standard deviation in cells of the Gaussian windows, within which motion is uniform.
        levels: cells averaged to one, from coarse to fine; each divides the one before. The
            coarsest should be about as large as things move in a frame.
        iterations: of each level.
        stiffness: weight of the surroundings against what is seen, relative to the mean texture.
        frames: how many of the last frames are looked at.
    """

    window: float = 40.0
    levels: tuple[int, ...] = (16, 8, 4)
    iterations: int = 3
    stiffness: float = 0.05
    frames: int = 6

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if not self.window > 0 or not self.stiffness > 0:
            raise ValueError(
                f"window and stiffness must be positive, got {self.window}, {self.stiffness}"
            )
        if self.iterations < 1 or self.frames < 2:
            raise ValueError("motion needs at least 1 iteration and 2 frames")
        pairs = zip(self.levels, self.levels[1:], strict=False)
        if not self.levels or min(self.levels) < 1 or any(a % b for a, b in pairs):
            raise ValueError(f"each level must be divided by the next, got {self.levels}")


def estimate_motion(
    frames: Tensor, seconds: Sequence[float], step: float, config: MotionConfig
) -> Tensor:
    """The velocity of a pattern, the same over all frames.

    Args:
        frames: `(T, H, W)` of a quantity on a scale where differences matter alike (logarithm of
            rain); NaN is no data.
        seconds: when each frame was, rising.
        step: seconds that a velocity refers to.
        config: how.

    Returns:
        `(2, ceil(H / finest), ceil(W / finest))` cells per step; zero where nothing at all is seen.

    Raises:
        ValueError: for shapes or times that do not fit.
    """
    if frames.ndim != 3 or len(frames) != len(seconds):
        raise ValueError(f"frames must be ({len(seconds)}, H, W), got {tuple(frames.shape)}")
    kept, times = frames[-config.frames :], list(seconds)[-config.frames :]
    gaps = [(b - a) / step for a, b in itertools.pairwise(times)]
    if any(not gap > 0 for gap in gaps):
        raise ValueError(f"times must rise, got {times}")
    velocity = None
    for level in config.levels:
        values, known = pool_known(kept, level)
        if velocity is None:
            velocity = values.new_zeros(2, *values.shape[1:])
        else:
            velocity = resize_field(velocity, values.shape[1:])
        velocity = _refine(velocity / level, values, known, gaps, level, config) * level
    assert velocity is not None
    return velocity


def pool_known(frames: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Means over blocks of known cells, and which blocks are mostly known.

    Args:
        frames: `(T, H, W)`, NaN for unknown.
        size: cells of a side of a block; the last blocks may stick out.

    Returns:
        `(T, h, w)` means, 0 where unknown, and `(T, h, w)` 1 or 0.
    """
    height, width = frames.shape[1:]
    below, right = -height % size, -width % size
    known = torch.isfinite(frames).to(frames.dtype)
    values = F.pad(torch.nan_to_num(frames), (0, right, 0, below))[:, None]
    known = F.pad(known, (0, right, 0, below))[:, None]
    share = F.avg_pool2d(known, size)[:, 0]
    means = F.avg_pool2d(values, size)[:, 0] / share.clamp_min(_TINY)
    return torch.where(share > 0, means, 0.0), (share >= 0.5).to(frames.dtype)


def resize_field(field: Tensor, size: Sequence[int]) -> Tensor:
    """A field on another number of cells of the same place, twice (or any times) as fine."""
    if tuple(field.shape[1:]) == tuple(size):
        return field
    factor = max(1, round(max(size[0] / field.shape[1], size[1] / field.shape[2])))
    fine = F.interpolate(field[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
    rows, columns = size
    fine = fine[:, :rows, :columns]
    pad = (0, columns - fine.shape[2], 0, rows - fine.shape[1])
    return F.pad(fine[None], pad, mode="replicate")[0] if any(pad) else fine


def _refine(
    velocity: Tensor,
    values: Tensor,
    known: Tensor,
    gaps: Sequence[float],
    level: int,
    config: MotionConfig,
) -> Tensor:
    """Gauss-Newton steps on one level, in its own cells."""
    sigma = config.window / level
    for _ in range(config.iterations):
        normal = velocity.new_zeros(5, *velocity.shape[1:])
        for k, gap in enumerate(gaps):
            normal += _equations(values[k : k + 2], known[k : k + 2], velocity, gap)
        xx, xy, yy, bx, by = blur(normal, sigma)
        texture = xx + yy
        # What is seen far around holds still what is not seen here.
        around = blur(torch.cat([velocity * texture, texture[None]]), 3 * sigma)
        whole = (velocity * texture).sum((1, 2)) / (texture.sum() + _TINY)
        weak = 1e-3 * texture.mean() + _TINY
        calm = (around[:2] + weak * whole[:, None, None]) / (around[2] + weak)
        stiff = config.stiffness * texture.mean() + _TINY
        rx = bx + stiff * (calm[0] - velocity[0])
        ry = by + stiff * (calm[1] - velocity[1])
        a, d = xx + stiff, yy + stiff
        determinant = (a * d - xy * xy).clamp_min(_TINY * _TINY)
        change = torch.stack([d * rx - xy * ry, a * ry - xy * rx]) / determinant
        # The linear model reaches about as far as the windows; further steps would be guesses.
        velocity = velocity + change.clamp(-2.0, 2.0)
    return velocity


def _equations(pair: Tensor, known: Tensor, velocity: Tensor, gap: float) -> Tensor:
    """Products of gradients and of the difference that is left, `(5, h, w)`."""
    moved = warp(torch.stack([pair[0] * known[0], known[0]]), velocity * gap)
    valid = (moved[1] > 0.99) & (known[1] > 0)
    before = torch.where(valid, moved[0], 0.0)
    after = torch.where(valid, pair[1], 0.0)
    inner = F.max_pool2d((~valid).to(pair.dtype)[None], 3, 1, 1)[0] == 0
    mean = F.pad(0.5 * (before + after)[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    gx = 0.5 * (mean[1:-1, 2:] - mean[1:-1, :-2]) * gap
    gy = 0.5 * (mean[2:, 1:-1] - mean[:-2, 1:-1]) * gap
    left = before - after
    return torch.stack([gx * gx, gx * gy, gy * gy, gx * left, gy * left]) * inner


def blur_reach(sigma: float) -> int:
    """Cells that `blur` looks to either side."""
    return max(1, math.ceil(3 * sigma))


def blur(fields: Tensor, sigma: float) -> Tensor:
    """Gaussian means of `(..., C, h, w)` fields; beyond the edge there is nothing (zero)."""
    radius = blur_reach(sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=fields.dtype, device=fields.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    n = fields.shape[-3]
    # Channels last: a tenth of the time that convolving each plane by itself takes on a CPU.
    planes = fields.reshape(-1, *fields.shape[-3:]).contiguous(memory_format=torch.channels_last)
    down = kernel[None, None, :, None].expand(n, 1, -1, 1)
    across = kernel[None, None, None, :].expand(n, 1, 1, -1)
    planes = F.conv2d(planes, down, padding=(radius, 0), groups=n)
    planes = F.conv2d(planes, across, padding=(0, radius), groups=n)
    return planes.reshape(fields.shape)


def warp(
    planes: Tensor,
    displacement: Tensor,
    edge: str = "zeros",
    corner: tuple[int, int] = (0, 0),
) -> Tensor:
    """What is at `x - displacement(x)`, bilinearly.

    Args:
        planes: `(C, H, W)` or `(B, C, H, W)`.
        displacement: `(2, h, w)` or `(B, 2, h, w)` in cells of `planes`, for a part of them.
        edge: beyond the planes: `zeros`, or `border` for the nearest cell.
        corner: row and column of `planes` at which the part begins.

    Returns:
        `planes` moved, of the size of `displacement`.
    """
    batched = planes.ndim == 4
    if not batched:
        planes, displacement = planes[None], displacement[None]
    height, width = planes.shape[-2:]
    way = displacement.to(planes.dtype)
    rows = torch.arange(way.shape[-2], dtype=planes.dtype, device=planes.device)
    columns = torch.arange(way.shape[-1], dtype=planes.dtype, device=planes.device)
    x = columns[None, None, :] + corner[1] - way[:, 0]
    y = rows[None, :, None] + corner[0] - way[:, 1]
    # grid_sample's corners: -1 and 1 are the outer edges of the first and last cell.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    moved = F.grid_sample(planes, grid, "bilinear", edge, align_corners=False)
    return moved if batched else moved[0]


def warp_part(planes: Tensor, displacement: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """`warp`, the same to rounding whatever part of the planes is there, in less memory.

    Only the sources are looked at, and places are computed in double precision: relative to a wide
    map, single precision would round them differently in every part.

    Args:
        planes: `(C, H, W)`.
        displacement: `(2, h, w)` in cells of `planes`.
        corner: row and column of `planes` at which the part begins.
    """
    box = sources(displacement, corner, planes.shape[-2:])
    if box is None:
        return planes.new_zeros(len(planes), *displacement.shape[-2:])
    top, left, height, width = box
    part = planes[..., top : top + height, left : left + width].double()
    moved = warp(part, displacement, corner=(corner[0] - top, corner[1] - left))
    return moved.to(planes.dtype)


def sources(
    displacement: Tensor, corner: tuple[int, int], size: Sequence[int]
) -> tuple[int, int, int, int] | None:
    """The box of cells that a part comes from: top row, left column, rows and columns.

    Args:
        displacement: `(2, h, w)` cells.
        corner: row and column at which the part begins.
        size: rows and columns that there are.

    Returns:
        None if all comes from outside.
    """
    found: list[int] = []
    for axis, way in ((0, displacement[1]), (1, displacement[0])):
        n = way.shape[axis]
        least, most = float(way.min()), float(way.max())
        first = max(0, math.floor(corner[axis] - most) - 1)
        last = min(size[axis], math.ceil(corner[axis] + n - least) + 1)
        if first >= last:
            return None
        found += [first, last - first]
    return found[0], found[2], found[1], found[3]


def displacements(velocity: Tensor, steps: Sequence[float], cell: float = 1.0) -> Tensor:
    """How far what arrives at each place has come, along a velocity that does not change.

    Backward semi-Lagrangian with mid-points (Germann and Zawadzki 2002, "Scale-dependence of the
    predictability of precipitation from continental radar images", section 2).

    Args:
        velocity: `(2, h, w)` per step.
        steps: durations, at least 0, in any order.
        cell: size of a cell of this field, in the unit of the velocity (4 where a field on every
            fourth cell counts in cells).

    Returns:
        `(len(steps), 2, h, w)` in the unit of the velocity.
    """
    found: list[Tensor | None] = [None] * len(steps)
    gone, total = 0.0, torch.zeros_like(velocity)
    for k in sorted(range(len(steps)), key=lambda i: steps[i]):
        if steps[k] < 0:
            raise ValueError(f"durations must be at least 0, got {steps[k]}")
        left = steps[k] - gone
        parts = math.ceil(left - 1e-9)
        for _ in range(parts):
            stride = left / parts
            half = warp(velocity, total / cell, "border") * (stride / 2)
            total = total + warp(velocity, (total + half) / cell, "border") * stride
        gone = float(steps[k])
        found[k] = total
    return torch.stack([d for d in found if d is not None])
