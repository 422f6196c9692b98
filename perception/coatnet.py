"""CoAtNet: stages of convolutions, then stages of attention.

Source: Dai et al. 2021, "CoAtNet: Marrying Convolution and Attention for All Data Sizes"
(arXiv 2106.04803). There is no official code. Where the paper leaves a choice, this follows timm's
definitions `coatnet_0_224` to `coatnet_5_224` (version 1.0.31), so that their weights fit.

| paper | here |
|---|---|
| S0, the stem | `stem_width`, `stem_stride` |
| S1 to S4, "C-C-T-T" | `layout`: C is MBConv, T a transformer block with relative attention |
| L, D of a stage (tables 3, 11, 12) | `depths`, `widths` |

Departures from the paper, as in timm, and the fields that undo them:

- The stride of an MBConv block is at its depthwise convolution (the paper's "strided DConv" of
  table 9, a little better and slower), not at its first 1x1 convolution (eq. 5): `stride_at`.
- Pooling takes means; the paper pools by maxima before attention (appendix A.1) and does not say
  how before MBConv: `pooling` changes both.
- A dense layer with tanh lies between the pooled features and the classifier: `pre_logits`.

Maps of odd size are pooled with a narrower last window, as the convolutions do: all sizes work.
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
from perception.relative_attention import LAYER_NORM_EPS, Pool, Pooling, TransformerBlock

StrideAt = Literal["depthwise", "expansion"]


@dataclass(frozen=True)
class CoAtNetConfig:
    """Sizes of a CoAtNet; the defaults are CoAtNet-0.

    Attributes:
        layout: kind of each stage after the stem, "C" (MBConv) or "T" (transformer).
        depths: blocks of each stage.
        widths: channels of each stage; of a "T" stage a multiple of `head_width`.
        strides: 1 or 2 for each stage, taken by its first block.
        stem_width: channels of the stem's two 3x3 convolutions.
        stem_stride: 1 or 2, taken by the first of them. 1 suits images of 32 pixels.
        image_size: height and width for which the tables of relative biases are made. Images of
            other sizes get resized tables.
        head_width: channels of an attention head.
        expansion: hidden channels of MBConv and of the transformer's MLP, over the width.
        se_ratio: channels within squeeze-and-excitation, over the width.
        stride_at: which convolution of MBConv takes the stride.
        pooling: how shortcuts, and inputs of attention, are made smaller.
        pre_logits: width of the dense layer before the classifier; None leaves it out.
        dropout: chance to drop a feature before the classifier.
        stochastic_depth: chance to leave out the last block; that of the first is 0, and those
            between lie on a line.
    """

    layout: str = "CCTT"
    depths: tuple[int, ...] = (2, 3, 5, 2)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    strides: tuple[int, ...] = (2, 2, 2, 2)
    stem_width: int = 64
    stem_stride: int = 2
    image_size: tuple[int, int] = (224, 224)
    head_width: int = 32
    expansion: int = 4
    se_ratio: float = 0.25
    stride_at: StrideAt = "depthwise"
    pooling: Pooling = "average"
    pre_logits: int | None = 768
    dropout: float = 0.0
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        if not self.layout or set(self.layout) - set("CT"):
            raise ValueError(f"layout must be letters C and T, got {self.layout!r}")
        for name in ("depths", "widths", "strides"):
            if len(getattr(self, name)) != len(self.layout):
                raise ValueError(
                    f"{name} must have {len(self.layout)} entries, one for each stage of "
                    f"{self.layout!r}, got {getattr(self, name)}"
                )
        counts = (*self.depths, *self.widths, *self.image_size, self.stem_width, self.head_width)
        if len(self.image_size) != 2 or min(*counts, self.expansion) < 1:
            raise ValueError(
                "depths, widths, image_size (of 2), stem_width, head_width and expansion must be "
                f"above 0, got {self}"
            )
        if self.pre_logits is not None and self.pre_logits < 1:
            raise ValueError(f"pre_logits must be above 0 or None, got {self.pre_logits}")
        if {*self.strides, self.stem_stride} - {1, 2}:
            raise ValueError(
                f"strides and stem_stride must be 1 or 2, got {self.strides}, {self.stem_stride}"
            )
        for kind, width in zip(self.layout, self.widths, strict=True):
            if kind == "T" and width % self.head_width:
                raise ValueError(
                    "widths of T stages must be multiples of the head width "
                    f"{self.head_width}, got {width} in {self.widths}; change it or head_width"
                )
        for name, known in (("stride_at", StrideAt), ("pooling", Pooling)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(known))}, "
                    f"got {getattr(self, name)!r}"
                )
        for name in ("dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 < self.se_ratio <= 1:
            raise ValueError(f"se_ratio must be in (0, 1], got {self.se_ratio}")

    @property
    def stride(self) -> int:
        """Pixels between the cells of the last map."""
        return self.stem_stride * math.prod(self.strides)

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns after each stage, for images of `image_size`."""
        grids = [_strided(self.image_size, self.stem_stride)]
        for stride in self.strides:
            grids.append(_strided(grids[-1], stride))
        return tuple(grids[1:])


