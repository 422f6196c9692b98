"""Learning small defects from few pictures: windows around them first, then whole pictures.

A defect of eight pixels in a picture of 128 is one part in two hundred of what a mean over cells
sees, and a network that begins at random does not find it: after 1,000 steps on whole pictures, in
pairs, its area was still 0.5. In a window of 32 pixels it is a tenth. So training goes from small
windows to large ones and ends with whole pictures, as the images of progressive learning grow (Tan
and Le 2021, section 4.2). Each window is cut out of both pictures of a pair, which differ by the
defect alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learning.image_set import ImageSet

if TYPE_CHECKING:
    from torch import nn

    from perception.training import ClassifierResult


@dataclass(frozen=True)
class Stage:
    """One part of the training.

    Attributes:
        share: side of the windows as a share of the picture's; 1 is the whole picture.
        steps: of 32 windows.
        lr: peak learning rate.
        draws: windows of each pair; of no effect for whole pictures.
    """

    share: float
    steps: int
    lr: float
    draws: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be cut or trained."""
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be in (0, 1], got {self.share}")
        if self.steps < 1 or self.draws < 1 or not self.lr > 0:
            raise ValueError("steps, draws and lr must be positive")


STAGES = (
    Stage(0.25, 5000, 4e-3, 5),
    Stage(0.5, 1500, 2e-3, 3),
    Stage(1.0, 700, 1e-3),
)


def windows(
    data: ImageSet, defects: NDArray[np.bool_], side: int, draws: int, seed: int
) -> ImageSet:
    """Windows of pairs of pictures, each with a pixel of the defect in its inner two thirds.

    Args:
        data: pictures 2 j and 2 j + 1 are a pair, the second one defective.
        defects: `(N, H, W)`, of the same pictures.
        side: pixels of a window.
        draws: windows of each pair.
        seed: of the places.

    Raises:
        ValueError: if the pictures are not in pairs, or windows are larger than they.
    """
    n, height, width, _ = data.images.shape
    if n % 2 or defects[::2].any() or not defects[1::2].any((1, 2)).all():
        raise ValueError("pictures must be in pairs, first without and then with a defect")
    if not 1 <= side <= min(height, width):
        raise ValueError(f"a window must be 1 to {min(height, width)} pixels, got {side}")
    rng = np.random.default_rng(seed)
    margin = side // 6
    found = np.empty((draws * n, side, side, data.images.shape[-1]), np.uint8)
    for j in range(n // 2):
        rows, columns = np.nonzero(defects[2 * j + 1])
        for draw in range(draws):
            place = rng.integers(len(rows))
            top, left = (
                int(np.clip(at - rng.integers(margin, side - margin), 0, size - side))
                for at, size in ((rows[place], height), (columns[place], width))
            )
            first = draw * n + 2 * j
            pair = data.images[2 * j : 2 * j + 2]
            found[first : first + 2] = pair[:, top : top + side, left : left + side]
    return replace(data, images=found, labels=np.tile(data.labels, (draws, 1)))


def shrunk(
    data: ImageSet, defects: NDArray[np.bool_], side: int
) -> tuple[ImageSet, NDArray[np.bool_]]:
    """Pictures and masks at another size; a pixel of which any part is a defect is one."""
    if side == data.images.shape[1]:
        return data, defects
    small = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))
        for image in data.images
    ]
    masks = [
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize((side, side), Image.Resampling.BOX)
        )
        > 0
        for mask in defects
    ]
    return replace(data, images=np.stack(small)), np.stack(masks)


def learn_in_windows(
    model: nn.Module,
    train: ImageSet,
    held_out: ImageSet,
    defects: NDArray[np.bool_],
    seed: int,
    folder: Path,
    stages: Sequence[Stage] = STAGES,
) -> ClassifierResult:
    """Train a model stage by stage; it can be stopped and goes on.

    Args:
        model: trained in place.
        train: pictures in pairs.
        held_out: whole pictures of the same size, for the scores in the log.
        defects: of the pictures of `train`.
        seed: of order, augmentation and windows.
        folder: of the training, a subfolder for each stage.
        stages: in order; the last one should be of whole pictures.

    Returns:
        of the last stage, with the CPU-seconds and the steps of all.
    """
    from perception.train_config import ClassifierTrainConfig
    from perception.training import train_classifier

    if not stages:
        raise ValueError("a training needs a stage")
    side = train.images.shape[1]
    results = []
    for number, stage in enumerate(stages):
        cut = round(stage.share * side)
        part = train if cut == side else windows(train, defects, cut, stage.draws, seed)
        config = ClassifierTrainConfig(
            steps=stage.steps,
            batch_size=min(32, len(part)),
            lr=stage.lr,
            warmup_steps=min(50, stage.steps // 5),
            ema_decay=0.98,
            label_smoothing=0.0,
            crop=0.0,
            precision="float32",
            seed=seed,
            tensorboard=False,
        )
        place = folder / f"stage-{number}"
        results.append(train_classifier(model, part, held_out, config, place, progress=None))
    return replace(
        results[-1],
        cpu_seconds=sum(result.cpu_seconds for result in results),
        step=sum(result.step for result in results),
    )
