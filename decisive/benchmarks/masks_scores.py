"""Masks in given boxes, one instance after the other: boxes of falling quality, refined or not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from learning.instance_set import InstanceSet, Scene
from perception.deep_mac.crops import paste_masks
from perception.deep_mac.evaluation import MANNERS, Manner, Normalise, class_mean, worsened_boxes
from perception.deep_mac.segments import tightened

if TYPE_CHECKING:
    from torch import Tensor

    from perception.deep_mac.instances import Segmenter

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Given:
    """Which boxes are given.

    Attributes:
        manner: how they are worse than the true ones.
        quality: their IoU with the true ones.
        refine: how many times each is replaced by the tight box of its mask.
    """

    manner: Manner = MANNERS[0]
    quality: float = 1.0
    refine: int = 0


def conditions(qualities: Sequence[float]) -> list[Given]:
    """True boxes, loose and shifted ones; loose and true ones refined once, too."""
    loose = [Given(), *(Given(MANNERS[0], quality) for quality in qualities)]
    shifted = [Given(MANNERS[1], quality) for quality in qualities]
    return [*loose, *shifted, *(Given(one.manner, one.quality, 1) for one in loose)]


@torch.no_grad()
def instance_ious(
    model: Segmenter,
    normalise: Normalise,
    scenes: InstanceSet,
    given: Sequence[Given],
    *,
    seed: int = 0,
    batch_size: int = 8,
) -> dict[Given, Values]:
    """IoU of the mask of every instance, for each way of giving its box.

    The same boxes as those of `iou_by_box_quality`, whose means are over classes.

    Args:
        model: in evaluation mode.
        normalise: see `Normalise`.
        scenes: of one size.
        given: which boxes.
        seed: of how boxes are made worse.
        batch_size: scenes at a time.

    Returns:
        `(n,)` of each, in the order of scenes and of instances in them.
    """
    deepest: dict[tuple[Manner, float], int] = {}
    for one in given:
        key = (one.manner, one.quality)
        deepest[key] = max(one.refine, deepest.get(key, 0))
    gathered: dict[Given, list[Values]] = {one: [] for one in given}
    for first in range(0, len(scenes), batch_size):
        batch = [scenes[k] for k in range(first, min(first + batch_size, len(scenes)))]
        pixels = torch.from_numpy(np.stack([scene.image for scene in batch]))
        features = model.features(normalise(pixels.permute(0, 3, 1, 2).float() / 255))
        counts = torch.tensor([len(scene) for scene in batch])
        index = torch.arange(len(batch)).repeat_interleave(counts)
        for (manner, quality), most in deepest.items():
            worse = [
                worsened_boxes(
                    scene.boxes,
                    quality,
                    manner,
                    scene.image.shape[:2],
                    np.random.default_rng((seed, k, MANNERS.index(manner))),
                )
                for k, scene in enumerate(batch, first)
            ]
            boxes = torch.from_numpy(np.concatenate(worse))
            for refine in range(most + 1):
                logits = model.masks(features, boxes, index).float()
                kept = gathered.get(Given(manner, quality, refine))
                if kept is not None:
                    kept.append(_ious(logits, boxes, index, batch))
                boxes = tightened(boxes, logits)
    return {one: np.concatenate(values) for one, values in gathered.items()}


def _ious(logits: Tensor, boxes: Tensor, index: Tensor, batch: Sequence[Scene]) -> Values:
    """`(n,)` of the masks of a batch, pasted picture by picture."""
    found = []
    for k, scene in enumerate(batch):
        own = index == k
        height, width = scene.image.shape[:2]
        pasted = paste_masks(logits[own], boxes[own], height, width, logits=True)
        masks = (pasted > 0.5).numpy()
        both = (masks & scene.masks).sum((1, 2))
        found.append(both / (masks | scene.masks).sum((1, 2)))
    return np.concatenate(found)


def filled_ious(scenes: InstanceSet) -> Values:
    """`(n,)` IoU of masks that fill the true boxes: what an answer without any thought scores."""
    found = [
        scene.masks.sum((1, 2)) / (scene.boxes[:, 2:] - scene.boxes[:, :2]).prod(1)
        for scene in scenes
    ]
    return np.concatenate(found).astype(np.float64)


def class_iou(
    values: Values, kinds: NDArray[np.int64], names: Sequence[str], unseen: Collection[str]
) -> dict[str, float]:
    """Means over `seen` and over `unseen` classes of the means of their instances.

    Args:
        values: `(n,)`.
        kinds: `(n,)` class of each.
        names: of the classes.
        unseen: names of those without masks in training.

    Returns:
        What has no instance is left out.
    """
    own = {
        name: {"iou": float(values[kinds == k].mean())}
        for k, name in enumerate(names)
        if (kinds == k).any()
    }
    parts = {"seen": set(names) - set(unseen), "unseen": set(unseen)}
    return {
        part: class_mean(own, "iou", chosen)
        for part, chosen in parts.items()
        if chosen & own.keys()
    }


def box_quality(
    ious: Mapping[Given, Values], mean: Callable[[Values], dict[str, float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """Means by `loosened`, `shifted` and `refined` (loosened boxes, once), and by quality."""
    told: dict[str, dict[str, dict[str, float]]] = {}
    for one, values in ious.items():
        manner = "refined" if one.refine else one.manner
        told.setdefault(manner, {})[str(one.quality)] = mean(values)
    return told


def stored(ious: Mapping[Given, Values], scenes: InstanceSet) -> dict[str, Any]:
    """What is kept of single instances, for intervals over scenes: JSON values."""
    return {
        "per_scene": [len(scene) for scene in scenes],
        "class": [int(kind) for scene in scenes for kind in scene.classes],
        "iou_per_mille": np.rint(1000 * ious[Given()]).astype(int).tolist(),
    }