class CoAtNet(nn.Module):
    """Images to logits of classes.

    Attributes:
        config: sizes.
        width: features of a pooled image, before the classifier.
        stride: pixels between the cells of `feature_map`.
    """

    def __init__(self, config: CoAtNetConfig, n_classes: int = 1000, in_channels: int = 3) -> None:
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
        self.stride = config.stride
        self.stem = _Stem(in_channels, config.stem_width, config.stem_stride)
        self.stages = nn.ModuleList(_stages(config))
        last = config.widths[-1]
        self.norm = nn.LayerNorm(last, eps=LAYER_NORM_EPS)
        self.pre_logits = nn.Linear(last, config.pre_logits) if config.pre_logits else None
        self.width = config.pre_logits or last
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(self.width, n_classes) if n_classes else None
        self._initialise()

    def forward(self, images: Tensor) -> Tensor:
        """Images `(B, in_channels, H, W)` to logits `(B, n_classes)`."""
        features = self.embed(images)
        return features if self.classifier is None else self.classifier(self.dropout(features))

    def embed(self, images: Tensor) -> Tensor:
        """Images `(B, in_channels, H, W)` to pooled features `(B, width)`."""
        pooled = self.norm(self.feature_map(images).mean(dim=(2, 3)))
        return pooled if self.pre_logits is None else self.pre_logits(pooled).tanh()

    def feature_map(self, images: Tensor) -> Tensor:
        """Images `(B, in_channels, H, W)` to the last stage's map.

        Returns:
            `(B, config.widths[-1], ceil(H / stride), ceil(W / stride))`, not normalised: every
            block adds to it, and normalises what it reads.

        Raises:
            ValueError: if the images are no batch of floats with `in_channels`.
        """
        check_images(images, self.in_channels)
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        return x

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels between the cells of each map of `pyramid`."""
        return tuple(stride for stride, _ in self._levels())

    @property
    def pyramid_widths(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`."""
        return tuple(self.config.widths[last] for _, last in self._levels())

    def pyramid(self, images: Tensor) -> tuple[Tensor, ...]:
        """The last map at each stride, fine to coarse, after the stem; for dense heads.

        Returns:
            maps `(B, pyramid_widths[i], ceil(H / pyramid_strides[i]), ...)`.

        Raises:
            ValueError: if the images are no batch of floats with `in_channels`.
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
        for i, step in enumerate(self.config.strides):
            stride *= step
            last_of[stride] = i
        return list(last_of.items())

    def _initialise(self) -> None:
        """Start as timm does: convolutions by fan-out, transformers by Xavier's uniform.

        The paper does not say how.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation, normalised first (appendix A.1).

    `x <- Project(Pool(x)) + Conv1x1(SE(DepthConv(Conv1x1(BatchNorm(x)))))`, eq. 5; BatchNorm and
    GELU follow the first two convolutions. Pool and Project are there where the size changes.
    """

    def __init__(
        self, in_width: int, width: int, stride: int, config: CoAtNetConfig, drop: float = 0.0
    ) -> None:
        """Build from torch's global random generator.

        Args:
            in_width: channels of the map.
            width: channels of the result.
            stride: 1 or 2.
            config: of the network.
            drop: chance to leave out the residual branch.
        """
        super().__init__()
        hidden = config.expansion * width
        first, second = (stride, 1) if config.stride_at == "expansion" else (1, stride)
        self.pool = Pool(stride, config.pooling)
        self.shortcut = nn.Conv2d(in_width, width, 1) if in_width != width else nn.Identity()
        self.norm = nn.BatchNorm2d(in_width)
        self.expand = nn.Conv2d(in_width, hidden, 1, first, bias=False)
        self.expand_norm = nn.BatchNorm2d(hidden)
        self.depthwise = Conv2d(hidden, hidden, 3, second, 1, groups=hidden, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(hidden)
        self.excite = SqueezeExcite(hidden, max(1, int(config.se_ratio * width)))
        self.project = nn.Conv2d(hidden, width, 1)
        self.drop = StochasticDepth(drop)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, in_width, h, w)` to `(B, width, ceil(h / stride), ceil(w / stride))`."""
        hidden = F.gelu(self.expand_norm(self.expand(self.norm(x))))
        hidden = F.gelu(self.depthwise_norm(self.depthwise(hidden)))
        return self.shortcut(self.pool(x)) + self.drop(self.project(self.excite(hidden)))


