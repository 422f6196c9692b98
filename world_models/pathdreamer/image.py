"""The image generator: from structure and the colours that are seen to a whole picture."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models.pathdreamer.blocks import CircularConv2d, PartialConv2d, group_norm, spectral
from world_models.pathdreamer.config import ImageConfig, PathdreamerConfig
from world_models.pathdreamer.inputs import ClassChannels, GuidanceBatch, elevation, laid_out

Conditions = dict[int, tuple[Tensor, Tensor, Tensor]]
"""By height: structure `(B, S, h, w)`, colours `(B, 3, h, w)` and their mask `(B, 1, h, w)`."""


class ImageGenerator(nn.Module):
    """Residual blocks from coarse to fine, modulated by structure and by the projected colours.

    Source: Koh et al. 2021, section 3.2; Mallya et al. 2020, "World-Consistent Video-to-Video
    Synthesis" (Multi-SPADE); Park et al. 2019 (SPADE). Departures: it starts from the filled
    colours, which lie where they belong, and not from the previous picture; it predicts a change
    of them; and conditions are averaged down over what is valid, not subsampled.
    """

    def __init__(self, config: PathdreamerConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        own = config.image
        self.config = config
        self.classes = ClassChannels(config.n_classes, own.embedding)
        n_structure = self.classes.channels + 2
        self.start = CircularConv2d(3, own.channels[0], 3)
        n_in = (own.channels[0], *own.channels[:-1])
        self.blocks = nn.ModuleList(
            _Block(before, after, n_structure, own)
            for before, after in zip(n_in, own.channels, strict=True)
        )
        self.head = CircularConv2d(own.channels[-1], 3, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))

    def forward(self, guidance: GuidanceBatch, semantic: Tensor, depth: Tensor) -> Tensor:
        """Paint.

        Args:
            guidance: colours that are seen, and filled ones.
            semantic: `(B, H, W)` int64, predicted or true.
            depth: `(B, H, W)` metres.

        Returns:
            `(B, 3, H, W)`: the filled colours plus a change in (-1, 1). Not clamped to [0, 1],
            which would stop gradients: clamp it to look at it.

        Raises:
            ValueError: for a size that the strides do not divide.
        """
        self.config.check_size(*guidance.size)
        conditions = self._conditions(guidance, semantic, depth)
        x = self.start(F.avg_pool2d(guidance.filled_rgb, self.config.image.stride))
        for index, block in enumerate(self.blocks):
            x = block(x, conditions)
            if index in self.config.image.upsample_after:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        change = torch.tanh(self.head(F.leaky_relu(x, 0.2)).float())
        return guidance.filled_rgb + change

    def _conditions(self, guidance: GuidanceBatch, semantic: Tensor, depth: Tensor) -> Conditions:
        """Conditions at every resolution from that of the panorama to the coarsest block's."""
        height, width = guidance.size
        farthest = self.config.max_depth
        structure = torch.cat(
            [
                self.classes(semantic),
                (depth.clamp(max=farthest) / farthest)[:, None],
                elevation(height, width, depth.device).expand(len(guidance), -1, -1, -1),
            ],
            dim=1,
        )
        structure = laid_out(structure)
        mask = guidance.valid[:, None].float()
        colours = guidance.rgb * mask
        found = {}
        for level in range(len(self.config.image.upsample_after) + 1):
            if level:
                structure = F.avg_pool2d(structure, 2)
                colours, mask = F.avg_pool2d(colours, 2), F.avg_pool2d(mask, 2)
            # `colours` and `mask` hold sums over valid pixels, up to one common factor.
            mean = colours / mask.clamp(min=1e-6)
            found[height >> level] = (structure, mean, (mask > 0).float())
        return found


class MultiSpade(nn.Module):
    """Normalisation whose scale and shift follow the structure, then the visible colours.

    Source: Mallya et al. 2020, section 3.2.
    """

    def __init__(self, channels: int, n_structure: int, config: ImageConfig) -> None:
        """Modulate `channels` by `n_structure` channels of structure and 3 of colour."""
        super().__init__()
        self.norm = group_norm(channels, affine=False)
        self.structure = CircularConv2d(n_structure, config.hidden, 3)
        self.by_structure = _Modulation(channels, config)
        self.colour = PartialConv2d(3, config.hidden, 3)
        self.by_colour = _Modulation(channels, config)

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        structure, colours, mask = conditions[x.shape[-2]]
        x = self.by_structure(self.norm(x), F.relu(self.structure(structure), inplace=True))
        return self.by_colour(x, F.relu(self.colour(colours, mask), inplace=True))


class _Modulation(nn.Module):
    """Scale and shift computed from a condition.

    Two convolutions, and not one that is cut in two, which takes 5 to 8 per cent longer. That the
    scale starts at 1 is in its bias: a pass over the features less.
    """

    def __init__(self, channels: int, config: ImageConfig) -> None:
        super().__init__()
        self.scale = CircularConv2d(config.hidden, channels, config.modulation_kernel)
        self.shift = CircularConv2d(config.hidden, channels, config.modulation_kernel)
        with torch.no_grad():
            cast(Tensor, self.scale.bias).add_(1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.scale(condition), self.shift(condition)
        return torch.addcmul(shift, x.to(shift.dtype), scale)


class _Block(nn.Module):
    """Residual block with MultiSpade before each of its convolutions."""

    def __init__(self, n_in: int, n_out: int, n_structure: int, config: ImageConfig) -> None:
        super().__init__()
        middle = min(n_in, n_out)
        self.norms = nn.ModuleList(
            MultiSpade(channels, n_structure, config) for channels in (n_in, middle)
        )
        self.convs = nn.ModuleList(
            spectral(CircularConv2d(before, after, 3), config.spectral_norm)
            for before, after in ((n_in, middle), (middle, n_out))
        )
        self.shortcut = None
        if n_in != n_out:
            self.shortcut_norm = MultiSpade(n_in, n_structure, config)
            self.shortcut = spectral(
                CircularConv2d(n_in, n_out, 1, bias=False), config.spectral_norm
            )

    def forward(self, x: Tensor, conditions: Conditions) -> Tensor:
        kept = x
        if self.shortcut is not None:
            kept = self.shortcut(self.shortcut_norm(x, conditions))
        for norm, conv in zip(self.norms, self.convs, strict=True):
            x = conv(F.leaky_relu(norm(x, conditions), 0.2))
        return kept + x
