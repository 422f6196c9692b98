"""What `decisive distill` distils: public sets, folders of images, demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from learning import image_set
from learning.demonstrations import load_demonstrations
from learning.distillation.examples import (
    Examples,
    demonstration_examples,
    held_out,
    image_examples,
)
from learning.distillation.preprocessing import Preprocessing, fit_preprocessing

PUBLIC = ("cifar10", "mnist")
HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Prepared:
    """Examples to distil and to be scored by, and their points in the space of the kernel.

    Attributes:
        train: to distil.
        held_out: to be scored by.
        preprocessing: fitted to `train`.
        train_points: of `train`, prepared.
        held_out_points: of `held_out`, prepared.
        mirrors: whether a mirrored image is of the same class.
    """

    train: Examples
    held_out: Examples
    preprocessing: Preprocessing
    train_points: Tensor
    held_out_points: Tensor
    mirrors: bool


def prepare(
    name: str,
    scored_by: str | None,
    task: str | None,
    zca: bool,
    seed: int,
    pixels: int | None = None,
) -> Prepared:
    """Read what is named, and fit the preprocessing.

    Args:
        name: a public set, a folder of images, or demonstrations.
        scored_by: held-out data of the same kind; None: the test images of a public set, or a
            tenth of the data (of demonstrations: whole episodes).
        task: of an image set with several.
        zca: whether images are whitened.
        seed: of the split.
        pixels: side that images are averaged down to; None: they stay as they are.

    Raises:
        ValueError: one line, if there are no such data or nothing can be learned from them.
        OSError: if a file cannot be read.
    """
    if name in PUBLIC or (Path(name) / image_set.DOCUMENT).is_file():
        train, held = _images(name, scored_by, task, seed)
    else:
        train, held = _demonstrations(name, scored_by, task, seed)
    if train.points.shape[1:] != held.points.shape[1:] or train.names != held.names:
        raise ValueError(
            f"held-out data must be like the others, {tuple(train.points.shape[1:])} with "
            f"{len(train.names)} names, got {tuple(held.points.shape[1:])} with {len(held.names)}"
        )
    if pixels is not None and not train.is_images:
        raise ValueError("--pixels is of images: demonstrations are states")
    fitted = fit_preprocessing(train.points, zca, pixels=pixels)
    return Prepared(
        train, held, fitted, fitted(train.points), fitted(held.points), mirrors=name != "mnist"
    )


def _images(
    name: str, scored_by: str | None, task: str | None, seed: int
) -> tuple[Examples, Examples]:
    train = image_examples(_open(name, "train"), task)
    if scored_by is None and name not in PUBLIC:
        return held_out(train, HELD_OUT_SHARE, seed)
    return train, image_examples(_open(scored_by or name, "test"), task)


def _open(name: str, split: str) -> image_set.ImageSet:
    if name in PUBLIC:
        found: image_set.ImageSet = getattr(image_set, name)(split=split)
        return found
    return image_set.open_image_set(name)


def _demonstrations(
    name: str, scored_by: str | None, task: str | None, seed: int
) -> tuple[Examples, Examples]:
    if task is not None:
        raise ValueError("--task is of image sets; demonstrations have actions")
    demos = load_demonstrations(name)
    if scored_by is not None:
        held = load_demonstrations(scored_by)
    else:
        demos, rest = demos.split(HELD_OUT_SHARE, seed)
        if rest is None:
            raise ValueError(f"{name} holds one episode: name others to be scored by, --held-out")
        held = rest
    train = demonstration_examples(demos)
    return train, demonstration_examples(held, like=train)


def prepare_validation(data: Prepared, n: int) -> Prepared:
    """The same training data, the last of them held out to choose settings by.

    Files may be sorted by class, so that which are the last is drawn, the same for everybody.

    Args:
        data: as `prepare` returns them; what it is scored by is not looked at.
        n: how many to hold out.

    Raises:
        ValueError: if there are not so many.
    """
    rest, held = held_out(data.train, n / len(data.train), seed=0)
    before = data.preprocessing
    fitted = fit_preprocessing(rest.points, before.whitening is not None, pixels=before.pixels)
    return Prepared(
        rest, held, fitted, fitted(rest.points), fitted(held.points), mirrors=data.mirrors
    )
