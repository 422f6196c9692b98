"""Image classifiers with everything needed to use them: labels, preprocessing, scores.

A checkpoint is a folder of `config.json`, `model.safetensors` and a card `README.md`, as everywhere
in this project (see `learning.checkpoint`). Loading runs no code from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import as_tuple, find_shipped, list_checkpoints, load_saved, save_module
from perception.catalogue import create

METHOD = "classifier"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Where shipped classifiers lie, one folder each."""

MAX_SIDE = 16_384
"""Pixels of the longest side that an image may have."""

_TOLERANCE = 1e-3  # Floats beyond 0..1 by less are rounding, as of a resized image.
_STRIP = 2**22  # Pixels that are floats at one time while a large image shrinks.


@dataclass(frozen=True)
class SavedClassifier:
    """A classifier, what its logits mean and what its images must look like.

    Attributes:
        model: a backbone with a class for each of all tasks; logits one task after the other.
        backbone: its name in the catalogue.
        overrides: JSON values that were given to `perception.create` beside the name.
        tasks: names of the classes of each task, in order of the logits.
        size: height and width that images are resized to, pixels.
        mean: of each channel, of values from 0 to 1; subtracted.
        std: of each channel; divided by.
        scores: held-out, JSON values; empty means untrained.
    """

    model: nn.Module = field(repr=False)
    backbone: str
    overrides: Mapping[str, Any]
    tasks: Mapping[str, tuple[str, ...]]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse labels and preprocessing that cannot be."""
        _check_tasks(self.tasks)
        check_preprocessing(self.size, self.mean, self.std)

    @property
    def n_classes(self) -> int:
        """Of all tasks together, the number of logits."""
        return sum(map(len, self.tasks.values()))

    def tensor(self, images: ArrayLike) -> Tensor:
        """What the model takes, from images as cameras and files give them.

        Images are shrunk with an antialiasing triangle filter and enlarged bilinearly, without
        keeping the ratio of their sides. An image is worked through in strips, so that 8,000 x
        8,000 pixels need no more memory than a few of them.

        Args:
            images: `(B, H, W, C)`, uint8 from 0 to 255, or float32 or float64 from 0 to 1.

        Returns:
            `(B, C, *size)` float32, normalised, on the CPU.

        Raises:
            ValueError: for other shapes, kinds or values.
        """
        return image_tensor(images, self.size, self.mean, self.std)

    def read(self, logits: ArrayLike | Tensor) -> list[dict[str, dict[str, float]]]:
        """Names and probabilities.

        Args:
            logits: `(B, n_classes)`.

        Returns:
            For each image: task -> class -> probability; those of a task sum to 1.

        Raises:
            ValueError: for another shape, or logits that are not finite.
        """
        plain = logits.detach().cpu().numpy() if isinstance(logits, Tensor) else logits
        rows = np.asarray(plain, np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.n_classes:
            raise ValueError(f"logits must be (B, {self.n_classes}), got {rows.shape}")
        if not np.isfinite(rows).all():
            raise ValueError("logits must be finite, got NaN or infinite values")
        return [self._read_row(row) for row in rows]

    def _read_row(self, row: NDArray[np.float64]) -> dict[str, dict[str, float]]:
        answer, start = {}, 0
        for task, classes in self.tasks.items():
            part = row[start : start + len(classes)]
            chances = np.exp(part - part.max())
            chances /= chances.sum()
            answer[task] = dict(zip(classes, chances.tolist(), strict=True))
            start += len(classes)
        return answer


def image_tensor(
    images: ArrayLike, size: tuple[int, int], mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Images as networks take them, from those of cameras and files; see `SavedClassifier.tensor`.

    Args:
        images: `(B, H, W, C)`, uint8 from 0 to 255, or float32 or float64 from 0 to 1.
        size: height and width they are resized to, pixels.
        mean: of each of the C channels; subtracted.
        std: of each channel; divided by.

    Returns:
        `(B, C, *size)` float32, normalised, on the CPU.

    Raises:
        ValueError: for other shapes, kinds or values.
    """
    pixels = np.asarray(images)
    _check_pixels(pixels, len(mean))
    resized = torch.stack([_resize(image, size) for image in pixels])
    middle, spread = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (resized.clamp_(0, 1) - middle) / spread


