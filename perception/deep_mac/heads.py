"""Class-agnostic mask heads: features of a box to the mask of the object in it.

Source: Birodkar et al. 2021, "The surprising impact of mask-head architecture on novel class
segmentation" (arXiv 2104.00613): with crops to ground-truth boxes, deep heads tell objects of
classes that never had a mask. Blocks and channels as in the published code (tensorflow/models,
object detection), in multiples of `width`:

| head | blocks of each level | channels of each level |
|---|---|---|
| hourglass-10 | 1, 1 | 2, 2 |
| hourglass-20 | 1, 2, 2 | 2, 2, 3 |
| hourglass-32 | 2, 2, 2, 2 | 2, 2, 3, 3 |
| hourglass-52 | 2, 2, 2, 2, 2, 4 | 2, 2, 3, 3, 3, 4 |
| hourglass-100 | 4, 4, 4, 4, 4, 8 | 2, 2, 3, 3, 3, 4 |
| resnet-4, 8, 12, 16 | 2, 4, 6, 8, all at full size | 2 |
| resnet-20 | 8 and 2, all at full size | 2 and 3 |

A head is named by its depth: the number of 3x3 convolutions on the longest path through it. So 1x1
convolutions do not count: those of shortcuts, the first of a ResNet head, and the last of all.

Departure: group normalisation. The published heads normalise over the batch. An hourglass of five
levels takes a crop of 32 x 32 cells to 1 x 1, where the statistics of a batch are those of as many
numbers as it has instances: a handful on one computer, one in some batches. `norm="batch"` has it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HeadKind = Literal["hourglass", "resnet", "conv"]
Norm = Literal["group", "batch"]

_HOURGLASSES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    10: ((1, 1), (2, 2)),
    20: ((1, 2, 2), (2, 2, 3)),
    32: ((2, 2, 2, 2), (2, 2, 3, 3)),
    52: ((2, 2, 2, 2, 2, 4), (2, 2, 3, 3, 3, 4)),
    100: ((4, 4, 4, 4, 4, 8), (2, 2, 3, 3, 3, 4)),
}
"""Depth to blocks and multiples of the width, outermost level first."""

_RESNETS: dict[int, tuple[tuple[int, int], ...]] = {
    4: ((2, 2),),
    8: ((4, 2),),
    12: ((6, 2),),
    16: ((8, 2),),
    20: ((8, 2), (2, 3)),
}
"""Depth to (blocks, multiple of the width)."""

LOGIT_BIAS, LOGIT_STD = -1.0, 0.1
"""Of the last layer of an untrained head: its bias, and the deviation of its weights.

The last activations are 0 or more, and most cells of a box are object, which pulls weights that are
almost 0 up together; then only the bias, which moves by a step's length at a time, says what is no
object. So weights begin with both signs, far from 0 by the step's length, and the bias a little
below 0. From -2 short trainings spend their steps on getting up.
Trained alike on 1,000 rendered scenes (masks of half of the classes, lr .001, 200 steps,
hourglass-20 250), the loss of masks at the end, and the IoU of 100 validation scenes in true boxes
for classes with masks and without (a full box: .674, .600):

| bias, deviation | resnet-4 | hourglass-20 | hourglass-52 |
|---|---|---|---|
| -2, .01 | 2.03, .782, .696 | 2.95, .643, .586 | 4.04, .002, .002 |
| 0, .01 | 1.83, .798, .694 | 1.88, .812, .712 | 2.34, .674, .600 |
| 0, .1 | | | 1.83, .800, .708 |
| -1, .1 | 1.75, .797, .703 | 1.76, .812, .707 | 1.94, .797, .708 |

