"""Small classifiers that tests of nodes share: untrained, whatever their scores say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from perception import create
from perception.abnormality import CLASSES, TASK
from perception.checkpoint import SavedClassifier, save_classifier

TRIAGE_TASKS = {TASK: CLASSES, "dent": ("no", "yes"), "kind": ("bolt", "nut", "pin")}
TRIAGE_POINTS = {"sensitive": 0.0, "never": 1.0}
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


def save_triage(folder: Path, fit: str = "crop") -> SavedClassifier:
    """Write a network for triage with exact maps into a folder."""
    torch.manual_seed(0)
    model = create(
        "efficientnetv2_b0_quarter", n_classes=sum(map(len, TRIAGE_TASKS.values()))
    ).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(0.0, 3.0)  # type: ignore[union-attr,operator]
    saved = SavedClassifier(
        model=model,
        backbone="efficientnetv2_b0_quarter",
        overrides={},
        tasks=TRIAGE_TASKS,
        size=(64, 64),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        scores={"accuracy": 0.5, "triage": {"fit": fit, "points": TRIAGE_POINTS}},
    )
    save_classifier(folder, saved, "# For tests\n")
    return saved
