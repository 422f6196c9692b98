"""What training, evaluation and nodes say to a network of instance masks, and what it answers.

Boxes are float32 `x1, y1, x2, y2` in pixels of the image that the network sees; pixel (row i,
column j) covers x from j to j + 1 and y from i to i + 1. Instances of a batch are flat: all their
boxes in one tensor, and `image_index` tells of which image each is.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perception.deep_mac.boxes import check_boxes, check_image_index

EMPTY_LOGIT = -30.0
"""Of all cells of the mask of a box that is NaN, infinite, inverted or empty."""

MATCH_IOU = 0.5
"""Least overlap of a detection with the label whose mask it is trained on."""

PROPOSAL_JITTER = 0.14
"""Shift of sides, as a share of the box, that always leaves `MATCH_IOU`: (1 - .28)^2 = .518."""

Crops = Literal["ground-truth", "proposal", "both"]
"""What the mask head is trained on: boxes of the labels, of the detector, or one half each."""

_CHUNK = 256  # Boxes that a mask head sees at once outside training, 64 MB of crops of 64 channels.


@dataclass(frozen=True)
class Targets:
    """What is known of the instances of a batch of images.

    Attributes:
        boxes: `(N, 4)` float32, of the labels.
        classes: `(N,)` int64, 0 and up.
        image_index: `(N,)` int64, which image of the batch.
        masks: `(N, H, W)` bool, at the size of the images; of an instance without one all False.
        has_mask: `(N,)` bool: whether its mask may be learned from (partial supervision).
    """

    boxes: Tensor
    classes: Tensor
    image_index: Tensor
    masks: Tensor
    has_mask: Tensor

    def __len__(self) -> int:
        """Number of instances."""
        return len(self.boxes)

    def to(self, device: torch.device) -> "Targets":
        """The same on another device."""
        return Targets(
            self.boxes.to(device),
            self.classes.to(device),
            self.image_index.to(device),
            self.masks.to(device),
            self.has_mask.to(device),
        )


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first.

    Attributes:
        boxes: `(K, 4)` float32, inside the image.
        scores: `(K,)` float32 from 0 to 1.
        classes: `(K,)` int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """Number of detections."""
        return len(self.boxes)


@dataclass(frozen=True)
class MaskTraining:
    """How the mask head is trained.

    Attributes:
        crops: boxes that it is cropped to.
        jitter: largest shift of a side of a ground-truth box, as a share of its width or height,
            drawn uniformly for each side; 0 for the paper's exact boxes.
    """

    crops: Crops = "ground-truth"
    jitter: float = 0.0

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        if self.crops not in ("ground-truth", "proposal", "both"):
            raise ValueError(f"crops must be ground-truth, proposal or both, got {self.crops!r}")
        if not 0.0 <= self.jitter < 0.5:
            raise ValueError(f"jitter must be in [0, 0.5), got {self.jitter}")


class Segmenter(nn.Module):
    """A detector with a mask head that takes any boxes.

    Attributes:
        config: a frozen dataclass of JSON values and frozen dataclasses of them.
        mask_size: cells of a side of the masks that it gives.
        stride: sides of images must be multiples of it.
    """

    config: Any
    mask_size: int
    stride: int

    def forward(self, images: Tensor) -> Any:
        """See `features`."""
        return self.features(images)

    def features(self, images: Tensor) -> Any:
        """What `detect` and `masks` need, computed once.

        Args:
            images: `(B, 3, H, W)`, sides multiples of `stride`.

        Raises:
            ValueError: for anything else.
        """
        raise NotImplementedError

    def detect(self, features: Any, n: int = 100, threshold: float = 0.05) -> list[Detections]:
        """At most `n` detections of each image with scores of at least `threshold`."""
        raise NotImplementedError

    def masks(self, features: Any, boxes: Tensor, image_index: Tensor) -> Tensor:
        """Logits of the masks of any boxes, which have no class.

        Args:
            features: of the images.
            boxes: `(N, 4)` x1, y1, x2, y2, pixels.
            image_index: `(N,)` int64, which image each box is in.

        Returns:
            `(N, mask_size, mask_size)`; of boxes that are NaN, infinite, inverted or empty
            `EMPTY_LOGIT`. In evaluation more than 256 boxes are taken in parts, so that 10,000 fit
            in memory; in training all at once.

        Raises:
            ValueError: for other shapes, or an image that there is not.
        """
        check_boxes(boxes)
        check_image_index(image_index, boxes, self.n_images(features))
        if self.training or len(boxes) <= _CHUNK:
            return self.mask_logits(features, boxes, image_index)
        parts = zip(boxes.split(_CHUNK), image_index.split(_CHUNK), strict=True)
        return torch.cat([self.mask_logits(features, *part) for part in parts])

    def n_images(self, features: Any) -> int:
        """How many images the features are of."""
        raise NotImplementedError

    def mask_logits(self, features: Any, boxes: Tensor, image_index: Tensor) -> Tensor:
        """`masks` without checks and parts, for export."""
        raise NotImplementedError

    def losses(
        self,
        images: Tensor,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Weighted parts of the loss; their sum is what is minimised. `mask` is one of them.

        Without an instance that has a mask, `mask` is zero and its parameters get zero gradients.
        """
        raise NotImplementedError

    def check_sides(self, images: Tensor) -> None:
        """Refuse images whose sides are not multiples of `stride`.

        Raises:
            ValueError: for those.
        """
        if images.ndim == 4 and (images.shape[2] % self.stride or images.shape[3] % self.stride):
            raise ValueError(
                f"sides of images must be multiples of {self.stride}, got "
                f"{images.shape[2]} x {images.shape[3]}; pad or resize them"
            )
