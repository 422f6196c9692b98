"""A small classifier that tests of nodes share; nothing has trained it, whatever its scores say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from perception import create
from perception.checkpoint import SavedClassifier, save_classifier

TASKS = {"fault type": ("none", "scratch", "dent"), "lit": ("no", "yes")}


def save_small(
    folder: Path, *, scored: bool = True, channels: int = 3, tasks: Any = None
) -> SavedClassifier:
    """Write a `vit_micro` with few weights into a folder."""
    tasks = TASKS if tasks is None else tasks
    overrides = {"width": 32, "depth": 2, "heads": 2, "image": 32}
    torch.manual_seed(0)
    n_classes = sum(map(len, tasks.values()))
    model = create("vit_micro", n_classes=n_classes, in_channels=channels, **overrides).eval()
    with torch.no_grad():  # a new network says the same of all pictures
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    saved = SavedClassifier(
        model=model,
        backbone="vit_micro",
        overrides=overrides,
        tasks=tasks,
        size=(32, 32),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        scores={"accuracy": 0.5} if scored else {},
    )
    save_classifier(folder, saved, "# For tests\n")
    return saved
