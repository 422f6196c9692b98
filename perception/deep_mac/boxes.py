"""Boxes: overlap, jitter, deltas, suppression, and crops of maps to them (RoIAlign).

Boxes are `(N, 4)` floats `x1, y1, x2, y2` in pixels, in continuous coordinates: pixel (row i,
column j) covers x from j to j + 1. No box at all is legal everywhere. A box with a coordinate that
is not finite, or without an area, is *invalid*: it overlaps nothing, suppression drops it, and
crops to it are zero.

Sources: Girshick et al. 2014 (deltas, suppression), Ren et al. 2015, "Faster R-CNN" (section 3.1),
He et al. 2017, "Mask R-CNN" (RoIAlign, section 3).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LOG_SIZE_LIMIT = math.log(1000 / 16)
"""Largest logarithm of a ratio of sizes that `decode_boxes` takes seriously, as is customary: an
untrained network would overflow."""
_CROP_READS = 1 << 22
"""Cells that `roi_align` reads in one go; their places and weights take 12 bytes each."""
_SUPPRESSION_CHUNK = 512


def check_boxes(boxes: Tensor, name: str = "boxes") -> None:
    """Refuse what are no boxes; invalid ones are let through (`valid_boxes` finds them).

    Raises:
        ValueError: for anything but `(N, 4)` floats.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be (N, 4), x1 y1 x2 y2, got {tuple(boxes.shape)}")
    if not boxes.is_floating_point():
        raise ValueError(f"{name} must be floats, in pixels, got {boxes.dtype}")


def valid_boxes(boxes: Tensor) -> Tensor:
    """`(N,)` bool: whether all coordinates are finite and the area is above 0."""
    check_boxes(boxes)
    return boxes.isfinite().all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes cut at the borders of an image; what lies outside becomes invalid, NaN stays NaN.

    Args:
        boxes: `(N, 4)`.
        size: height and width of the image in pixels.
    """
    check_boxes(boxes)
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes.dtype, device=boxes.device)
    return boxes.clamp_min(0).minimum(limit)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """`(N, M)` areas of the intersections over those of the unions; 0 where a box is invalid."""
    check_boxes(boxes)
    check_boxes(others, "others")
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    sides = (high - low).clamp_min(0)
    intersection = sides[..., 0] * sides[..., 1]
    union = _areas(boxes)[:, None] + _areas(others)[None] - intersection
    # 0 / 0 of invalid boxes, and infinity over infinity of areas beyond float's range.
    return (intersection / union).nan_to_num(0.0, 0.0, 0.0)


def _areas(boxes: Tensor) -> Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0)
    return sides[:, 0] * sides[:, 1]


def jitter_boxes(boxes: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Boxes with each side moved on its own, by up to a share of the width or height.

    Args:
        boxes: `(N, 4)`.
        share: in [0, 0.5), so that a valid box stays one; shifts are uniform in [-share, share].
        generator: of random numbers on the CPU, for repeatable runs on any device.

    Raises:
        ValueError: for another share.
    """
    check_boxes(boxes)
    if not 0 <= share < 0.5:
        raise ValueError(f"share must be in [0, 0.5), got {share}")
    shift = (2 * torch.rand(boxes.shape, generator=generator) - 1) * share
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return boxes + shift.to(boxes) * sides


