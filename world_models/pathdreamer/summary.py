"""What a panorama is about: which classes it shows, guessed from what the memory shows from there.

A departure from the paper. What kind of room lies behind a door is worth little pixel by pixel, so
the structure generator learns it late. This small network learns nothing else, and quickly: it
looks at coarse cells, in which it counts the classes exactly instead of convolving ids. Where the
data say what kind of room each viewpoint is in (as Matterport3D's regions do), it learns to name
that too, which teaches it more a picture than the classes alone.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models.pathdreamer.blocks import CircularConv2d, group_norm
from world_models.pathdreamer.config import PathdreamerConfig
from world_models.pathdreamer.inputs import GuidanceBatch, elevation

ROWS = 8
"""Rows of cells; there are twice as many columns, whatever the size of the panorama."""


class Summary(nn.Module):
    """Cells of the guidance to a vector, from which the classes of the true panorama are told."""

    def __init__(self, config: PathdreamerConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.config = config
        channels = config.structure.summary
        width = channels // 4
        # Classes seen and filled in; what is valid, both depths, the elevation; colours.
        n_in = 2 * config.n_classes + 4
        if config.structure.colours:
            n_in += 6 + 3 * config.n_classes
        self.body = nn.Sequential(
            nn.Conv2d(n_in, width, 1),
            _Residual(width),
            _convolution(width, 2 * width, 2),
            _Residual(2 * width),
            _Residual(2 * width),
        )
        self.pooled = nn.Sequential(
            nn.LayerNorm(4 * width), nn.Linear(4 * width, channels), nn.ReLU(inplace=True)
        )
        self.classes = nn.Linear(channels, config.n_classes)
        self.rooms = nn.Linear(channels, len(config.rooms)) if config.rooms else None

    def forward(self, guidance: GuidanceBatch) -> Tensor:
        """`(B, channels)`."""
        x = self.body(self.cells(guidance))
        return cast(Tensor, self.pooled(torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], 1)))

    def shown(self, guidance: GuidanceBatch) -> Tensor:
        """`(B, K)` logits of how much of each class is shown; see `losses.shown_classes`."""
        return cast(Tensor, self.classes(self(guidance))).float()

    def cells(self, guidance: GuidanceBatch) -> Tensor:
        """Means over the cells, `(B, channels, ROWS, 2 * ROWS)`.

        Shares of the classes that were seen, and in the holes of those that fill them; the share
        that was seen; depths over the largest; the elevation; colours, and those of each class
        that was seen, however few its pixels: the colour of a door far away tells what is behind.
        """
        valid, farthest = guidance.valid, self.config.max_depth
        known = valid[:, None].float()
        depths = torch.stack([guidance.depth, guidance.filled_depth], 1)
        dense = [known, depths.clamp(max=farthest) / farthest]
        if self.config.structure.colours:
            dense += [guidance.rgb, guidance.filled_rgb]
        height, width = guidance.size
        rows = elevation(height, width, valid.device).expand(len(guidance), -1, -1, -1)
        shares = self._sums(guidance.semantic, valid.float())
        parts = [
            shares,
            self._sums(guidance.filled_semantic, (~valid).float()),
            F.adaptive_avg_pool2d(torch.cat([*dense, rows], 1), (ROWS, 2 * ROWS)),
        ]
        if self.config.structure.colours:
            # What is not seen is 0, as is middling grey.
            least = 0.5 / (height * width)
            for channel in range(3):
                shown = (guidance.rgb[:, channel] - 0.5) * valid
                parts.append(self._sums(guidance.semantic, shown) / shares.clamp(min=least))
        return torch.cat(parts, dim=1)

    def _sums(self, ids: Tensor, values: Tensor) -> Tensor:
        """`(B, K, ROWS, 2 * ROWS)`: of a cell's pixels of each class, the sum over their number."""
        batch, height, width = ids.shape
        n_cells = 2 * ROWS * ROWS
        row = torch.arange(height, device=ids.device) * ROWS // height
        column = torch.arange(width, device=ids.device) * 2 * ROWS // width
        cell = (row[:, None] * 2 * ROWS + column).expand_as(ids)
        sums = torch.zeros(batch, self.config.n_classes * n_cells, device=ids.device)
        weight = values * (n_cells / (height * width))
        sums.scatter_add_(1, (ids * n_cells + cell).flatten(1), weight.flatten(1))
        return sums.view(batch, self.config.n_classes, ROWS, 2 * ROWS)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + cast(Tensor, self.body(x))


def _convolution(n_in: int, n_out: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        CircularConv2d(n_in, n_out, 3, stride, bias=False), group_norm(n_out), nn.ReLU(inplace=True)
    )
