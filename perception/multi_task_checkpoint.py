"""Multi-task networks with everything needed to use them: groups, targets, preprocessing, scores.

A checkpoint is a folder of `config.json`, `model.safetensors` and a card `README.md`, as everywhere
in this project (see `learning.checkpoint`). Loading runs no code from it. It holds one network or
several, as `learning.task_affinity_groups` chose them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from learning.checkpoint import as_tuple, find_shipped, list_checkpoints, load_saved, save_module
from perception.checkpoint import check_preprocessing, image_tensor
from perception.multi_task import MultiTaskConfig, MultiTaskNet, Statistics
from perception.multi_task_networks import MAX_NETWORKS, TaskNetworks
from perception.multi_task_set import Target

METHOD = "multi-task network"
CHECKPOINTS = Path(__file__).parent / "multi_task_checkpoints"
"""Where shipped multi-task networks lie, one folder each."""

MAX_CLASSES = 256
"""Of a task: answers are bytes."""

Answers = dict[str, NDArray[Any]]
"""By task, as `SavedTasks.read` gives them."""


@dataclass(frozen=True)
class SavedTasks:
    """Networks of several tasks, and what their images must look like.

    Attributes:
        model: the networks, in evaluation mode.
        size: height and width that images are resized to, and that maps come in, pixels.
        mean: of each channel, of values from 0 to 1; subtracted.
        std: of each channel; divided by.
        statistics: by task of values or numbers, the mean and deviation they were standardised by.
        scores: held-out, JSON values; empty means untrained.
    """

    model: TaskNetworks = field(repr=False)
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics: Statistics
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse preprocessing and scales that cannot be."""
        check_preprocessing(self.size, self.mean, self.std)
        if len(self.mean) != 3:
            raise ValueError(f"mean must be of three channels, got {len(self.mean)}")
        if not isinstance(self.scores, Mapping):
            raise ValueError(f"scores must be an object, got {self.scores!r:.40}")
        for task, target in self.targets.items():
            if target.kind in ("values", "numbers"):
                _check_scale(task, self.statistics.get(task))
            if len(target.names) > MAX_CLASSES and target.kind == "classes":
                raise ValueError(f"{task} must have at most {MAX_CLASSES} classes")

    @property
    def targets(self) -> Mapping[str, Target]:
        """By task, in the order of the answers."""
        return self.model.targets

    def tensor(self, images: ArrayLike) -> Tensor:
        """What the networks take, from images as cameras and files give them.

        As `perception.checkpoint.SavedClassifier.tensor`: resized with antialiasing, without
        keeping the ratio of the sides.

        Args:
            images: `(B, H, W, 3)`, uint8 from 0 to 255, or float32 or float64 from 0 to 1.

        Returns:
            `(B, 3, *size)` float32, normalised, on the CPU.

        Raises:
            ValueError: for other shapes, kinds or values.
        """
        return image_tensor(images, self.size, self.mean, self.std)

    def read(self, outputs: Mapping[str, Tensor]) -> Answers:
        """Answers in the units of the tasks.

        Args:
            outputs: by task, as of `TaskNetworks`, for B images of H x W pixels.

        Returns:
            By task. Classes: `(B, H, W)` uint8, the most probable. Values: `(B, H, W)` float32 in
            their unit. Directions: `(B, H, W, 3)` float32 of length 1. Masks: `(B, H, W)` float32
            probabilities. Numbers: `(B, K)` float32 in their unit.

        Raises:
            ValueError: for other shapes, or numbers that are not finite.
        """
        return {task: self._read(task, target, outputs) for task, target in self.targets.items()}

    def _read(self, task: str, target: Target, outputs: Mapping[str, Tensor]) -> NDArray[Any]:
        if task not in outputs:
            raise ValueError(f"outputs must be of {', '.join(self.targets)}, {task} is missing")
        output = outputs[task].detach().cpu().float().numpy()
        axes = 4 if target.dense else 2
        if output.ndim != axes or output.shape[1] != target.channels:
            shape = f"(B, {target.channels}, H, W)" if target.dense else f"(B, {target.channels})"
            raise ValueError(f"{task} must be {shape}, got {output.shape}")
        if not np.isfinite(output).all():
            raise ValueError(f"{task} must be finite, got NaN or infinite numbers")
        if target.kind == "classes":
            return output.argmax(1).astype(np.uint8)
        if target.kind == "mask":
            return np.asarray(1 / (1 + np.exp(-np.clip(output[:, 0], -80, 80))), np.float32)
        if target.kind == "directions":
            length = np.linalg.norm(output, axis=1, keepdims=True)
            return np.moveaxis(output / np.maximum(length, 1e-12), 1, -1)
        mean, std = self.statistics[task]
        told = output[:, 0] if target.kind == "values" else output
        return np.asarray(told * std + mean, np.float32)

    @torch.inference_mode()
    def ask(self, images: ArrayLike) -> Answers:
        """What the tasks say of images, by torch; see `tensor` and `read`."""
        return self.read(self.model(self.tensor(images)))


