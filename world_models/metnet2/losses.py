"""What a forecast of bins is trained by, on cells taken out of their maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def bin_of(observed: Tensor, edges: Tensor) -> Tensor:
    """The bin of each value; beyond the last edge the last one.

    Args:
        observed: any shape, finite.
        edges: `(K + 1,)`.

    Returns:
        int64, the same shape. A bin holds its lower edge.
    """
    return torch.bucketize(observed, edges[1:-1], right=True)


def cross_entropy(logits: Tensor, observed: Tensor, edges: Tensor) -> Tensor:
    """Mean negative log likelihood of the bins, in nats: the loss of the paper.

    Args:
        logits: `(N, K)`.
        observed: `(N,)`.
        edges: `(K + 1,)`.
    """
    return F.cross_entropy(logits, bin_of(observed, edges))


def mean_crps(logits: Tensor, observed: Tensor, edges: Tensor) -> Tensor:
    """Mean CRPS of a distribution that is an atom at the first edge and even within other bins.

    The exact integral of (F(x) - 1[x >= o])^2 (Hersbach 2000, eq. 1), as
    `world_models.metnet2.scores.crps` has it for arrays.

    Args:
        logits: `(N, K)`.
        observed: `(N,)`.
        edges: `(K + 1,)`.

    Returns:
        A scalar in the unit of the edges.
    """
    probabilities = logits.softmax(dim=1)
    high = probabilities.cumsum(dim=1)
    low = torch.cat([high[:, :1], high[:, :-1]], dim=1)
    widths = edges[1:] - edges[:-1]
    # Without the observation all would be above it: the integral of (1 - F)^2. What is below it
    # counts F^2 instead, whose difference is 2 F - 1, linear: exact at the middle of the part.
    rest = 1 - high
    above = (1 - low) ** 2 + (1 - low) * rest + rest * rest
    total = (above * (widths / 3)).sum(dim=1)
    share = ((observed[:, None] - edges[:-1]) / widths).clamp(0, 1)
    middle = low + 0.5 * share * (high - low)
    total = total + ((2 * middle - 1) * (share * widths)).sum(dim=1)
    beyond = (observed - edges[-1]).clamp_min(0) + (edges[0] - observed).clamp_min(0)
    return (total + beyond).mean()
