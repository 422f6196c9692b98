"""The four tables of `decisive benchmark vision`: their arms, and the networks of the arms.

Epochs and images of the core form are such that three seeds take less than four hours of one core,
by CPU-times of training steps: 1.4 to 4.2 ms an image of 32 pixels, 6 ms a clip of 8 frames of 64
with 8 tokens a tubelet, 3.5 ms an image of 128, in bfloat16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import as_tuple
from perception.catalogue import create

if TYPE_CHECKING:
    from perception.train_config import ClassifierTrainConfig

TABLES = ("tokens", "video", "layouts", "progressive")
TOKENS = 8
_POOLED = (2, 4)  # Rows and columns of the control: as many tokens as the TokenLearner leaves.
PLACES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Arm:
    """A row of a table.

    Attributes:
        table: which.
        name: of the row.
        backbone: name in the catalogue.
        overrides: settings of the backbone, JSON values.
        epochs: passes over the training images.
        n_images: of the training set, by a fixed draw; None: all.
        train: settings of `ClassifierTrainConfig`.
        growing: fields of a `ProgressiveConfig`; empty for images of one size.
        pooled: whether averages over a fixed grid stand in for the TokenLearner.
        single_frame: whether only the middle frame of a clip is seen.
    """

    table: str
    name: str
    backbone: str
    overrides: Mapping[str, Any]
    epochs: int
    n_images: int | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    growing: Mapping[str, Any] = field(default_factory=dict)
    pooled: bool = False
    single_frame: bool = False


class PooledTokens(nn.Module):
    """Control of a TokenLearner: means over the cells of a fixed grid, nothing learned."""

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """`(B, h * w, C)` to `(B, 8, C)`."""
        maps = x.mT.unflatten(2, grid)
        return F.adaptive_avg_pool2d(maps, _POOLED).flatten(2).mT


def build(arm: Arm, n_classes: int, in_channels: int) -> nn.Module:
    """The network of an arm, from torch's global random generator."""
    plain = {name: as_tuple(value) for name, value in arm.overrides.items()}
    model = create(arm.backbone, n_classes=n_classes, in_channels=in_channels, **plain)
    if arm.pooled:
        encoder: Any = model.encoder
        encoder.learners[0] = PooledTokens()
    return model


def config_of(arm: Arm, n_images: int, seed: int, steps: int | None) -> ClassifierTrainConfig:
    """How an arm is trained; `steps` shortens it for a trial."""
    from learning.progressive import ProgressiveConfig
    from perception.train_config import ClassifierTrainConfig

    settings: dict[str, Any] = {"batch_size": 64, "device": "cpu", "tensorboard": False}
    settings |= dict(arm.train)
    if arm.growing:
        plain = {name: as_tuple(value) for name, value in arm.growing.items()}
        settings["schedule"] = ProgressiveConfig(**plain)
    batch_size = settings.pop("batch_size")
    whole = ClassifierTrainConfig.for_epochs(
        arm.epochs, n_images, batch_size, seed=seed, **settings
    )
    if steps is None:
        return whole
    return ClassifierTrainConfig(steps=steps, batch_size=batch_size, seed=seed, **settings)


def arms(table: str, core: bool) -> tuple[Arm, ...]:
    """Rows of a table.

    Args:
        table: of `TABLES`.
        core: the form that a core of a CPU fills in four hours.

    Raises:
        ValueError: for an unknown table.
    """
    if table not in _MAKERS:
        raise ValueError(f"table must be one of {', '.join(TABLES)}, got {table!r}")
    return _MAKERS[table](core)


def _token_arms(core: bool) -> tuple[Arm, ...]:
    size = {"width": 128, "depth": 8, "heads": 4, "patch": 4, "image": 32}
    epochs, n_images = (4, None) if core else (30, None)  # core: 0.9 hours a seed

    def arm(name: str, changes: Mapping[str, Any], pooled: bool = False) -> Arm:
        return Arm(
            "tokens", name, "vit_micro", {**size, **changes}, epochs, n_images, pooled=pooled
        )

    learned = [arm(f"learned-at-{at:g}", {"tokens": TOKENS, "at": at}) for at in PLACES]
    averaged = [arm(f"averaged-at-{at:g}", {"tokens": TOKENS, "at": at}, True) for at in PLACES]
    return (arm("plain", {"tokens": 0}), *learned, *averaged)


