"""What is around a place now, as a first guess of what may be there later.

Where a pattern will be is known less and less well; what arrives at a place is therefore a draw
from the neighbourhood it comes from, the larger the later (the local Lagrangian method of Germann
and Zawadzki 2004, "Scale dependence of the predictability of precipitation from continental radar
images. Part II: probability forecasts"). The network chooses, at each place and lead time, how
large it is, and corrects what it holds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models.metnet2.blocks import tile
from world_models.metnet2.config import MetNet2Config
from world_models.metnet2.motion import blur

_LEAST = 1e-5
_SEEN = 1e-3
"""Share of known cells in a neighbourhood below which the climate stands for it."""
_HALF = 0.5
_FINE = 200
"""Points in a bin at which the overlap of levels and bins is counted."""


class Neighbourhood(nn.Module):
    """How often each level of the quantity is met around a place, mixed to a distribution."""

    def __init__(self, config: MetNet2Config) -> None:
        """Start with equal weights of the scales."""
        super().__init__()
        self.config = config
        self.weigh = nn.Conv2d(config.width, len(config.scales) + 1, 1)
        self.closer = nn.Conv2d(config.fine_width, 1, 1)
        lead_width = config.lead_width if config.lead_modulation else 0
        self.by_lead = nn.Linear(lead_width, len(config.scales) + 2) if lead_width else None
        self.climate = nn.Parameter(torch.zeros(config.n_bins))
        self.spread = nn.Parameter((level_bins(config) + 1e-3).log())

    def shares(self, near: Tensor, known: Tensor) -> Tensor:
        """Shares of the levels around every coarse cell.

        Args:
            near: `(B, levels, H, W)` of `blocks.nearness`; zero where unknown.
            known: `(B, 1, H, W)`.

        Returns:
            `(B, S, levels, h, w)`; zero where nothing is known around, which `mix` gives the
            climate.
        """
        size = self.config.downsample
        both = F.avg_pool2d(torch.cat([near, known], dim=1), size)
        found = []
        for scale in self.config.scales:
            wide = blur(both, scale / size)
            around = wide[:, -1:]
            found.append(wide[:, :-1] / around.clamp_min(_SEEN) * (around > _SEEN))
        return torch.stack(found, dim=1)

    def mix(self, shares: Tensor, latent: Tensor, lead: Tensor | None) -> Tensor:
        """One distribution at every coarse cell: the scales, mixed as the lead time asks.

        Args:
            shares: `(B, S, levels, h, w)`.
            latent: `(B, width, h, w)`, which knows the lead time.
            lead: `(B, lead_width)`, or None.

        Returns:
            `(B, levels, h, w)`; what is missing to a sum of 1 is the climate's.
        """
        scores = self.weigh(latent).float() + self._by_lead(lead)[:, :-1]
        weights = scores.softmax(dim=1)[:, :-1, None]
        return (weights * shares).sum(dim=1)

    def guess(
        self, mixed: Tensor, near: Tensor, known: Tensor, fine: Tensor, lead: Tensor | None
    ) -> Tensor:
        """The first guess at full resolution.

        Args:
            mixed: `(B, levels, h, w)` of `mix`, arrived.
            near: `(B, levels, H, W)`, arrived.
            known: `(B, 1, H, W)`, arrived.
            fine: `(B, fine_width, H / fine_step, W / fine_step)`, which know the lead time.
            lead: `(B, lead_width)`, or None.

        Returns:
            `(B, K, H, W)` probabilities, none of them 0.
        """
        both = torch.cat([near, known], dim=1)
        close = blur(both, self.config.fine_scale)
        around = close[:, -1:]
        closer = torch.sigmoid(self.closer(fine).float() + self._by_lead(lead)[:, -1:])
        share = tile(closer, self.config.fine_step) * (around > _HALF)
        size = self.config.downsample
        wide = F.interpolate(mixed, scale_factor=size, mode="bilinear", align_corners=False)
        wide = wide * (1 - share)
        guess = torch.addcmul(wide, share / around.clamp_min(_HALF), close[:, :-1])
        # A level stands for the bins around it; what no level has is the climate's.
        missing = (1 - guess.sum(dim=1, keepdim=True)).clamp_min(0)
        table = torch.cat([self.spread.softmax(dim=1), self.climate.softmax(dim=0)[None]])
        levels = torch.cat([guess, missing], dim=1)
        found = (table.t() @ levels.flatten(2)).unflatten(2, levels.shape[2:])
        return found.clamp_min(_LEAST)

    def _by_lead(self, lead: Tensor | None) -> Tensor:
        """`(B, S + 2, 1, 1)`: what the lead time adds to the weights everywhere."""
        if self.by_lead is None or lead is None:
            return self.climate.new_zeros(1, len(self.config.scales) + 2, 1, 1)
        return self.by_lead(lead).float()[..., None, None]


def level_bins(config: MetNet2Config) -> Tensor:
    """How much of each level's hat lies in each bin, `(levels, K)` with sums of 1."""
    edges = torch.tensor(config.edges, dtype=torch.float64)
    steps = (torch.arange(_FINE, dtype=torch.float64) + 0.5) / _FINE
    points = edges[:-1, None] + (edges[1:] - edges[:-1])[:, None] * steps
    scaled = points / config.unit
    ends = edges / config.unit
    if config.transform == "log":
        scaled, ends = torch.log1p(scaled), torch.log1p(ends)
    place = scaled * ((config.levels - 1) / config.largest)
    hats = (1 - (place - torch.arange(config.levels)[:, None, None]).abs()).clamp_min(0)
    overlap = hats.mean(dim=2) * (ends[1:] - ends[:-1])
    return (overlap / overlap.sum(dim=1, keepdim=True)).float()
