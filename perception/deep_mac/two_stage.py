"""Deep-MARC: Mask R-CNN whose mask head is deep, has no class, and learns from the labels' boxes.

Sources: He et al. 2017, "Mask R-CNN" (arXiv 1703.06870), and Birodkar et al. 2021, "The surprising
impact of mask-head architecture on novel class segmentation" (arXiv 2104.00613), with
its published code (tensorflow/models, object detection).

Region proposals are cropped from a feature pyramid, classified and refined. Masks are made of crops
to any boxes: 32 x 32 cells pass the body of a mask head at that size, then a learned upsampling by
2 (a transposed convolution with ReLU, as in Mask R-CNN), then the head's last 1x1 convolution, so a
mask has 64 x 64 cells. Mask R-CNN learns masks from proposals; here `MaskTraining.crops` decides.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learning.checkpoint import as_tuple
from perception.catalogue import names as backbone_names
from perception.deep_mac.boxes import (
    batched_nms,
    box_iou,
    check_boxes,
    check_image_index,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    jitter_boxes,
    valid_boxes,
)
from perception.deep_mac.crops import crop_masks
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
from perception.deep_mac.proposals import (
    COARSEST_STRIDE,
    FeaturePyramid,
    ProposalConfig,
    RegionProposals,
    check_count,
    crop_pyramid,
    sample,
)

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the deltas that refine proposals, which are small (Ren et al. 2015's code)."""
_COUNTS = ("n_classes", "width", "finest", "box_crop", "box_width", "sampled", "mask_crop")
_WEIGHTS = ("objectness", "proposal_boxes", "classes", "boxes", "mask")


