"""Objects as points: heat maps of their centres, with offsets and sizes, and how they are learned.

Source: Zhou et al. 2019, "Objects as Points" (arXiv 1904.07850), CenterNet. Detections are the
peaks of the heat map; no other suppression is needed. Maps have `stride` pixels a side of a cell;
an object's cell is the one that its box's centre lies in.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from perception.deep_mac.boxes import check_boxes, check_image_index, clip_boxes, valid_boxes
from perception.deep_mac.instances import Detections

HEAT_BIAS = -2.19
"""Of the logits of an untrained heat map: 0.1, as Lin et al. 2017 ("Focal Loss") start with."""


class CentreTargets(NamedTuple):
    """What the maps should be.

    Attributes:
        heat: `(B, classes, h, w)` from 0 to 1, exactly 1 at cells of centres.
        cells: `(N, 3)` int64: image, row and column of each object's cell.
        offsets: `(N, 2)`: x and y of the centre from the upper left corner of its cell, cells.
        sizes: `(N, 2)`: width and height, cells.
    """

    heat: Tensor
    cells: Tensor
    offsets: Tensor
    sizes: Tensor


def gaussian_radius(sizes: Tensor, overlap: float = 0.7) -> Tensor:
    """How far a box may be off and still overlap enough (Law and Deng 2018, CornerNet).

    Each side of the box, w x h, may be off by up to r. The IoU is least in one of three cases:

    - moved by r in x and y:  (w - r)(h - r) / (2wh - (w - r)(h - r)), so at the least overlap o
      r^2 - (w + h) r + wh (1 - o) / (1 + o) = 0;
    - all sides r too far in:  (w - 2r)(h - 2r) / wh, 4 r^2 - 2 (w + h) r + (1 - o) wh = 0;
    - all sides r too far out:  wh / ((w + 2r)(h + 2r)), 4o r^2 + 2o (w + h) r - (1 - o) wh = 0.

    Each case allows r up to its smallest positive solution. The widespread code (CornerNet and what
    came from it) divides the second and third by 2 where the leading coefficient asks for 8 and
    8 o, and takes the larger solution of the first.

    Args:
        sizes: `(N, 2)` width and height.
        overlap: least IoU, in (0, 1).

    Returns:
        `(N,)` in the unit of the sizes; 0 for sizes that are not above 0.
    """
    if not 0 < overlap < 1:
        raise ValueError(f"overlap must be in (0, 1), got {overlap}")
    width, height = sizes.clamp(min=0).double().unbind(1)
    total, area = width + height, width * height
    rest = 1 - overlap
    moved = _smaller_root(torch.ones_like(total), total, area * rest / (1 + overlap))
    shrunk = _smaller_root(torch.full_like(total, 4), 2 * total, area * rest)
    # With r -> -r the third equation has the form of the others; its solution below 0 is asked for.
    grown = -_smaller_root(torch.full_like(total, 4 * overlap), 2 * overlap * total, -area * rest)
    return torch.stack((moved, shrunk, grown)).amin(0).to(sizes.dtype)


def _smaller_root(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Of `a x^2 - b x + c`, with a above 0."""
    return (b - (b * b - 4 * a * c).clamp(min=0).sqrt()) / (2 * a)


def centre_targets(
    boxes: Tensor,
    classes: Tensor,
    image_index: Tensor,
    shape: tuple[int, int, int, int],
    stride: int,
    overlap: float = 0.7,
) -> CentreTargets:
    """Targets of a batch.

    Around each centre lies a Gaussian of three standard deviations in `gaussian_radius` and half a
    cell: `sigma = (2 r + 1) / 6` (the published code rounds r down first, and cuts it off there).
    Where several of a class meet, the largest counts. Boxes are cut at the border of the image;
    what is left without an area, or is not finite, is no object.

    Args:
        boxes: `(N, 4)` x1, y1, x2, y2, pixels.
        classes: `(N,)` int64.
        image_index: `(N,)` int64.
        shape: of the heat map: images, classes, height and width.
        stride: pixels a side of a cell.
        overlap: see `gaussian_radius`.

    Returns:
        N is the number of objects that were left.

    Raises:
        ValueError: for a class or an image that there is not.
    """
    n_images, n_classes, height, width = shape
    check_boxes(boxes)
    check_image_index(image_index, boxes, n_images)
    if classes.shape != boxes.shape[:1]:
        raise ValueError(f"classes must be ({len(boxes)},), got {tuple(classes.shape)}")
    if len(classes) and (classes.min() < 0 or classes.max() >= n_classes):
        raise ValueError(
            f"classes must be in [0, {n_classes}), got {int(classes.min())} to {int(classes.max())}"
        )
    boxes = clip_boxes(boxes, (height * stride, width * stride))
    kept = valid_boxes(boxes)
    boxes, classes, image_index = boxes[kept] / stride, classes[kept], image_index[kept]
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    # A sliver at the far border has its centre, rounded, on it.
    limit = torch.tensor([width - 1, height - 1], device=boxes.device)
    columns_rows = centres.floor().long().minimum(limit)
    sigma = (2 * gaussian_radius(sizes, overlap) + 1) / 6
    across = _bell(width, columns_rows[:, 0], sigma)
    down = _bell(height, columns_rows[:, 1], sigma)
    heat = torch.zeros(n_images * n_classes, height * width, device=boxes.device)
    place = image_index * n_classes + classes
    bells = (down[:, :, None] * across[:, None, :]).flatten(1)
    heat.scatter_reduce_(0, place[:, None].expand_as(bells), bells, "amax")
    cells = torch.stack((image_index, columns_rows[:, 1], columns_rows[:, 0]), 1)
    return CentreTargets(heat.view(shape), cells, centres - columns_rows, sizes)


