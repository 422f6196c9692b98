"""Pictures of bright squares with targets of every kind, and networks small enough for a test."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from perception.multi_task import MultiTaskConfig, MultiTaskNet
from perception.multi_task_checkpoint import SavedTasks
from perception.multi_task_networks import TaskNetworks
from perception.multi_task_set import Target, TaskSet, write_task_set

TARGETS = {
    "segmentation": Target("classes", ("dark", "left", "right")),
    "depth": Target("values", unit="metres"),
    "normals": Target("directions"),
    "edges": Target("mask"),
    "count": Target("numbers", ("things",)),
}
TINY = MultiTaskConfig(
    backbone="vit_micro",
    backbone_options={"patch": 4, "image": 16, "depth": 1, "width": 16, "heads": 2},
    width=4,
)


def squares(n: int = 12, size: int = 16, seed: int = 0, **only: Any) -> TaskSet:
    """A square to the left or to the right; its place is what all targets tell."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (n, size, size, 3), dtype=np.uint8)
    classes = np.zeros((n, size, size), np.uint8)
    count = np.zeros((n, 1), np.float32)
    for k in range(n):
        right = int(rng.integers(2))
        top, left = rng.integers(1, size // 2 - 2, 2)
        left += right * (size // 2 - 1)
        images[k, top : top + 4, left : left + 4, right] = 250
        classes[k, top : top + 4, left : left + 4] = 1 + right
        count[k] = 1 + right
    shown = classes > 0
    normals = np.zeros((n, size, size, 3), np.float16)
    normals[..., 2] = -1
    normals[shown] = (0.6, 0, -0.8)
    arrays = {
        "segmentation": classes,
        "depth": np.where(shown, 0.5, 0.6).astype(np.float32),
        "normals": normals,
        "edges": shown & ~np.roll(shown, 1, axis=2),
        "count": count,
    }
    tasks = only.get("tasks", tuple(TARGETS))
    return TaskSet(
        images,
        {task: arrays[task] for task in tasks},
        {task: TARGETS[task] for task in tasks},
        "synthetic: squares",
        {"synthetic": True, "seed": seed},
    )


def write(folder: Any, data: TaskSet) -> str:
    chunk = (np.asarray(data.images), dict(data.arrays))
    write_task_set(folder, [chunk], len(data), data.size, data.targets, data.source, data.facts)
    return str(folder)


def tiny(seed: int = 0, targets: Any = TARGETS, config: MultiTaskConfig = TINY) -> MultiTaskNet:
    torch.manual_seed(seed)
    return MultiTaskNet(config, targets)


def saved(
    groups: Any = (("segmentation", "edges"), ("depth", "normals", "count")),
    serves: Any = None,
    size: tuple[int, int] = (16, 16),
    **changes: Any,
) -> SavedTasks:
    """Networks of groups, each task served by the first that has it; nothing has trained them."""
    if serves is None:
        serves = {task: next(k for k, g in enumerate(groups) if task in g) for task in TARGETS}
    nets = [tiny(k, {task: TARGETS[task] for task in group}) for k, group in enumerate(groups)]
    settings: dict[str, Any] = {
        "mean": (0.1, 0.15, 0.2),
        "std": (0.2, 0.25, 0.3),
        "statistics": {"depth": (0.55, 0.05), "count": (1.5, 0.5)},
        **changes,
    }
    return SavedTasks(model=TaskNetworks(nets, serves).eval(), size=size, **settings)
