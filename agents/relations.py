"""Differences between the points of a state, coarse and fine.

A network that is told where the finger, the blocks and the goals are must subtract before it can
tell whether they touch, and see a millimetre in coordinates that span half a metre. The differences
are given to it instead, once as they are and once through asinh, which keeps both scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from agents.frame import FieldSpec

FINE = 0.005
"""Differences below it (metres) are resolved linearly by the fine features, larger ones as logs."""


def fine(values: Tensor) -> Tensor:
    """`asinh(x / FINE)`."""
    return torch.asinh(values / FINE)


class Relations:
    """Appends the differences of all pairs of points to a state.

    Args:
        fields: of the state; those of kind `point` and size 2 count.

    Raises:
        ValueError: if there are fewer than two points.
    """

    def __init__(self, fields: Sequence[FieldSpec]) -> None:
        """Find the points."""
        starts: list[int] = []
        at = 0
        for field in fields:
            if field.kind == "point" and field.size == 2:
                starts.append(at)
            at += field.size
        pairs = list(combinations(starts, 2))
        if not pairs:
            raise ValueError(
                f"relations need at least two point fields in the state; got {len(starts)}"
            )
        self._a = torch.tensor([[a, a + 1] for a, _ in pairs])
        self._b = torch.tensor([[b, b + 1] for _, b in pairs])
        self.n_features = at + 4 * len(pairs)

    def __call__(self, state: Tensor) -> Tensor:
        """Maps `(..., D)` states in metres to `(..., n_features)`."""
        difference = (state[..., self._b] - state[..., self._a]).flatten(-2)
        return torch.cat((state, difference, fine(difference)), dim=-1)