One seed, width 16. Overfitted to discs and squares for 80 steps, hourglass-10 reaches an IoU of .97
from -2, .01 and from -1, .1; from 0, with either deviation, masks are full boxes (.87)."""

_LEAST_OF_GROUP, _MOST_GROUPS = 8, 32


@dataclass(frozen=True)
class MaskHeadConfig:
    """Sizes of a mask head.

    Attributes:
        kind: "hourglass", "resnet" or "conv", a plain stack of convolutions.
        depth: 3x3 convolutions on the longest path: 10, 20, 32, 52, 100 of an hourglass; 4, 8, 12,
            16, 20 of a ResNet; any of a stack.
        width: channels that all others are multiples of; the paper's is 64.
        norm: "group", or "batch" as in the paper.
    """

    kind: HeadKind = "hourglass"
    depth: int = 52
    width: int = 64
    norm: Norm = "group"

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        for name, known in (("kind", HeadKind), ("norm", Norm)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"{name} of a mask head must be one of {', '.join(get_args(known))}, "
                    f"got {getattr(self, name)!r}"
                )
        for name in ("depth", "width"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} of a mask head must be 1 or more, got {value!r}")
        depths = {"hourglass": tuple(_HOURGLASSES), "resnet": tuple(_RESNETS)}.get(self.kind)
        if depths and self.depth not in depths:
            raise ValueError(
                f"depth of a head of kind {self.kind!r} must be one of "
                f"{', '.join(map(str, depths))}, got {self.depth}"
            )

    @property
    def name(self) -> str:
        """Kind and depth, such as "hourglass-52"."""
        return f"{self.kind}-{self.depth}"


MASK_HEADS: dict[str, MaskHeadConfig] = {
    config.name: config
    for config in (
        *(MaskHeadConfig("hourglass", depth) for depth in _HOURGLASSES),
        *(MaskHeadConfig("resnet", depth) for depth in _RESNETS),
        MaskHeadConfig("conv", 4),
    )
}
"""Heads of the paper by name, 64 wide; `dataclasses.replace` makes narrower and wider ones."""


def resolve_mask_head(head: MaskHeadConfig | str | Mapping[str, Any]) -> MaskHeadConfig:
    """The configuration that a name or the fields of a JSON object stand for.

    Raises:
        ValueError: for an unknown name (the known are listed) or field, or values that cannot be.
    """
    if isinstance(head, MaskHeadConfig):
        return head
    if isinstance(head, str):
        if head not in MASK_HEADS:
            raise ValueError(f"unknown mask head {head!r}; known: {', '.join(MASK_HEADS)}")
        return MASK_HEADS[head]
    try:
        return MaskHeadConfig(**head)
    except TypeError as error:
        raise ValueError(f"no mask head can be made of {head!r}: {error}") from None


def create_mask_head(head: MaskHeadConfig | str, in_channels: int) -> "MaskHead":
    """Make a head, untrained, from torch's global random generator.

    Args:
        head: its sizes, or a name in `MASK_HEADS`.
        in_channels: of its crops.

    Raises:
        ValueError: for an unknown name, or crops without channels.
    """
    return MaskHead(resolve_mask_head(head), in_channels)


class MaskHead(nn.Module):
    """Crops to logits of masks.

    Attributes:
        config: sizes.
        in_channels: of the crops.
    """

    def __init__(self, config: MaskHeadConfig, in_channels: int) -> None:
        """Build from torch's global random generator.

        Raises:
            ValueError: if crops have no channels.
        """
        super().__init__()
        if in_channels < 1:
            raise ValueError(f"in_channels must be 1 or more, got {in_channels}")
        self.config = config
        self.in_channels = in_channels
        width, norm = config.width, config.norm
        layers: list[nn.Module] = []
        if config.kind == "hourglass":
            blocks, multiples = _HOURGLASSES[config.depth]
            channels = tuple(width * multiple for multiple in multiples)
            layers += [
                _ConvNorm(in_channels, width, norm),
                _Residual(width, channels[0], norm),
                _Hourglass(channels, blocks, norm),
                _ConvNorm(channels[0], channels[0], norm),
            ]
            last = channels[0]
        elif config.kind == "resnet":
            layers.append(nn.Conv2d(in_channels, width, 1))
            last = width
            for n_blocks, multiple in _RESNETS[config.depth]:
                layers.append(_residuals(last, width * multiple, n_blocks, norm))
                last = width * multiple
        else:
            layers += [
                _ConvNorm(in_channels if i == 0 else width, width, norm)
                for i in range(config.depth)
            ]
            last = width
        self.body = nn.Sequential(*layers)
        self.logits = nn.Conv2d(last, 1, 1)
        self.apply(_initialise)
        nn.init.normal_(self.logits.weight, std=LOGIT_STD)
        assert self.logits.bias is not None
        nn.init.constant_(self.logits.bias, LOGIT_BIAS)

    def forward(self, crops: Tensor) -> Tensor:
        """`(N, in_channels, S, S)` to `(N, S, S)` logits; N may be 0."""
        return self.logits(self.body(crops)).squeeze(1)


class _Hourglass(nn.Module):
    """Down by 2 and up again, with blocks on the shortcut too; a smaller hourglass inside."""

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], norm: Norm) -> None:
        super().__init__()
        outer, inner, n_blocks = channels[0], channels[1], blocks[0]
        self.shortcut = _residuals(outer, outer, n_blocks, norm)
        self.down = _residuals(outer, inner, n_blocks, norm, stride=2)
        self.inside: nn.Module = (
            _Hourglass(channels[1:], blocks[1:], norm)
            if len(channels) > 2
            else _residuals(inner, inner, blocks[1], norm)
        )
        # The last of these blocks changes the width, not the first.
        self.up = nn.Sequential(
            *(_Residual(inner, inner, norm) for _ in range(n_blocks - 1)),
            _Residual(inner, outer, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        deep = self.up(self.inside(self.down(x)))
        return shortcut + F.interpolate(deep, size=shortcut.shape[-2:], mode="nearest")


class _Residual(nn.Module):
    """Two 3x3 convolutions; the shortcut is projected where the size changes (He et al. 2015)."""

    def __init__(self, n_in: int, n_out: int, norm: Norm, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _ConvNorm(n_in, n_out, norm, stride=stride)
        self.conv2 = _ConvNorm(n_out, n_out, norm, active=False)
        self.shortcut: nn.Module = (
            _ConvNorm(n_in, n_out, norm, kernel=1, stride=stride, active=False)
            if n_in != n_out or stride != 1
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.conv2(self.conv1(x)))


class _ConvNorm(nn.Module):
    """Convolution, normalisation and, if asked for, ReLU."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        norm: Norm,
        kernel: int = 3,
        stride: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)
        self.norm = _BatchNorm(n_out) if norm == "batch" else nn.GroupNorm(_groups(n_out), n_out)
        self.act = nn.ReLU(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class _BatchNorm(nn.BatchNorm2d):
    """Takes the running statistics where a batch of one or no number a channel has none."""

    def forward(self, input: Tensor) -> Tensor:
        if self.training and input.numel() <= input.shape[1]:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def _residuals(n_in: int, n_out: int, n_blocks: int, norm: Norm, stride: int = 1) -> nn.Sequential:
    """Residual blocks; the first has the stride and the change of width."""
    first = _Residual(n_in, n_out, norm, stride)
    return nn.Sequential(first, *(_Residual(n_out, n_out, norm) for _ in range(n_blocks - 1)))


def _groups(channels: int) -> int:
    """The most groups, up to 32, that divide the channels and have at least 8 of them each.

    At 1 x 1 cells a group's statistics are those of its channels: fewer would say too little.
    """
    most = max(1, min(_MOST_GROUPS, channels // _LEAST_OF_GROUP))
    return max(n for n in range(1, most + 1) if channels % n == 0)


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """Variances kept through ReLU (He et al. 2015), biases 0."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
