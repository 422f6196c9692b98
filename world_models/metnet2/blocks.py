"""Layers of MetNet-2.

All normalise each cell by itself, so that parts of a map can be computed apart: `partition`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def space_to_depth(planes: Tensor, size: int) -> Tensor:
    """`(B, C, H, W)` to `(B, C * size**2, H / size, W / size)`: no value is lost."""
    return F.pixel_unshuffle(planes, size)


def tile(planes: Tensor, size: int) -> Tensor:
    """Repeat every cell `size` times along rows and columns."""
    return F.interpolate(planes, scale_factor=size, mode="nearest")


class CellNorm(nn.Module):
    """Layer normalisation over the channels of each cell, without scale and shift.

    Those are FiLM's, or an `Affine`'s.
    """

    def forward(self, planes: Tensor) -> Tensor:
        """`(B, C, H, W)`, each cell to mean 0 and variance 1 over C."""
        last = planes.movedim(1, -1)
        return F.layer_norm(last, last.shape[-1:]).movedim(-1, 1)


class Film(nn.Module):
    """Scale and shift of every channel by the lead time, after a norm (Perez et al. 2018)."""

    def __init__(self, lead_width: int, width: int) -> None:
        """Start near no change.

        Args:
            lead_width: of the embedded lead time; 0: the scale and shift know no lead time.
            width: channels.
        """
        super().__init__()
        self.layer = nn.Linear(lead_width, 2 * width) if lead_width else None
        if self.layer is None:
            self.both = nn.Parameter(torch.zeros(2 * width))
        else:
            with torch.no_grad():
                self.layer.weight.mul_(0.3)

    def forward(self, planes: Tensor, lead: Tensor | None) -> Tensor:
        """Modulate.

        Args:
            planes: `(B, C, H, W)`.
            lead: `(B, lead_width)`; not looked at if there is no lead width.
        """
        if self.layer is None:
            both = self.both[None]
        else:
            assert lead is not None
            both = self.layer(lead)
        scale, shift = both[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, planes, 1 + scale)


class LeadTime(nn.Module):
    """Embeds a lead time: one-hot, two layers with a non-linearity after each."""

    def __init__(self, n_leads: int, step: float, width: int) -> None:
        """Lead times of 1 to `n_leads` steps of so many seconds."""
        super().__init__()
        self.n_leads, self.step = n_leads, step
        self.first = nn.Linear(n_leads, width)
        self.second = nn.Linear(width, width)
        # torch's own start scales by the number of lead times, of which but one is on.
        nn.init.normal_(self.first.weight)
        nn.init.kaiming_normal_(self.second.weight, nonlinearity="relu")

    def one_hot(self, seconds: Tensor) -> Tensor:
        """`(B,)` seconds to `(B, n_leads)`; between two lead times, a share of each.

        Raises:
            ValueError: for lead times that were not trained.
        """
        place = seconds / self.step - 1
        if bool(((place < -1e-4) | (place > self.n_leads - 1 + 1e-4)).any()):
            raise ValueError(
                f"lead times must be {self.step:g} to {self.step * self.n_leads:g} seconds, "
                f"got {[float(s) for s in seconds]}"
            )
        steps = torch.arange(self.n_leads, device=seconds.device)
        return (1 - (place[:, None] - steps).abs()).clamp_min(0)

    def forward(self, seconds: Tensor) -> Tensor:
        """`(B,)` seconds to `(B, width)`."""
        one_hot = self.one_hot(seconds).to(self.first.weight.dtype)
        return torch.relu(self.second(torch.relu(self.first(one_hot))))


class ResidualBlock(nn.Module):
    """Norm, FiLM, ReLU and a dilated convolution, twice, beside the identity."""

    def __init__(self, width: int, dilation: int, lead_width: int, dropout: float = 0.0) -> None:
        """Make it; `lead_width` 0: lead times do not matter."""
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.norms = nn.ModuleList(CellNorm() for _ in range(2))
        self.films = nn.ModuleList(Film(lead_width, width) for _ in range(2))
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(2)
        )

    def forward(self, planes: Tensor, lead: Tensor | None) -> Tensor:
        """`(B, C, H, W)` to the same."""
        inner = planes
        for norm, film, conv in zip(self.norms, self.films, self.convs, strict=True):
            inner = conv(torch.relu(film(norm(inner), lead)))
        return planes + self.dropout(inner)


class Stack(nn.Module):
    """Residual blocks, one for each dilation."""

    def __init__(
        self, width: int, dilations: Sequence[int], lead_width: int, dropout: float = 0.0
    ) -> None:
        """Make the blocks."""
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(width, d, lead_width, dropout) for d in dilations)

    def forward(self, planes: Tensor, lead: Tensor | None) -> Tensor:
        """`(B, C, H, W)` to the same."""
        for block in self.blocks:
            planes = block(planes, lead)
        return planes


class ConvLstm(nn.Module):
    """One layer of a convolutional LSTM over the past frames, however many there are.

    Source: Shi et al. 2015, "Convolutional LSTM network", eq. 3, without peepholes.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        """Gates are of kernel 3; forgetting starts rare."""
        super().__init__()
        self.width = width
        self.inputs = nn.Conv2d(in_channels, 4 * width, 3, padding=1)
        self.hidden = nn.Conv2d(width, 4 * width, 3, padding=1, bias=False)
        with torch.no_grad():
            bias = self.inputs.bias
            assert bias is not None
            bias[width : 2 * width] += 1.0

    def forward(self, frames: Sequence[Tensor]) -> Tensor:
        """The hidden state after the last frame.

        Args:
            frames: `(B, C, h, w)` each, oldest first.

        Returns:
            `(B, width, h, w)`.
        """
        state: tuple[Tensor, Tensor] | None = None
        for frame in frames:
            gates = self.inputs(frame)
            if state is not None:
                gates = gates + self.hidden(state[0])
            write, forget, read, value = gates.chunk(4, dim=1)
            cell = torch.sigmoid(write) * torch.tanh(value)
            if state is not None:
                cell = cell + torch.sigmoid(forget) * state[1]
            state = torch.sigmoid(read) * torch.tanh(cell), cell
        assert state is not None
        return state[0]


def nearness(values: Tensor, levels: int, largest: float) -> Tensor:
    """How near values are to evenly spread levels: 1 at a level, falling to 0 at the next.

    A network tells values apart by it that lie close to each other on a long scale.

    Args:
        values: `(B, 1, H, W)`.
        levels: from 0 to `largest`, the first and the last included.
        largest: values beyond count as this.

    Returns:
        `(B, levels, H, W)`, sums of 1.
    """
    place = (values.clamp(0, largest) * ((levels - 1) / largest)).expand(-1, levels, -1, -1)
    steps = torch.arange(levels, dtype=values.dtype, device=values.device)[:, None, None]
    return (1 - (place - steps).abs()).clamp_min(0)
