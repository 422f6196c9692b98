"""Random tensors from an explicit generator, on whatever device they are needed.

A `torch.Generator` lives on one device; these two draw there and move the result, so that one
seed gives one stream whether the policy runs on a CPU or on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor


def uniform(
    shape: tuple[int, ...],
    generator: torch.Generator,
    like: Tensor,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Uniform draws in `[low, high)` with the device and dtype of `like`.

    Args:
        shape: shape of the result.
        generator: source of the draws.
        like: tensor whose device and dtype the result takes.
        low: lower bound.
        high: upper bound.

    Returns:
        Tensor of the given shape.
    """
    draw = torch.rand(shape, generator=generator, device=generator.device)
    return draw.to(like).mul_(high - low).add_(low)


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal draws with the device and dtype of `like`.

    Args:
        shape: shape of the result.
        generator: source of the draws.
        like: tensor whose device and dtype the result takes.

    Returns:
        Tensor of the given shape.
    """
    return torch.randn(shape, generator=generator, device=generator.device).to(like)


def integers(shape: tuple[int, ...], high: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform int64 draws in `[0, high)` on the device of `like`.

    Args:
        shape: shape of the result.
        high: exclusive upper bound, at least 1.
        generator: source of the draws.
        like: tensor whose device the result takes.

    Returns:
        int64 tensor of the given shape.
    """
    draw = torch.randint(high, shape, generator=generator, device=generator.device)
    return draw.to(like.device)