def _video_arms(core: bool) -> tuple[Arm, ...]:
    # Of 8,000 clips. Core: about 0.4 hours a seed. Direction and order are what clips are of:
    # nothing is mirrored. Nothing is shifted before a black border either, and a tubelet has four
    # frames: `learned` has hardly left chance after 1,500 steps (loss 2.23 of 2.30) with a border
    # and two frames, is at 1.9 after 2,500 without a border, and with four at 1.0 after 1,000.
    epochs = 10 if core else 60
    train = {"batch_size": 16, "flip": False, "crop": 0.0, "size": 64}

    def arm(name: str, changes: Mapping[str, Any], single_frame: bool = False) -> Arm:
        return Arm(
            "video",
            name,
            "vivit_micro",
            {"tubelet": 4, **changes},
            epochs,
            train=train,
            single_frame=single_frame,
        )

    return (
        arm("plain", {"tokens": 0}),
        arm("learned", {"tokens": TOKENS}),
        arm("single-frame", {"tokens": 0}, True),
    )


LAYOUTS: dict[str, tuple[int, int, int, int]] = {
    "CCCC": (32, 80, 80, 144),
    "CCTT": (32, 80, 96, 112),
    "CTTT": (48, 48, 64, 144),
    "TTTT": (32, 32, 48, 160),
}
"""Widths at which the layouts have 0.69 M parameters and 22 M multiply-adds, both within 4%; two
blocks a stage. Found by trying all multiples of 16."""


def _layout_arms(core: bool) -> tuple[Arm, ...]:
    def arm(layout: str, n_images: int) -> Arm:
        overrides = {
            "layout": layout,
            "depths": [2, 2, 2, 2],
            "widths": list(LAYOUTS[layout]),
            "stem_width": 16,
            "stem_stride": 1,
            "image_size": [32, 32],
            "head_width": 16,
            "pre_logits": None,
        }
        # As many steps on few images as on many: what differs is how often an image is seen again.
        # Core: 0.8 hours a seed.
        epochs = {5_000: 20, 50_000: 2} if core else {5_000: 400, 50_000: 40}
        name = f"{layout}-{n_images // 1000}k"
        return Arm("layouts", name, "coatnet_0", overrides, epochs[n_images], n_images)

    return tuple(arm(layout, n) for n in (5_000, 50_000) for layout in LAYOUTS)


def _progressive_arms(core: bool) -> tuple[Arm, ...]:
    # Of 8,000 images. Core: about 0.8 hours a seed. Zones are left or right: nothing is mirrored.
    epochs = 40 if core else 120
    plain = {"batch_size": 32, "flip": False}
    growing = {"size": [64, 128], "n_stages": 4, "multiple": 32}  # 64, 96, 96 and 128 pixels
    # With RandAugment 10 and dropout 0.2 no network comes to know even its own images.
    strong = {"magnitude": 5.0, "dropout": 0.1}
    constant = {"magnitude": [5.0, 5.0], "dropout": [0.1, 0.1]}
    adaptive = {"magnitude": [0.0, 5.0], "dropout": [0.0, 0.1]}

    def arm(name: str, train: Mapping[str, Any], schedule: Mapping[str, Any]) -> Arm:
        return Arm(
            "progressive",
            name,
            "efficientnetv2_b0_half",
            {},
            epochs,
            train={**plain, **train},
            growing=schedule,
        )

    return (
        arm("fixed-128", {"size": 128, **strong}, {}),
        # What the first quarter of the growing ones can see: as many steps of it.
        arm("fixed-64", {"size": 64, **strong}, {}),
        arm("growing", {}, {**growing, **constant}),
        arm("growing-adaptive", {}, {**growing, **adaptive}),
    )


def contrasts(table: str) -> tuple[tuple[str, str], ...]:
    """Pairs of arms that a table is there to compare: one, and the one it is related to."""
    return _CONTRASTS[table]


_CONTRASTS = {
    "tokens": (
        *((f"{kind}-at-{at:g}", "plain") for at in PLACES for kind in ("learned", "averaged")),
        *((f"learned-at-{at:g}", f"averaged-at-{at:g}") for at in PLACES),
    ),
    "video": (("learned", "plain"), ("single-frame", "plain")),
    "layouts": tuple(
        (f"CCTT-{n}", f"{other}-{n}") for n in ("5k", "50k") for other in LAYOUTS if other != "CCTT"
    ),
    "progressive": (
        ("growing", "fixed-128"),
        ("growing-adaptive", "fixed-128"),
        ("growing-adaptive", "growing"),
        ("fixed-64", "fixed-128"),
    ),
}
_MAKERS = {
    "tokens": _token_arms,
    "video": _video_arms,
    "layouts": _layout_arms,
    "progressive": _progressive_arms,
}
