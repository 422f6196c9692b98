"""Normalisers kept as buffers, so that a checkpoint carries its own scales.

Observations go to zero mean and unit deviation, actions to [-1, 1] by their range with a margin
(Florence et al. 2021, appendix on hyperparameters: data min and max plus 5 % of the range).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STD_FLOOR = 1e-3
"""Smallest deviation divided by. Entries that vary less in the data are left out: see `forward`."""

CLIP = 10.0
"""Largest normalised observation; beyond it the data said nothing anyway."""


class ObservationNormalizer(nn.Module):
    """Zero mean, unit deviation for state vectors.

    Args:
        size: entries of the state.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor) -> None:
        """Takes mean and deviation from data.

        Args:
            values: `(..., D)` finite states.

        Raises:
            ValueError: if there is no row, or an entry is not finite.
        """
        rows = values.reshape(-1, values.shape[-1]).double()
        if rows.shape[0] == 0:
            raise ValueError("observations to fit must have at least one row; got none")
        if not torch.isfinite(rows).all():
            raise ValueError("observations to fit must be finite; got NaN or infinity")
        self.mean.copy_(rows.mean(dim=0))
        self.std.copy_(rows.std(dim=0, correction=0).clamp_min(STD_FLOOR))

    def forward(self, values: Tensor) -> Tensor:
        """Normalises `(..., D)` raw states, clipped to +-10 deviations.

        An entry that hardly varied in the data becomes 0. Weights on it were never trained, and
        dividing by a small deviation would hand them the least departure as many deviations: two
        slots that are 0.02 mm further apart than in the data, or an effector that lags behind its
        command by a millimetre, made good policies fail always.
        """
        normalized = ((values - self.mean) / self.std).clamp(-CLIP, CLIP)
        # Rounded up a little: 1e-3 in float32, and read back from files.
        return torch.where(self.std > STD_FLOOR * (1 + 1e-4), normalized, 0.0)


class ActionNormalizer(nn.Module):
    """Maps each action entry from its bounds to [-1, 1] and back.

    Args:
        size: entries of one action.
    """

    low: Tensor
    high: Tensor

    def __init__(self, size: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.register_buffer("low", -torch.ones(size))
        self.register_buffer("high", torch.ones(size))

    def fit(
        self,
        values: Tensor,
        low: Tensor | None = None,
        high: Tensor | None = None,
        margin: float = 0.05,
    ) -> None:
        """Takes the bounds from data: minimum and maximum, widened, inside the action space.

        Args:
            values: `(..., A)` finite actions.
            low: `(A,)` lower bound of the action space, infinite where it has none.
            high: `(A,)` upper bound.
            margin: fraction of the range added at either end.

        Raises:
            ValueError: if there is no row, or an entry is not finite.
        """
        rows = values.reshape(-1, values.shape[-1]).double()
        if rows.shape[0] == 0:
            raise ValueError("actions to fit must have at least one row; got none")
        if not torch.isfinite(rows).all():
            raise ValueError("actions to fit must be finite; got NaN or infinity")
        smallest, largest = rows.amin(dim=0), rows.amax(dim=0)
        widen = margin * (largest - smallest)
        lower, upper = smallest - widen, largest + widen
        if low is not None:
            lower = torch.minimum(torch.maximum(lower, low.double()), smallest)
        if high is not None:
            upper = torch.maximum(torch.minimum(upper, high.double()), largest)
        # An entry that never varies keeps a sliver of range: it decodes to its constant.
        sliver = 1e-4 * torch.maximum(
            torch.maximum(lower.abs(), upper.abs()), torch.ones_like(lower)
        )
        constant = upper - lower < sliver
        centre = (lower + upper) / 2
        self.low.copy_(torch.where(constant, centre - sliver / 2, lower))
        self.high.copy_(torch.where(constant, centre + sliver / 2, upper))

    def forward(self, actions: Tensor) -> Tensor:
        """Normalises `(..., A)` raw actions; the bounds become -1 and 1."""
        return (actions - self.low) / (self.high - self.low) * 2 - 1

    def inverse(self, normalized: Tensor) -> Tensor:
        """Undoes `forward`: `(..., A)` in [-1, 1] to raw units."""
        return (normalized + 1) / 2 * (self.high - self.low) + self.low