@dataclass(frozen=True)
class DeepMarcConfig:
    """Sizes of a Deep-MARC; the defaults are Mask R-CNN's. All of it goes into JSON and back.

    Attributes:
        n_classes: of the detector, without the background.
        backbone: a name in `perception.names()`, of a network for images. SpineNets give their own
            pyramid, and `width`, `finest` and `n_extra` do not matter then.
        backbone_options: fields of its configuration that are changed.
        width: channels of the pyramid.
        finest: stride of its finest map.
        n_extra: coarser maps than the backbone has, for anchors alone.
        proposals: anchors, and how many of what.
        canonical: side of boxes that are cropped at stride 16, pixels; smaller ones at finer
            strides. Images smaller than the paper's 800 pixels want less.
        box_crop: cells a side of the crops that are classified.
        box_width: features of the two layers that classify them.
        agnostic_boxes: one refinement of a proposal, not one for each class.
        sampled: proposals of an image that the loss looks at.
        positive_share: at most this share of them overlaps a label by an IoU of .5.
        suppression_iou: of detections of the same class.
        head: the mask head; a name or the fields of one become a `MaskHeadConfig`.
        mask_crop: cells a side of the crops that masks are made of; masks have twice as many.
        loss_weights: of `objectness`, `proposal_boxes`, `classes`, `boxes` and `mask`.
    """

    n_classes: int = 1
    backbone: str = "efficientnetv2_b0"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    width: int = 256
    finest: int = 4
    n_extra: int = 1
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    canonical: float = 224.0
    box_crop: int = 7
    box_width: int = 1024
    agnostic_boxes: bool = False
    sampled: int = 512
    positive_share: float = 0.25
    suppression_iou: float = 0.5
    head: MaskHeadConfig | str = "hourglass-52"
    mask_crop: int = 32
    loss_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what cannot be built.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        object.__setattr__(self, "head", resolve_mask_head(self.head))
        options = {str(name): as_tuple(value) for name, value in self.backbone_options.items()}
        object.__setattr__(self, "backbone_options", options)
        object.__setattr__(self, "loss_weights", tuple(self.loss_weights))
        if self.backbone not in backbone_names():
            raise ValueError(
                f"backbone must be one of {', '.join(backbone_names())}, got {self.backbone!r}"
            )
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        if self.finest & (self.finest - 1):
            raise ValueError(f"finest must be a power of 2, got {self.finest}")
        if not isinstance(self.n_extra, int) or not 0 <= self.n_extra <= 4:
            raise ValueError(f"n_extra must be from 0 to 4, got {self.n_extra!r}")
        if not 0 < self.canonical < math.inf:
            raise ValueError(f"canonical must be above 0, got {self.canonical}")
        for name in ("positive_share", "suppression_iou"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")
        weights = self.loss_weights
        if len(weights) != len(_WEIGHTS) or not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(
                f"loss_weights must be {len(_WEIGHTS)} numbers from 0, of {', '.join(_WEIGHTS)}, "
                f"got {weights}"
            )


class DeepMarcMaps(NamedTuple):
    """Everything that detections and masks of a batch are made of.

    Attributes:
        maps: of the pyramid, fine to coarse, `(B, C, h, w)`.
        size: height and width of the images in pixels.
    """

    maps: tuple[Tensor, ...]
    size: tuple[int, int]


class DeepMarc(Segmenter):
    """A Mask R-CNN with a deep mask head, as the head of this module says.

    Attributes:
        config: sizes.
        mask_size: cells a side of the masks.
        stride: sides of images must be multiples of it.
    """

    def __init__(self, config: DeepMarcConfig) -> None:
        """Build from torch's global random generator.

        Raises:
            ValueError: if the backbone does not take images, or has no map that fits.
        """
        super().__init__()
        self.config = config
        self.mask_size = 2 * config.mask_crop
        self.pyramid = FeaturePyramid(
            config.backbone, config.backbone_options, config.width, config.finest, config.n_extra
        )
        self.stride = min(COARSEST_STRIDE, self.pyramid.strides[self.pyramid.n_cropped - 1])
        width = self.pyramid.width
        self.region_proposals = RegionProposals(config.proposals, self.pyramid.strides, width)
        self.box_head = _BoxHead(config, width)
        self.mask_branch = _MaskBranch(config, width)

    def features(self, images: Tensor) -> DeepMarcMaps:
        """Feature maps of `(B, 3, H, W)` images, see `Segmenter.features`."""
        self.check_sides(images)
        return DeepMarcMaps(self.pyramid(images), (images.shape[-2], images.shape[-1]))

    @torch.no_grad()
    def detect(
        self, features: DeepMarcMaps, n: int = 100, threshold: float = 0.05
    ) -> list[Detections]:
        """At most `n` detections of each image with scores of at least `threshold`.

        An image with a pixel that is NaN has none.
        """
        found = self.region_proposals(features.maps)
        proposals = self.region_proposals.propose(found, features.size)
        boxes, image_index = _flat(proposals)
        logits, deltas = self.box_head(self._crops(features, boxes, image_index))
        counts = [len(part) for part in proposals]
        parts = zip(proposals, logits.softmax(1).split(counts), deltas.split(counts), strict=True)
        return [self._pick(*part, features.size, n, threshold) for part in parts]

    def _pick(
        self,
        proposals: Tensor,
        scores: Tensor,
        deltas: Tensor,
        size: tuple[int, int],
        n: int,
        threshold: float,
    ) -> Detections:
        """Detections of one image from what is said of its `(P, 4)` proposals."""
        scores = scores[:, :-1]
        row, classes = (scores >= threshold).nonzero(as_tuple=True)
        moves = deltas[row, torch.zeros_like(classes) if self.config.agnostic_boxes else classes]
        boxes = clip_boxes(decode_boxes(moves, proposals[row], BOX_WEIGHTS), size)
        values = scores[row, classes]
        kept = batched_nms(boxes, values, classes, self.config.suppression_iou)[:n]
        return Detections(boxes[kept], values[kept], classes[kept])

    def n_images(self, features: DeepMarcMaps) -> int:
        """How many images the features are of."""
        return len(features.maps[0])

    def mask_logits(self, features: DeepMarcMaps, boxes: Tensor, image_index: Tensor) -> Tensor:
        """See `Segmenter.mask_logits`."""
        crops = self._crops(features, boxes, image_index, self.config.mask_crop)
        valid = valid_boxes(boxes)[:, None, None]
        return torch.where(valid, self.mask_branch(crops), EMPTY_LOGIT)

    def _crops(
        self, features: DeepMarcMaps, boxes: Tensor, image_index: Tensor, size: int | None = None
    ) -> Tensor:
        n = self.pyramid.n_cropped
        return crop_pyramid(
            features.maps[:n],
            self.pyramid.strides[:n],
            boxes,
            image_index,
            size or self.config.box_crop,
            self.config.canonical,
        )

    def losses(
        self,
        images: Tensor,
        targets: Targets,
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Weighted parts of the loss; their sum is what is minimised.

        All labels with valid boxes teach the detector. Masks are learned of those with `has_mask`,
        one crop of each: cross-entropy with the soft mask in the crop, mean over cells and
        instances.

        Args:
            images: `(B, 3, H, W)`.
            targets: of these images.
            training: what the masks are cropped to, see `training_boxes`.
            generator: of its random numbers, on the CPU.

        Returns:
            `objectness`, `proposal_boxes`, `classes`, `boxes` and `mask`.

        Raises:
            ValueError: for images, boxes, classes or indices that do not fit.
        """
        features = self.features(images)
        check_boxes(targets.boxes)
        check_image_index(targets.image_index, targets.boxes, len(images))
        n_classes = self.config.n_classes
        if len(targets) and not (targets.classes.min() >= 0 and targets.classes.max() < n_classes):
            raise ValueError(
                f"classes must be in [0, {n_classes}), got {int(targets.classes.min())} to "
                f"{int(targets.classes.max())}"
            )
        usable = valid_boxes(targets.boxes)
        targets = Targets(
            targets.boxes[usable],
            targets.classes[usable],
            targets.image_index[usable],
            targets.masks[usable],
            targets.has_mask[usable],
        )
        of_image = [(targets.image_index == image).nonzero()[:, 0] for image in range(len(images))]
        found = self.region_proposals(features.maps)
        proposals = self.region_proposals.propose(found, features.size)
        objectness, proposal_boxes = self.region_proposals.losses(
            found, [targets.boxes[rows] for rows in of_image], generator
        )
        classes, boxes = self._box_losses(features, proposals, targets, of_image, generator)
        mask = self._mask_loss(features, proposals, targets, of_image, training, generator)
        parts = (objectness, proposal_boxes, classes, boxes, mask)
        return {
            name: weight * part
            for name, weight, part in zip(_WEIGHTS, self.config.loss_weights, parts, strict=True)
        }

    def _box_losses(
        self,
        features: DeepMarcMaps,
        proposals: Sequence[Tensor],
        targets: Targets,
        of_image: Sequence[Tensor],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Of the classes of a sample of proposals, and of the refinement of the positive ones."""
        background = self.config.n_classes
        chosen, wanted, moves = [], [], []
        for found, rows in zip(proposals, of_image, strict=True):
            labels = targets.boxes[rows]
            # The labels' boxes too: at first nothing else would be positive.
            boxes = torch.cat([found, labels])
            iou = box_iou(boxes, torch.cat([labels, labels.new_zeros(1, 4)]))
            best, nearest = iou.max(1)
            positive, negative = sample(
                (best >= MATCH_IOU).int(),
                self.config.sampled,
                self.config.positive_share,
                generator,
            )
            chosen.append(boxes[torch.cat([positive, negative])])
            nearest = nearest[positive]
            wanted.append(targets.classes[rows][nearest])
            wanted.append(torch.full_like(negative, background))
            moves.append(encode_boxes(labels[nearest], boxes[positive], BOX_WEIGHTS))
        sampled, image_index = _flat(chosen)
        logits, deltas = self.box_head(self._crops(features, sampled, image_index))
        classes = torch.cat(wanted)
        loss = F.cross_entropy(logits, classes, reduction="sum")
        positive = (classes != background).nonzero()[:, 0]
        column = torch.zeros_like(positive) if self.config.agnostic_boxes else classes[positive]
        box_loss = F.smooth_l1_loss(deltas[positive, column], torch.cat(moves), reduction="sum")
        return loss / max(1, len(classes)), box_loss / max(1, len(classes))

    def _mask_loss(
        self,
        features: DeepMarcMaps,
        proposals: Sequence[Tensor],
        targets: Targets,
        of_image: Sequence[Tensor],
        training: MaskTraining,
        generator: torch.Generator | None,
    ) -> Tensor:
        boxes = self.training_boxes(proposals, targets, of_image, training, generator)
        chosen = targets.has_mask.nonzero()[:, 0]
        logits = self.masks(features, boxes[chosen], targets.image_index[chosen])
        wanted = crop_masks(targets.masks[chosen], boxes[chosen], self.mask_size)
        loss = F.binary_cross_entropy_with_logits(logits.float(), wanted, reduction="sum")
        return loss / (max(1, len(chosen)) * self.mask_size**2)

    @torch.no_grad()
    def training_boxes(
        self,
        proposals: Sequence[Tensor],
        targets: Targets,
        of_image: Sequence[Tensor],
        training: MaskTraining,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the mask of each label is cropped to in training, without gradient.

        - "ground-truth": the box of the label, its sides moved by `training.jitter`.
        - "proposal": one of the region proposals that overlap this label more than others, and by
          an IoU of .5 or more, drawn at random. A label without one gets its own box with the sides
          moved by up to .14: as bad as a proposal, but never below the IoU of .5.
        - "both": one or the other, by the toss of a coin for each label.

        Args:
            proposals: of each image `(P, 4)`.
            targets: with valid boxes.
            of_image: of each image, the positions of its labels.
            training: which of the three.
            generator: of random numbers, on the CPU.

        Returns:
            `(N, 4)`.
        """
        labelled = jitter_boxes(targets.boxes, training.jitter, generator)
        if training.crops == "ground-truth":
            return labelled
        proposed = jitter_boxes(targets.boxes, PROPOSAL_JITTER, generator)
        for found, rows in zip(proposals, of_image, strict=True):
            if not len(found) or not len(rows):
                continue
            iou = box_iou(found, targets.boxes[rows])
            matched = (iou >= MATCH_IOU) & (iou == iou.amax(1, keepdim=True))
            draws = torch.rand(matched.shape, generator=generator).to(iou.device)
            best, drawn = draws.where(matched, -1.0).max(0)
            proposed[rows[best >= 0]] = found[drawn[best >= 0]].to(proposed)
        if training.crops == "proposal":
            return proposed
        coins = torch.rand(len(proposed), generator=generator) < 0.5
        return torch.where(coins.to(proposed.device)[:, None], proposed, labelled)


class _BoxHead(nn.Module):
    """Crops of proposals to classes and refinements, by two dense layers."""

    def __init__(self, config: DeepMarcConfig, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width * config.box_crop**2, config.box_width)
        self.second = nn.Linear(config.box_width, config.box_width)
        self.classes = nn.Linear(config.box_width, config.n_classes + 1)
        n_deltas = 1 if config.agnostic_boxes else config.n_classes
        self.deltas = nn.Linear(config.box_width, 4 * n_deltas)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.normal_(self.classes.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.first, self.second, self.classes, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """`(N, width, s, s)` to logits `(N, n_classes + 1)`, background last, and `(N, k, 4)`."""
        x = F.relu(self.second(F.relu(self.first(crops.flatten(1)))))
        deltas = self.deltas(x)
        return self.classes(x).float(), deltas.float().view(len(x), deltas.shape[1] // 4, 4)


class _MaskBranch(nn.Module):
    """Crops to masks of twice their size: a mask head, upsampled before its last layer."""

    def __init__(self, config: DeepMarcConfig, width: int) -> None:
        super().__init__()
        self.head = create_mask_head(config.head, width)
        channels = self.head.logits.in_channels
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, 2)
        # At a stride of its size each cell of the result is made of one: a fan-in of the channels.
        nn.init.normal_(self.upsample.weight, std=math.sqrt(2 / channels))
        assert self.upsample.bias is not None
        nn.init.zeros_(self.upsample.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """`(N, width, s, s)` to `(N, 2 s, 2 s)` logits."""
        x = F.relu(self.upsample(self.head.body(crops)))
        return self.head.logits(x).squeeze(1)


def _flat(boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Boxes of each image as one tensor, and of which image each is."""
    counts = torch.tensor([len(part) for part in boxes])
    image_index = torch.arange(len(boxes)).repeat_interleave(counts)
    return torch.cat(list(boxes)), image_index.to(boxes[0].device)


_SMALL = DeepMarcConfig(
    backbone="efficientnetv2_b0_half",
    backbone_options={"drop_path": 0.0, "norm_momentum": 0.1},
    width=48,
    proposals=ProposalConfig(anchor_scale=5.0, per_level=256, kept=100, sampled=128),
    canonical=96.0,
    box_width=256,
    sampled=64,
    head=MaskHeadConfig("hourglass", 20, 16),
)

DEEP_MARCS: dict[str, DeepMarcConfig] = {
    "deep_marc_small": _SMALL,
    "deep_marc_small_spinenet": replace(
        _SMALL, backbone="spinenet_mini", backbone_options={"levels": (2, 6), "endpoint_width": 48}
    ),
}
"""For CPUs and images of 128 to 320 pixels, of one class: `dataclasses.replace` changes it. 1.8 M
parameters each. Not the paper's, which are larger."""
