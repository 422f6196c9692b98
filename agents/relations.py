"""Differences between the points of a state, coarse and fine.

A network that is told where the finger, the blocks and the goals are must subtract before it can
tell whether they touch, and see a millimetre in coordinates that span half a metre. The differences
are given to it instead, once as they are and once through asinh, which keeps both scales. In a
space of many dimensions, where a distance is what no small network finds, they come with distances.
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
    """Appends what all pairs of points of one kind and size have between them to a state.

    Fields of kind `point`: differences, coarse and fine. Of kind `position`: differences, and
    distances coarse and fine.

    Args:
        fields: of the state.

    Raises:
        ValueError: if there is no pair.
    """

    def __init__(self, fields: Sequence[FieldSpec]) -> None:
        """Find the pairs."""
        starts: dict[tuple[str, int], list[int]] = {}
        at = 0
        for field in fields:
            if field.kind in ("point", "position"):
                starts.setdefault((field.kind, field.size), []).append(at)
            at += field.size
        self._pairs: list[tuple[bool, Tensor, Tensor]] = []
        self.n_features = at
        for (kind, size), found in starts.items():
            pairs = list(combinations(found, 2))
            if pairs:
                index = torch.tensor(pairs)[..., None] + torch.arange(size)  # (P, 2, size)
                self._pairs.append((kind == "position", index[:, 0], index[:, 1]))
                self.n_features += len(pairs) * (2 * size if kind == "point" else size + 2)
        if not self._pairs:
            raise ValueError(
                "relations need two point fields, or two positions of one size, in the state; got "
                f"{[field.name for field in fields] or 'no fields'}"
            )

    def __call__(self, state: Tensor) -> Tensor:
        """Maps `(..., D)` states to `(..., n_features)`."""
        parts = [state]
        for distances, first, second in self._pairs:
            difference = state[..., second] - state[..., first]  # (..., P, size)
            closely = (
                torch.linalg.vector_norm(difference, dim=-1)
                if distances
                else difference.flatten(-2)
            )
            parts += [difference.flatten(-2), *([closely] * distances), fine(closely)]
        return torch.cat(parts, dim=-1)
