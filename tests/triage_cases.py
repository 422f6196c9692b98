"""Classifiers and pictures that tests of triage share; nothing has trained them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from perception import create
from perception.abnormality import CLASSES, TASK
from perception.checkpoint import SavedClassifier, save_classifier

TASKS = {TASK: CLASSES, "scratch": ("absent", "present")}
BACKBONE = "efficientnetv2_b0_quarter"


def untrained(channels: int = 3, tasks: Any = None, scores: Any = None) -> SavedClassifier:
    """A small classifier of random weights whose scores differ between pictures."""
    tasks = TASKS if tasks is None else tasks
    torch.manual_seed(0)
    n = sum(map(len, tasks.values()))
    model = create(BACKBONE, n_classes=n, in_channels=channels).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(0, 0.05)
    return SavedClassifier(
        model=model,
        backbone=BACKBONE,
        overrides={},
        tasks=tasks,
        size=(64, 64),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        scores={"triage": {"fit": "crop", "points": {"high sensitivity": 0.25}}}
        if scores is None
        else scores,
    )


def save_untrained(folder: Path, **settings: Any) -> SavedClassifier:
    saved = untrained(**settings)
    save_classifier(folder, saved, "untrained, of a test")
    return saved


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (80, 60), **settings: Any) -> None:
    """A picture of random patches, width and height as Pillow says them."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)
    image.save(path, **settings)