class _Stem(nn.Module):
    """Two 3x3 convolutions; the blocks after it begin with a norm of their own."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.norm1(self.conv1(images))))


class _TransformerStage(nn.Sequential):
    """Puts the channels last for its blocks, and back."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-size[0] // stride), -(-size[1] // stride)


def _stages(config: CoAtNetConfig) -> list[nn.Module]:
    """The stages after the stem."""
    drops = torch.linspace(0, config.stochastic_depth, sum(config.depths), device="cpu").tolist()
    stages: list[nn.Module] = []
    in_width = config.stem_width
    for index, kind in enumerate(config.layout):
        width, depth = config.widths[index], config.depths[index]
        blocks: list[nn.Module] = []
        for position in range(depth):
            stride = config.strides[index] if position == 0 else 1
            drop = drops.pop(0)
            if kind == "C":
                blocks.append(MBConv(in_width, width, stride, config, drop))
            else:
                blocks.append(_transformer(in_width, width, stride, index, config, drop))
            in_width = width
        stages.append(nn.Sequential(*blocks) if kind == "C" else _TransformerStage(*blocks))
    return stages


def _transformer(
    in_width: int, width: int, stride: int, stage: int, config: CoAtNetConfig, drop: float
) -> TransformerBlock:
    return TransformerBlock(
        in_width,
        width,
        config.grids[stage],
        stride=stride,
        head_width=config.head_width,
        expansion=config.expansion,
        pooling=config.pooling,
        drop=drop,
    )


_ZERO = CoAtNetConfig(stochastic_depth=0.2)
_THREE = CoAtNetConfig(
    depths=(2, 6, 14, 2),
    widths=(192, 384, 768, 1536),
    stem_width=192,
    pre_logits=1536,
    stochastic_depth=0.7,
)
_SEVEN = CoAtNetConfig(
    layout="CCCTT",
    depths=(2, 4, 8, 42, 2),
    widths=(256, 512, 1024, 2048, 3072),
    strides=(2, 2, 2, 1, 2),
    stem_width=192,
    head_width=128,
    pre_logits=3072,
)
_MINI = CoAtNetConfig(
    depths=(2, 2, 2, 2),
    widths=(32, 64, 96, 128),
    stem_width=24,
    stem_stride=1,
    image_size=(64, 64),
    pre_logits=None,
)

