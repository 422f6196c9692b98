"""Layers for panoramas: columns wrap around, rows do not.

Every layer commutes with a roll of the columns by a multiple of its stride, so that turning on the
spot changes nothing but the order of the columns. (In the published code some convolutions pad
with zeros at the seam, and 4x4 ones of stride 2 change the width.)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


def wrap(x: Tensor, left: int, right: int) -> Tensor:
    """Columns from the other end on both sides.

    Args:
        x: `(B, C, H, W)`.
        left: columns to add before the first; at most W.
        right: columns to add after the last; at most W.

    Returns:
        `(B, C, H, left + W + right)`.
    """
    if not left and not right:
        return x
    # Slices laid side by side: half the time of `pad(mode="circular")`, and channels_last stays.
    width = x.shape[-1]
    parts = [x[..., width - left :], x, x[..., :right]]
    return torch.cat([part for part in parts if part.shape[-1]], dim=-1)


class CircularConv2d(nn.Conv2d):
    """Convolution whose input wraps around horizontally and is zero above and below.

    An even size (H, W) becomes (H / stride, W / stride), whatever the kernel.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, **more: Any) -> None:
        """Square kernel; `more` as of `nn.Conv2d`."""
        super().__init__(n_in, n_out, kernel, stride, **more)
        self.before, self.after = (kernel - 1) // 2, kernel // 2

    def forward(self, input: Tensor) -> Tensor:
        """`(B, n_in, H, W)` to `(B, n_out, H / stride, W / stride)`."""
        return F.conv2d(self._padded(input), self.weight, self.bias, self.stride, self._rows())

    def _rows(self) -> tuple[int, int]:
        return (self.before if self.before == self.after else 0, 0)

    def _padded(self, x: Tensor) -> Tensor:
        x = wrap(x, self.before, self.after)
        if self.before != self.after:
            x = F.pad(x, (0, 0, self.before, self.after))
        return x


class CircularConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution of stride 2 that wraps around horizontally; kernel 2 or 3."""

    def __init__(self, n_in: int, n_out: int, kernel: int, **more: Any) -> None:
        """Square kernel; `more` as of `nn.ConvTranspose2d`.

        Raises:
            ValueError: for another kernel than 2 or 3.
        """
        if kernel not in (2, 3):
            raise ValueError(f"kernel must be 2 or 3, got {kernel}")
        super().__init__(n_in, n_out, kernel, 2, **more)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """`(B, n_in, H, W)` to `(B, n_out, 2 H, 2 W)`."""
        if self.kernel_size[0] == 2:
            return F.conv_transpose2d(input, self.weight, self.bias, 2)
        # One more column on both sides makes two more output columns, and 3 are cut off: those, and
        # the one that padding 1 cuts.
        return F.conv_transpose2d(wrap(input, 1, 1), self.weight, self.bias, 2, (1, 3), (1, 1))


class PartialConv2d(CircularConv2d):
    """Convolution over the valid pixels of its window only.

    `W^T (X * M) * sum(1) / sum(M) + b` where the window holds a valid pixel, else 0. What lies
    above and below the panorama is invalid. Source: Liu et al. 2018, "Image Inpainting for
    Irregular Holes Using Partial Convolutions", eq. 1 and 2.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            input: `(B, n_in, H, W)`; what it holds where the mask is 0 does not matter, if finite.
            mask: `(B, 1, H, W)`, 0 or 1; None: all valid.

        Returns:
            `(B, n_out, H / stride, W / stride)`.
        """
        if mask is None:
            mask = input.new_ones(len(input), 1, *input.shape[2:])
        mask = mask.to(input.dtype)
        size = self.kernel_size[0]
        ones = mask.new_ones(1, 1, size, size)
        with torch.no_grad():
            count = F.conv2d(self._padded(mask), ones, None, self.stride, self._rows())
            scale = torch.where(count > 0, size * size / count.clamp(min=1), 0)
        total = F.conv2d(self._padded(input * mask), self.weight, None, self.stride, self._rows())
        result = total * scale
        if self.bias is not None:
            result = result + self.bias[:, None, None] * (scale > 0)
        return result


class _GroupNorm(nn.GroupNorm):
    """torch's, kept from the case that ends the process."""

    def forward(self, input: Tensor) -> Tensor:
        if not input.requires_grad:
            # torch 2.13 on a CPU: the backward pass of a channels_last input that needs no gradient
            # writes to a null pointer.
            input = input.contiguous()
        return super().forward(input)


