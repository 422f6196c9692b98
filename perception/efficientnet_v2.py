"""EfficientNetV2: the networks of Tan and Le 2021, and smaller ones for CPUs.

Source: "EfficientNetV2: Smaller Models and Faster Training", table 4 for S; B0 to B3, M, L and XL
as in the published configurations (google/automl), which the paper does not print. The early stages
are fused, which is faster on accelerators than depthwise convolutions at high resolution.

The sizes of training and evaluation differ on purpose: a network that learns from smaller images
reads larger ones better (section 5.1).
"""

from dataclasses import replace

from perception.efficientnet import EfficientNetConfig, StageConfig


def _stages(*rows: tuple[int, int, int, int]) -> tuple[StageConfig, ...]:
    """Rows of (blocks, expansion, width, stride); the first three are fused."""
    return tuple(StageConfig("fused" if i < 3 else "mbconv", *row) for i, row in enumerate(rows))


_B0 = EfficientNetConfig(
    stem=32,
    stages=_stages(
        (1, 1, 16, 1),
        (2, 4, 32, 2),
        (2, 4, 48, 2),
        (3, 4, 96, 2),
        (5, 6, 112, 1),
        (8, 6, 192, 2),
    ),
    train_size=192,
    eval_size=224,
)
_B1, _B2, _B3 = _B0.scaled(1.0, 1.1), _B0.scaled(1.1, 1.2), _B0.scaled(1.2, 1.4)
_QUARTER = replace(_B0.scaled(0.25, 0.5), train_size=64, eval_size=64)

EFFICIENTNETS_V2: dict[str, EfficientNetConfig] = {
    # Half of B0's blocks at a quarter and at half of its channels, for CPUs and images of 32 to 128
    # pixels: 0.22 and 0.77 M parameters with ten classes. Not the paper's. The fine one has a last
    # map of 16 pixels a cell, which says more exactly where something is.
    "efficientnetv2_b0_quarter": _QUARTER,
    "efficientnetv2_b0_quarter_fine": replace(
        _QUARTER,
        stages=(*_QUARTER.stages[:-1], replace(_QUARTER.stages[-1], stride=1)),
        train_size=128,
        eval_size=128,
    ),
    "efficientnetv2_b0_half": replace(_B0.scaled(0.5, 0.5), train_size=96, eval_size=96),
    "efficientnetv2_b0": _B0,
    "efficientnetv2_b1": replace(_B1, train_size=192, eval_size=240),
    "efficientnetv2_b2": replace(_B2, dropout=0.3, train_size=208, eval_size=260),
    "efficientnetv2_b3": replace(_B3, dropout=0.3, train_size=240, eval_size=300),
    "efficientnetv2_s": EfficientNetConfig(
        stem=24,
        stages=_stages(
            (2, 1, 24, 1),
            (4, 4, 48, 2),
            (4, 4, 64, 2),
            (6, 4, 128, 2),
            (9, 6, 160, 1),
            (15, 6, 256, 2),
        ),
        train_size=300,
        eval_size=384,
    ),
    "efficientnetv2_m": EfficientNetConfig(
        stem=24,
        stages=_stages(
            (3, 1, 24, 1),
            (5, 4, 48, 2),
            (5, 4, 80, 2),
            (7, 4, 160, 2),
            (14, 6, 176, 1),
            (18, 6, 304, 2),
            (5, 6, 512, 1),
        ),
        dropout=0.3,
        train_size=384,
        eval_size=480,
    ),
    "efficientnetv2_l": EfficientNetConfig(
        stem=32,
        stages=_stages(
            (4, 1, 32, 1),
            (7, 4, 64, 2),
            (7, 4, 96, 2),
            (10, 4, 192, 2),
            (19, 6, 224, 1),
            (25, 6, 384, 2),
            (7, 6, 640, 1),
        ),
        dropout=0.4,
        train_size=384,
        eval_size=480,
    ),
    "efficientnetv2_xl": EfficientNetConfig(
        stem=32,
        stages=_stages(
            (4, 1, 32, 1),
            (8, 4, 64, 2),
            (8, 4, 96, 2),
            (16, 4, 192, 2),
            (24, 6, 256, 1),
            (32, 6, 512, 2),
            (8, 6, 640, 1),
        ),
        dropout=0.4,
        train_size=384,
        eval_size=512,
    ),
}
"""The second version, by name. Dropout is that of the published code; the paper raises it stage by
stage (`learning.progressive`)."""
