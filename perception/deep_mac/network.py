"""Deep-MAC: CenterNet with a mask head that takes the boxes of any detector.

Source: Birodkar et al. 2021, "The surprising impact of mask-head architecture on novel class
segmentation" (arXiv 2104.00613), and its published code (tensorflow/models, object detection). Two
maps are made beside those of the detector: one embeds pixels, one instances. The mask head sees the
pixel embedding cropped to a box, the place of each cell in the box, and the instance embedding of
the cell that the box's centre lies in. Masks have no class.

Departures: any backbone of the catalogue under a decoder with lateral connections, in place of two
stacked hourglasses with a loss after each.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import as_tuple
from perception import pyramid
from perception.catalogue import create
from perception.catalogue import names as backbone_names
from perception.deep_mac.boxes import box_iou, jitter_boxes, valid_boxes
from perception.deep_mac.centernet import (
    HEAT_BIAS,
    Peaks,
    centre_targets,
    find_peaks,
    focal_loss,
    pick_detections,
    regression_loss,
)
from perception.deep_mac.crops import coordinate_channels, crop_boxes, crop_masks
from perception.deep_mac.heads import MaskHeadConfig, create_mask_head, resolve_mask_head
from perception.deep_mac.instances import (
    EMPTY_LOGIT,
    MATCH_IOU,
    PROPOSAL_JITTER,
    Detections,
    MaskTraining,
    Segmenter,
    Targets,
)

_MAP_STRIDE = 4


@dataclass(frozen=True)
class DeepMacConfig:
    """Sizes of a Deep-MAC, and the weights of its losses. All of it goes into JSON and back.

    Attributes:
        n_classes: of the detector.
        backbone: a name in `perception.names()`, of a network for images.
        backbone_options: fields of its configuration that are changed.
        width: channels of the decoder and of the 3x3 convolution before each map.
        pixel_embedding: channels.
        instance_embedding: channels.
        head: the mask head; a name or the fields of one become a `MaskHeadConfig`.
        mask_size: cells a side of crops and masks.
        overlap: IoU that the Gaussians of the heat map are made for.
        offset_loss_weight: of the L1 of the centres' offsets, in cells of 4 pixels.
        size_loss_weight: of the L1 of the boxes' sizes, likewise.
        mask_loss_weight: of the cross-entropy of masks.
    """

    n_classes: int = 1
    backbone: str = "efficientnetv2_b0_half"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 64
    pixel_embedding: int = 16
    instance_embedding: int = 32
    head: MaskHeadConfig | str = "hourglass-52"
    mask_size: int = 32
    overlap: float = 0.7
    offset_loss_weight: float = 1.0
    size_loss_weight: float = 0.1
    mask_loss_weight: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        object.__setattr__(self, "head", resolve_mask_head(self.head))
        options = {str(name): as_tuple(value) for name, value in self.backbone_options.items()}
        object.__setattr__(self, "backbone_options", options)
        if self.backbone not in backbone_names():
            raise ValueError(
                f"backbone must be one of {', '.join(backbone_names())}, got {self.backbone!r}"
            )
        for name in ("n_classes", "width", "pixel_embedding", "instance_embedding", "mask_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be whole and at least 1, got {value!r}")
        if not 0 < self.overlap < 1:
            raise ValueError(f"overlap must be in (0, 1), got {self.overlap}")
        for name in ("offset_loss_weight", "size_loss_weight", "mask_loss_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be at least 0, got {value}")


class DeepMacMaps(NamedTuple):
    """Everything that detections and masks of a batch are made of, at stride 4.

    Attributes:
        heat: `(B, n_classes, h, w)` logits of centres.
        offsets: `(B, 2, h, w)` x and y of a centre in its cell, cells.
        sizes: `(B, 2, h, w)` width and height of the box, cells.
        pixels: `(B, pixel_embedding, h, w)`.
        instances: `(B, instance_embedding, h, w)`.
    """

    heat: Tensor
    offsets: Tensor
    sizes: Tensor
    pixels: Tensor
    instances: Tensor


class DeepMac(Segmenter):
    """A CenterNet with a mask head, as the head of this module says.

    Attributes:
        config: sizes.
        mask_size: cells a side of the masks.
        stride: sides of images must be multiples of it.
        map_stride: pixels a side of a cell of the maps.
    """

    def __init__(self, config: DeepMacConfig) -> None:
        """Build from torch's global random generator.

        Raises:
            ValueError: if the backbone does not take images, or has no map that fits.
        """
        super().__init__()
        self.config = config
        self.mask_size = config.mask_size
        self.map_stride = _MAP_STRIDE
        self.backbone: Any = create(config.backbone, n_classes=0, **config.backbone_options)
        self.decoder = _Decoder(*_levels(self.backbone, config.backbone), config.width)
        self.stride = self.decoder.stride
        channels = (config.n_classes, 2, 2, config.pixel_embedding, config.instance_embedding)
        self.branches = nn.ModuleDict(
            {
                name: _branch(config.width, n, HEAT_BIAS if name == "heat" else 0.0)
                for name, n in zip(DeepMacMaps._fields, channels, strict=True)
            }
        )
        self.mask_head = create_mask_head(
            config.head, config.pixel_embedding + 2 + config.instance_embedding
        )

    def features(self, images: Tensor) -> DeepMacMaps:
        """Feature maps of `(B, 3, H, W)` images, see `Segmenter.features`."""
        self.check_sides(images)
        x = self.decoder(pyramid.maps(self.backbone, images))
        return DeepMacMaps(*(branch(x) for branch in self.branches.values()))

    def peaks(self, features: DeepMacMaps, n: int = 100) -> Peaks:
        """The `n` highest peaks of each image as boxes; without values in Python, for export."""
        return find_peaks(features.heat, features.offsets, features.sizes, self.map_stride, n)

    @torch.no_grad()
    def detect(
        self, features: DeepMacMaps, n: int = 100, threshold: float = 0.05
    ) -> list[Detections]:
        """At most `n` detections of each image with scores of at least `threshold`."""
        return pick_detections(self.peaks(features, n), threshold)

    def n_images(self, features: DeepMacMaps) -> int:
        """How many images the features are of."""
        return len(features.heat)

    def mask_logits(self, features: DeepMacMaps, boxes: Tensor, image_index: Tensor) -> Tensor:
        """See `Segmenter.mask_logits`."""
        valid = valid_boxes(boxes)
        boxes = torch.where(valid[:, None], boxes.detach(), 0)
        n, size = boxes.shape[0], self.mask_size
        crops = crop_boxes(features.pixels, boxes, image_index, self.map_stride, size)
        instances = self._instances(features.instances, boxes, image_index)
        inputs = torch.cat(
            (
                crops,
                coordinate_channels(n, size, crops.device).to(crops.dtype),
                instances[:, :, None, None].expand(-1, -1, size, size),
            ),
            dim=1,
        )
        return torch.where(valid[:, None, None], self.mask_head(inputs), EMPTY_LOGIT)

    def _instances(self, maps: Tensor, boxes: Tensor, image_index: Tensor) -> Tensor:
        """`(N, instance_embedding)` of the cells of the boxes' centres, or the nearest ones."""
        cells = (boxes[:, :2] + boxes[:, 2:]) / (2 * self.map_stride)
        columns = cells[:, 0].clamp(0, maps.shape[3] - 1).long()
        rows = cells[:, 1].clamp(0, maps.shape[2] - 1).long()
        return maps[image_index, :, rows, columns]

    def losses(
        self,
        images: Tensor,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Weighted parts of the loss; their sum is what is minimised.

        All boxes teach the detector. Masks are learned of instances with `has_mask` and a valid
        box, one crop of each: cross-entropy with the soft mask in the crop, mean over cells and
        instances.

        Args:
            images: `(B, 3, H, W)`.
            targets: of these images.
            training: what the masks are cropped to, see `training_boxes`.
            generator: of its random numbers, on the CPU.

        Returns:
            `heatmap`, `offset`, `size` and `mask`.

        Raises:
            ValueError: for images, boxes, classes or indices that do not fit.
        """
        config = self.config
        maps = self.features(images)
        shape = maps.heat.shape
        centres = centre_targets(
            targets.boxes,
            targets.classes,
            targets.image_index,
            (shape[0], shape[1], shape[2], shape[3]),
            self.map_stride,
            config.overlap,
        )
        offset = regression_loss(maps.offsets, centres.cells, centres.offsets)
        size = regression_loss(maps.sizes, centres.cells, centres.sizes)
        return {
            "heatmap": focal_loss(maps.heat, centres.heat),
            "offset": config.offset_loss_weight * offset,
            "size": config.size_loss_weight * size,
            "mask": config.mask_loss_weight * self._mask_loss(maps, targets, training, generator),
        }

    def _mask_loss(
        self,
        maps: DeepMacMaps,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None,
    ) -> Tensor:
        chosen = (targets.has_mask & valid_boxes(targets.boxes)).nonzero()[:, 0]
        boxes = self.training_boxes(maps, targets, training, generator)[chosen]
        logits = self.masks(maps, boxes, targets.image_index[chosen])
        wanted = crop_masks(targets.masks[chosen], boxes, self.mask_size)
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="sum")
        return loss / (max(1, len(chosen)) * self.mask_size**2)

    @torch.no_grad()
    def training_boxes(
        self,
        maps: DeepMacMaps,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the mask of each instance is cropped to in training, without gradient.

        - "ground-truth": the box of the label, its sides moved by `training.jitter`.
        - "proposal": of the detector's 100 highest peaks, whatever their class, the best one that
          overlaps this label most of all and by an IoU of .5 or more. A label without one, as all
          are at first, gets its own box with the sides moved by up to .14: as bad as a proposal,
          but never below the IoU of .5.
        - "both": one or the other, by the toss of a coin for each instance.

        Returns:
            `(N, 4)`; of labels with invalid boxes anything.
        """
        labelled = jitter_boxes(targets.boxes, training.jitter, generator)
        if training.crops == "ground-truth":
            return labelled
        proposed = jitter_boxes(targets.boxes, PROPOSAL_JITTER, generator)
        for image, found in enumerate(self.peaks(maps).boxes):
            members = (targets.image_index == image).nonzero()[:, 0]
            if not len(members):
                continue
            iou = box_iou(found.float(), targets.boxes[members])
            matched = (iou >= MATCH_IOU) & (iou == iou.amax(1, keepdim=True))
            has_any = matched.any(0)
            best = matched.int().argmax(0)  # the first one, for peaks come best first
            proposed[members[has_any]] = found.to(proposed)[best[has_any]]
        if training.crops == "proposal":
            return proposed
        coins = torch.rand(len(proposed), generator=generator) < 0.5
        return torch.where(coins.to(proposed.device)[:, None], proposed, labelled)


class _Decoder(nn.Module):
    """Brings maps to stride 4: doubled step by step, with lateral maps added (Lin et al. 2017)."""

    def __init__(self, strides: tuple[int, ...], widths: tuple[int, ...], width: int) -> None:
        super().__init__()
        self._strides = strides
        self.laterals = nn.ModuleDict(
            {
                str(level): _conv(n, width, 1)
                for level, n in zip(strides, widths, strict=True)
                if level >= _MAP_STRIDE
            }
        )
        self.merges = nn.ModuleDict()
        self.stride = stride = strides[-1]
        while stride > _MAP_STRIDE:
            stride //= 2
            self.merges[str(stride)] = _conv(width, width, 3)

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        by_stride = dict(zip(map(str, self._strides), maps, strict=True))
        coarsest = str(self.stride)
        x = self.laterals[coarsest](by_stride[coarsest])
        for stride, merge in self.merges.items():
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if stride in self.laterals:
                x = x + self.laterals[stride](by_stride[stride])
            x = merge(x)
        return x


def _conv(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


def _branch(width: int, n_out: int, bias: float) -> nn.Sequential:
    """From the decoder to one of the maps."""
    last = nn.Conv2d(width, n_out, 1)
    assert last.bias is not None
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), last)


def _levels(backbone: Any, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    strides, widths = pyramid.levels(backbone, name)
    if strides[-1] < _MAP_STRIDE or any(stride & (stride - 1) for stride in strides):
        raise ValueError(
            f"backbone must have a stride of 4, 8, 16 and so on, {name} has {strides[-1]}"
        )
    return strides, widths


DEEP_MACS: dict[str, DeepMacConfig] = {
    "deep_mac_mini": DeepMacConfig(
        backbone="efficientnetv2_b0_quarter",
        backbone_options={"drop_path": 0.0, "norm_momentum": 0.1},
        width=32,
        head=MaskHeadConfig("hourglass", 10, 8),
    ),
    "deep_mac_small": DeepMacConfig(
        backbone="efficientnetv2_b0_half",
        backbone_options={"drop_path": 0.0, "norm_momentum": 0.1},
        width=48,
        head=MaskHeadConfig("hourglass", 20, 16),
    ),
}
"""For CPUs, of one class: `dataclasses.replace` changes it. Not the paper's, which are larger."""