def save_tasks(folder: str | Path, saved: SavedTasks, card: str) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where to.
        saved: what to save.
        card: model card, Markdown.

    Raises:
        CheckpointError: if a weight is not finite, or the networks are not what their
            configurations make: it could not be read back.
        OSError: if the folder cannot be written.
    """
    networks = [cast(MultiTaskNet, one) for one in saved.model.networks]
    document = {
        "method": METHOD,
        "config": {
            "networks": [
                {
                    "backbone": one.config.backbone,
                    "backbone_options": dict(one.config.backbone_options),
                    "width": one.config.width,
                    "tasks": list(one.targets),
                }
                for one in networks
            ],
            "serves": saved.model.serves,
        },
        "spec": {
            "targets": {
                task: asdict(target) for one in networks for task, target in one.targets.items()
            },
            "size": list(saved.size),
            "mean": list(saved.mean),
            "std": list(saved.std),
            "statistics": {
                task: list(scale)
                for task, scale in saved.statistics.items()
                if task in saved.targets
            },
        },
        "training": {"scores": dict(saved.scores)},
    }
    save_module(folder, document, saved.model, card, _build)


def load_tasks(path_or_name: str | Path) -> SavedTasks:
    """Read a checkpoint folder, or shipped networks by their name.

    Args:
        path_or_name: a folder, a training run holding `best` or `last`, or a name in
            `shipped_tasks()`.

    Returns:
        The networks, in evaluation mode and on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    folder = find_shipped(path_or_name, shipped_tasks(), METHOD)
    return load_saved(folder, _build, _saved, METHOD)


def shipped_tasks() -> dict[str, Path]:
    """Folders of the multi-task networks that come with the package, by name."""
    return list_checkpoints(CHECKPOINTS)


def _build(document: Mapping[str, Any]) -> TaskNetworks:
    try:
        targets = {str(k): Target(**told) for k, told in document["spec"]["targets"].items()}
        told = document["config"]["networks"]
        if not isinstance(told, list) or len(told) > MAX_NETWORKS:
            raise ValueError(f"networks must be a list of at most {MAX_NETWORKS}")
        networks = [
            MultiTaskNet(_config(one), {task: targets[task] for task in one["tasks"]})
            for one in told
        ]
        model = TaskNetworks(networks, document["config"]["serves"])
        _saved(model, document)
        return model
    except KeyError as error:
        raise ValueError(f"the config of a {METHOD} must hold {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the config of a {METHOD}: {error}") from None


def _config(told: Mapping[str, Any]) -> MultiTaskConfig:
    options = {str(name): as_tuple(value) for name, value in told["backbone_options"].items()}
    return MultiTaskConfig(str(told["backbone"]), options, int(told["width"]))


def _saved(model: TaskNetworks, document: Mapping[str, Any]) -> SavedTasks:
    spec = document["spec"]
    return SavedTasks(
        model=model,
        size=tuple(spec["size"]),
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        statistics={task: tuple(scale) for task, scale in spec["statistics"].items()},
        scores=document["training"].get("scores", {}),
    )


def _check_scale(task: str, scale: Any) -> None:
    fits = isinstance(scale, tuple) and len(scale) == 2
    if not fits or not all(isinstance(x, int | float) and math.isfinite(x) for x in scale):
        raise ValueError(f"statistics of {task} must be a mean and a deviation, got {scale!r}")
    if scale[1] <= 0:
        raise ValueError(f"statistics of {task} must have a positive deviation, got {scale[1]}")