def encode_boxes(
    boxes: Tensor, references: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Deltas from references (anchors, proposals) to boxes, Faster R-CNN eq. 2.

    Args:
        boxes: `(N, 4)`, valid.
        references: `(N, 4)`, valid.
        weights: factors of the four deltas, such as (10, 10, 5, 5) for a second stage, which bring
            them near a variance of 1.

    Returns:
        `(N, 4)`: shift of the centre over the reference's width and height, logarithm of the ratio
        of widths and of heights; each times its weight.
    """
    check_boxes(boxes)
    check_boxes(references, "references")
    centre, size = _centres_and_sizes(boxes)
    reference_centre, reference_size = _centres_and_sizes(references)
    deltas = torch.cat(
        [(centre - reference_centre) / reference_size, (size / reference_size).log()], 1
    )
    return deltas * deltas.new_tensor(weights)


def decode_boxes(
    deltas: Tensor, references: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """The inverse of `encode_boxes`; a ratio of sizes is taken as at most 1000 / 16.

    Args:
        deltas: `(N, 4)`.
        references: `(N, 4)`.
        weights: those of `encode_boxes`.
    """
    check_boxes(references, "references")
    deltas = deltas / deltas.new_tensor(weights)
    centre, size = _centres_and_sizes(references)
    centre = centre + deltas[:, :2] * size
    half = deltas[:, 2:].clamp_max(LOG_SIZE_LIMIT).exp() * size / 2
    return torch.cat([centre - half, centre + half], 1)


def _centres_and_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Greedy non-maximum suppression, exact: the best box drops those that overlap it, and so on.

    Args:
        boxes: `(N, 4)`.
        scores: `(N,)`. Of equal scores the box of the lower index is taken for the better one.
        iou: a box is dropped where its IoU with a better, kept one is above this.

    Returns:
        Indices of the kept boxes, best first. Invalid boxes and scores that are NaN are dropped.
        Memory grows with N, not with its square.

    Raises:
        ValueError: if there is not one score for each box.
    """
    check_boxes(boxes)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must be ({len(boxes)},), got {tuple(scores.shape)}")
    usable = (valid_boxes(boxes) & ~scores.isnan()).nonzero()[:, 0]
    order = usable[scores[usable].sort(descending=True, stable=True).indices]
    kept = order[:0]
    for chunk in order.split(_SUPPRESSION_CHUNK):
        for better in kept.split(_SUPPRESSION_CHUNK):
            chunk = chunk[~(box_iou(boxes[better], boxes[chunk]) > iou).any(0)]
        kept = torch.cat([kept, chunk[_survivors(boxes[chunk], iou)]])
    return kept


def _survivors(boxes: Tensor, iou: float) -> Tensor:
    """Which of a few boxes, best first, greedy suppression keeps."""
    drops = (box_iou(boxes, boxes) > iou).cpu().numpy()
    stays = np.ones(len(boxes), dtype=bool)
    for i in range(len(boxes)):
        if stays[i]:
            stays[i + 1 :] &= ~drops[i, i + 1 :]
    return torch.from_numpy(stays).to(boxes.device)


@torch.no_grad()
def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """`nms` within each group, such as a class of an image.

    Groups are taken one after the other. Moving each to a place of its own, as is customary, lets
    float32 round coordinates and with them the IoU.

    Args:
        boxes: `(N, 4)`.
        scores: `(N,)`.
        groups: `(N,)` whole numbers.
        iou: see `nms`.

    Returns:
        Indices of the kept boxes of all groups, best first; of equal scores the lower index first.

    Raises:
        ValueError: if there is not one score and one group for each box.
    """
    check_boxes(boxes)
    if not scores.shape == groups.shape == boxes.shape[:1]:
        raise ValueError(
            f"scores and groups must be ({len(boxes)},), got {tuple(scores.shape)} and "
            f"{tuple(groups.shape)}"
        )
    stays = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for group in groups.unique():
        members = (groups == group).nonzero()[:, 0]
        stays[members[nms(boxes[members], scores[members], iou)]] = True
    kept = stays.nonzero()[:, 0]
    return kept[scores[kept].sort(descending=True, stable=True).indices]


def roi_align(
    maps: Tensor, boxes: Tensor, image_index: Tensor, stride: float, size: int, samples: int = 2
) -> Tensor:
    """Crops of maps to boxes, by means of bilinear samples (RoIAlign, aligned to half pixels).

    Each crop's cell is the mean of `samples` times `samples` points spread evenly over it. A point
    less than a cell outside the map reads its border; farther ones read 0.

    Args:
        maps: `(B, C, h, w)`; cell (i, j) has its centre at pixel ((j + .5), (i + .5)) * stride.
        boxes: `(N, 4)` in pixels of the images; no gradient flows to them.
        image_index: `(N,)` whole numbers, of the map that each box is for.
        stride: pixels a side of a cell.
        size: cells a side of the crops.
        samples: points a side of a crop's cell.

    Returns:
        `(N, C, size, size)`, differentiable in `maps`; of invalid boxes zeros. The samples are
        never held, so memory is that of the result.

    Raises:
        ValueError: if shapes do not fit, or an index is of no image.
    """
    check_boxes(boxes)
    check_image_index(image_index, boxes, len(maps))
    if maps.ndim != 4 or size < 1 or samples < 1 or not stride > 0:
        raise ValueError(
            "maps must be (B, C, h, w), size, samples and stride above 0, "
            f"got {tuple(maps.shape)}, {size}, {samples}, {stride}"
        )
    n_channels, height, width = maps.shape[1:]
    rows = maps.permute(0, 2, 3, 1).reshape(-1, n_channels)
    if not len(boxes):
        # Of the maps, so that a loss of no boxes can still be differentiated.
        return rows[:0].view(0, n_channels, 1, 1).expand(0, n_channels, size, size)
    crops = []
    # `embedding_bag` sums weighted rows without copies: on a CPU 10 times the speed of grid_sample.
    for part in torch.arange(len(boxes), device=boxes.device).split(
        max(1, _CROP_READS // (2 * size * samples) ** 2)
    ):
        y, y_weight = _samples(boxes[part][:, 1::2], height, stride, size, samples)
        x, x_weight = _samples(boxes[part][:, 0::2], width, stride, size, samples)
        first = image_index[part].long()[:, None, None, None, None] * (height * width)
        index = first + y[:, :, None, :, None] * width + x[:, None, :, None, :]
        weight = y_weight[:, :, None, :, None] * x_weight[:, None, :, None, :]
        bags = F.embedding_bag(
            index.flatten(0, 2).flatten(1),
            rows,
            per_sample_weights=weight.flatten(0, 2).flatten(1).to(rows.dtype),
            mode="sum",
        )
        crops.append(bags.view(len(part), size, size, n_channels).permute(0, 3, 1, 2))
    return torch.cat(crops).contiguous()


def check_image_index(image_index: Tensor, boxes: Tensor, n_images: int) -> None:
    """Refuse what does not say of which image each box is.

    Raises:
        ValueError: for anything but one whole number in [0, n_images) for each box.
    """
    if image_index.shape != boxes.shape[:1] or image_index.is_floating_point():
        raise ValueError(
            f"image_index must be ({len(boxes)},) whole numbers, one for each box, "
            f"got {tuple(image_index.shape)} {image_index.dtype}"
        )
    if len(image_index) and not (image_index.min() >= 0 and image_index.max() < n_images):
        raise ValueError(
            f"image_index must be in [0, {n_images}), got {int(image_index.min())} to "
            f"{int(image_index.max())}"
        )


def _samples(
    sides: Tensor, n_cells: int, stride: float, size: int, samples: int
) -> tuple[Tensor, Tensor]:
    """Which cells the samples along one axis read, and how much of each.

    Args:
        sides: `(N, 2)` lower and upper side in pixels.
        n_cells: of the map along the axis.
        stride: pixels of a cell.
        size: cells of the crop.
        samples: points in one of them.

    Returns:
        places and weights, both `(N, size, 2 * samples)`.
    """
    sides = sides.detach().double()
    low, high = sides[:, :1], sides[:, 1:]
    known = (low.isfinite() & high.isfinite() & (high > low))[..., None]
    steps = torch.arange(size * samples, dtype=torch.float64, device=sides.device).add(0.5)
    points = (low + (high - low) * (steps / (size * samples))) / stride - 0.5
    points = points.view(-1, size, samples).where(known, -2.0)
    inside = (points >= -1) & (points <= n_cells)
    points = points.clamp(0, n_cells - 1)
    before = points.floor()
    share = points - before
    places = torch.stack([before, (before + 1).clamp_max(n_cells - 1)], -1).long()
    weights = torch.stack([1 - share, share], -1) * inside[..., None] / samples
    return places.flatten(2), weights.flatten(2).float()


def mask_boxes(masks: Tensor) -> Tensor:
    """The tight boxes of masks.

    Args:
        masks: `(N, H, W)` bool.

    Returns:
        `(N, 4)` float32; of an empty mask zeros.

    Raises:
        ValueError: for anything else.
    """
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ValueError(f"masks must be (N, H, W) bool, got {tuple(masks.shape)} {masks.dtype}")
    sides = []
    for seen in (masks.any(1), masks.any(2)):  # columns, rows
        length = seen.shape[1]
        places = torch.arange(length, device=masks.device)
        sides.append(places.where(seen, length).amin(1) if length else places.new_zeros(len(seen)))
        sides.append((places + 1).where(seen, 0).amax(1) if length else sides[-1])
    x1, x2, y1, y2 = sides
    boxes = torch.stack([x1, y1, x2, y2], 1).float()
    return boxes * masks.flatten(1).any(1)[:, None]
