"""What both networks see: the guidance of a batch, as tensors."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NEUTRAL_DEPTH = 2.5
"""Metres that stand in where nothing at all has been seen: about the median of indoor views."""
NEUTRAL_COLOUR = 0.5


@dataclass(frozen=True)
class GuidanceBatch:
    """Memory projected into the panoramas to be predicted, and its holes filled from nearby.

    Attributes:
        rgb: `(B, 3, H, W)` float in [0, 1]; 0 where not valid.
        semantic: `(B, H, W)` int64 ids; 0 where not valid.
        depth: `(B, H, W)` float metres; 0 where not valid.
        valid: `(B, H, W)` bool.
        filled_rgb: `(B, 3, H, W)`, every hole having the value of the nearest valid pixel.
        filled_semantic: `(B, H, W)`, likewise.
        filled_depth: `(B, H, W)`, likewise; positive.
    """

    rgb: Tensor
    semantic: Tensor
    depth: Tensor
    valid: Tensor
    filled_rgb: Tensor
    filled_semantic: Tensor
    filled_depth: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.valid)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.valid.shape[-2], self.valid.shape[-1]

    def to(self, device: torch.device | str) -> "GuidanceBatch":
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def repeat(self, n: int) -> "GuidanceBatch":
        """Every sample n times in a row: `(B * n, ...)`."""
        return self._each(lambda tensor: tensor.repeat_interleave(n, dim=0))

    def roll(self, columns: int) -> "GuidanceBatch":
        """Turned on the spot by so many columns to the right."""
        return self._each(lambda tensor: tensor.roll(columns, dims=-1))

    def complete(self) -> "GuidanceBatch":
        """The same with neutral fillings where a memory held nothing to fill with."""
        nothing = self.filled_depth <= 0
        return replace(
            self,
            filled_rgb=torch.where(nothing[:, None], NEUTRAL_COLOUR, self.filled_rgb),
            filled_depth=torch.where(nothing, NEUTRAL_DEPTH, self.filled_depth),
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> "GuidanceBatch":
        return replace(
            self, **{item.name: change(getattr(self, item.name)) for item in fields(self)}
        )

    @classmethod
    def empty(cls, batch: int, height: int, width: int) -> "GuidanceBatch":
        """Guidance of a memory that holds nothing."""
        colour = torch.zeros(batch, 3, height, width)
        plain = torch.zeros(batch, height, width)
        ids = plain.long()
        return cls(colour, ids, plain, plain.bool(), colour, ids, plain).complete()

    @classmethod
    def of_truth(cls, rgb: Tensor, semantic: Tensor, depth: Tensor) -> "GuidanceBatch":
        """Panoramas as if all of them had been seen; valid where there is depth."""
        return cls(rgb, semantic, depth, depth > 0, rgb, semantic, depth).complete()


class ClassChannels(nn.Module):
    """Semantic ids as channels: one-hot, or a vector learned for every class.

    The learned vectors are what a 1x1 convolution of the one-hot channels would give, looked up.
    """

    def __init__(self, n_classes: int, embedding: int) -> None:
        """Args: number of ids, and of channels; 0 channels gives one-hot ones."""
        super().__init__()
        self.n_classes = n_classes
        self.channels = embedding or n_classes
        self.vectors = nn.Parameter(torch.randn(n_classes, embedding)) if embedding else None

    def forward(self, ids: Tensor) -> Tensor:
        """`(B, H, W)` int64 to `(B, channels, H, W)`."""
        if self.vectors is not None:
            return F.embedding(ids, self.vectors).movedim(-1, 1)
        channels = torch.zeros(len(ids), self.n_classes, *ids.shape[1:], device=ids.device)
        return channels.scatter_(1, ids[:, None], 1.0)


def laid_out(x: Tensor) -> Tensor:
    """A tensor in the memory layout that its convolutions are fastest in.

    channels_last on a GPU and in bfloat16; the image generator in float32 on a CPU takes 1.4 (a
    training step) to 1.7 times (a forward pass) as long in it.
    """
    if x.device.type == "cuda" or torch.is_autocast_enabled(x.device.type):
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def elevation(height: int, width: int, device: torch.device) -> Tensor:
    """`(1, 1, H, W)` sine of how far up each pixel looks: -1 down, 1 up.

    A convolution that wraps around cannot tell the horizon from the floor by itself.
    """
    rows = (torch.arange(height, device=device) + 0.5) / height
    return (0.5 * math.pi - math.pi * rows).sin()[None, None, :, None].expand(1, 1, height, width)


def depth_logit(depth: Tensor, max_depth: float) -> Tensor:
    """Depth in metres as a logit of its share of the largest.

    Within half a per cent of both ends it is held there, where the logit is finite.
    """
    return (depth / max_depth).clamp(0.005, 0.995).logit()
