"""A fully connected kernel where no gradient is asked for: all of its layers at once.

A block of rows goes through every layer while it lies in the cache, in the place of the products
that it starts from; no other array as large as the kernel is made. What a layer does is told in
`arc_cosine`, by which it is done where gradients are wanted.
"""

import math

import torch
from torch import Tensor

from learning.distillation.arc_cosine import polar, standard_deviation
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.products import times

BLOCK_BYTES = 2**18
"""Of a block; five of them are worked on, about a second-level cache. (2**17 took 5% longer.)"""


def kernel_at_once(config: KernelConfig, x: Tensor, y: Tensor) -> Tensor:
    """The kernel between some points, which knows no gradient.

    Args:
        config: a fully connected network.
        x: `(n, D)` points.
        y: `(m, D)` points; more than of `x` are fast, for passes are over long rows.

    Returns:
        `(n, m)`.
    """
    n, width = x.shape
    found = times(x, y)
    lengths = torch.cat([torch.linalg.vector_norm(points, dim=1) for points in (x, y)])
    deviations = _deviations(config, lengths.square(), width)
    inverse = [1 / one for one in deviations]
    for one in inverse:
        one[:n].neg_()
    length = min(n, max(1, BLOCK_BYTES // (found.element_size() * len(y))))
    scratch = found.new_empty(4, length, len(y))
    bias = found.new_tensor(config.b_std**2)
    for start in range(0, n, length):
        part = found[start : start + length]
        torch.add(bias, part, alpha=config.w_std**2 / width, out=part)
        space = scratch[:, : len(part)].unbind()
        rows = slice(start, start + len(part))
        sides = [(both[rows, None], both[None, n:]) for both in (*deviations, *inverse)]
        _layers_(config, part, bias, sides, space)
    return found


def _deviations(config: KernelConfig, squares: Tensor, width: int) -> list[Tensor]:
    """Standard deviations of the units of each hidden layer, before the ReLU.

    Args:
        config: the network.
        squares: sums of the squares of points.
        width: numbers of a point.
    """
    found: list[Tensor] = []
    weight, bias = config.w_std**2 / width, squares.new_tensor(config.b_std**2)
    for _ in range(config.depth):
        squares = torch.add(bias, squares, alpha=weight)
        found.append(standard_deviation(squares))
        weight = config.w_std**2 / 2
    return found


def _layers_(
    config: KernelConfig,
    part: Tensor,
    bias: Tensor,
    sides: list[tuple[Tensor, Tensor]],
    space: tuple[Tensor, ...],
) -> None:
    """Take a block from the covariance before the first ReLU to the kernel, in its place.

    Args:
        config: the network.
        part: `(k, m)`.
        bias: variance of the biases.
        sides: standard deviations of rows and columns in each layer, then what is
            1 over them, of rows with the other sign.
        space: four arrays like `part`.
    """
    minus, sine, angle, carried = space
    weight = config.w_std**2 / (2 * math.pi)
    theta = part
    carries = config.kind == "ntk"
    # Before the first ReLU Theta is Sigma: of a single layer, what is carried is a term once more.
    twice = carries and config.depth == 1
    carries = carries and not twice
    for layer in range(config.depth):
        (sx, sy), (one_by_sx, one_by_sy) = sides[layer], sides[config.depth + layer]
        torch.mul(part, one_by_sx, out=minus).mul_(one_by_sy)
        polar(minus, sine, angle)
        if carries:
            torch.mul(theta, angle, out=carried)
        sine.addcmul_(minus, angle, value=-2 if twice else -1).mul_(sx)
        torch.addcmul(bias, sine, sy, value=weight, out=part)
        if carries:
            theta = part if layer + 1 == config.depth else carried
            torch.add(part, carried, alpha=weight, out=theta)
