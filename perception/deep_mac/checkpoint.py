"""Segmenters with everything needed to use them: classes, preprocessing, scores.

A checkpoint is a folder of `config.json`, `model.safetensors` and a card `README.md`, as everywhere
in this project (see `learning.checkpoint`). Loading runs no code from it.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from learning.checkpoint import find_shipped, list_checkpoints, load_saved, save_module
from learning.instance_set import checked_classes
from perception.deep_mac.boxes import clip_boxes, valid_boxes
from perception.deep_mac.crops import paste_masks
from perception.deep_mac.instances import Segmenter
from perception.deep_mac.network import DeepMac, DeepMacConfig
from perception.deep_mac.segments import (
    MAX_SIDE,
    Segments,
    View,
    check_image,
    check_numbers,
    checked_boxes,
    is_finite,
    tightened,
)
from perception.deep_mac.two_stage import DeepMarc, DeepMarcConfig

METHOD = "segmenter"
CHECKPOINTS = Path(__file__).parent / "checkpoints"
"""Where shipped segmenters lie, one folder each."""

ARCHITECTURES: dict[str, tuple[type[Any], Callable[[Any], Segmenter]]] = {
    "deep_mac": (DeepMacConfig, DeepMac),
    "deep_marc": (DeepMarcConfig, DeepMarc),
}
"""Configuration and network of each, by the name that checkpoints have."""

MAX_MASK_BYTES = 2**31
"""Of the masks that are given at once: a byte for each pixel of each."""

_PASTED = 2**24  # Numbers of masks that are floats at one time.


@dataclass(frozen=True)
class SavedSegmenter:
    """A segmenter, the names of its classes and what its images must look like.

    Attributes:
        model: in evaluation mode.
        architecture: its name in `ARCHITECTURES`.
        classes: names, in order of the network's.
        size: height and width that images are letterboxed to, pixels.
        mean: of each channel, of values from 0 to 1; subtracted.
        std: of each channel; divided by.
        masked_classes: names of those whose masks were learned from.
        scores: held-out, JSON values; empty means untrained.
    """

    model: Segmenter = field(repr=False)
    architecture: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    masked_classes: tuple[str, ...] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names and preprocessing that cannot be."""
        checked_classes(self.classes)
        unknown = [name for name in self.masked_classes if name not in self.classes]
        if unknown:
            raise ValueError(f"masked_classes must be classes, got {unknown[0]!r}")
        if len(self.size) != 2 or not all(_is_side(side) for side in self.size):
            raise ValueError(
                f"size must be a height and a width in 1..{MAX_SIDE} pixels, got {self.size}"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(is_finite(value) for value in values):
                raise ValueError(f"{name} must be three finite numbers, got {values}")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        stride = getattr(self.model, "stride", 1)
        if any(side % stride for side in self.size):
            raise ValueError(f"size must be multiples of {stride} pixels, got {self.size}")

    @torch.inference_mode()
    def segment(
        self,
        image: NDArray[np.uint8],
        boxes: ArrayLike | None = None,
        *,
        n: int = 100,
        threshold: float = 0.3,
        refine: int = 0,
    ) -> Segments:
        """Find instances and their masks; or the masks of boxes from any detector.

        A given box that is inverted, has no area or lies outside the image keeps its place in the
        answer, with an empty mask.

        Args:
            image: `(H, W, 3)` uint8 RGB.
            boxes: `(K, 4)` numbers `x1, y1, x2, y2` in pixels of the image; None has the network
                find its own.
            n: most instances found. Of so many that their masks would take more than 2 GiB, only
                the best are given.
            threshold: least score of what is found, from 0 to 1.
            refine: how many times each box is replaced by the tight box of its mask, and the mask
                made again. It mends loose boxes, which cost deep mask heads the most; boxes that
                fit already lose a little each time, and what a box leaves out stays outside.

        Raises:
            ValueError: for other kinds or shapes, NaN, or given boxes whose masks would take more
                than 2 GiB.
        """
        check_image(image)
        check_numbers(n, threshold, refine)
        height, width = image.shape[:2]
        room = MAX_MASK_BYTES // (height * width)
        given = None if boxes is None else checked_boxes(boxes)
        if given is not None and len(given) > room:
            raise ValueError(
                f"masks of {len(given)} boxes in an image of {width} x {height} pixels take more "
                f"than {MAX_MASK_BYTES / 2**30:g} GiB; give {room} boxes at most"
            )
        view = View(image, self.size)
        features = self.model.features(self._inputs(view.image))
        if given is None:
            found = self.model.detect(features, min(n, room), threshold)[0]
            answered = clip_boxes(view.back(found.boxes.cpu().float()), (height, width))
            # What was seen around the letterboxed image is not in the image.
            inside = valid_boxes(answered)
            answered, scores = answered[inside], found.scores.cpu().float()[inside]
            classes = found.classes.cpu()[inside]
        else:
            answered, scores = given, torch.ones(len(given))
            classes = torch.full((len(given),), -1)
        shown = clip_boxes(answered, (height, width))
        # Smaller ones than float32 tells apart have no area for the network.
        usable = (valid_boxes(shown) & valid_boxes(view.there(shown))).nonzero()[:, 0]
        shown = shown[usable]
        logits = self._logits(features, view.there(shown))
        for _ in range(refine):
            shown = tightened(shown, logits)
            logits = self._logits(features, view.there(shown))
        masks = np.zeros((len(answered), height, width), np.bool_)
        for part in torch.arange(len(usable)).split(max(1, _PASTED // (height * width))):
            pasted = paste_masks(logits[part], shown[part], height, width, logits=True)
            masks[usable[part].numpy()] = (pasted > 0.5).numpy()
        if refine:
            answered[usable] = shown
        names = tuple(self.classes[k] if k >= 0 else "" for k in classes.tolist())
        return Segments(answered.numpy(), scores.numpy(), classes.numpy(), names, masks)

    def _inputs(self, image: NDArray[np.uint8]) -> Tensor:
        device = next(self.model.parameters()).device
        mean, std = (
            torch.tensor(values, device=device).view(3, 1, 1) for values in (self.mean, self.std)
        )
        pixels = torch.from_numpy(image).to(device).permute(2, 0, 1).float() / 255
        return ((pixels - mean) / std)[None].contiguous(memory_format=torch.channels_last)

    def _logits(self, features: Any, boxes: Tensor) -> Tensor:
        """Of the one image that the features are of."""
        device = next(self.model.parameters()).device
        index = torch.zeros(len(boxes), dtype=torch.int64, device=device)
        logits = self.model.masks(features, boxes.to(device), index)
        return logits.float().cpu()


def save_segmenter(folder: str | Path, saved: SavedSegmenter, card: str) -> None:
    """Write a checkpoint folder, replacing an older one in one step.

    Args:
        folder: where to.
        saved: what to save.
        card: model card, Markdown.

    Raises:
        CheckpointError: if a weight is not finite, or the model is not what its configuration
            makes: it could not be read back.
        OSError: if the folder cannot be written.
    """
    document = {
        "method": METHOD,
        "config": {
            "architecture": saved.architecture,
            "network": dataclasses.asdict(saved.model.config),
        },
        "spec": {
            "classes": list(saved.classes),
            "size": list(saved.size),
            "mean": list(saved.mean),
            "std": list(saved.std),
            "masked_classes": list(saved.masked_classes),
        },
        "training": {"scores": dict(saved.scores)},
    }
    save_module(folder, document, saved.model, card, _build)


def load_segmenter(path_or_name: str | Path) -> SavedSegmenter:
    """Read a checkpoint folder, or a shipped segmenter by its name.

    Args:
        path_or_name: a folder, a training run holding `best` or `last`, or a name in
            `shipped_segmenters()`.

    Returns:
        The segmenter, its model in evaluation mode and on the CPU.

    Raises:
        CheckpointError: if there is no such folder or name (the shipped ones are listed), or the
            checkpoint is broken; a `ValueError` with one clear line.
    """
    folder = find_shipped(path_or_name, shipped_segmenters(), METHOD)
    return load_saved(folder, _build, _read, METHOD)


def shipped_segmenters() -> dict[str, Path]:
    """Folders of the segmenters that come with the package, by name."""
    return list_checkpoints(CHECKPOINTS)


def read_config(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """A configuration from JSON values: lists are tuples there, objects may be dataclasses.

    Args:
        kind: the dataclass.
        values: as `dataclasses.asdict` and JSON give them.

    Raises:
        TypeError: for fields that it has not.
        ValueError: for values that it refuses.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _converted(hints.get(name), value) for name, value in values.items()})


def _converted(hint: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_converted(None, item) for item in value)
    if isinstance(value, Mapping):
        for option in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(option) and isinstance(option, type):
                return read_config(option, value)
    return value


def _build(document: Mapping[str, Any]) -> Segmenter:
    try:
        architecture = str(document["config"]["architecture"])
        if architecture not in ARCHITECTURES:
            raise ValueError(
                f"unknown architecture {architecture!r:.60}; known: {', '.join(ARCHITECTURES)}"
            )
        kind, create = ARCHITECTURES[architecture]
        config = read_config(kind, document["config"]["network"])
        probe = _read(Segmenter(), document)
        if config.n_classes != len(probe.classes):
            raise ValueError(f"n_classes is {config.n_classes} of {len(probe.classes)} classes")
        return create(config)
    except KeyError as error:
        raise ValueError(f"a segmenter's config must hold {error}") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"not the config of a segmenter: {error}") from None


def _read(model: Segmenter, document: Mapping[str, Any]) -> SavedSegmenter:
    spec = document["spec"]
    return SavedSegmenter(
        model=model,
        architecture=document["config"]["architecture"],
        classes=tuple(spec["classes"]),
        size=tuple(spec["size"]),
        mean=tuple(spec["mean"]),
        std=tuple(spec["std"]),
        masked_classes=tuple(spec["masked_classes"]),
        scores=document["training"].get("scores", {}),
    )


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE
