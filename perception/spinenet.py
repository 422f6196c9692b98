"""SpineNet: a backbone whose maps go up and down in scale, in an order that was searched for.

Source: Du et al. 2020, "SpineNet: Learning Scale-Permuted Backbone for Recognition and
Localization" (arXiv 1912.05027). Figures that the paper leaves to a drawing or does not print (the
parents of each block, blocks that end nowhere, widths) are those of the published networks
(tensorflow/models, official vision).

| paper | here |
|---|---|
| level l, a map at stride 2^l | `level` |
| cross-scale connection, resampling (section 3.2) | `_Resample` |
| alpha, channels inside a connection | `alpha` |
| block repeats, feature dimension (section 3.4) | `repeats`, `scale` |

Its maps of all `levels` have one width, so detectors need no feature pyramid after it. As a
classifier it upsamples these maps to the finest, takes their mean, and pools that.

Departures, which change no number of parameters:

- Strided convolutions pad both sides alike; TensorFlow pads after the image.
- In a connection to a finer level the last 1x1 convolution comes before the upsampling, which
  gives the same at a quarter or less of the cost.
- Maps of any size fit: each level has half the cells of the one before, rounded up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.layers import StochasticDepth, check_images

Kind = Literal["bottleneck", "residual"]
Activation = Literal["relu", "silu"]


@dataclass(frozen=True)
class _Block:
    level: int
    kind: Kind
    parents: tuple[int, int]
    output: bool = False


_STEM_BLOCKS = 2
"""Bottlenecks at level 2, before those below; they are the blocks 0 and 1 that parents name."""
_BLOCKS = (
    _Block(2, "bottleneck", (0, 1)),
    _Block(4, "residual", (0, 1)),
    _Block(3, "bottleneck", (2, 3)),
    _Block(4, "bottleneck", (2, 4)),
    _Block(6, "residual", (3, 5)),
    _Block(4, "bottleneck", (3, 5)),
    _Block(5, "residual", (6, 7)),
    _Block(7, "residual", (6, 8)),
    _Block(5, "bottleneck", (8, 9)),
    _Block(5, "bottleneck", (8, 10)),
    _Block(4, "bottleneck", (5, 10), output=True),
    _Block(3, "bottleneck", (4, 10), output=True),
    _Block(5, "bottleneck", (7, 12), output=True),
    _Block(7, "bottleneck", (5, 14), output=True),
    _Block(6, "bottleneck", (12, 14), output=True),
    _Block(2, "bottleneck", (2, 13), output=True),
)
_WIDTHS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
"""Inner channels of a block by level; a bottleneck ends with four times as many."""
_EXPANSION = {"bottleneck": 4, "residual": 1}
LEVELS = (2, 7)
"""The finest and the coarsest level that there is an output at."""


@dataclass(frozen=True)
class SpineNetConfig:
    """Sizes of a SpineNet; the defaults are SpineNet-49.

    Attributes:
        scale: factor of the widths of all blocks, rounded down.
        repeats: times that each block is repeated.
        alpha: channels inside a connection, over the inner channels of the block it comes from.
        endpoint_width: channels of all maps that it gives.
        levels: the finest and the coarsest of them; level l has stride 2^l. Blocks that no map
            needs are left out.
        stem_width: channels of the 7x7 convolution before the blocks.
        activation: "relu", or "silu" as in the paper's longest trainings.
        stochastic_depth: chance to leave out the last block; that of the first is next to 0, and
            those between lie on a line.
        norm_momentum: share of the newest batch in the running statistics.
    """

    scale: float = 1.0
    repeats: int = 1
    alpha: float = 0.5
    endpoint_width: int = 256
    levels: tuple[int, int] = (3, 7)
    stem_width: int = 64
    activation: Activation = "relu"
    stochastic_depth: float = 0.0
    norm_momentum: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        for name in ("repeats", "endpoint_width", "stem_width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be whole and at least 1, got {value!r}")
        if not (self.scale * min(_WIDTHS.values()) >= 1 and self.alpha > 0):
            raise ValueError(
                f"scale must be at least 1 / {min(_WIDTHS.values())} and alpha above 0, "
                f"got {self.scale} and {self.alpha}"
            )
        low, high = LEVELS
        if len(self.levels) != 2 or not low <= self.levels[0] <= self.levels[1] <= high:
            raise ValueError(
                f"levels must be the finest and the coarsest, from {low} to {high}, "
                f"got {self.levels}"
            )
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"activation must be one of {', '.join(get_args(Activation))}, "
                f"got {self.activation!r}"
            )
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"stochastic_depth must be in [0, 1), got {self.stochastic_depth}")
        if not 0 < self.norm_momentum <= 1:
            raise ValueError(f"norm_momentum must be in (0, 1], got {self.norm_momentum}")

    @property
    def stride(self) -> int:
        """Pixels a side of a cell of the finest map."""
        return 2 ** self.levels[0]

    def inner_width(self, level: int) -> int:
        """Channels inside the blocks of a level."""
        return int(_WIDTHS[level] * self.scale)


class SpineNet(nn.Module):
    """Images to logits, pooled features, or maps of several scales.

    In training, BatchNorm needs more than one number a channel: two images, or images larger than
    a cell of the coarsest map.

    Attributes:
        config: its sizes.
        width: channels of a pooled image, and of all maps.
        stride: pixels a side of a cell of `feature_map`.
    """

    def __init__(self, config: SpineNetConfig, n_classes: int = 1000, in_channels: int = 3) -> None:
        """Build from torch's global random generator.

        Args:
            config: sizes.
            n_classes: 0 leaves the classifier out; `forward` then gives the pooled features.
            in_channels: of the images.

        Raises:
            ValueError: for counts below 0, or images without channels.
        """
        super().__init__()
        if n_classes < 0 or in_channels < 1:
            raise ValueError(
                "n_classes must be 0 or more and in_channels 1 or more, "
                f"got {n_classes} and {in_channels}"
            )
        self.config = config
        self.in_channels = in_channels
        self.width, self.stride = config.endpoint_width, config.stride
        self.stem = _ConvNorm(config, in_channels, config.stem_width, 7, 2)
        self.pool = nn.MaxPool2d(3, 2, 1)
        widths = [config.stem_width] + [4 * config.inner_width(2)] * _STEM_BLOCKS
        self.stem_blocks = nn.ModuleList(
            _repeated(config, "bottleneck", 2, before, 0.0) for before in widths[:-1]
        )
        self._sources = block_sources()
        needed = _needed(self._sources, config.levels)
        self.blocks = nn.ModuleDict(
            {
                str(index): _Node(config, _BLOCKS[index - _STEM_BLOCKS], index)
                for index in sorted(needed)
                if index >= _STEM_BLOCKS
            }
        )
        first, last = config.levels
        self._outputs = [_output_of(level) for level in range(first, last + 1)]
        self.endpoints = nn.ModuleList(
            _ConvNorm(config, _width(config, index), config.endpoint_width, 1)
            for index in self._outputs
        )
        self.classifier = nn.Linear(self.width, n_classes) if n_classes else None
        self.apply(_initialise)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels a side of a cell of each map of `pyramid`."""
        first, last = self.config.levels
        return tuple(2**level for level in range(first, last + 1))

    @property
    def pyramid_widths(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""
        return (self.width,) * len(self.pyramid_strides)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, n_classes)` of images `(B, in_channels, H, W)`; without classes, `embed`."""
        features = self.embed(images)
        return features if self.classifier is None else self.classifier(features)

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features `(B, width)`: the mean of `feature_map`."""
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        """The mean of the maps of all levels, upsampled to the finest.

        Returns:
            `(B, width, ceil(H / stride), ceil(W / stride))`.

        Raises:
            ValueError: for anything but a batch of images.
        """
        maps = self.pyramid(images)
        size = maps[0].shape[-2:]
        total = maps[0]
        for coarser in maps[1:]:
            total = total + F.interpolate(coarser, size=size, mode="nearest")
        return total / len(maps)

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of all levels, fine to coarse; for detectors.

        Returns:
            maps `(B, width, ceil(H / pyramid_strides[i]), ceil(W / pyramid_strides[i]))`.

        Raises:
            ValueError: for anything but a batch of images.
        """
        check_images(images, self.in_channels)
        x = self.pool(self.stem(images))
        maps: dict[int, Tensor] = {}
        for index, block in enumerate(self.stem_blocks):
            x = maps[index] = block(x)
        sizes = {2: (x.shape[-2], x.shape[-1])}
        for level in range(2, LEVELS[1]):
            height, width = sizes[level]
            sizes[level + 1] = (height + 1) // 2, (width + 1) // 2
        for name, block in self.blocks.items():
            index = int(name)
            level = _level(index)
            maps[index] = block([maps[i] for i in self._sources[index]], sizes[level])
        return tuple(
            endpoint(maps[index])
            for endpoint, index in zip(self.endpoints, self._outputs, strict=True)
        )


def block_sources() -> dict[int, tuple[int, ...]]:
    """What each block adds up: its two parents, and blocks that would end nowhere.

    An output block also takes up, unchanged, the blocks before it at its level and of its width
    that no other block reads.
    """
    readers = [0] * (_STEM_BLOCKS + len(_BLOCKS))
    sources: dict[int, tuple[int, ...]] = {}
    for index, block in enumerate(_BLOCKS, _STEM_BLOCKS):
        found = list(block.parents)
        for parent in block.parents:
            readers[parent] += 1
        if block.output:
            for other in range(_STEM_BLOCKS, index):
                same = _level(other) == block.level and _kind(other) == block.kind
                if same and not readers[other]:
                    found.append(other)
                    readers[other] += 1
        sources[index] = tuple(found)
    return sources


def _level(index: int) -> int:
    return 2 if index < _STEM_BLOCKS else _BLOCKS[index - _STEM_BLOCKS].level


def _kind(index: int) -> Kind:
    return "bottleneck" if index < _STEM_BLOCKS else _BLOCKS[index - _STEM_BLOCKS].kind


def _width(config: SpineNetConfig, index: int) -> int:
    """Channels of a block's result."""
    return config.inner_width(_level(index)) * _EXPANSION[_kind(index)]


def _output_of(level: int) -> int:
    """The block that gives a level's map."""
    return next(i for i, b in enumerate(_BLOCKS, _STEM_BLOCKS) if b.output and b.level == level)


def _needed(sources: dict[int, tuple[int, ...]], levels: tuple[int, int]) -> set[int]:
    """Blocks that the maps of these levels depend on."""
    needed = {_output_of(level) for level in range(levels[0], levels[1] + 1)}
    for index in sorted(sources, reverse=True):
        if index in needed:
            needed |= set(sources[index])
    return needed


class _ConvNorm(nn.Module):
    """Convolution, batch normalisation and, if asked for, the activation."""

    def __init__(
        self,
        config: SpineNetConfig,
        n_in: int,
        n_out: int,
        kernel: int,
        stride: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(n_out, eps=1e-3, momentum=config.norm_momentum)
        self.act = _activation(config) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class _Residual(nn.Module):
    """A bottleneck or basic block of ResNet (He et al. 2015)."""

    def __init__(
        self, config: SpineNetConfig, kind: Kind, level: int, n_in: int, drop: float
    ) -> None:
        super().__init__()
        inner = config.inner_width(level)
        n_out = inner * _EXPANSION[kind]
        self.branch = (
            nn.Sequential(
                _ConvNorm(config, n_in, inner, 1),
                _ConvNorm(config, inner, inner, 3),
                _ConvNorm(config, inner, n_out, 1, active=False),
            )
            if kind == "bottleneck"
            else nn.Sequential(
                _ConvNorm(config, n_in, inner, 3),
                _ConvNorm(config, inner, inner, 3, active=False),
            )
        )
        self.shortcut = (
            nn.Identity() if n_in == n_out else _ConvNorm(config, n_in, n_out, 1, active=False)
        )
        self.drop = StochasticDepth(drop)
        self.act = _activation(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shortcut(x) + self.drop(self.branch(x)))


class _Resample(nn.Module):
    """A connection between levels: a map to another scale and width (section 3.2)."""

    def __init__(self, config: SpineNetConfig, source: int, target: int) -> None:
        super().__init__()
        inner = max(1, int(config.inner_width(_level(source)) * config.alpha))
        self.steps = _level(target) - _level(source)
        self.squeeze = _ConvNorm(config, _width(config, source), inner, 1)
        self.down = (
            nn.Sequential(
                _ConvNorm(config, inner, inner, 3, 2),
                *(nn.MaxPool2d(3, 2, 1) for _ in range(self.steps - 1)),
            )
            if self.steps > 0
            else nn.Identity()
        )
        self.expand = _ConvNorm(config, inner, _width(config, target), 1, active=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = self.expand(self.down(self.squeeze(x)))
        return F.interpolate(x, size=size, mode="nearest") if self.steps < 0 else x


class _Node(nn.Module):
    """Adds up resampled parents and what ends nowhere else, then runs its blocks."""

    def __init__(self, config: SpineNetConfig, block: _Block, index: int) -> None:
        super().__init__()
        self.connections = nn.ModuleList(
            _Resample(config, parent, index) for parent in block.parents
        )
        self.act = _activation(config)
        drop = config.stochastic_depth * (index - _STEM_BLOCKS + 1) / len(_BLOCKS)
        width = _width(config, index)
        self.blocks = _repeated(config, block.kind, block.level, width, drop)

    def forward(self, sources: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        first, second = self.connections
        total = first(sources[0], size) + second(sources[1], size)
        for other in sources[2:]:
            total = total + other
        return self.blocks(self.act(total))


def _repeated(
    config: SpineNetConfig, kind: Kind, level: int, n_in: int, drop: float
) -> nn.Sequential:
    n_out = config.inner_width(level) * _EXPANSION[kind]
    widths = [n_in] + [n_out] * (config.repeats - 1)
    return nn.Sequential(*(_Residual(config, kind, level, width, drop) for width in widths))


def _activation(config: SpineNetConfig) -> nn.Module:
    return nn.ReLU(inplace=True) if config.activation == "relu" else nn.SiLU(inplace=True)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Variances kept through ReLU (He et al. 2015); the classifier's as torch has them."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


_49 = SpineNetConfig()
_143 = replace(_49, repeats=3, alpha=1.0)

SPINENETS: dict[str, SpineNetConfig] = {
    "spinenet_mini": replace(
        _49, scale=0.1875, endpoint_width=64, stem_width=32, norm_momentum=0.1
    ),
    "spinenet_49s": replace(_49, scale=0.65, endpoint_width=128),
    "spinenet_49": _49,
    "spinenet_96": replace(_49, repeats=2),
    "spinenet_143": _143,
    "spinenet_190": replace(_143, repeats=4, scale=1.3, endpoint_width=512),
}
"""The paper's sizes (section 3.4), and a small one for CPUs that is not the paper's."""
