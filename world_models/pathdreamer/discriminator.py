"""The patch discriminator that the image generator learns against."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_models.pathdreamer.blocks import CircularConv2d, group_norm, spectral
from world_models.pathdreamer.config import PathdreamerConfig
from world_models.pathdreamer.inputs import laid_out


class Discriminator(nn.Module):
    """Patch discriminators on several scales, each convolution normalised spectrally.

    Source: Wang et al. 2018 (pix2pixHD), section 3.2; Park et al. 2019 (SPADE); Miyato et al. 2018.
    It sees the structure beside the picture, hence judges whether the two belong together.
    """

    def __init__(self, config: PathdreamerConfig) -> None:
        """Build from torch's global random generator."""
        super().__init__()
        self.n_classes = config.n_classes
        self.max_depth = config.max_depth
        own = config.discriminator
        n_in = 3 + config.n_classes + 1
        self.scales = nn.ModuleList(
            _PatchNet(n_in, own.width, own.layers) for _ in range(own.scales)
        )

    def forward(self, rgb: Tensor, semantic: Tensor, depth: Tensor) -> list[list[Tensor]]:
        """Judge pictures.

        Args:
            rgb: `(B, 3, H, W)` in [0, 1].
            semantic: `(B, H, W)` int64.
            depth: `(B, H, W)` metres.

        Returns:
            For each scale, fine to coarse, the features of each layer; the last is the score
            `(B, 1, h, w)`, high for what looks real.
        """
        classes = torch.zeros(len(rgb), self.n_classes, *rgb.shape[2:], device=rgb.device)
        classes.scatter_(1, semantic[:, None], 1.0)
        far = (depth.clamp(max=self.max_depth) / self.max_depth)[:, None]
        x = laid_out(torch.cat([2 * rgb - 1, classes, far], dim=1))
        found = []
        for net in self.scales:
            found.append(net(x))
            x = F.avg_pool2d(x, 2)
        return found


class _PatchNet(nn.Module):
    def __init__(self, n_in: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for index in range(layers):
            n_out = min(width * 2**index, 512)
            stride = 2 if index == 0 or index < layers - 1 else 1
            conv = spectral(CircularConv2d(n_in, n_out, 4, stride))
            # One group a channel is instance normalisation, which takes single cells too.
            norm = group_norm(n_out, n_out) if index else nn.Identity()
            self.layers.append(nn.Sequential(conv, norm, nn.LeakyReLU(0.2)))
            n_in = n_out
        self.layers.append(spectral(CircularConv2d(n_in, 1, 4)))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features
