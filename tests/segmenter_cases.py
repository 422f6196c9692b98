"""Scenes of coloured discs, and networks small enough to be trained on them in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from learning.instance_set import InstanceSet, Scene
from perception.deep_mac.checkpoint import SavedSegmenter
from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.network import DeepMac, DeepMacConfig

CLASSES = ("red", "green", "blue")
TINY = DeepMacConfig(
    n_classes=3,
    backbone="vit_micro",
    backbone_options={"patch": 4, "image": 32, "depth": 1, "width": 16, "heads": 2},
    width=8,
    pixel_embedding=4,
    instance_embedding=4,
    head=MaskHeadConfig("conv", 2, 4),
    mask_size=8,
)


class Scenes(InstanceSet):
    """Scenes in memory."""

    def __init__(self, scenes: list[Scene], classes: tuple[str, ...] = CLASSES) -> None:
        self.scenes = scenes
        self.classes = classes
        self.source = "synthetic: discs"
        self.facts: Mapping[str, Any] = {"synthetic": True}

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, k: int) -> Scene:
        return self.scenes[k]


def discs(n: int = 24, size: int = 32, seed: int = 0, empty: bool = False) -> Scenes:
    """Discs on dark noise, one to three a picture, of the colour of their class."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] + 0.5
    scenes = []
    for _ in range(n):
        image = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
        masks, classes = [], []
        for _ in range(0 if empty else rng.integers(1, 4)):
            radius, (left, top) = rng.uniform(4, 8), rng.uniform(4, size - 4, 2)
            disc = (x - left) ** 2 + (y - top) ** 2 < radius**2
            for other in masks:
                other &= ~disc
            kind = int(rng.integers(3))
            image[disc] = 0
            image[disc, kind] = 200
            masks.append(disc)
            classes.append(kind)
        shown = np.array(masks, bool).reshape(-1, size, size)
        scenes.append(Scene.from_masks(image, shown, np.array(classes, np.int64)))
    return Scenes(scenes)


def tiny(seed: int = 0, **changes: Any) -> DeepMac:
    torch.manual_seed(seed)
    return DeepMac(replace(TINY, **changes))


def seeing(seed: int = 0, **changes: Any) -> DeepMac:
    """As good as untrained, but its boxes have an area, and its masks fill them."""
    model: Any = tiny(seed, **changes)
    with torch.no_grad():
        for name, bias in (("sizes", 3.0), ("heat", 0.0)):
            model.branches[name][2].bias.fill_(bias)
        model.mask_head.logits.bias.fill_(9.0)
    return model


def saved(model: Any = None, **changes: Any) -> SavedSegmenter:
    values: dict[str, Any] = {
        "model": (seeing() if model is None else model).eval(),
        "architecture": "deep_mac",
        "classes": CLASSES,
        "size": (32, 32),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.25, 0.25, 0.25),
    }
    return SavedSegmenter(**values | changes)
