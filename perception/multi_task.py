"""One network for several perception tasks: a shared encoder, and a small head for each.

The encoder is any network of the catalogue for images. Tasks share it and nothing else, so that
what they do to each other happens there (`learning.task_affinity`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception import pyramid
from perception.catalogue import create
from perception.catalogue import names as backbone_names
from perception.multi_task_set import Target

Statistics = Mapping[str, tuple[float, float]]
"""Mean and standard deviation of values or numbers, by task."""


@dataclass(frozen=True)
class MultiTaskConfig:
    """Sizes of a network.

    Attributes:
        backbone: a name in `perception.names()`, of a network for images.
        backbone_options: fields of its configuration that are changed.
        width: channels of each head.
    """

    backbone: str = "efficientnetv2_b0_quarter"
    backbone_options: Mapping[str, Any] = field(
        default_factory=lambda: {"drop_path": 0.0, "norm_momentum": 0.1}
    )
    width: int = 16

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        if self.backbone not in backbone_names():
            raise ValueError(
                f"backbone must be one of {', '.join(backbone_names())}, got {self.backbone!r}"
            )
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


class MultiTaskNet(nn.Module):
    """Images to what each task says.

    Attributes:
        config: sizes.
        targets: by task.
        encoder: what the tasks share.
        heads: by task.
    """

    def __init__(self, config: MultiTaskConfig, targets: Mapping[str, Target]) -> None:
        """Build from torch's global random generator.

        Raises:
            ValueError: for no tasks, or a backbone that takes no images.
        """
        super().__init__()
        if not targets:
            raise ValueError("a network needs at least one task")
        self.config, self.targets = config, dict(targets)
        self.encoder: Any = create(config.backbone, n_classes=0, **config.backbone_options)
        _, widths = pyramid.levels(self.encoder, config.backbone)
        self.heads = nn.ModuleDict(
            {
                task: (_DenseHead if target.dense else _NumberHead)(
                    widths, config.width, target.channels
                )
                for task, target in self.targets.items()
            }
        )

    def forward(self, images: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        """What each task says of images `(B, 3, H, W)`.

        Args:
            images: `(B, 3, H, W)`, normalised.
            tasks: only these are asked; None asks all.

        Returns:
            by task `(B, channels, H, W)`, of numbers `(B, channels)`: logits of classes and masks,
            standardised values and numbers, directions of any length.
        """
        maps = pyramid.maps(self.encoder, images)
        size = images.shape[-2:]
        asked = self.heads if tasks is None else tasks
        return {task: self.heads[task](maps, size) for task in asked}

    def shared(self) -> list[nn.Parameter]:
        """Parameters that all tasks use."""
        return list(self.encoder.parameters())


def task_losses(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    kinds: Mapping[str, Target],
    statistics: Statistics,
) -> dict[str, Tensor]:
    """Loss of each task, scalars without weights.

    Cross-entropy in nats of classes and masks, L1 of standardised values, one minus the cosine of
    the angle between directions, and squared error of standardised numbers.

    Args:
        outputs: as of `MultiTaskNet`.
        targets: by task, `(B, ...)` tensors as in a `TaskSet`.
        kinds: by task.
        statistics: by task of values or numbers.
    """
    return {
        task: _loss(output.float(), targets[task], kinds[task], statistics.get(task, (0.0, 1.0)))
        for task, output in outputs.items()
    }


def _loss(output: Tensor, truth: Tensor, target: Target, scale: tuple[float, float]) -> Tensor:
    mean, std = scale
    if target.kind == "classes":
        return F.cross_entropy(output, truth.long())
    if target.kind == "mask":
        return F.binary_cross_entropy_with_logits(output[:, 0], truth.float())
    if target.kind == "values":
        return (output[:, 0] - (truth - mean) / std).abs().mean()
    if target.kind == "directions":
        return (1 - F.cosine_similarity(output, truth.float().movedim(-1, 1), dim=1)).mean()
    return (output - (truth - mean) / std).square().mean()


def task_errors(
    outputs: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    kinds: Mapping[str, Target],
    statistics: Statistics,
) -> dict[str, float]:
    """A readable error of each task.

    The share of wrong pixels of classes; of masks one minus F1 of each image, which is 1 where
    nothing is found; the mean absolute error of values and numbers in their units; the mean angle
    of directions, degrees.
    """
    return {
        task: _error(output.float(), targets[task], kinds[task], statistics.get(task, (0.0, 1.0)))
        for task, output in outputs.items()
    }


def _error(output: Tensor, truth: Tensor, target: Target, scale: tuple[float, float]) -> float:
    mean, std = scale
    if target.kind == "classes":
        return float((output.argmax(1) != truth.long()).float().mean())
    if target.kind == "mask":
        found, true = output[:, 0] > 0, truth.bool()
        both = (found & true).sum((1, 2))
        return float((1 - 2 * both / (found.sum((1, 2)) + true.sum((1, 2))).clamp(min=1)).mean())
    if target.kind == "directions":
        cosine = F.cosine_similarity(output, truth.float().movedim(-1, 1), dim=1)
        return float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).mean())
    told = output[:, 0] if target.kind == "values" else output
    return float((told * std + mean - truth).abs().mean())


class _DenseHead(nn.Module):
    """Lateral maps added up at the finest one, one 3x3 convolution, and the outputs (tiny FPN)."""

    def __init__(self, widths: tuple[int, ...], width: int, channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(n, width, 1) for n in widths)
        self.mix = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, channels, 1),
        )

    def forward(self, maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        x = _resized(self.laterals[-1](maps[-1]), maps[0].shape[-2:])
        for lateral, one in zip(self.laterals[:-1], maps[:-1], strict=True):
            x = x + _resized(lateral(one), maps[0].shape[-2:])
        return _resized(self.mix(x), size)


class _NumberHead(nn.Module):
    """Means of all maps, a hidden layer, and the outputs."""

    def __init__(self, widths: tuple[int, ...], width: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(sum(widths), 2 * width), nn.SiLU(), nn.Linear(2 * width, channels)
        )

    def forward(self, maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
        return self.mix(torch.cat([one.mean((2, 3)) for one in maps], 1))


def _resized(x: Tensor, size: torch.Size) -> Tensor:
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def subset(targets: Mapping[str, Target], tasks: Iterable[str]) -> dict[str, Target]:
    """Targets of some tasks, in the order of `targets`.

    Raises:
        ValueError: for no task, one named twice, or an unknown one.
    """
    wanted = list(tasks)
    for task in wanted:
        if task not in targets:
            raise ValueError(f"unknown task {task!r}; known: {', '.join(targets)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"tasks must be different names, one or more, got {', '.join(wanted)}")
    return {task: target for task, target in targets.items() if task in wanted}
