"""Batches of scenes for training: order, augmentation, and who has a mask.

Everything follows from the seed and the number of the step, so a resumed training goes on bit by
bit without a saved state of random generators. Boxes and masks move with the pictures; a moved
pixel of a mask is what its centre points to, the rule by which polygons are rasterised.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from learning.augment import brightness, colour, contrast
from learning.batches import BatchOrder
from learning.coco_polygons import PADDING, letterboxed
from learning.instance_set import InstanceSet, Scene
from perception.deep_mac.boxes import clip_boxes
from perception.deep_mac.instances import Targets
from perception.deep_mac.train_config import SegmenterTrainConfig
from perception.train_batches import Range, step_seed

GREY = PADDING / 255
"""Of what comes into view from outside a picture, as around letterboxed ones."""
_STATISTICS = 256  # Scenes that the statistics of channels are taken from.
_AUGMENT_UNIT = 0.09  # Change of a factor by one magnitude of `learning.augment`.


def pixel_statistics(data: InstanceSet) -> tuple[Range, Range]:
    """Mean and standard deviation of each channel, of values from 0 to 1.

    They are of at most 256 scenes, spread evenly. A channel without any spread gets 1.
    """
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for k in np.unique(np.linspace(0, len(data) - 1, min(len(data), _STATISTICS)).round()):
        pixels = data[int(k)].image.reshape(-1, 3) / 255
        count += len(pixels)
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1).tolist())


def learned_classes(classes: Sequence[str], masked: Sequence[str] | None) -> NDArray[np.bool_]:
    """Which classes have masks to learn from, `(n_classes,)`; None stands for all.

    Raises:
        ValueError: for a name that is no class.
    """
    unknown = [name for name in masked or () if name not in classes]
    if unknown:
        raise ValueError(
            f"masked_classes has {', '.join(map(repr, unknown))}; classes: {', '.join(classes)}"
        )
    return np.array([masked is None or name in masked for name in classes])


def letterbox_scene(scene: Scene, size: tuple[int, int]) -> Scene:
    """A scene scaled until it just fits into another size, in the middle of grey.

    Args:
        scene: of any size.
        size: height and width.

    Returns:
        The scene itself where it has that size; instances too thin for a pixel are left out.
    """
    if scene.image.shape[:2] == size:
        return scene
    image, corner, shape = letterboxed(Image.fromarray(scene.image), size)
    places = [
        np.floor((np.arange(n) + 0.5 - start) * (own / new)).astype(np.int64)
        for n, start, own, new in zip(size, corner, scene.image.shape[:2], shape, strict=True)
    ]
    masks = _looked_up(torch.from_numpy(scene.masks), *map(torch.from_numpy, places))
    scale = (shape / scene.image.shape[:2])[::-1]
    boxes = scene.boxes * np.tile(scale, 2) + np.tile(corner[::-1], 2)
    boxes[scene.masks.any((1, 2))] = np.nan
    return Scene.from_masks(image, masks.numpy(), scene.classes, boxes)


@dataclass(frozen=True)
class _Moves:
    """How pictures of a batch are moved: `(B,)` factors, `(B,)` pixels, `(B,)` whether mirrored."""

    zoom: Tensor
    right: Tensor
    down: Tensor
    mirrored: Tensor


class SceneBatches:
    """Inputs and targets of a set of scenes, by the number of a step.

    Attributes:
        data: the scenes.
        size: height and width of the inputs.
        learned: `(n_classes,)` bool, whose masks may be learned from.
        mean: `(3, 1, 1)`, subtracted from values from 0 to 1.
        std: `(3, 1, 1)`, divided by.
    """

    def __init__(
        self,
        data: InstanceSet,
        config: SegmenterTrainConfig,
        statistics: tuple[Range, Range],
        device: torch.device,
    ) -> None:
        """Look at the first scene for its size.

        Args:
            data: scenes, of one size where the configuration has none.
            config: how to train.
            statistics: mean and standard deviation of each channel.
            device: where inputs and targets go.

        Raises:
            ValueError: for a masked class that is none.
        """
        self.data = data
        height, width = data[0].image.shape[:2]
        given = (config.size, config.size) if isinstance(config.size, int) else config.size
        self.size = (height, width) if given is None else given
        self.learned = learned_classes(data.classes, config.masked_classes)
        self.mean, self.std = (
            torch.tensor(values, device=device).view(-1, 1, 1) for values in statistics
        )
        self._config = config
        self._device = device
        self._order = BatchOrder(len(data), config.batch_size, config.seed)

    def rows(self, step: int) -> list[int]:
        """Which scenes a step sees: all of them once before any of them twice."""
        return self._order.rows(step).tolist()

    def train(self, step: int) -> tuple[Tensor, Targets]:
        """Augmented inputs `(B, 3, H, W)` and what is known of their instances."""
        config = self._config
        generator = torch.Generator().manual_seed(step_seed(config.seed, step))
        images, targets = self._gathered(self.rows(step))
        moves = self._moves(len(images), generator)
        images, targets = moved(images, targets, moves.zoom, moves.right, moves.down)
        images, targets = mirrored(images, targets, moves.mirrored)
        images = self._coloured(images, generator)
        return self.normalised(images), kept(targets, config.least_seen, self.size)

    def plain(self, rows: Sequence[int]) -> tuple[Tensor, Targets]:
        """Inputs and targets of some scenes as they are."""
        images, targets = self._gathered(rows)
        return self.normalised(images), kept(targets, 0.0, self.size)

    def normalised(self, images: Tensor) -> Tensor:
        """What networks take, of values from 0 to 1."""
        # Convolutions keep the order of their input; this one is the faster.
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def scene(self, k: int) -> Scene:
        """A scene at the size of the inputs.

        Raises:
            ValueError: if it has another one and nothing says to change it.
        """
        scene = self.data[k]
        if self._config.size is None and scene.image.shape[:2] != self.size:
            raise ValueError(
                f"scenes must be of one size, or size be given: scene {k} has "
                f"{scene.image.shape[:2]} pixels, the first one {self.size}"
            )
        return letterbox_scene(scene, self.size)

    def _gathered(self, rows: Sequence[int]) -> tuple[Tensor, Targets]:
        """Pictures from 0 to 1, and all of their instances, those without a mask included."""
        scenes = [self.scene(row) for row in rows]
        pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).to(self._device)
        counts = torch.tensor([len(scene) for scene in scenes])
        classes = torch.from_numpy(np.concatenate([scene.classes for scene in scenes]))
        masks = torch.from_numpy(np.concatenate([scene.masks for scene in scenes]))
        has_mask = torch.from_numpy(self.learned)[classes]
        targets = Targets(
            boxes=torch.from_numpy(np.concatenate([scene.boxes for scene in scenes])).float(),
            classes=classes,
            image_index=torch.arange(len(scenes)).repeat_interleave(counts),
            masks=masks & has_mask[:, None, None],
            has_mask=has_mask,
        )
        return pixels.permute(0, 3, 1, 2).float() / 255, targets.to(self._device)

    def _moves(self, n: int, generator: torch.Generator) -> _Moves:
        config, (height, width) = self._config, self.size
        draws = torch.rand(4, n, generator=generator).to(self._device)
        zoom = ((2 * draws[0] - 1) * math.log1p(config.zoom)).exp()
        right, down = ((2 * draw - 1) * config.shift for draw in draws[1:3])
        return _Moves(zoom, right * width, down * height, (draws[3] < 0.5) & config.flip)

    def _coloured(self, images: Tensor, generator: torch.Generator) -> Tensor:
        largest = self._config.colour / _AUGMENT_UNIT
        for change in (brightness, contrast, colour):
            share = 2 * torch.rand(len(images), generator=generator).to(images.device) - 1
            if largest:
                images = change(images, largest, share)
        return images


def moved(
    images: Tensor, targets: Targets, zoom: Tensor, right: Tensor, down: Tensor
) -> tuple[Tensor, Targets]:
    """Pictures enlarged about their middle and shifted, with their boxes and masks.

    Boxes may end up outside, and masks empty.

    Args:
        images: `(B, 3, H, W)` from 0 to 1; what comes into view from outside is grey.
        targets: of them.
        zoom: `(B,)` factors.
        right: `(B,)` pixels, after the enlargement.
        down: `(B,)` pixels.
    """
    height, width = images.shape[-2:]
    if not bool((zoom != 1).any() or right.any() or down.any()):
        return images, targets
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / zoom
    theta[:, 0, 2], theta[:, 1, 2] = -2 * right / (zoom * width), -2 * down / (zoom * height)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    # Outside is 0 for grid_sample, so grey is moved there and back.
    images = F.grid_sample(images - GREY, grid, align_corners=False) + GREY

    own = targets.image_index
    factor = zoom[own, None]
    middle = images.new_tensor([width, height, width, height]) / 2
    shift = torch.stack([right, down, right, down], 1)[own]
    boxes = (targets.boxes - middle) * factor + middle + shift
    rows, columns = (
        (torch.arange(n, device=images.device) + 0.5 - n / 2 - by[own, None]) / factor + n / 2
        for n, by in ((height, down), (width, right))
    )
    masks = _looked_up(targets.masks, rows.floor().long(), columns.floor().long())
    return images, Targets(boxes, targets.classes, own, masks, targets.has_mask)


def mirrored(images: Tensor, targets: Targets, chosen: Tensor) -> tuple[Tensor, Targets]:
    """The chosen pictures mirrored left to right, with their boxes and masks.

    Args:
        images: `(B, 3, H, W)`.
        targets: of them.
        chosen: `(B,)` bool.
    """
    images = torch.where(chosen[:, None, None, None], images.flip(-1), images)
    own = chosen[targets.image_index]
    x1, y1, x2, y2 = targets.boxes.unbind(1)
    width = images.shape[-1]
    turned = torch.stack([width - x2, y1, width - x1, y2], 1)
    boxes = torch.where(own[:, None], turned, targets.boxes)
    masks = torch.where(own[:, None, None], targets.masks.flip(-1), targets.masks)
    return images, Targets(boxes, targets.classes, targets.image_index, masks, targets.has_mask)


def kept(targets: Targets, least_seen: float, size: tuple[int, int]) -> Targets:
    """Instances that are in the picture, their boxes cut at its borders.

    Args:
        targets: whose boxes may lie outside.
        least_seen: share of its box that must be inside.
        size: height and width of the picture.

    Returns:
        Those whose boxes have a pixel a side at least; what has no pixel of its mask in the
        picture has no mask.
    """
    boxes = clip_boxes(targets.boxes, size)
    sides, whole = boxes[:, 2:] - boxes[:, :2], targets.boxes[:, 2:] - targets.boxes[:, :2]
    seen = (sides.min(1).values >= 1) & (sides.prod(1) >= least_seen * whole.prod(1))
    masks = targets.masks[seen]
    return Targets(
        boxes[seen],
        targets.classes[seen],
        targets.image_index[seen],
        masks,
        targets.has_mask[seen] & masks.flatten(1).any(1),
    )


def _looked_up(masks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Masks at other pixels; False outside.

    Args:
        masks: `(N, H, W)` bool.
        rows: `(h,)` or `(N, h)` int64, which row each of the new ones shows.
        columns: `(w,)` or `(N, w)`.
    """
    n, height, width = masks.shape
    rows, columns = rows.expand(n, -1), columns.expand(n, -1)
    inside = ((rows >= 0) & (rows < height))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, :]
    number = torch.arange(n, device=masks.device)[:, None, None]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    return masks[number, rows[:, :, None], columns[:, None, :]] & inside