def _bell(n: int, centre: Tensor, sigma: Tensor) -> Tensor:
    """`(N, n)`: Gaussians that are 1 at cells."""
    distance = torch.arange(n, device=centre.device) - centre[:, None]
    return (-0.5 * (distance / sigma[:, None]) ** 2).exp()


def focal_loss(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a heat map (eq. 1 with alpha 2 and beta 4).

    Args:
        logits: `(B, classes, h, w)`.
        heat: targets of the same shape; 1 is a centre, and all others count the less the nearer to
            1 they are.

    Returns:
        The sum over all cells, over the number of centres, or 1 if there is none.
    """
    centre = heat == 1
    probability = logits.sigmoid()
    found = (1 - probability) ** 2 * F.logsigmoid(logits)
    missed = (1 - heat) ** 4 * probability**2 * F.logsigmoid(-logits)
    return -torch.where(centre, found, missed).sum() / centre.sum().clamp(min=1)


def regression_loss(maps: Tensor, cells: Tensor, targets: Tensor) -> Tensor:
    """L1 at the cells of objects (eq. 2 and 3).

    Args:
        maps: `(B, 2, h, w)`, x first.
        cells: `(N, 3)` image, row and column.
        targets: `(N, 2)`.

    Returns:
        The sum over both coordinates, mean over objects; 0 without any.
    """
    values = maps[cells[:, 0], :, cells[:, 1], cells[:, 2]]
    return (values - targets).abs().sum() / max(1, len(targets))


class Peaks(NamedTuple):
    """The highest peaks of each image, best first.

    Attributes:
        boxes: `(B, K, 4)` x1, y1, x2, y2, pixels, cut at the border of the image.
        scores: `(B, K)` from 0 to 1; 0 where there were fewer peaks.
        classes: `(B, K)` int64.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


def find_peaks(logits: Tensor, offsets: Tensor, sizes: Tensor, stride: int, n: int = 100) -> Peaks:
    """Boxes at cells whose heat no neighbour exceeds (section 4.1); no other suppression.

    Nothing here depends on values in Python, so it can be exported.

    Args:
        logits: heat map `(B, classes, h, w)`.
        offsets: `(B, 2, h, w)`, see `CentreTargets`.
        sizes: `(B, 2, h, w)`.
        stride: pixels a side of a cell.
        n: how many; fewer come back where there are fewer cells.
    """
    n_images, n_classes, height, width = logits.shape
    # Logits are compared, for probabilities near 1 are rounded to the same.
    heat = torch.where(F.max_pool2d(logits, 3, 1, 1) == logits, logits.sigmoid(), 0)
    n = min(n, n_classes * height * width)
    scores, places = heat.flatten(1).topk(n)
    classes = torch.div(places, height * width, rounding_mode="floor")
    places = places - classes * (height * width)
    rows = torch.div(places, width, rounding_mode="floor")
    at = places[:, None].expand(n_images, 2, n)
    centres = offsets.flatten(2).gather(2, at)
    centres = centres + torch.stack((places - rows * width, rows), 1)
    half = sizes.flatten(2).gather(2, at) / 2
    boxes = torch.cat((centres - half, centres + half), 1).transpose(1, 2) * stride
    limit = torch.tensor([width, height, width, height], device=boxes.device) * stride
    return Peaks(boxes.clamp(min=0).minimum(limit), scores, classes)


def pick_detections(peaks: Peaks, threshold: float) -> list[Detections]:
    """Of each image the peaks with a score of at least `threshold` and a box with an area."""
    found = []
    for boxes, scores, classes in zip(*peaks, strict=True):
        kept = (scores >= threshold) & (scores > 0) & valid_boxes(boxes)
        found.append(Detections(boxes[kept].float(), scores[kept].float(), classes[kept]))
    return found