def check_preprocessing(size: tuple[int, ...], mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse sizes and normalisations that cannot be.

    Raises:
        ValueError: saying which, and what came.
    """
    if len(size) != 2 or not all(_is_side(side) for side in size):
        raise ValueError(f"size must be a height and a width in 1..{MAX_SIDE} pixels, got {size}")
    if not mean or len(mean) != len(std):
        raise ValueError(
            f"mean and std must have a number for each channel, got {len(mean)} and {len(std)}"
        )
    for name, values in (("mean", mean), ("std", std)):
        if not all(_is_finite(value) for value in values):
            raise ValueError(f"{name} must be finite numbers, got {values}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, got {std}")


def save_classifier(folder: str | Path, saved: SavedClassifier, card: str) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where to.
        saved: what to save.
        card: model card, Markdown.

    Raises:
        CheckpointError: if a weight is not finite, or the model is not what the name and the
            overrides make: it could not be read back.
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": {"backbone": saved.backbone, "overrides": dict(saved.overrides)},
        "spec": {
            "tasks": {task: list(classes) for task, classes in saved.tasks.items()},
            "size": list(saved.size),
            "mean": list(saved.mean),
            "std": list(saved.std),
        },
        "training": {"scores": dict(saved.scores)},
    }
    save_module(folder, document, saved.model, card, _build)


def load_classifier(path_or_name: str | Path) -> SavedClassifier:
    """Read a checkpoint folder, or a shipped classifier by its name.

    Args:
        path_or_name: a folder, a training run holding `best` or `last`, or a name in
            `shipped_classifiers()`.

    Returns:
        The classifier, its model in evaluation mode and on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    folder = find_shipped(path_or_name, shipped_classifiers(), "classifier")
    return load_saved(folder, _build, _read, METHOD)


def shipped_classifiers() -> dict[str, Path]:
    """Folders of the classifiers that come with the package, by name."""
    return list_checkpoints(CHECKPOINTS)


def _build(document: Mapping[str, Any]) -> nn.Module:
    try:
        backbone, overrides = document["config"]["backbone"], document["config"]["overrides"]
        plain = {str(name): as_tuple(value) for name, value in overrides.items()}
        probe = _read(nn.Identity(), document)
        return create(
            str(backbone), n_classes=probe.n_classes, in_channels=len(probe.mean), **plain
        )
    except KeyError as error:
        raise ValueError(f"a classifier's config must hold {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the config of a classifier: {error}") from None


def _read(model: nn.Module, document: Mapping[str, Any]) -> SavedClassifier:
    spec, config = document["spec"], document["config"]
    return SavedClassifier(
        model=model,
        backbone=config["backbone"],
        overrides=config["overrides"],
        tasks={task: tuple(classes) for task, classes in spec["tasks"].items()},
        size=tuple(spec["size"]),
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        scores=document["training"].get("scores", {}),
    )


def _check_tasks(tasks: Mapping[str, Any]) -> None:
    if not tasks:
        raise ValueError("tasks must name at least one task and its classes")
    for task, classes in tasks.items():
        if isinstance(classes, str) or not all(isinstance(name, str) and name for name in classes):
            raise ValueError(f"classes of {task!r} must be a tuple of names, got {classes!r}")
        if len(classes) < 2 or len(set(classes)) < len(classes):
            raise ValueError(f"classes of {task!r} must be two or more, all different: {classes}")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _check_pixels(pixels: NDArray[Any], channels: int) -> None:
    if pixels.ndim == 3:
        raise ValueError(
            f"images must be (B, H, W, {channels}), got {pixels.shape}; a single image takes "
            f"images[None], grey ones np.repeat(images[..., None], {channels}, axis=-1)"
        )
    if pixels.ndim != 4 or pixels.shape[3] != channels:
        raise ValueError(f"images must be (B, H, W, {channels}), got {pixels.shape}")
    if not pixels.size:
        raise ValueError(f"images must have pixels, got {pixels.shape}")
    if max(pixels.shape[1:3]) > MAX_SIDE:
        raise ValueError(
            f"images must have sides of at most {MAX_SIDE} pixels, got {pixels.shape}; shrink them"
        )
    if pixels.dtype not in (np.uint8, np.float32, np.float64):
        raise ValueError(
            f"images must be uint8 (0 to 255), float32 or float64 (0 to 1), got {pixels.dtype}"
        )
    if pixels.dtype != np.uint8:
        # Both are NaN where a pixel is; no copy of the images is made.
        least, most = float(pixels.min()), float(pixels.max())
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError("images must be finite, got NaN or infinite pixels")
        if least < -_TOLERANCE or most > 1 + _TOLERANCE:
            raise ValueError(
                f"images of floats must be from 0 to 1, got {least:g} to {most:g}; "
                "divide by 255, or give uint8"
            )


def _resize(image: NDArray[Any], size: tuple[int, int]) -> Tensor:
    """`(H, W, C)` to `(C, *size)` float32 from 0 to 1: strips of rows first, then columns."""
    height, width = image.shape[:2]
    rows = max(1, _STRIP // width)
    strips = [
        _stretch(_to_float(image[start : start + rows]), None, size[1])
        for start in range(0, height, rows)
    ]
    return _stretch(torch.cat(strips, dim=2), size[0], None)[0]


def _stretch(x: Tensor, height: int | None, width: int | None) -> Tensor:
    target = (height or x.shape[2], width or x.shape[3])
    if target == x.shape[2:]:
        return x
    return F.interpolate(x, size=target, mode="bilinear", antialias=True)


def _to_float(strip: NDArray[Any]) -> Tensor:
    """`(1, C, h, W)` float32 from 0 to 1."""
    scale = 1 / 255 if strip.dtype == np.uint8 else 1.0
    plain = torch.from_numpy(np.array(strip.transpose(2, 0, 1), np.float32, order="C"))
    return plain[None].mul_(scale)
