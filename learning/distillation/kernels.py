"""Kernels of infinitely wide networks: one tile is a pure function of network and points.

Sigma is the covariance of a layer's units, Theta the tangent kernel. Dense layers and convolutions
(the latter with means over neighbourhoods, `spatial`):

    Sigma' = w^2 E[relu relu] + b^2
    Theta' = Sigma' + w^2 E[relu' relu'] Theta

Sources: Jacot et al. 2018, "Neural Tangent Kernel", theorem 1; Arora et al. 2019, "On Exact
Computation with an Infinitely Wide Neural Net", sections 3 and 4.
"""

import math

import torch
from torch import Tensor

from learning.distillation.arc_cosine import relu_moments, standard_deviation
from learning.distillation.hidden_layers import kernel_at_once
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.products import products
from learning.distillation.spatial import (
    average,
    convolve,
    covariance,
    flatten,
    pool,
    same_position,
)

Pair = tuple[Tensor, Tensor | None]
"""Sigma and Theta; no Theta for the NNGP kernel."""


def kernel_tile(config: KernelConfig, x: Tensor, y: Tensor) -> Tensor:
    """The kernel between some points, at once; `tiles.kernel` bounds the memory.

    Args:
        config: the network.
        x: `(n, ...)` points; images `(n, C, H, W)` for a convolutional network.
        y: `(m, ...)` points of the same shape.

    Returns:
        `(n, m)`, differentiable once in both.
    """
    if config.convs:
        return _convolutional(config, x, y)
    return _fully_connected(config, x.flatten(1), y.flatten(1))


def kernel_diagonal(config: KernelConfig, x: Tensor) -> Tensor:
    """The kernel of each point with itself.

    Args:
        config: the network.
        x: `(n, ...)` points.

    Returns:
        `(n,)`.
    """
    if not config.convs:
        flat = x.flatten(1)
        s = _affine(config, flat.square().mean(1))
        theta = s
        for _ in range(config.depth):
            s = _affine(config, s / 2)
            theta = s + config.w_std**2 / 2 * theta
        return theta if config.kind == "ntk" else s
    ones = [kernel_tile(config, point[None], point[None]) for point in x]
    return torch.cat(ones).flatten()


def _affine(config: KernelConfig, s: Tensor) -> Tensor:
    """Covariance after a dense layer."""
    return config.w_std**2 * s + config.b_std**2


def _dense(config: KernelConfig, s: Tensor, theta: Tensor | None, share: float = 1.0) -> Pair:
    """A dense layer on what `share` times Sigma and Theta are."""
    weight = config.w_std**2 * share
    after = torch.add(s.new_full((), config.b_std**2), s, alpha=weight)
    return after, None if theta is None else torch.add(after, theta, alpha=weight)


def _fully_connected(config: KernelConfig, x: Tensor, y: Tensor) -> Tensor:
    if len(x) > len(y):  # passes are fastest over long rows
        return _fully_connected(config, y, x).T
    if not (torch.is_grad_enabled() and (x.requires_grad or y.requires_grad)):
        return kernel_at_once(config, x, y)
    s = products(x, y, config.w_std**2 / x.shape[1], config.b_std**2)
    vx, vy = (_affine(config, points.square().mean(1)) for points in (x, y))
    theta = s if config.kind == "ntk" else None
    dense = config.w_std**2 / (2 * math.pi), config.b_std**2
    for _ in range(config.depth):
        sx, sy = standard_deviation(vx)[:, None], standard_deviation(vy)[None]
        s, theta = relu_moments(s, theta, sx, sy, dense)
        vx, vy = _affine(config, vx / 2), _affine(config, vy / 2)
    return s if theta is None else theta


def _convolutional(config: KernelConfig, x: Tensor, y: Tensor) -> Tensor:
    """Carries the covariances of the points with themselves along: pooling mixes positions."""
    channels = x.shape[1]
    s = covariance(x, y)
    own = [
        torch.einsum("ichw,icab->hawbi", points, points).contiguous() / channels
        for points in (x, y)
    ]
    theta: Tensor | None = None
    scale, bias = config.w_std**2, x.new_full((), config.b_std**2)
    for number, layer in enumerate(config.layers):
        if layer == "pool":
            s, theta = pool(s), None if theta is None else pool(theta)
            own = [pool(one) for one in own]
            continue
        s = convolve(s, scale, bias)
        if config.kind == "ntk":
            theta = s if theta is None else convolve(theta, scale, s)
        own = [convolve(one, scale, bias) for one in own]
        s, theta = _relu(s, theta, own)
        scale = config.w_std**2 / (2 * math.pi)
        if "conv" in config.layers[number + 1 :]:
            own = [_relu(one, None, [one, one])[0] for one in own]
        else:
            own = []
    head = flatten if config.head == "flatten" else average
    s, theta = _dense(config, head(s), None if theta is None else head(theta), 1 / (2 * math.pi))
    return s if theta is None else theta


def _relu(s: Tensor, theta: Tensor | None, own: list[Tensor]) -> Pair:
    """ReLU at every pair of positions.

    Args:
        s: `(H, H', W, W', n, m)`, or `(H, H', W, W', n)` of points with themselves.
        theta: likewise.
        own: covariances of the points of both sides with themselves, `(H, H, W, W, n)`.
    """
    sx, sy = (standard_deviation(same_position(one)) for one in own)  # (H, W, n)
    sx, sy = sx[:, None, :, None], sy[None, :, None]
    if s.ndim == 6:
        # Spread over all pairs, which costs little: passes are slow over rows as short as one side.
        pairs = s.shape[-2:]
        sx = sx[..., None].expand(*sx.shape[:-1], *pairs).contiguous()
        sy = sy[..., None, :].expand(*sy.shape[:-1], *pairs).contiguous()
    return relu_moments(s, theta, sx, sy)
