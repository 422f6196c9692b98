"""Kernels of any number of points in bounded memory, tile by tile.

A tile is a pure function of the network and of the points of its sides (`kernels.kernel_tile`), so
it does not matter in which order, or where, tiles are computed. The backward pass computes each
tile once more rather than keep what it is made of.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from learning.distillation.kernel_config import KernelConfig
from learning.distillation.kernels import kernel_tile

MAX_BYTES = 2**29
"""Memory for the inside of a tile, where nothing else is said."""


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
    config: KernelConfig, x: Tensor, y: Tensor | None = None, max_bytes: int = MAX_BYTES
) -> Tensor:
    """The kernel between two sets of points.

    Args:
        config: the network.
        x: `(n, ...)` float32 or float64 points; images `(n, C, H, W)` for a convolutional network.
        y: `(m, ...)`, of the same shape, kind and device; None: `x` with itself, for which tiles
            below the diagonal are mirrored.
        max_bytes: bound on the memory that is used besides points, result and their gradients.

    Returns:
        `(n, m)`, differentiable once in both.

    Raises:
        ValueError: if the points do not fit the network or each other, are not finite, or not even
            a pair of them fits into the memory.
    """
    _check(config, x, x if y is None else y)
    n, m = len(x), len(x if y is None else y)
    most = _pairs(config, x, max_bytes)
    if n * m + (n + m if config.convs else 0) <= most:
        return kernel_tile(config, x, x if y is None else y)
    sides = tile_sides(n, m, most if not config.convs else most - 2 * math.isqrt(most))
    return _Tiled.apply(config, sides, x, y)


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
        ctx: Any, config: KernelConfig, sides: tuple[int, int], x: Tensor, y: Tensor | None
    ) -> Tensor:
        ctx.config, ctx.symmetric = config, y is None
        ctx.sides = (min(sides), min(sides)) if y is None else sides
        other = x if y is None else y
        ctx.save_for_backward(x, other)
        out = x.new_empty(len(x), len(other))
        for tile in tiles(len(x), len(other), ctx.sides, ctx.symmetric):
            part = kernel_tile(config, x[tile.rows], other[tile.columns])
            out[tile.rows, tile.columns] = part
            if ctx.symmetric:
                out[tile.columns, tile.rows] = part.T
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[None, None, Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        needed = ctx.needs_input_grad[2], ctx.needs_input_grad[3]
        if ctx.symmetric:
            total = torch.zeros_like(x)
            for tile in tiles(len(x), len(x), ctx.sides, True):
                part = grad[tile.rows, tile.columns]
                if tile.rows.start != tile.columns.start:
                    part = part + grad[tile.columns, tile.rows].T
                first, second = _gradients(ctx.config, x, x, tile, part, (True, True))
                total[tile.rows] += first
                total[tile.columns] += second
            return None, None, total, None
        grad_x = torch.zeros_like(x) if needed[0] else None
        grad_y = torch.zeros_like(y) if needed[1] else None
        for tile in tiles(len(x), len(y), ctx.sides):
            part = grad[tile.rows, tile.columns]
            first, second = _gradients(ctx.config, x, y, tile, part, needed)
            if grad_x is not None:
                grad_x[tile.rows] += first
            if grad_y is not None:
                grad_y[tile.columns] += second
        return None, None, grad_x, grad_y


def _gradients(
    config: KernelConfig, x: Tensor, y: Tensor, tile: Tile, grad: Tensor, needed: tuple[bool, bool]
) -> tuple[Tensor | int, Tensor | int]:
    """What a tile's gradient makes of its two sides; 0 for one that is not needed."""
    with torch.enable_grad():
        sides = [
            side.detach().requires_grad_(need)
            for side, need in zip((x[tile.rows], y[tile.columns]), needed, strict=True)
        ]
        part = kernel_tile(config, *sides)
        found = iter(torch.autograd.grad(part, [s for s in sides if s.requires_grad], grad))
    first = next(found) if needed[0] else 0
    return first, next(found) if needed[1] else 0


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
    for points in (x,) if y is x else (x, y):
        # A sum is finite unless a part of it is not, or it overflows, which is as bad.
        if not bool(torch.isfinite(points.detach().sum())):
            raise ValueError("points must be finite, got NaN, infinite or enormous values")
