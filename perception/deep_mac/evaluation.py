"""How segmenters are scored: by themselves, on given boxes, and on boxes of falling quality.

Means are over classes everywhere: each counts the same, however many instances it has.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.instance_set import Scene
from perception.deep_mac.average_precision import (
    N_DETECTIONS,
    CocoScorer,
    Found,
    class_mean,
    class_names,
    coco_scores,
)
from perception.deep_mac.crops import paste_masks
from perception.deep_mac.instances import Segmenter

Normalise = Callable[[Tensor], Tensor]
"""From `(B, 3, H, W)` float32 pictures from 0 to 1 to what the network takes."""
Manner = Literal["loosened", "shifted"]
MANNERS: tuple[Manner, ...] = ("loosened", "shifted")
"""How given boxes are made worse: grown around what they hold, or moved at their size."""
QUALITIES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""IoU of the given boxes with the true ones."""
_THRESHOLD = 0.5
"""Least probability of a pixel of a mask."""


@torch.no_grad()
def evaluate_segmenter(
    model: Segmenter,
    normalise: Normalise,
    scenes: Iterable[Scene],
    classes: Sequence[str] | None = None,
    *,
    threshold: float = 0.05,
    batch_size: int = 8,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Average precision of what a segmenter finds by itself; see `CocoScorer.scores`.

    Args:
        model: in evaluation mode meanwhile.
        normalise: see `Normalise`.
        scenes: of sides that the network takes.
        classes: names; None: those that `scenes` has.
        threshold: least score of a detection.
        batch_size: pictures at a time, of one size.
        device: of the model; None: the CPU.

    Raises:
        ValueError: if no scene has an instance, or pycocotools is not installed.
    """
    scorer = CocoScorer(class_names(scenes, classes))
    with _evaluating(model):
        for batch, images in _batches(scenes, batch_size, device):
            features = model.features(normalise(images))
            found = model.detect(features, N_DETECTIONS, threshold)
            given = torch.cat([one.boxes for one in found])
            masks = _masks(model, features, given, [len(one) for one in found], batch)
            for scene, one, own in zip(batch, found, masks, strict=True):
                boxes, scores, kinds = (
                    tensor.cpu().numpy() for tensor in (one.boxes, one.scores, one.classes)
                )
                scorer.add(scene, Found(boxes, scores, kinds, own))
    return scorer.scores()


@torch.no_grad()
def evaluate_given_boxes(
    model: Segmenter,
    normalise: Normalise,
    scenes: Iterable[Scene],
    classes: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Quality of masks where the true boxes are given; arguments as of `evaluate_segmenter`.

    All scores are 1, as nothing ranks the boxes; average precision then depends on the order of
    the instances where masks of a class are right and wrong.

    Returns:
        `mask_iou`, `mask_ap` and `mask_ap50` over classes, and of each class under `classes`.
    """
    names = class_names(scenes, classes)
    scorer, gathered = CocoScorer(names), _ClassIou(names)
    with _evaluating(model):
        for batch, images in _batches(scenes, batch_size, device):
            features = model.features(normalise(images))
            given = torch.from_numpy(np.concatenate([scene.boxes for scene in batch])).to(device)
            masks = _masks(model, features, given, [len(scene) for scene in batch], batch)
            for scene, own in zip(batch, masks, strict=True):
                gathered.add(scene, own)
                ones = np.ones(len(scene), np.float32)
                scorer.add(scene, Found(scene.boxes, ones, scene.classes, own))
    told = scorer.scores(("mask",))
    for name, iou in gathered.means().items():
        told["classes"][name]["mask_iou"] = iou
    return {"mask_iou": class_mean(told["classes"], "mask_iou"), **told}


@torch.no_grad()
def iou_by_box_quality(
    model: Segmenter,
    normalise: Normalise,
    scenes: Iterable[Scene],
    unseen: Collection[str] = (),
    classes: Sequence[str] | None = None,
    *,
    qualities: Sequence[float] = QUALITIES,
    seed: int = 0,
    batch_size: int = 8,
    device: torch.device | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Mean IoU of masks where boxes of a known IoU with the true ones are given.

    Args:
        model: in evaluation mode meanwhile.
        normalise: see `Normalise`.
        scenes: of sides that the network takes.
        unseen: names of the classes without masks in training.
        classes: names; None: those that `scenes` has.
        qualities: IoU of the boxes.
        seed: of how each box is made worse; neither batches nor other qualities matter.
        batch_size: pictures at a time, of one size.
        device: of the model; None: the CPU.

    Returns:
        `loosened` and `shifted`: for each quality, `"1.0"` first, the mean over the `seen` and over
        the `unseen` classes; NaN without an instance.
    """
    names = class_names(scenes, classes)
    kinds = [(MANNERS[0], 1.0), *itertools.product(MANNERS, qualities)]
    gathered = {kind: _ClassIou(names) for kind in kinds}
    first = 0
    with _evaluating(model):
        for batch, images in _batches(scenes, batch_size, device):
            features = model.features(normalise(images))
            for (manner, quality), own_kind in gathered.items():
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
                given = torch.from_numpy(np.concatenate(worse)).to(device)
                masks = _masks(model, features, given, [len(boxes) for boxes in worse], batch)
                for scene, own in zip(batch, masks, strict=True):
                    own_kind.add(scene, own)
            first += len(batch)
    seen = set(names) - set(unseen)
    told: dict[str, dict[str, dict[str, float]]] = {manner: {} for manner in MANNERS}
    for (manner, quality), own_kind in gathered.items():
        means = {name: {"iou": iou} for name, iou in own_kind.means().items()}
        told[manner][str(quality)] = {
            "seen": class_mean(means, "iou", seen),
            "unseen": class_mean(means, "iou", unseen),
        }
    # At 1 there is one manner.
    told[MANNERS[1]] = {"1.0": told[MANNERS[0]]["1.0"], **told[MANNERS[1]]}
    return told


def worsened_boxes(
    boxes: NDArray[np.float32],
    quality: float,
    manner: Manner,
    size: tuple[int, ...],
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Boxes of a given IoU with the true ones, inside the picture as far as that is possible.

    Args:
        boxes: `(n, 4)` true ones.
        quality: IoU, above 0 and up to 1.
        manner: `loosened` holds the true box, and grows by different factors along x and y and
            differently to the two sides; `shifted` has its size.
        size: height and width of the picture.
        rng: where the numbers come from.

    Returns:
        `(n, 4)` float32.

    Raises:
        ValueError: for a quality or manner that there is not.
    """
    if not 0.0 < quality <= 1.0 or manner not in MANNERS:
        raise ValueError(f"boxes cannot be {manner!r} to an IoU of {quality}")
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    share = rng.uniform(0.25, 0.75, len(boxes))
    shares = np.stack([share, 1 - share], 1)
    place, limit = rng.random((len(boxes), 2)), np.array(size[1::-1], np.float64)
    if manner == "loosened":
        grown = (high - low) * (quality**-shares - 1)
        # What the low side gets: all draws that stay inside are equally likely.
        least, most = np.maximum(0, high + grown - limit), np.minimum(grown, low)
        fits = least <= most
        before = np.where(fits, least + place * (most - least), (least + most) / 2)
        return np.concatenate([low - before, high + grown - before], 1).astype(np.float32)
    # Two boxes of one size whose overlap is a share s of each have an IoU of s / (2 - s).
    overlap = 2 * quality / (1 + quality)
    step = (high - low) * (1 - overlap**shares)
    up, down = high + step <= limit, low - step >= 0
    step = np.where(np.where(up == down, place < 0.5, up), step, -step)
    return np.concatenate([low + step, high + step], 1).astype(np.float32)


class _ClassIou:
    """IoU of masks, gathered by class."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, scene: Scene, masks: NDArray[np.bool_]) -> None:
        """Masks of the instances of a scene, in their order."""
        both = (masks & scene.masks).sum((1, 2))
        either = (masks | scene.masks).sum((1, 2))
        for kind, iou in zip(scene.classes.tolist(), (both / either).tolist(), strict=True):
            self._values[self._names[kind]].append(iou)

    def means(self) -> dict[str, float]:
        """Of the classes that have an instance."""
        return {
            name: float(np.mean(self._values[name])) for name in self._names if self._values[name]
        }


@contextmanager
def _evaluating(model: Segmenter) -> Iterator[None]:
    """Evaluation mode while the context lasts."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _batches(
    scenes: Iterable[Scene], batch_size: int, device: torch.device | None
) -> Iterator[tuple[list[Scene], Tensor]]:
    """Scenes of one size, and their pictures `(B, 3, H, W)` from 0 to 1."""
    for _, alike in itertools.groupby(scenes, lambda scene: scene.image.shape):
        while batch := list(itertools.islice(alike, batch_size)):
            pixels = torch.from_numpy(np.stack([scene.image for scene in batch])).to(device)
            yield batch, pixels.permute(0, 3, 1, 2).float() / 255


def _masks(
    model: Segmenter, features: Any, boxes: Tensor, counts: Sequence[int], batch: Sequence[Scene]
) -> Iterator[NDArray[np.bool_]]:
    """`(n, H, W)` masks of the boxes of each picture, the network asked once for all of them."""
    index = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(boxes.device)
    logits = model.masks(features, boxes, index)
    height, width = batch[0].image.shape[:2]
    parts = zip(logits.split(list(counts)), boxes.split(list(counts)), strict=True)
    for own, where in parts:
        pasted = paste_masks(own, where, height, width, logits=True)
        yield (pasted > _THRESHOLD).cpu().numpy()


__all__ = [
    "MANNERS",
    "QUALITIES",
    "Found",
    "Normalise",
    "class_mean",
    "coco_scores",
    "evaluate_given_boxes",
    "evaluate_segmenter",
    "iou_by_box_quality",
    "worsened_boxes",
]
