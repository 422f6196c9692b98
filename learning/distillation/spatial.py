"""Linear layers over images, on covariances between positions.

A kernel between images is held as `(H, H', W, W', ...)`: the covariance of position (h, w) of the
one image with (h', w') of the other, for every pair in the last axes. Pairs come last, so that
neighbours in memory never are neighbours in the image, and every pass is over long rows.

A convolution adds up the covariances of positions that are shifted alike: two sums of three along
diagonals. Source: Novak et al. 2019, "Bayesian Deep Convolutional Networks with Many Channels are
Gaussian Processes", eq. 7.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from learning.distillation.arc_cosine import BLOCK


def covariance(x: Tensor, y: Tensor) -> Tensor:
    """Covariances between positions of images: products of pixels, mean over channels.

    Args:
        x: `(n, C, H, W)`.
        y: `(m, C, H, W)`.

    Returns:
        `(H, H, W, W, n, m)`.
    """
    out: Tensor = _Covariance.apply(x, y)
    return out


def convolve(s: Tensor, scale: float, base: Tensor) -> Tensor:
    """What a 3x3 convolution with zero padding makes of a covariance.

    Args:
        s: `(H, H', W, W', ...)` before it.
        scale: of the mean over the nine joint shifts: the variance of the weights.
        base: what is added: a number (the variance of the biases) or a tensor like `s`.
    """
    out: Tensor = _Convolution.apply(s, scale / 9, base)
    return out


def pool(s: Tensor) -> Tensor:
    """Covariance after 2x2 average pooling; what is left over of odd sides is dropped.

    Args:
        s: `(H, H', W, W', ...)` before it.

    Returns:
        `(H // 2, H' // 2, W // 2, W' // 2, ...)`.
    """
    out: Tensor = _Pooling.apply(s)
    return out


def same_position(s: Tensor) -> Tensor:
    """Variances from the covariances of images with themselves.

    Args:
        s: `(H, H, W, W, n)`.

    Returns:
        `(H, W, n)`.
    """
    diagonal = s.diagonal(dim1=0, dim2=1).diagonal(dim1=0, dim2=1)  # (n, H, W)
    return diagonal.permute(1, 2, 0)


def flatten(s: Tensor) -> Tensor:
    """Mean over equal positions: what flattening and a dense layer make of a covariance."""
    return s.diagonal(dim1=0, dim2=1).diagonal(dim1=0, dim2=1).mean((-2, -1))


def average(s: Tensor) -> Tensor:
    """Mean over all pairs of positions: global average pooling."""
    return s.mean((0, 1, 2, 3))


class _Covariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        left, right = _spread(x, y)
        channels, height, width = x.shape[1:]
        out = x.new_empty(height, height, width, width, len(x), len(y))
        for row, part in enumerate(out):
            torch.mul(left[0, row, None, :, None], right[0, :, None], out=part)
            for channel in range(1, channels):
                part.addcmul_(left[channel, row, None, :, None], right[channel, :, None])
        return out.mul_(1 / channels) if channels > 1 else out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        x, y = ctx.saved_tensors
        left, right = _spread(x, y)
        share = 1 / x.shape[1]
        to_x, to_y = torch.zeros_like(left), torch.zeros_like(right)
        for row, part in enumerate(grad):
            for channel in range(x.shape[1]):
                if ctx.needs_input_grad[0]:
                    to_x[channel, row] = (part * right[channel, :, None]).sum((0, 2))
                if ctx.needs_input_grad[1]:
                    to_y[channel] += (part * left[channel, row, None, :, None]).sum(1)
        return share * to_x.sum(-1).permute(3, 0, 1, 2), share * to_y.sum(-2).permute(3, 0, 1, 2)


def _spread(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of both sides for every pair of images: `(C, H, W, n, m)` each."""
    pairs = len(x), len(y)
    left, right = x.permute(1, 2, 3, 0)[..., None], y.permute(1, 2, 3, 0)[..., None, :]
    return left.expand(*left.shape[:3], *pairs).contiguous(), right.expand(
        *left.shape[:3], *pairs
    ).contiguous()


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor, scale: float, base: Tensor) -> Tensor:
        ctx.scale = scale
        return _shifted_sums(s, scale, base)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, Tensor | None]:
        # A sum over symmetric shifts with zeros around is its own adjoint.
        sums = _shifted_sums(grad.contiguous(), ctx.scale, grad.new_zeros(()))
        return sums, None, grad if ctx.needs_input_grad[2] else None


def _shifted_sums(s: Tensor, scale: float, base: Tensor) -> Tensor:
    """`base` plus `scale` times the sum over nine joint shifts, in blocks that fit the cache."""
    rows, columns = s.shape[:2]
    out = torch.empty_like(s)
    base = base.expand(s.shape)
    length = max(1, BLOCK // max(1, math.prod(s.shape[2:])))
    for row in range(rows):
        for start in range(0, columns, length):
            stop = min(start + length, columns)
            part = s[row, start:stop].clone()
            if row > 0:
                first = max(start, 1)
                part[first - start :] += s[row - 1, first - 1 : stop - 1]
            if row + 1 < rows:
                last = min(stop, columns - 1)
                part[: last - start] += s[row + 1, start + 1 : last + 1]
            total = part.clone()
            total[:, 1:, 1:] += part[:, :-1, :-1]
            total[:, :-1, :-1] += part[:, 1:, 1:]
            torch.add(base[row, start:stop], total, alpha=scale, out=out[row, start:stop])
    return out


class _Pooling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Tensor) -> Tensor:
        ctx.shape = s.shape
        for axis in range(4):
            even = 2 * (s.shape[axis] // 2)
            halves = s.narrow(axis, 0, even).unflatten(axis, (even // 2, 2))
            s = halves.select(axis + 1, 0) + halves.select(axis + 1, 1)
        return s.mul_(1 / 16)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> Tensor:
        out = grad.new_zeros(ctx.shape)
        view, source = out, grad / 16
        for axis in (3, 2, 1, 0):
            half = grad.shape[axis]
            view = view.narrow(axis, 0, 2 * half).unflatten(axis, (half, 2))
            source = source.unsqueeze(axis + 1)
        view.copy_(source.expand_as(view))
        return out
