"""Progressive learning: images grow in the course of a training, and regularisation with them.

Source: Tan and Le 2021, "EfficientNetV2: Smaller Models and Faster Training", section 4 (algorithm
1, table 6). The published code (google/automl) does otherwise: its sizes begin one step above the
smallest, its dropout is constant, and it adds CutMix. Presets exist of both.

One network is carried through all stages. Besides the images, two things change: the rate of its
dropout (`set_dropout`), and what batch normalisation should expect, since its statistics are those
of the sizes seen before (`reestimate_batch_norm`).
"""

import bisect
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

_BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
Range = tuple[float, float]


@dataclass(frozen=True)
class Stage:
    """What holds during one stage of a training.

    Attributes:
        size: pixels a side of the images.
        magnitude: of RandAugment, on the scale of `learning.augment`.
        mixup: alpha of mixup; 0 leaves it out.
        cutmix: alpha of CutMix; 0 leaves it out.
        dropout: rate of the classifier's dropout.
    """

    size: int
    magnitude: float
    mixup: float
    cutmix: float
    dropout: float


@dataclass(frozen=True)
class ProgressiveConfig:
    """A schedule: each value goes linearly from its first to its last (algorithm 1).

    Attributes:
        size: pixels a side, smallest and largest.
        magnitude: of RandAugment.
        mixup: alpha.
        cutmix: alpha; the paper has no CutMix.
        dropout: rate.
        n_stages: how many stages, all of about equal length; one stage has the last values.
        skip_smallest: sizes go in `n_stages` equal steps from the smallest, which is never shown
            itself, as the published code does; otherwise the first stage shows the smallest.
        multiple: sizes are rounded to multiples of it, halves up.
    """

    size: tuple[int, int]
    magnitude: Range = (5.0, 15.0)
    mixup: Range = (0.0, 0.0)
    cutmix: Range = (0.0, 0.0)
    dropout: Range = (0.1, 0.3)
    n_stages: int = 4
    skip_smallest: bool = False
    multiple: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no schedule."""
        for name in ("n_stages", "multiple"):
            _check_count(name, getattr(self, name))
        for item in fields(self)[:5]:
            _check_range(item.name, getattr(self, item.name))
        for value in self.size:
            _check_count("size", value)
        if self.size[0] > self.size[1]:
            raise ValueError(f"size must not shrink, got {self.size}")
        if max(self.dropout) >= 1:
            raise ValueError(f"dropout must be below 1, got {self.dropout}")

    def stage(self, index: int) -> Stage:
        """Values of a stage.

        Args:
            index: 0 for the first.

        Raises:
            ValueError: if there is no such stage.
        """
        if not 0 <= index < self.n_stages:
            raise ValueError(f"stage must be 0 to {self.n_stages - 1}, got {index}")
        share = index / (self.n_stages - 1) if self.n_stages > 1 else 1.0
        grown = (index + 1) / self.n_stages if self.skip_smallest else share
        return Stage(
            size=self._rounded(_between(self.size, grown)),
            magnitude=_between(self.magnitude, share),
            mixup=_between(self.mixup, share),
            cutmix=_between(self.cutmix, share),
            dropout=_between(self.dropout, share),
        )

    def stages(self) -> tuple[Stage, ...]:
        """All stages in their order."""
        return tuple(map(self.stage, range(self.n_stages)))

    def ends(self, n_steps: int) -> tuple[int, ...]:
        """Number of steps made when each stage ends; the last is all of them.

        A training that is shorter than `n_stages` leaves stages out.

        Raises:
            ValueError: if there is no step.
        """
        _check_count("n_steps", n_steps)
        return tuple((i + 1) * n_steps // self.n_stages for i in range(self.n_stages))

    def stage_index(self, step: int, n_steps: int) -> int:
        """Which stage a step belongs to; it follows from the step alone, so trainings can resume.

        Args:
            step: number of steps made before it; `n_steps` and more stay in the last stage.
            n_steps: of the whole training.

        Raises:
            ValueError: for a negative step.
        """
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}")
        return min(bisect.bisect_right(self.ends(n_steps), step), self.n_stages - 1)

    def _rounded(self, size: float) -> int:
        return max(1, math.floor(size / self.multiple + 0.5)) * self.multiple


def _between(ends: Range, share: float) -> float:
    """Linear, and exact at both ends."""
    return ends[1] if share == 1 else ends[0] + (ends[1] - ends[0]) * share


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be whole and at least 1, got {value!r}")


def _check_range(name: str, ends: object) -> None:
    if not (
        isinstance(ends, tuple)
        and len(ends) == 2
        and all(isinstance(x, int | float) and math.isfinite(x) and x >= 0 for x in ends)
    ):
        raise ValueError(f"{name} must be a tuple of two numbers, at least 0, got {ends!r}")


def _released(size: int, magnitude: float, mix: float, dropout: float) -> ProgressiveConfig:
    return ProgressiveConfig(
        size=(128, size),
        magnitude=(5.0, magnitude),
        mixup=(0.0, mix),
        cutmix=(0.0, mix),
        dropout=(dropout, dropout),
        skip_smallest=True,
    )


PROGRESSIVE: dict[str, ProgressiveConfig] = {
    # Table 6.
    "paper-s": ProgressiveConfig((128, 300), (5.0, 15.0), (0.0, 0.0), dropout=(0.1, 0.3)),
    "paper-m": ProgressiveConfig((128, 380), (5.0, 20.0), (0.0, 0.2), dropout=(0.1, 0.4)),
    "paper-l": ProgressiveConfig((128, 380), (5.0, 25.0), (0.0, 0.5), dropout=(0.1, 0.5)),
    # google/automl, efficientnetv2: main.py and effnetv2_configs.py.
    "released-s": _released(300, 10.0, 0.0, 0.2),
    "released-m": _released(384, 15.0, 0.2, 0.3),
    "released-l": _released(384, 20.0, 0.5, 0.4),
}
"""Schedules of EfficientNetV2 S, M and L, as printed in the paper and as the code has them."""


def preset(name: str) -> ProgressiveConfig:
    """The schedule of a name.

    Raises:
        ValueError: if it is unknown; the known ones are listed.
    """
    if name not in PROGRESSIVE:
        raise ValueError(f"unknown schedule {name!r}; known: {', '.join(PROGRESSIVE)}")
    return PROGRESSIVE[name]


def set_dropout(model: nn.Module, rate: float) -> None:
    """Change the rate of every `nn.Dropout` of a model; stochastic depth stays as it is.

    Raises:
        ValueError: for what is no rate in [0, 1), or if the model has no dropout: a schedule that
            changes nothing would go unnoticed.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Dropout whose rate could be set")
    for module in found:
        module.p = rate


@torch.no_grad()
def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any]) -> int:
    """Replace the running statistics of batch normalisation by those of some batches.

    The statistics become the plain means over the batches of each batch's means and (unbiased)
    variances, instead of averages in which the sizes of earlier stages linger. Everything but batch
    normalisation works as in evaluation, so dropout adds no noise. Parameters and modes are as
    before afterwards, and the statistics too if a batch fails.

    Args:
        model: called with each batch.
        batches: inputs; all count alike, whatever their sizes.

    Returns:
        number of layers that were re-estimated; without any, no batch is looked at.

    Raises:
        ValueError: if there is no batch.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    if not layers:
        return 0
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    before = [{name: b.clone() for name, b in layer.named_buffers()} for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.train()
            layer.reset_running_stats()
            layer.momentum = None  # torch then weighs all batches alike
        n_batches = 0
        for batch in batches:
            model(batch)
            n_batches += 1
        if not n_batches:
            raise ValueError("batches must hold at least one batch, got none")
    except BaseException:
        for layer, old in zip(layers, before, strict=True):
            for name, buffer in layer.named_buffers():
                buffer.copy_(old[name])
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training
    return len(layers)
