"""How to train a classifier of images."""

import math
from dataclasses import dataclass
from typing import Any

from learning.progressive import ProgressiveConfig, Stage
from learning.train_config import TrainConfig


@dataclass(frozen=True)
class ClassifierTrainConfig(TrainConfig):
    """How to train a classifier; see `TrainConfig` for what is not told here.

    Attributes:
        size: pixels a side that images are resized to; None leaves them as they are. A schedule
            has sizes of its own.
        schedule: stages of a progressive training (`learning.progressive`); they replace `size`,
            `magnitude`, `mixup`, `cutmix` and `dropout`.
        magnitude: of RandAugment; 0 leaves it out.
        mixup: alpha of mixup; 0 leaves it out.
        cutmix: alpha of CutMix; 0 leaves it out.
        dropout: rate set in every dropout of the model; None leaves the model's own.
        flip: whether images are mirrored left to right; not where left and right, or digits, are to
            be told apart.
        crop: black border put around images before a window is cut, as a share of their side; 0
            cuts none.
        label_smoothing: share of a label that goes to all classes of its task alike.
        norm_batches: batches that statistics of batch normalisation are re-estimated from, at each
            change of stage and for the averaged weights; 0 never re-estimates.
        precision: `float32`, `bfloat16` (autocast) or `auto`, which takes bfloat16 where the device
            multiplies it in hardware.
    """

    batch_size: int = 128
    weight_decay: float = 0.05
    ema_decay: float | None = 0.998
    size: int | None = None
    schedule: ProgressiveConfig | None = None
    magnitude: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    dropout: float | None = None
    flip: bool = True
    crop: float = 0.125
    label_smoothing: float = 0.1
    norm_batches: int = 16
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        super().__post_init__()
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")
        if not 0 <= self.magnitude <= 30:
            raise ValueError(f"magnitude must be 0 to 30, got {self.magnitude}")
        for name in ("mixup", "cutmix"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("label_smoothing", "crop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.norm_batches < 0:
            raise ValueError(f"norm_batches must be at least 0, got {self.norm_batches}")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"precision must be auto, float32 or bfloat16, got {self.precision!r}")
        if self.schedule is not None and self.size is not None:
            raise ValueError("a schedule has sizes of its own; leave size None")
        if self.return_temperature is not None:
            raise ValueError("images have no return; leave return_temperature None")

    @staticmethod
    def for_epochs(
        epochs: float, n_images: int, batch_size: int = 128, **settings: Any
    ) -> "ClassifierTrainConfig":
        """A budget in passes over the images, rounded up to whole steps.

        Raises:
            ValueError: for no images or no epochs.
        """
        if not epochs > 0 or n_images < 1:
            raise ValueError(f"epochs and n_images must be positive, got {epochs} and {n_images}")
        steps = math.ceil(epochs * n_images / batch_size)
        return ClassifierTrainConfig(steps=steps, batch_size=batch_size, **settings)

    def image_size(self, own: tuple[int, int]) -> tuple[int, int]:
        """Height and width of evaluation, given those of the images."""
        if self.schedule is not None:
            return self.schedule.size[1], self.schedule.size[1]
        return own if self.size is None else (self.size, self.size)

    def stage(self, index: int) -> Stage | None:
        """What a stage of the schedule changes; None without a schedule."""
        return None if self.schedule is None else self.schedule.stage(index)

    def stage_index(self, step: int, fraction: float) -> int:
        """The stage of a step; by the share of the budget where it is not counted in steps."""
        if self.schedule is None:
            return 0
        if self.steps is not None and self.cpu_seconds is None:
            return self.schedule.stage_index(step, self.steps)
        parts = 1_000_000
        return self.schedule.stage_index(int(min(fraction, 1.0) * parts), parts)
