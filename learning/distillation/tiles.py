"""Kernels of any number of points in bounded memory, tile by tile.

A tile is a pure function of the network and of the points of its sides (`kernels.kernel_tile`), so
it does not matter in which order, or where (`tile_work`), tiles are computed. The backward pass
computes each tile once more rather than keep what it is made of.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from learning.distillation.kernel_config import KernelConfig
from learning.distillation.kernels import kernel_tile
from learning.distillation.tile_work import Job, TileWork, do_here

MAX_BYTES = 2**29
"""Memory for the inside of a tile, where nothing else is said."""
Work = Callable[[Iterable[Job]], Iterator[tuple[Tensor, ...]]]


@dataclass(frozen=True)
class Tile:
    """A part of a kernel matrix.

    Attributes:
        rows: of the first points.
        columns: of the second points.
    """

    rows: slice
    columns: slice


def kernel(
    config: KernelConfig,
    x: Tensor,
    y: Tensor | None = None,
    max_bytes: int = MAX_BYTES,
    work: TileWork | None = None,
) -> Tensor:
    """The kernel between two sets of points.

    Args:
        config: the network.
        x: `(n, ...)` float32 or float64 points; images `(n, C, H, W)` for a convolutional network.
        y: `(m, ...)`, of the same shape, kind and device; None: `x` with itself, for which tiles
            below the diagonal are mirrored.
        max_bytes: bound on the memory that is used besides points, result and their gradients.
        work: who computes tiles, forward and backward; None: this process.

    Returns:
        `(n, m)`, differentiable once in both.

    Raises:
        ValueError: if the points do not fit the network or each other, are not finite, or not even
            a pair of them fits into the memory.
    """
    _check(config, x, x if y is None else y)
    n, m = len(x), len(x if y is None else y)
    most = _pairs(config, x, max_bytes)
    if work is None and n * m + (n + m if config.convs else 0) <= most:
        out = kernel_tile(config, x, x if y is None else y)
    else:
        most = most if not config.convs else most - 2 * math.isqrt(most)
        if work is not None:
            most = min(most, work.pairs(config))
        out = _Tiled.apply(config, tile_sides(n, m, most), work or do_here, x, y)
    if not config.convs:
        # Of points that are not finite no row is: to look at the result is less than at them.
        _check_finite(out)
    return out


def pair_bytes(config: KernelConfig, shape: tuple[int, ...], itemsize: int) -> int:
    """Most memory that a pair of points takes in a tile with its backward pass.

    Args:
        config: the network.
        shape: of one point.
        itemsize: bytes of a number.
    """
    if not config.convs:
        return itemsize * (4 * config.depth + 6)
    height, width = shape[1:]
    kept, largest = 0, (height * width) ** 2
    for number, count in enumerate(config.convs):
        positions = (height * width) ** 2
        # Each convolution keeps Sigma and Theta for its ReLU, and the sums that made them.
        kept += 4 * positions * (count + (config.prepend and number == 0))
        if number < config.n_poolings:
            height, width = height // 2, width // 2
            kept += 2 * (height * width) ** 2
    return itemsize * (kept + 6 * largest)


def tile_sides(n: int, m: int, most: int) -> tuple[int, int]:
    """Rows and columns of tiles of at most so many pairs, as square as the matrix allows."""
    rows = min(n, max(1, math.isqrt(most)))
    columns = min(m, max(1, most // rows))
    rows = min(n, max(rows, most // columns))
    return rows, columns


def tiles(n: int, m: int, sides: tuple[int, int], symmetric: bool = False) -> Iterator[Tile]:
    """Cut an `(n, m)` matrix.

    Args:
        n: rows of the matrix.
        m: columns.
        sides: rows and columns of a tile.
        symmetric: whether only tiles that touch the diagonal or lie above it are needed; the sides
            must be equal then.
    """
    for i in range(0, n, sides[0]):
        for j in range(i if symmetric else 0, m, sides[1]):
            yield Tile(slice(i, min(i + sides[0], n)), slice(j, min(j + sides[1], m)))


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        config: KernelConfig,
        sides: tuple[int, int],
        work: Work,
        x: Tensor,
        y: Tensor | None,
    ) -> Tensor:
        ctx.config, ctx.symmetric, ctx.work = config, y is None, work
        ctx.sides = (min(sides), min(sides)) if y is None else sides
        other = x if y is None else y
        ctx.save_for_backward(x, other)
        out = x.new_empty(len(x), len(other))
        cut = list(tiles(len(x), len(other), ctx.sides, ctx.symmetric))
        jobs = (Job(config, x[tile.rows].detach(), other[tile.columns].detach()) for tile in cut)
        for tile, (part,) in zip(cut, work(jobs), strict=True):
            out[tile.rows, tile.columns] = part.to(out.device)
            if ctx.symmetric:
                out[tile.columns, tile.rows] = part.T
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[None, None, None, Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        needed = (True, True)
        if not ctx.symmetric:
            needed = (bool(ctx.needs_input_grad[3]), bool(ctx.needs_input_grad[4]))
        cut = list(tiles(len(x), len(y), ctx.sides, ctx.symmetric))

        def jobs() -> Iterator[Job]:
            for tile in cut:
                part = grad[tile.rows, tile.columns]
                if ctx.symmetric and tile.rows.start != tile.columns.start:
                    part = part + grad[tile.columns, tile.rows].T
                sides = x[tile.rows].detach(), y[tile.columns].detach()
                yield Job(ctx.config, *sides, part, needed)

        totals = [torch.zeros_like(x) if needed[0] else None]
        # A matrix with itself: both sides of a tile are parts of one set of points.
        totals.append(totals[0] if ctx.symmetric else torch.zeros_like(y) if needed[1] else None)
        for tile, found in zip(cut, ctx.work(jobs()), strict=True):
            parts = iter(found)
            for total, place in zip(totals, (tile.rows, tile.columns), strict=True):
                if total is not None:
                    total[place] += next(parts).to(total.device)
        return None, None, None, totals[0], None if ctx.symmetric else totals[1]


def _pairs(config: KernelConfig, x: Tensor, max_bytes: int) -> int:
    one = pair_bytes(config, tuple(x.shape[1:]), x.element_size())
    # A tile of one pair holds both points with themselves as well.
    least = one * (3 if config.convs else 1)
    if max_bytes < least:
        raise ValueError(
            f"a kernel of points {tuple(x.shape[1:])} needs at least {least} bytes a tile, "
            f"got a bound of {max_bytes}"
        )
    return max_bytes // one


def _check(config: KernelConfig, x: Tensor, y: Tensor) -> None:
    config.check_shape(tuple(x.shape[1:]))
    if x.shape[1:] != y.shape[1:] or x.dtype != y.dtype or x.device != y.device:
        raise ValueError(
            "points of both sides must be of one shape, kind and device, got "
            f"{tuple(x.shape[1:])} {x.dtype} {x.device} and {tuple(y.shape[1:])} {y.dtype} "
            f"{y.device}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"points must be float32 or float64, got {x.dtype}")
    if not len(x) or not len(y):
        raise ValueError(f"a kernel needs points on both sides, got {len(x)} and {len(y)}")
    for points in (x, y) if config.convs else ():
        _check_finite(points)


def _check_finite(numbers: Tensor) -> None:
    # A sum is finite unless a part of it is not, or it overflows, which is as bad.
    if not math.isfinite(float(numbers.detach().sum())):
        raise ValueError(
            "points must be finite, got NaN, infinite or enormous values; scale them down, or "
            "lower lr where they are learned"
        )
