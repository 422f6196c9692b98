"""Where something may be: a feature pyramid, anchors on it, and the network that rates them.

Sources: Lin et al. 2017, "Feature Pyramid Networks for Object Detection" (arXiv 1612.03144), and
Ren et al. 2015, "Faster R-CNN" (arXiv 1506.01497), section 3.

Departure: the pyramid's convolutions are followed by BatchNorm, for it is trained from nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception import pyramid
from perception.catalogue import create
from perception.deep_mac.boxes import (
    batched_nms,
    box_iou,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    roi_align,
)
from perception.spinenet import SpineNet

COARSEST_STRIDE = 32
"""Sides of images need not be multiples of more: coarser cells may reach over the border."""
_CANONICAL_LEVEL = 4
"""Level (stride 16) at which boxes of the canonical size are cropped, Lin et al. 2017, eq. 1."""
_SMOOTH_L1_BETA = 1 / 9
"""Where the loss of deltas of anchors turns from squares to distances: sigma 3 of the published
code. That of a second stage, whose deltas are weighted, has 1."""


@dataclass(frozen=True)
class ProposalConfig:
    """How regions are proposed.

    Attributes:
        anchor_scale: side of a square anchor over the stride of its level.
        octaves: factors of that side; each gives anchors of their own.
        ratios: height over width of anchors, at equal areas.
        positive_iou: an anchor that overlaps a label by this is to find it. So is the best of each
            label.
        negative_iou: an anchor that overlaps all labels by less is to find nothing. Those between
            learn nothing.
        sampled: anchors of an image that the loss looks at.
        positive_share: at most this share of them is positive.
        per_level: best anchors of each level that suppression sees.
        kept: proposals of an image.
        suppression_iou: of proposals of the same level.
    """

    anchor_scale: float = 8.0
    octaves: tuple[float, ...] = (1.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    sampled: int = 256
    positive_share: float = 0.5
    per_level: int = 1000
    kept: int = 1000
    suppression_iou: float = 0.7

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: naming the field, what it must be and what it is.
        """
        for name in ("octaves", "ratios"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or not all(0 < value < math.inf for value in values):
                raise ValueError(f"{name} must be numbers above 0, got {values}")
        if not 0 < self.anchor_scale < math.inf:
            raise ValueError(f"anchor_scale must be above 0, got {self.anchor_scale}")
        if not 0 < self.negative_iou <= self.positive_iou <= 1:
            raise ValueError(
                "negative_iou and positive_iou must be in (0, 1], the second no less, "
                f"got {self.negative_iou} and {self.positive_iou}"
            )
        for name in ("sampled", "per_level", "kept"):
            check_count(name, getattr(self, name))
        for name in ("positive_share", "suppression_iou"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {getattr(self, name)}")


def check_count(name: str, value: object) -> None:
    """Refuse what is no whole number above 0.

    Raises:
        ValueError: naming it.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be whole and at least 1, got {value!r}")


class FeaturePyramid(nn.Module):
    """Images to maps of one width at several strides, fine to coarse.

    A backbone's maps are brought to one width, and each is added to the one below, upsampled
    (Lin et al. 2017). Where the backbone has no map, the one above alone is upsampled. SpineNet
    gives such maps by itself: they are taken as they are.

    Attributes:
        strides: pixels a side of a cell of each map.
        width: channels of all maps; of SpineNet its own.
        n_cropped: maps, from the finest on, that boxes are cropped from; coarser ones are for
            anchors alone.
    """

    def __init__(
        self, backbone: str, options: Mapping[str, Any], width: int, finest: int, n_extra: int
    ) -> None:
        """Build from torch's global random generator.

        Args:
            backbone: name in `perception.names()`, of a network for images.
            options: fields of its configuration that are changed.
            width: channels of the maps.
            finest: stride of the finest map; a power of 2.
            n_extra: maps beyond the backbone's coarsest, each every other cell of the one before.

        Raises:
            ValueError: for an unknown backbone, one for clips, or one whose strides do not fit.
        """
        super().__init__()
        self.backbone: Any = create(backbone, n_classes=0, **options)
        self._own = isinstance(self.backbone, SpineNet)
        self.laterals, self.outputs = nn.ModuleDict(), nn.ModuleDict()
        self._backbone_strides, widths = pyramid.levels(self.backbone, backbone)
        self.width = widths[0] if self._own else width
        self.strides: tuple[int, ...] = self._backbone_strides
        self.n_cropped = len(self.strides)
        self._n_extra = 0 if self._own else n_extra
        if self._own:
            return
        coarsest = self._backbone_strides[-1]
        if coarsest < finest or any(stride & (stride - 1) for stride in self._backbone_strides):
            raise ValueError(
                f"strides of {backbone} must be powers of 2 and reach {finest}, "
                f"got {self._backbone_strides}"
            )
        for stride, n in zip(self._backbone_strides, widths, strict=True):
            if stride >= finest:
                self.laterals[str(stride)] = _conv_norm(n, width, 1)
        self.n_cropped = (coarsest // finest).bit_length()
        for level in range(self.n_cropped):
            self.outputs[str(finest << level)] = nn.Sequential(
                _conv_norm(width, width, 3), nn.ReLU(inplace=True)
            )
        self.strides = tuple(finest << level for level in range(self.n_cropped + n_extra))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`(B, 3, H, W)` to maps `(B, width, ceil(H / strides[i]), ceil(W / strides[i]))`."""
        found = pyramid.maps(self.backbone, images)
        if self._own:
            return found
        by_stride = dict(zip(map(str, self._backbone_strides), found, strict=True))
        coarsest = str(self._backbone_strides[-1])
        x = self.laterals[coarsest](by_stride[coarsest])
        maps = [self.outputs[coarsest](x)]
        for stride in [*self.outputs][-2::-1]:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            if stride in self.laterals:
                x = x + self.laterals[stride](by_stride[stride])
            maps.insert(0, self.outputs[stride](x))
        for _ in range(self._n_extra):
            maps.append(F.max_pool2d(maps[-1], 1, 2))
        return tuple(maps)


def _conv_norm(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(n_out)
    )


def box_levels(boxes: Tensor, strides: Sequence[int], canonical: float) -> Tensor:
    """Which map each box is cropped from, Lin et al. 2017, eq. 1.

    Args:
        boxes: `(N, 4)` in pixels.
        strides: of the maps, each twice the one before.
        canonical: side of a square box that is cropped at stride 16; the paper has 224, the size
            of the images that backbones learn from.

    Returns:
        `(N,)` int64, positions in `strides`; of invalid boxes 0.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    # Rounding must not put a box of exactly the canonical size below its level.
    level = (_CANONICAL_LEVEL + (sides.prod(1).sqrt() / canonical).log2() + 1e-6).floor()
    finest = strides[0].bit_length() - 1
    return (level - finest).nan_to_num(0.0).clamp(0, len(strides) - 1).long()


def crop_pyramid(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    image_index: Tensor,
    size: int,
    canonical: float = 224.0,
) -> Tensor:
    """`roi_align` of each box from the map that suits its size.

    Args:
        maps: fine to coarse, `(B, C, h, w)`.
        strides: of the maps, each twice the one before.
        boxes: `(N, 4)` in pixels.
        image_index: `(N,)` whole numbers.
        size: cells a side of the crops.
        canonical: see `box_levels`.

    Returns:
        `(N, C, size, size)`.
    """
    levels = box_levels(boxes, strides, canonical)
    members = [(levels == level).nonzero()[:, 0] for level in range(len(maps))]
    crops = [
        roi_align(x, boxes[rows], image_index[rows], stride, size)
        for x, stride, rows in zip(maps, strides, members, strict=True)
    ]
    return torch.cat(crops)[torch.cat(members).argsort()]


def make_anchors(
    config: ProposalConfig, stride: int, height: int, width: int, device: torch.device | None = None
) -> Tensor:
    """Anchors of a map, around the centres of its cells.

    Args:
        config: their sizes.
        stride: pixels a side of a cell.
        height: rows of the map.
        width: columns.
        device: where they are made.

    Returns:
        `(height * width * k, 4)` float32 in pixels, row by row; the k of a cell lie together.
    """
    sizes = torch.tensor(
        [
            (config.anchor_scale * stride * octave * ratio**power)
            for octave in config.octaves
            for ratio in config.ratios
            for power in (-0.5, 0.5)
        ],
        device=device,
    ).view(-1, 2)
    x = (torch.arange(width, device=device) + 0.5) * stride
    y = (torch.arange(height, device=device) + 0.5) * stride
    centres = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
    centres = centres.view(-1, 1, 2)
    return torch.cat([centres - sizes / 2, centres + sizes / 2], -1).view(-1, 4)


class ProposalMaps(NamedTuple):
    """What is said of all anchors of a batch of images.

    Attributes:
        objectness: `(B, K)` logits.
        deltas: `(B, K, 4)`.
        anchors: `(K, 4)` in pixels.
        counts: anchors of each level; they add up to K.
    """

    objectness: Tensor
    deltas: Tensor
    anchors: Tensor
    counts: tuple[int, ...]


class RegionProposals(nn.Module):
    """Rates anchors and moves them to what they found; the same layers for all levels."""

    def __init__(self, config: ProposalConfig, strides: Sequence[int], width: int) -> None:
        """Build from torch's global random generator.

        Args:
            config: anchors and numbers.
            strides: of the maps.
            width: channels of the maps.
        """
        super().__init__()
        self.config = config
        self.strides = tuple(strides)
        n_anchors = len(config.octaves) * len(config.ratios)
        self.hidden = nn.Conv2d(width, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, n_anchors, 1)
        self.deltas = nn.Conv2d(width, 4 * n_anchors, 1)
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")
        for layer in (self.objectness, self.deltas):
            nn.init.normal_(layer.weight, std=0.01)
        for layer in (self.hidden, self.objectness, self.deltas):
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, maps: Sequence[Tensor]) -> ProposalMaps:
        """Maps `(B, width, h, w)` of all levels to what they say of their anchors."""
        logits, deltas, anchors = [], [], []
        for x, stride in zip(maps, self.strides, strict=True):
            hidden = F.relu(self.hidden(x))
            # From channels (k) or (k, 4) of each cell to one row of anchors.
            logits.append(self.objectness(hidden).permute(0, 2, 3, 1).flatten(1))
            deltas.append(self.deltas(hidden).permute(0, 2, 3, 1).reshape(len(x), -1, 4))
            anchors.append(make_anchors(self.config, stride, x.shape[-2], x.shape[-1], x.device))
        return ProposalMaps(
            torch.cat(logits, 1).float(),
            torch.cat(deltas, 1).float(),
            torch.cat(anchors),
            tuple(map(len, anchors)),
        )

    @torch.no_grad()
    def propose(self, found: ProposalMaps, size: tuple[int, int]) -> list[Tensor]:
        """Boxes of each image, best first.

        Args:
            found: of the images.
            size: height and width of the images in pixels.

        Returns:
            for each image `(P, 4)` with P of at most `config.kept`; valid and inside the image.
        """
        starts = [sum(found.counts[:level]) for level in range(len(found.counts))]
        proposals = []
        for logits, deltas in zip(found.objectness, found.deltas, strict=True):
            best = torch.cat(
                [
                    logits[start : start + n].topk(min(n, self.config.per_level)).indices + start
                    for start, n in zip(starts, found.counts, strict=True)
                ]
            )
            boxes = clip_boxes(decode_boxes(deltas[best], found.anchors[best]), size)
            ends = torch.tensor(starts[1:], dtype=torch.long, device=best.device)
            levels = torch.bucketize(best, ends, right=True)
            rows = batched_nms(boxes, logits[best], levels, self.config.suppression_iou)
            proposals.append(boxes[rows[: self.config.kept]])
        return proposals

    def losses(
        self, found: ProposalMaps, labels: Sequence[Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Losses of a sample of the anchors of each image (Ren et al. 2015, eq. 1).

        Args:
            found: of the images.
            labels: of each image `(G, 4)` valid boxes.
            generator: of the sample, on the CPU.

        Returns:
            cross-entropy of the objectness and smooth L1 of the deltas of positive anchors; both
            over the number of sampled anchors.
        """
        objectness = deltas = found.deltas.sum() * 0.0
        n_sampled = 0
        for logits, moves, boxes in zip(found.objectness, found.deltas, labels, strict=True):
            wanted, nearest = match_anchors(found.anchors, boxes, self.config)
            positive, negative = sample(
                wanted, self.config.sampled, self.config.positive_share, generator
            )
            n_sampled += len(positive) + len(negative)
            chosen = torch.cat([positive, negative])
            objectness = objectness + F.binary_cross_entropy_with_logits(
                logits[chosen], wanted[chosen].float(), reduction="sum"
            )
            target = encode_boxes(boxes[nearest[positive]], found.anchors[positive])
            deltas = deltas + F.smooth_l1_loss(
                moves[positive], target, reduction="sum", beta=_SMOOTH_L1_BETA
            )
        return objectness / max(1, n_sampled), deltas / max(1, n_sampled)


@torch.no_grad()
def match_anchors(anchors: Tensor, boxes: Tensor, config: ProposalConfig) -> tuple[Tensor, Tensor]:
    """Which anchors are to find something (Ren et al. 2015, section 3.1.2).

    Args:
        anchors: `(K, 4)`.
        boxes: `(G, 4)` of the labels.
        config: the limits.

    Returns:
        `(K,)` int64: 1 is positive, 0 negative, -1 neither; and `(K,)` int64, the label that an
        anchor overlaps most.
    """
    if not len(boxes):
        nothing = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
        return nothing, nothing
    iou = box_iou(anchors, boxes)
    best, nearest = iou.max(1)
    wanted = torch.full_like(nearest, -1)
    wanted[best < config.negative_iou] = 0
    # The best anchors of each label, ties included, unless they do not touch it.
    of_label = iou.amax(0)
    row, label = ((iou == of_label) & (of_label > 0)).nonzero(as_tuple=True)
    wanted[row] = 1
    nearest[row] = label
    wanted[best >= config.positive_iou] = 1
    return wanted, nearest


def sample(
    wanted: Tensor, n: int, positive_share: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw positives and negatives.

    Args:
        wanted: `(K,)`; above 0 is positive, 0 negative, below neither.
        n: how many in all; there may be fewer.
        positive_share: at most this share of them is positive; negatives fill up.
        generator: of the draw, on the CPU.

    Returns:
        their positions, positives and negatives.
    """
    positive, negative = (wanted > 0).nonzero()[:, 0], (wanted == 0).nonzero()[:, 0]
    positive = _drawn(positive, int(n * positive_share), generator)
    return positive, _drawn(negative, n - len(positive), generator)


def _drawn(rows: Tensor, n: int, generator: torch.Generator | None) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:n].to(rows.device)]