def group_norm(channels: int, groups: int | None = None, affine: bool = True) -> nn.GroupNorm:
    """Normalisation that does not look at other samples, hence works on a single one.

    Source: Wu and He 2018, "Group Normalization".

    Args:
        channels: to normalise.
        groups: of channels; None: at least 4 channels each, 32 groups at most. As many as channels
            make instance normalisation.
        affine: whether scale and shift are learned.
    """
    if groups is None:
        groups = min(32, max(1, channels // 4))
        while channels % groups:
            groups -= 1
    return _GroupNorm(groups, channels, affine=affine)


def spectral(conv: CircularConv2d, on: bool = True) -> CircularConv2d:
    """A convolution whose weight is divided by its largest singular value (Miyato et al. 2018)."""
    if not on:
        return conv
    normalised = spectral_norm(conv)
    assert isinstance(normalised, CircularConv2d)
    return normalised


class ResidualBlock(nn.Module):
    """Residual block of an encoder: two 3x3 convolutions, or a bottleneck that widens four times.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", fig. 5.
    """

    def __init__(self, n_in: int, width: int, stride: int, bottleneck: bool) -> None:
        """Block of `width` channels, times four with a bottleneck."""
        super().__init__()
        n_out = 4 * width if bottleneck else width
        if bottleneck:
            self.body = nn.Sequential(
                nn.Conv2d(n_in, width, 1, bias=False),
                group_norm(width),
                nn.ReLU(inplace=True),
                CircularConv2d(width, width, 3, stride, bias=False),
                group_norm(width),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, n_out, 1, bias=False),
                group_norm(n_out),
            )
        else:
            self.body = nn.Sequential(
                CircularConv2d(n_in, width, 3, stride, bias=False),
                group_norm(width),
                nn.ReLU(inplace=True),
                CircularConv2d(width, width, 3, bias=False),
                group_norm(width),
            )
        self.shortcut: nn.Module = nn.Identity()
        if n_in != n_out or stride > 1:
            # 2x2 means first: a strided 1x1 would leave three pixels of four unseen.
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride) if stride > 1 else nn.Identity(),
                nn.Conv2d(n_in, n_out, 1, bias=False),
                group_norm(n_out),
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(B, n_in, H, W)` to `(B, n_out, H / stride, W / stride)`."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


class UpsamplingBlock(nn.Module):
    """Residual block of a decoder, which may double the resolution by a transposed convolution.

    Source: Jiang et al. 2018, "RedNet: Residual Encoder-Decoder Network for indoor RGB-D Semantic
    Segmentation", fig. 3.
    """

    def __init__(self, n_in: int, n_out: int, upsample: bool) -> None:
        """Block from `n_in` to `n_out` channels."""
        super().__init__()
        second = (
            CircularConvTranspose2d(n_in, n_out, 3, bias=False)
            if upsample
            else CircularConv2d(n_in, n_out, 3, bias=False)
        )
        self.body = nn.Sequential(
            CircularConv2d(n_in, n_in, 3, bias=False),
            group_norm(n_in),
            nn.ReLU(inplace=True),
            second,
            group_norm(n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if upsample:
            self.shortcut = nn.Sequential(
                CircularConvTranspose2d(n_in, n_out, 2, bias=False), group_norm(n_out)
            )
        elif n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), group_norm(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """`(B, n_in, H, W)` to `(B, n_out, H, W)`, or twice as high and wide."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)
