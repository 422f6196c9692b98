"""COCO's average precision of boxes and masks, through pycocotools.

As Lin et al. 2014 have it: the mean over thresholds of IoU from .5 to .95, at most 100 detections
an image and class; here of objects of all areas. Each class is told of, so that classes with and
without masks in training can be averaged apart. Means are over classes: each counts the same,
however many instances it has.
"""

import contextlib
import importlib
import io
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from learning.instance_set import Scene

N_DETECTIONS = 100
"""Most detections of an image that count for a class."""


class Predicted(Protocol):
    """Instances that were found in a picture, in any order; masks in pixels of it."""

    @property
    def boxes(self) -> NDArray[np.float32]:
        """`(K, 4)`."""
        ...

    @property
    def scores(self) -> NDArray[np.float32]:
        """`(K,)`."""
        ...

    @property
    def classes(self) -> NDArray[np.int64]:
        """`(K,)`."""
        ...

    @property
    def masks(self) -> NDArray[np.bool_]:
        """`(K, H, W)`."""
        ...


@dataclass(frozen=True)
class Found:
    """What a segmenter found; see `Predicted`."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    masks: NDArray[np.bool_]


class CocoScorer:
    """Gathers true and predicted instances a picture at a time; masks are kept compressed."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Nothing is gathered yet.

        Args:
            classes: names.

        Raises:
            ValueError: if pycocotools is not installed.
        """
        self.classes = tuple(classes)
        try:
            self._coco, self._eval, self._mask = (
                importlib.import_module(f"pycocotools.{name}")
                for name in ("coco", "cocoeval", "mask")
            )
        except ImportError as error:
            raise ValueError("average precision needs pycocotools: install it") from error
        self._images: list[dict[str, int]] = []
        self._truth: list[dict[str, Any]] = []
        self._predicted: list[dict[str, Any]] = []

    def add(self, scene: Scene, predicted: Predicted) -> None:
        """Add a picture.

        Raises:
            ValueError: for predictions that do not fit it.
        """
        height, width = scene.image.shape[:2]
        n = len(predicted.classes)
        if (
            predicted.boxes.shape != (n, 4)
            or predicted.scores.shape != (n,)
            or predicted.masks.shape != (n, height, width)
        ):
            raise ValueError(
                f"predictions must be {n} boxes, scores and masks of {height} x {width} pixels, "
                f"got {predicted.boxes.shape}, {predicted.scores.shape}, {predicted.masks.shape}"
            )
        if not np.isfinite(predicted.scores).all():
            raise ValueError("scores of predictions must be finite")
        image = len(self._images)
        self._images.append({"id": image, "height": height, "width": width})
        for known, new, scores in (
            (self._truth, scene, None),
            (self._predicted, predicted, predicted.scores.tolist()),
        ):
            told = self._told(new.boxes, new.classes, new.masks, image, len(known))
            if scores is not None:
                told = [{**one, "score": score} for one, score in zip(told, scores, strict=True)]
            known.extend(told)

    def _told(
        self,
        boxes: NDArray[np.float32],
        classes: NDArray[np.int64],
        masks: NDArray[np.bool_],
        image: int,
        known: int,
    ) -> list[dict[str, Any]]:
        """Annotations as COCO has them. Their ids start at 1: 0 stands for no match there."""
        if classes.size and not 0 <= classes.min() <= classes.max() < len(self.classes):
            raise ValueError(f"classes must be 0 to {len(self.classes) - 1}: {classes.tolist()}")
        codes = self._mask.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
        return [
            {
                "id": known + row + 1,
                "image_id": image,
                "category_id": int(classes[row]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "segmentation": codes[row],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
            }
            for row, (x1, y1, x2, y2) in enumerate(boxes.tolist())
        ]

    def scores(self, kinds: Sequence[Literal["box", "mask"]] = ("box", "mask")) -> dict[str, Any]:
        """Average precision of what was gathered.

        Returns:
            `box_ap`, `box_ap50`, `mask_ap` and `mask_ap50`, from 0 to 1, over the classes that have
            a true instance; and of each of these, by its name under `classes`, the same and `n`,
            its true instances.

        Raises:
            ValueError: if there was no true instance.
        """
        if not self._truth:
            raise ValueError("average precision needs a true instance, and there is none")
        counts = np.bincount([one["category_id"] for one in self._truth])
        told: dict[str, dict[str, float]] = {
            self.classes[k]: {"n": int(n)} for k, n in enumerate(counts) if n
        }
        for kind in kinds:
            precision = self._precision("bbox" if kind == "box" else "segm")
            for k in np.flatnonzero(counts).tolist():
                told[self.classes[k]] |= {
                    f"{kind}_ap": float(precision[:, :, k].mean()),
                    f"{kind}_ap50": float(precision[0, :, k].mean()),
                }
        names = [f"{kind}_{measure}" for kind in kinds for measure in ("ap", "ap50")]
        return {**{name: class_mean(told, name) for name in names}, "classes": told}

    def _precision(self, kind: str) -> NDArray[np.float64]:
        """`(thresholds, recalls, classes)`; -1 for classes without a true instance."""
        # They print what they do.
        with contextlib.redirect_stdout(io.StringIO()):
            sides = []
            for annotations in (self._truth, self._predicted):
                side = self._coco.COCO()
                categories = [{"id": k, "name": name} for k, name in enumerate(self.classes)]
                side.dataset = {
                    "images": self._images,
                    "annotations": annotations,
                    "categories": categories,
                }
                side.createIndex()
                sides.append(side)
            evaluation = self._eval.COCOeval(*sides, kind)
            settings = evaluation.params
            settings.areaRng, settings.areaRngLbl = [[0, 1e10]], ["all"]
            settings.maxDets = [N_DETECTIONS]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation.eval["precision"][:, :, :, 0, 0]


def coco_scores(
    truth: Iterable[Scene], predictions: Iterable[Predicted], classes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Average precision of boxes and masks; see `CocoScorer.scores`.

    Args:
        truth: scenes; an `InstanceSet` is one.
        predictions: one for each scene, in their order.
        classes: names; None: those that `truth` has.

    Raises:
        ValueError: if predictions do not fit the scenes, there is no true instance, or pycocotools
            is not installed.
    """
    scorer = CocoScorer(class_names(truth, classes))
    for scene, predicted in itertools.zip_longest(truth, predictions):
        if scene is None or predicted is None:
            raise ValueError("predictions must be as many as scenes")
        scorer.add(scene, predicted)
    return scorer.scores()


def class_names(scenes: Iterable[Scene], classes: Sequence[str] | None = None) -> Sequence[str]:
    """The names given, or else those that the scenes come with.

    Raises:
        ValueError: if there are none.
    """
    names = getattr(scenes, "classes", None) if classes is None else classes
    if names is None:
        raise ValueError("scenes in a plain list have no names of classes; give them as classes")
    return names


def class_mean(
    told: Mapping[str, Mapping[str, float]], name: str, classes: Collection[str] | None = None
) -> float:
    """Mean of a measure over classes.

    Args:
        told: measures of each class, as under `classes` of all scores here.
        name: of the measure, like `mask_ap`.
        classes: which; None: all. What has no true instance is left out.

    Returns:
        NaN if none is left.
    """
    values = [own[name] for key, own in told.items() if classes is None or key in classes]
    return float(np.mean(values)) if values else math.nan
