"""EfficientNet, both versions: convolutional classifiers of images of any size.

Sources: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks" (table 1), and Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training"
(section 3). Weights of timm's `tf_efficientnet_b*` and `tf_efficientnetv2_*` load through
`from_timm`.

Departure: squeeze-and-excitation, padding and epsilons are those of the published code, which the
papers leave open.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception.layers import Conv2d, SqueezeExcite, StochasticDepth, check_images

Kind = Literal["fused", "mbconv"]


@dataclass(frozen=True)
class StageConfig:
    """Blocks that follow each other at one width; the first of them has the stride.

    Attributes:
        kind: `fused`: one full convolution widens (Fused-MBConv, without squeeze-and-excitation);
            `mbconv`: a 1x1 convolution widens, a depthwise one looks around.
        n_blocks: number of blocks.
        expansion: how many times a block's inside is wider than its input; 1 leaves the widening
            (of `fused`: the narrowing) convolution out.
        width: channels after each block.
        stride: 1 or 2.
        kernel: size of the convolution that looks around; odd.
    """

    kind: Kind
    n_blocks: int
    expansion: int
    width: int
    stride: int
    kernel: int = 3

    def __post_init__(self) -> None:
        """Refuse what no stage can be."""
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        for name in ("n_blocks", "expansion", "width", "kernel"):
            _check_count(name, getattr(self, name))
        if self.stride not in (1, 2):
            raise ValueError(f"stride must be 1 or 2, got {self.stride!r}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {self.kernel}")


@dataclass(frozen=True)
class EfficientNetConfig:
    """A network; `EFFICIENTNETS` and `EFFICIENTNETS_V2` have those of the papers.

    Attributes:
        stem: channels of the first convolution, 3x3.
        stages: fine to coarse.
        head: channels of the 1x1 convolution before pooling.
        stem_stride: 1 or 2; 1 keeps more of images below about 64 pixels.
        squeeze: hidden channels of squeeze-and-excitation over channels of the block's input.
        dropout: chance that a pooled feature is dropped before the classifier.
        drop_path: stochastic depth; block i of n goes without its branch with `drop_path * i / n`,
            so 0.2 is the papers' survival probability 0.8.
        same_padding: pad strided convolutions as TensorFlow does (the odd pixel after the image),
            as published weights need; False pads both sides alike. Sizes of maps do not differ.
        norm_eps: of batch normalisation.
        norm_momentum: share of the newest batch in the running statistics; TensorFlow's is
            1 minus it.
        train_size: pixels a side that the paper trains at. Any size works.
        eval_size: pixels a side that the paper tests at.
    """

    stem: int
    stages: tuple[StageConfig, ...]
    head: int = 1280
    stem_stride: int = 2
    squeeze: float = 0.25
    dropout: float = 0.2
    drop_path: float = 0.2
    same_padding: bool = True
    norm_eps: float = 1e-3
    norm_momentum: float = 0.01
    train_size: int = 224
    eval_size: int = 224

    def __post_init__(self) -> None:
        """Refuse what no network can have."""
        for name in ("stem", "head", "train_size", "eval_size"):
            _check_count(name, getattr(self, name))
        if not isinstance(self.stages, tuple) or not self.stages:
            raise ValueError(f"stages must be a tuple of StageConfig, got {self.stages!r}")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, got {self.stem_stride!r}")
        for name in ("dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("squeeze", "norm_momentum"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        if not (self.norm_eps > 0 and math.isfinite(self.norm_eps)):
            raise ValueError(f"norm_eps must be positive, got {self.norm_eps}")

    @property
    def stride(self) -> int:
        """Pixels a side of a cell of the last map."""
        return self.stem_stride * math.prod(stage.stride for stage in self.stages)

    def scaled(self, width: float, depth: float = 1.0, keep: float = 0.0) -> "EfficientNetConfig":
        """Compound scaling of widths and depths (Tan and Le 2019, section 3.3).

        Args:
            width: factor of all channels, which are then rounded to multiples of 8.
            depth: factor of the number of blocks, which is then rounded up.
            keep: a rounded width is at least this share of the exact one. The published code has
                0.9 in the first version and no bound in the second.

        Raises:
            ValueError: if a factor is not positive.
        """
        if not (width > 0 and depth > 0):
            raise ValueError(f"width and depth must be positive, got {width} and {depth}")

        def rounded(channels: int) -> int:
            near = max(8, int(channels * width + 4) // 8 * 8)
            return near + 8 if near < keep * channels * width else near

        stages = tuple(
            replace(s, width=rounded(s.width), n_blocks=math.ceil(s.n_blocks * depth))
            for s in self.stages
        )
        return replace(self, stem=rounded(self.stem), stages=stages, head=rounded(self.head))


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be whole and at least 1, got {value!r}")


class EfficientNet(nn.Module):
    """Images to logits, pooled features or maps.

    Attributes:
        config: its sizes.
        n_classes: 0 if there is no classifier.
        width: channels of a pooled image, and of the last map.
        stride: pixels a side of a cell of the last map.
    """

    def __init__(
        self, config: EfficientNetConfig, n_classes: int = 1000, in_channels: int = 3
    ) -> None:
        """Build from torch's global random generator.

        Raises:
            ValueError: if there are fewer than 0 classes or 1 channel.
        """
        super().__init__()
        if n_classes < 0 or in_channels < 1:
            raise ValueError(
                f"n_classes must be at least 0 and in_channels at least 1, "
                f"got {n_classes} and {in_channels}"
            )
        self.config = config
        self.n_classes, self.in_channels = n_classes, in_channels
        self.width, self.stride = config.head, config.stride
        self.stem = _ConvNorm(config, in_channels, config.stem, 3, config.stem_stride)
        self.stages = nn.ModuleList()
        n_blocks, index, n_in = sum(stage.n_blocks for stage in config.stages), 0, config.stem
        for stage in config.stages:
            blocks = nn.Sequential()
            for i in range(stage.n_blocks):
                block = _Fused if stage.kind == "fused" else _MBConv
                drop = config.drop_path * index / n_blocks
                blocks.append(block(config, stage, n_in, stage.stride if i == 0 else 1, drop))
                index, n_in = index + 1, stage.width
            self.stages.append(blocks)
        self.head = _ConvNorm(config, n_in, config.head, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.head, n_classes) if n_classes else None
        self.apply(_initialise)

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels a side of a cell of each map of `pyramid`."""
        return tuple(stride for stride, _ in self._levels())

    @property
    def pyramid_widths(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""
        return tuple(self.config.stages[last].width for _, last in self._levels())

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, n_classes)` of images `(B, in_channels, H, W)`; without classes, `embed`."""
        features = self.embed(images)
        return features if self.classifier is None else self.classifier(self.dropout(features))

    def embed(self, images: Tensor) -> Tensor:
        """Pooled features `(B, width)`: the mean of `feature_map`."""
        return self.feature_map(images).mean(dim=(2, 3))

    def feature_map(self, images: Tensor) -> Tensor:
        """The last map `(B, width, h, w)`; h and w are H and W over `stride`, rounded up.

        Raises:
            ValueError: for anything but a batch of images.
        """
        return self.head(self.pyramid(images)[-1])

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The last map at each stride, fine to coarse, before the head; for dense heads.

        Returns:
            maps `(B, pyramid_widths[i], ceil(H / pyramid_strides[i]), ...)`.

        Raises:
            ValueError: for anything but a batch of images.
        """
        check_images(images, self.in_channels)
        x = self.stem(images)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[last] for _, last in self._levels())

    def _levels(self) -> list[tuple[int, int]]:
        """Stride and number of the last stage at that stride."""
        last_of: dict[int, int] = {}
        stride = self.config.stem_stride
        for i, stage in enumerate(self.config.stages):
            stride *= stage.stride
            last_of[stride] = i
        return list(last_of.items())


class _SameConv2d(Conv2d):
    """TensorFlow's `SAME`: `ceil(size / stride)` cells, the odd pixel of padding at the end."""

    def forward(self, input: Tensor) -> Tensor:
        height, width = input.shape[-2:]
        padding = [*self._sides(width, 1), *self._sides(height, 0)]
        return super().forward(F.pad(input, padding))

    def _sides(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class _ConvNorm(nn.Module):
    """Convolution, batch normalisation and, if asked for, SiLU."""

    def __init__(
        self,
        config: EfficientNetConfig,
        n_in: int,
        n_out: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        # At stride 1 and odd kernels both paddings are the same.
        asymmetric = config.same_padding and stride > 1
        self.conv = (_SameConv2d if asymmetric else Conv2d)(
            n_in,
            n_out,
            kernel,
            stride,
            padding=0 if asymmetric else kernel // 2,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(n_out, eps=config.norm_eps, momentum=config.norm_momentum)
        self.act = nn.SiLU(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class _Block(nn.Module):
    """What both kinds share: the residual, where input and output are of one size."""

    def __init__(self, stage: StageConfig, n_in: int, stride: int, drop: float) -> None:
        super().__init__()
        self.residual = stride == 1 and n_in == stage.width
        self.drop = StochasticDepth(drop if self.residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.branch(x)) if self.residual else self.branch(x)

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class _Fused(_Block):
    def __init__(
        self, config: EfficientNetConfig, stage: StageConfig, n_in: int, stride: int, drop: float
    ) -> None:
        super().__init__(stage, n_in, stride, drop)
        widens = stage.expansion > 1
        hidden = n_in * stage.expansion if widens else stage.width
        self.expand = _ConvNorm(config, n_in, hidden, stage.kernel, stride)
        self.project = (
            _ConvNorm(config, hidden, stage.width, 1, active=False) if widens else nn.Identity()
        )

    def branch(self, x: Tensor) -> Tensor:
        return self.project(self.expand(x))


class _MBConv(_Block):
    def __init__(
        self, config: EfficientNetConfig, stage: StageConfig, n_in: int, stride: int, drop: float
    ) -> None:
        super().__init__(stage, n_in, stride, drop)
        hidden = n_in * stage.expansion
        self.expand = _ConvNorm(config, n_in, hidden, 1) if stage.expansion > 1 else nn.Identity()
        self.depthwise = _ConvNorm(config, hidden, hidden, stage.kernel, stride, groups=hidden)
        # A share of the input's channels, not of the widened ones: as published.
        self.squeeze = SqueezeExcite(hidden, max(1, int(n_in * config.squeeze)))
        self.project = _ConvNorm(config, hidden, stage.width, 1, active=False)

    def branch(self, x: Tensor) -> Tensor:
        return self.project(self.squeeze(self.depthwise(self.expand(x))))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """As published: variances by what comes out of a layer, biases 0."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        module.weight.normal_(0, math.sqrt(2 * module.groups / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        module.weight.uniform_(-bound, bound)
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        module.bias.zero_()


# Weights of timm

_OUTSIDE = {
    "conv_stem": "stem.conv",
    "bn1": "stem.norm",
    "conv_head": "head.conv",
    "bn2": "head.norm",
    "classifier": "classifier",
}
_SQUEEZE = {"se.conv_reduce": "squeeze.reduce", "se.conv_expand": "squeeze.restore"}
# By the convolution that only blocks of the kind have; the first that fits.
_INSIDE: dict[str, dict[str, str]] = {
    "conv": {"conv": "expand.conv", "bn1": "expand.norm"},
    "conv_exp": {
        "conv_exp": "expand.conv",
        "bn1": "expand.norm",
        "conv_pwl": "project.conv",
        "bn2": "project.norm",
    },
    "conv_pwl": {
        "conv_pw": "expand.conv",
        "bn1": "expand.norm",
        "conv_dw": "depthwise.conv",
        "bn2": "depthwise.norm",
        "conv_pwl": "project.conv",
        "bn3": "project.norm",
        **_SQUEEZE,
    },
    "conv_dw": {
        "conv_dw": "depthwise.conv",
        "bn1": "depthwise.norm",
        "conv_pw": "project.conv",
        "bn2": "project.norm",
        **_SQUEEZE,
    },
}
_NAME = re.compile(r"(?:blocks\.(\d+\.\d+)\.)?(.+)\.(\w+)")


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the weights of a timm model as `EfficientNet` does.

    Args:
        state: `state_dict()` of `tf_efficientnet_b*` or `tf_efficientnetv2_*` (timm 1.0).

    Returns:
        the same tensors, for `load_state_dict`.

    Raises:
        ValueError: for a name that no such model has.
    """
    split = {name: _NAME.fullmatch(name) for name in state}
    parts: dict[str, set[str]] = {}
    for match in split.values():
        if match and match[1]:
            parts.setdefault(match[1], set()).add(match[2])
    kinds = {
        block: next((names for mark, names in _INSIDE.items() if mark in found), {})
        for block, found in parts.items()
    }
    own = {}
    for name, match in split.items():
        place = (kinds[match[1]] if match[1] else _OUTSIDE).get(match[2]) if match else None
        if match is None or place is None:
            raise ValueError(f"{name!r} is no weight of timm's EfficientNet or EfficientNetV2")
        block = f"stages.{match[1]}." if match[1] else ""
        own[f"{block}{place}.{match[3]}"] = state[name]
    return own


_B0 = EfficientNetConfig(
    stem=32,
    stages=(
        StageConfig("mbconv", 1, expansion=1, width=16, stride=1),
        StageConfig("mbconv", 2, expansion=6, width=24, stride=2),
        StageConfig("mbconv", 2, expansion=6, width=40, stride=2, kernel=5),
        StageConfig("mbconv", 3, expansion=6, width=80, stride=2),
        StageConfig("mbconv", 3, expansion=6, width=112, stride=1, kernel=5),
        StageConfig("mbconv", 4, expansion=6, width=192, stride=2, kernel=5),
        StageConfig("mbconv", 1, expansion=6, width=320, stride=1),
    ),
)


def _b(width: float, depth: float, size: int, dropout: float) -> EfficientNetConfig:
    """B0 scaled, for images of a size."""
    scaled = _B0.scaled(width, depth, keep=0.9)
    return replace(scaled, dropout=dropout, train_size=size, eval_size=size)


EFFICIENTNETS: dict[str, EfficientNetConfig] = {
    "efficientnet_b0": _b(1.0, 1.0, 224, 0.2),
    "efficientnet_b1": _b(1.0, 1.1, 240, 0.2),
    "efficientnet_b2": _b(1.1, 1.2, 260, 0.3),
    "efficientnet_b3": _b(1.2, 1.4, 300, 0.3),
    "efficientnet_b4": _b(1.4, 1.8, 380, 0.4),
    "efficientnet_b5": _b(1.6, 2.2, 456, 0.4),
    "efficientnet_b6": _b(1.8, 2.6, 528, 0.5),
    "efficientnet_b7": _b(2.0, 3.1, 600, 0.5),
}
"""The first version, by name; `perception.efficientnet_v2` has the second."""
