"""Observation encoders: everything an observation says, in one code vector per row.

An observation is encoded once however many actions are then judged against it (late fusion).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from agents.sampling import integers

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def make_activation(name: str) -> nn.Module:
    """Builds an activation by name.

    Args:
        name: a key of `ACTIVATIONS`.

    Returns:
        The module.

    Raises:
        ValueError: if the name is unknown; the known ones are listed.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]()


class ResidualBlock(nn.Module):
    """Pre-activation residual block: `x + W2 f(W1 f(x))`.

    Args:
        width: entries in and out.
        dropout: probability of dropping a hidden unit.
        activation: name of `f`.
    """

    def __init__(self, width: int, dropout: float, activation: str) -> None:
        """Build two linear layers of the same width."""
        super().__init__()
        self.layers = nn.Sequential(
            make_activation(activation),
            nn.Linear(width, width),
            make_activation(activation),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., width)` to the same shape."""
        out: Tensor = x + self.layers(x)
        return out


class Mlp(nn.Module):
    """Multilayer perceptron, plain or residual; its output is activated.

    Args:
        n_in: entries in.
        width: width of every layer, and entries out.
        depth: linear layers; residual: one projection and `depth // 2` blocks of two.
        residual: whether to use residual blocks.
        dropout: probability of dropping a hidden unit.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(
        self,
        n_in: int,
        width: int,
        depth: int,
        residual: bool = False,
        dropout: float = 0.0,
        activation: str = "relu",
    ) -> None:
        """Build the layers."""
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(n_in, width)]
        if residual:
            layers += [ResidualBlock(width, dropout, activation) for _ in range(depth // 2)]
        else:
            for _ in range(depth - 1):
                layers += [make_activation(activation)]
                layers += [nn.Dropout(dropout)] if dropout else []
                layers += [nn.Linear(width, width)]
        layers += [make_activation(activation)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., n_in)` to `(..., width)`."""
        out: Tensor = self.layers(x)
        return out


def random_shift(pixels: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shifts every image by up to `pad` pixels, repeating the border.

    Source: Yarats et al. 2021, "Image Augmentation Is All You Need" (random shifts of +-4 pixels).

    Args:
        pixels: `(B, T, H, W, C)`; the frames of one row shift together.
        pad: largest shift in pixels, either way.
        generator: source of the shifts.

    Returns:
        Tensor of the same shape and dtype.
    """
    n, _, height, width, _ = pixels.shape
    starts = integers((2, n), 2 * pad + 1, generator, pixels).tolist()
    above, below = pixels[:, :, :1], pixels[:, :, -1:]
    tall = torch.cat((*[above] * pad, pixels, *[below] * pad), dim=2)
    left, right = tall[:, :, :, :1], tall[:, :, :, -1:]
    padded = torch.cat((*[left] * pad, tall, *[right] * pad), dim=3)
    # Slices, one an image: indices cost ten times as much.
    return torch.stack(
        [
            image[:, row : row + height, column : column + width]
            for image, row, column in zip(padded, *starts, strict=True)
        ]
    )


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of each channel: where it looks.

    Source: Levine et al. 2016, "End-to-End Training of Deep Visuomotor Policies", section 5.1.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Maps `(B, C, H, W)` to `(B, 2 C)` coordinates in [-1, 1], x of all channels first."""
        height, width = features.shape[-2:]
        weights = features.flatten(2).softmax(dim=-1).unflatten(-1, (height, width))
        x = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype)
        y = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype)
        return torch.cat((weights.sum(-2) @ x, weights.sum(-1) @ y), dim=-1)


class PixelEncoder(nn.Module):
    """Small convolutional encoder: stride-2 convolutions, then spatial softmax.

    Every convolution but the last halves the image. Works at any size from about 16x16.

    Args:
        n_in: input channels, all frames of the history together.
        channels: output channels of the convolutions.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, n_in: int, channels: tuple[int, ...], activation: str = "relu") -> None:
        """Build convolutions that end in a spatial softmax."""
        super().__init__()
        layers: list[nn.Module] = []
        for i, n_out in enumerate(channels):
            last = i == len(channels) - 1
            kernel = 5 if i == 0 else 3
            layers += [nn.Conv2d(n_in, n_out, kernel, stride=1 if last else 2, padding=kernel // 2)]
            layers += [] if last else [make_activation(activation)]
            n_in = n_out
        self.layers = nn.Sequential(*layers, SpatialSoftmax())
        self.n_out = 2 * channels[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes images.

        Args:
            pixels: `(B, T, H, W, C)` uint8, or any number in [0, 255].

        Returns:
            `(B, n_out)` features.
        """
        out: Tensor = self.layers(_images(pixels))
        return out


_FINE = 8
"""Least pixels a side of the cells that points are looked for in."""
_POINTS = 32


class BackboneEncoder(nn.Module):
    """Pixels through a network of `perception`: what it makes of the image, and where it looks.

    What: the mean of its last map. Where: a spatial softmax over a finer one, of cells of 8 pixels
    if it has them, since a policy that knows places from pooled features alone learns slowly. A
    TokenLearner without fusers has no map behind it; its pooled tokens are all there is. Pooling
    forgets places, so the image gets two channels that say them.

    Sources: Levine et al. 2016, section 5.1, as of `SpatialSoftmax`; Liu et al. 2018, "An
    Intriguing Failing of Convolutional Neural Networks and the CoordConv Solution", section 3.

    Args:
        name: of the network, a key of `perception.names()`.
        n_in: input channels, all frames of the history together.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(self, name: str, n_in: int) -> None:
        """Build the network, untrained, without a classifier."""
        super().__init__()
        from perception import pyramid
        from perception.catalogue import create

        network: Any = create(name, n_classes=0, in_channels=n_in + 2)
        self.network = network
        self.where: nn.Module | None = None
        self.n_out: int = network.width
        learner = getattr(network.config, "tokens", 0) and not network.config.fuser
        if not learner:
            strides, widths = pyramid.levels(network, name)
            fine = [level for level, stride in enumerate(strides) if stride >= _FINE]
            self._level = fine[0] if fine else -1
            self.where = nn.Sequential(nn.Conv2d(widths[self._level], _POINTS, 1), SpatialSoftmax())
            self.n_out = widths[-1] + 2 * _POINTS

    def forward(self, pixels: Tensor) -> Tensor:
        """Encodes images; as `PixelEncoder` does."""
        from perception import pyramid

        images = _images(pixels)
        height, width = images.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=images.device)[:, None].expand(-1, width)
        columns = torch.linspace(-1, 1, width, device=images.device).expand(height, -1)
        places = torch.stack((columns, rows)).expand(len(images), -1, -1, -1)
        images = torch.cat((images, places), dim=1)
        if self.where is None:
            out: Tensor = self.network(images)
            return out
        maps = pyramid.maps(self.network, images)
        return torch.cat((maps[-1].mean(dim=(2, 3)), self.where(maps[self._level])), dim=1)


def _images(pixels: Tensor) -> Tensor:
    """`(B, T, H, W, C)` bytes to `(B, T * C, H, W)` floats in [-1, 1]."""
    n, n_frames, height, width, n_channels = pixels.shape
    images = pixels.permute(0, 1, 4, 2, 3).reshape(n, n_frames * n_channels, height, width)
    # Channels are put first while a number is a byte: as floats it takes ten times as long.
    return images.contiguous().float().mul_(1 / 127.5).sub_(1)


class ObservationEncoder(nn.Module):
    """State, pixels or both, over a history, into one code.

    Args:
        shapes: shape of one observation per key, `state` and/or `pixels`.
        n_obs_steps: frames of history.
        width: entries of the code, and width of the trunk.
        depth: layers of the trunk.
        residual: whether the trunk is residual.
        dropout: dropout of the trunk.
        activation: a key of `ACTIVATIONS`.
        conv_channels: channels of the pixel encoder.
        shift: largest random shift of images in training, pixels.
        skip: whether the state stands in the code once more as it came in.
        backbone: network of `perception` that sees the pixels, in place of the convolutions.

    Raises:
        ValueError: if there is no state to skip the layers, or no such network.
    """

    def __init__(
        self,
        shapes: dict[str, tuple[int, ...]],
        n_obs_steps: int,
        width: int,
        depth: int,
        residual: bool,
        dropout: float,
        activation: str,
        conv_channels: tuple[int, ...],
        shift: int,
        skip: bool = False,
        backbone: str = "",
    ) -> None:
        """Build a pixel encoder where there are pixels, and the trunk."""
        super().__init__()
        n_in = n_obs_steps * shapes["state"][0] if "state" in shapes else 0
        if skip and not n_in:
            raise ValueError("skip needs a state in the observation; got pixels alone")
        self.shift, self.skip = shift, skip
        self.n_out = width + skip * n_in
        self.pixels: PixelEncoder | BackboneEncoder | None = None
        if "pixels" in shapes:
            channels = n_obs_steps * shapes["pixels"][-1]
            if backbone:
                self.pixels = BackboneEncoder(backbone, channels)
            else:
                self.pixels = PixelEncoder(channels, conv_channels, activation)
            n_in += self.pixels.n_out
        self.trunk = Mlp(n_in, width, depth, residual, dropout, activation)

    def forward(
        self, observations: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> Tensor:
        """Encodes a batch.

        Args:
            observations: `state` `(B, T, D)` normalised and/or `pixels` `(B, T, H, W, C)` raw.
            generator: source of the random shifts, used in training mode only.

        Returns:
            `(B, n_out)` codes.
        """
        parts: list[Tensor] = []
        if "state" in observations:
            parts.append(observations["state"].flatten(1))
        if self.pixels is not None:
            pixels = observations["pixels"]
            if self.training and self.shift and generator is not None:
                pixels = random_shift(pixels, self.shift, generator)
            parts.append(self.pixels(pixels))
        code: Tensor = self.trunk(torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0])
        if self.skip:
            code = torch.cat((code, parts[0]), dim=-1)
        return code