COATNETS: dict[str, CoAtNetConfig] = {
    "coatnet_mini": _MINI,
    "coatnet_tiny": replace(_MINI, depths=(2, 2, 3, 2), widths=(48, 96, 192, 256)),
    "coatnet_small": replace(_MINI, depths=(2, 3, 5, 2), widths=(64, 128, 256, 384), stem_width=32),
    "coatnet_0": _ZERO,
    "coatnet_1": replace(_ZERO, depths=(2, 6, 14, 2), stochastic_depth=0.3),
    "coatnet_2": CoAtNetConfig(
        depths=(2, 6, 14, 2),
        widths=(128, 256, 512, 1024),
        stem_width=128,
        pre_logits=1024,
        stochastic_depth=0.5,
    ),
    "coatnet_3": _THREE,
    "coatnet_4": replace(_THREE, depths=(2, 12, 28, 2)),
    "coatnet_5": replace(
        _THREE,
        depths=(2, 12, 28, 2),
        widths=(256, 512, 1280, 2048),
        head_width=64,
        pre_logits=2048,
        stochastic_depth=0.0,
    ),
    "coatnet_6": replace(_SEVEN, widths=(192, 384, 768, 1536, 3072)),
    "coatnet_7": _SEVEN,
}
"""The paper's sizes 0 to 7 for ImageNet-1k, and three for CPUs and images of 32 to 128 pixels.

- 0 to 4: table 3; 5: table 11, with heads of 64 channels (timm's has heads of 32:
  `replace(config, head_width=32)` takes its weights); 6 and 7: table 12, heads of 128.
- In 6 and 7 the third stage is of two kinds and widths: here two stages, the second without a
  stride. How the width changes between is not told; here a projection on the shortcut.
- Table 12 prints 2048 channels for the last stage of 6. That gives 1.35 G parameters and 1.47 T
  multiplications at 512 pixels, where table 5 has 1.47 G and 1.52 T. With 3072, twice the
  stage before as in the sizes 0 to 4, it is 1.47 G and 1.50 T, and the multiplications fall short
  of table 5 by as little as those of 7 do. So 3072 is taken.
- Stochastic depth as in table 10 for ImageNet-1k (0 to 3), ImageNet-21k (4); 0 for the others.
- The small ones reach stride 16, so that 32 pixels leave 2 x 2 cells; without the classifier they
  have 0.7, 3.1 and 8.0 M parameters. The paper has none so small.
"""


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Translate weights of timm's `coatnet_0_224` to `coatnet_5_224` (1.0.31).

    Its `coatnet_*_rw_*` and `rmlp` models compute something else (other activations, other places
    of the norms): their weights do not fit.

    Args:
        state: of timm's model for square images. It fits a `CoAtNetConfig` of the same
            `image_size` and `head_width`.

    Returns:
        State of a `CoAtNet`.

    Raises:
        ValueError: for a name that none of these models has, or a table of a grid that is not
            square.
    """
    translated = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        found = re.fullmatch(r"(stages\.\d+\.)blocks\.(\d+)\.(.+)", layer)
        attends = found is not None and f"{found[1]}blocks.{found[2]}.attn.qkv.weight" in state
        prefix, inner = (f"{found[1]}{found[2]}.", found[3]) if found else ("", layer)
        names = _OUTER_NAMES if found is None else _TRANSFORMER_NAMES if attends else _MBCONV_NAMES
        if inner not in names:
            raise ValueError(f"{name!r} is of no timm coatnet_0_224 to coatnet_5_224")
        if kind == "relative_position_bias_table":
            kind, value = "table", _square_table(name, value)
        elif attends and value.ndim == 4:  # a 1x1 convolution, here a linear layer
            value = value.flatten(1)
        translated[f"{prefix}{names[inner]}.{kind}"] = value
    return translated


def _square_table(name: str, table: Tensor) -> Tensor:
    """`(side * side, heads)` to `(heads, side, side)`."""
    side = math.isqrt(len(table))
    if side * side != len(table) or side % 2 == 0:
        raise ValueError(
            f"{name!r} must be for a square grid: {len(table)} rows are no odd number squared"
        )
    return table.T.reshape(-1, side, side)


_OUTER_NAMES = {
    "stem.conv1": "stem.conv1",
    "stem.norm1": "stem.norm1",
    "stem.conv2": "stem.conv2",
    "head.norm": "norm",
    "head.pre_logits.fc": "pre_logits",
    "head.fc": "classifier",
}
_MBCONV_NAMES = {
    "shortcut.expand": "shortcut",
    "pre_norm": "norm",
    "conv1_1x1": "expand",
    "norm1": "expand_norm",
    "conv2_kxk": "depthwise",
    "norm2": "depthwise_norm",
    "se.fc1": "excite.reduce",
    "se.fc2": "excite.restore",
    "conv3_1x1": "project",
}
_TRANSFORMER_NAMES = {
    "shortcut.expand": "shortcut",
    "norm1": "attention_norm",
    "norm1.norm": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.rel_pos": "attention.bias",
    "attn.proj": "attention.project",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
}
