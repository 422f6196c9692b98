"""Batches of images for classifiers: order, augmentation, targets; and the loss over tasks.

Everything follows from the seed and the number of the step, so a resumed training goes on bit by
bit without a saved state of random generators.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from learning.augment import horizontal_flip, mix, rand_augment, random_crop, resize
from learning.image_set import ImageSet
from learning.progressive import Stage
from perception.train_config import ClassifierTrainConfig

_PRIME = 1_000_003  # Keeps the seeds of neighbouring runs and steps apart.
_STATISTICS = 2048  # Images that the statistics of channels are taken from.
Range = tuple[float, ...]


def channel_statistics(data: ImageSet) -> tuple[Range, Range]:
    """Mean and standard deviation of each channel, of values from 0 to 1.

    They are of at most 2,048 images, spread evenly. A channel without any spread gets 1.
    """
    rows = np.linspace(0, len(data) - 1, min(len(data), _STATISTICS)).round().astype(np.int64)
    pixels = data.images[np.unique(rows)].reshape(-1, data.images.shape[-1])
    mean = pixels.mean(0, dtype=np.float64) / 255
    std = pixels.std(0, dtype=np.float64) / 255
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1).tolist())


def step_seed(seed: int, step: int) -> int:
    """Seed of everything that is random in a step."""
    return (seed * _PRIME + step) % 2**63


class Batches:
    """Inputs and targets of a set of images, by the number of a step."""

    def __init__(
        self,
        data: ImageSet,
        config: ClassifierTrainConfig,
        statistics: tuple[Range, Range],
        device: torch.device,
    ) -> None:
        """Nothing is read yet.

        Args:
            data: images or clips.
            config: how to train.
            statistics: mean and standard deviation of each channel.
            device: where the inputs go.
        """
        self.data = data
        self._config = config
        self._device = device
        self._mean, self._std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in statistics
        )
        height, width = data.images.shape[-3:-1]
        self.size = config.image_size((height, width))
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Which images a step sees: all of them once before any of them twice."""
        n, batch = len(self.data), self._config.batch_size
        places = np.arange(step * batch, (step + 1) * batch)
        return np.array([self._permuted(place // n)[place % n] for place in places.tolist()])

    def train(self, step: int, stage: Stage | None) -> tuple[Tensor, Tensor]:
        """Augmented inputs `(B, C, H, W)` (clips `(B, T, C, H, W)`) and targets `(B, K)`."""
        config = self._config
        generator = torch.Generator().manual_seed(step_seed(config.seed, step))
        rows = self.rows(step)
        size = self.size if stage is None else (stage.size, stage.size)
        images, frames = self._floats(rows, size)
        if config.crop:
            images = random_crop(images, round(config.crop * min(size)), generator)
        if config.flip:
            images = horizontal_flip(images, generator)
        magnitude = config.magnitude if stage is None else stage.magnitude
        if magnitude:
            images = rand_augment(images, magnitude, generator)
        targets = self.targets(rows)
        mixup = config.mixup if stage is None else stage.mixup
        cutmix = config.cutmix if stage is None else stage.cutmix
        images, targets = mix(images, targets, mixup, cutmix, generator)
        return self._normalised(images, frames), targets

    def plain(self, rows: NDArray[np.int64], size: tuple[int, int] | None = None) -> Tensor:
        """Inputs of some images as evaluation sees them."""
        return self._normalised(*self._floats(rows, size or self.size))

    def targets(self, rows: NDArray[np.int64]) -> Tensor:
        """`(B, K)`: of each task 1 for the class and 0 for others; all 0 without a label."""
        labels = torch.from_numpy(np.array(self.data.labels[rows]))
        parts = [
            F.one_hot(column.clamp(min=0), len(classes)) * (column >= 0)[:, None]
            for column, classes in zip(labels.T, self.data.tasks.values(), strict=True)
        ]
        return torch.cat(parts, 1).float().to(self._device)

    def _permuted(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            rng = np.random.default_rng((self._config.seed, epoch))
            self._epoch, self._order = epoch, rng.permutation(len(self.data))
        return self._order

    def _floats(self, rows: NDArray[np.int64], size: tuple[int, int]) -> tuple[Tensor, int]:
        """`(B, frames * C, *size)` from 0 to 1, so that all frames of a clip change alike."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.data.images[rows])).to(self._device)
        frames = pixels.shape[1] if self.data.is_clips else 0
        if frames:
            pixels = pixels.permute(0, 1, 4, 2, 3).flatten(1, 2)
        else:
            pixels = pixels.permute(0, 3, 1, 2)
        return resize(pixels.float() / 255, size), frames

    def _normalised(self, images: Tensor, frames: int) -> Tensor:
        if frames:
            return (images.unflatten(1, (frames, -1)) - self._mean) / self._std
        # Convolutions keep the order of their input: training EfficientNetV2 is 1.3 times as fast.
        return ((images - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def task_losses(
    logits: Tensor, targets: Tensor, tasks: Mapping[str, tuple[str, ...]], smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Cross-entropy of each task over its part of the logits, in nats.

    Args:
        logits: `(B, K)`, one task after the other.
        targets: `(B, K)` shares; those of a task sum to 1, or less where a label is missing, and
            images count for a task by that sum.
        tasks: classes of each task.
        smoothing: share of each target that goes to all classes of its task alike.

    Returns:
        scalar losses by task, 0 for one without any label in the batch.
    """
    losses, start = {}, 0
    for task, classes in tasks.items():
        part = slice(start, start + len(classes))
        start += len(classes)
        weight = targets[:, part].sum(1, keepdim=True)
        shares = (1 - smoothing) * targets[:, part] + smoothing * weight / len(classes)
        total = -(shares * logits[:, part].float().log_softmax(1)).sum()
        losses[task] = total / weight.sum().clamp(min=1e-9)
    return losses
