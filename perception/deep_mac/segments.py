"""What a segmenter answers, and the way there: checked input, letterboxed, boxes to and fro."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor

from learning.coco_polygons import letterboxed
from perception.deep_mac.boxes import mask_boxes

MAX_SIDE = 16_384
"""Pixels of the longest side that an image may have."""
_LARGEST = 3e38
_MOST_LABELS = 65_535


@dataclass(frozen=True)
class Segments:
    """Instances in an image, in pixels of that image.

    Attributes:
        boxes: `(K, 4)` float32; of given boxes what tight-box refinement made of them.
        scores: `(K,)` float32 from 0 to 1; 1 of given boxes.
        classes: `(K,)` int64; -1 of given boxes.
        names: of the classes; empty of given boxes.
        masks: `(K, H, W)` bool.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    masks: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.names)

    def label_image(self) -> NDArray[np.uint16]:
        """One picture of all masks: which instance each pixel shows.

        Where masks overlap the higher score is on top, of equal ones the earlier instance.

        Returns:
            `(H, W)` uint16: 0 for nothing, `k + 1` for instance `k`.

        Raises:
            ValueError: for more instances than 16 bit can tell apart.
        """
        if len(self) > _MOST_LABELS:
            raise ValueError(
                f"a label image tells {_MOST_LABELS} instances apart, got {len(self)}; "
                "give fewer boxes"
            )
        labels = np.zeros(self.masks.shape[1:], np.uint16)
        for k in np.argsort(-self.scores, kind="stable")[::-1].tolist():
            labels[self.masks[k]] = k + 1
        return labels


class View:
    """An image letterboxed to the size of a network, and boxes from one to the other."""

    def __init__(self, image: NDArray[np.uint8], size: tuple[int, int]) -> None:
        """Letterbox `(H, W, 3)` uint8 to a height and a width; the result is `image`."""
        self.image, corner, shape = letterboxed(Image.fromarray(image), size)
        height, width = image.shape[:2]
        scale = float(shape[1] / width), float(shape[0] / height)
        self._scale = torch.tensor([*scale, *scale])
        self._corner = torch.tensor([*corner[::-1], *corner[::-1]], dtype=torch.float32)

    def there(self, boxes: Tensor) -> Tensor:
        """Boxes of the image, in the letterboxed one."""
        return boxes * self._scale + self._corner

    def back(self, boxes: Tensor) -> Tensor:
        """Boxes of the letterboxed image, in the image."""
        return (boxes - self._corner) / self._scale


def tightened(boxes: Tensor, logits: Tensor) -> Tensor:
    """The tight boxes of masks in boxes, to a cell of the masks.

    Args:
        boxes: `(N, 4)`, valid.
        logits: `(N, S, S)` of the masks in them.

    Returns:
        `(N, 4)`, inside `boxes`; a box with an empty mask stays.
    """
    cells = mask_boxes(logits > 0)
    cells[:, 2:] += (cells[:, 2:] == 0) * logits.shape[-1]  # of an empty mask all were zeros
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes[:, :2].repeat(1, 2) + cells / logits.shape[-1] * sides


def is_finite(value: Any) -> bool:
    """Whether a value is a number that float32 can hold, so not NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def check_image(image: Any) -> None:
    """Refuse what is no image of a camera.

    Raises:
        ValueError: for anything but `(H, W, 3)` uint8 with pixels, sides up to `MAX_SIDE`.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"image must be a uint8 array (0 to 255), got {found}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"image must be (H, W, 3), got {image.shape}; one image at a time, grey ones as "
            "np.repeat(image[..., None], 3, axis=-1)"
        )
    if not image.size:
        raise ValueError(f"image must have pixels, got {image.shape}")
    if max(image.shape[:2]) > MAX_SIDE:
        raise ValueError(
            f"image must have sides of at most {MAX_SIDE} pixels, got {image.shape}; shrink it"
        )


def check_numbers(n: Any, threshold: Any, refine: Any) -> None:
    """Refuse what `SavedSegmenter.segment` cannot be asked for.

    Raises:
        ValueError: naming the number, what it must be and what it is.
    """
    for name, value, least in (("n", n, 1), ("refine", refine, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} must be a whole number from {least} up, got {value!r}")
    if not is_finite(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold!r}")


def checked_boxes(boxes: ArrayLike) -> Tensor:
    """`(K, 4)` float32, a copy.

    Raises:
        ValueError: for other shapes and kinds, or numbers that are not finite.
    """
    try:
        array = np.asarray(boxes)
    except ValueError:
        raise ValueError(
            "boxes must be (K, 4), x1 y1 x2 y2, got rows of different lengths"
        ) from None
    if array.shape == (0,):
        array = np.zeros((0, 4), np.float32)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes must be (K, 4), x1 y1 x2 y2, got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ValueError(f"boxes must be numbers of pixels, got {array.dtype}")
    with np.errstate(over="ignore"):
        plain = array.astype(np.float32)
    if not np.isfinite(plain).all():
        row = int((~np.isfinite(plain)).any(1).argmax())
        raise ValueError(f"boxes must be finite, got {array[row].tolist()} in row {row}")
    return torch.from_numpy(plain)
