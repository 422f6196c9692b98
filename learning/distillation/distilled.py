"""A distilled set: few points with labels, all that it takes to predict with them, and its file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learning.checkpoint import (
    CheckpointError,
    find_checkpoint,
    find_shipped,
    list_checkpoints,
    read_checkpoint,
    save_checkpoint,
)
from learning.distillation.examples import Examples
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.preprocessing import Preprocessing
from learning.distillation.ridge import REGULARISER, KernelRidge, fit_ridge
from learning.distillation.tile_work import TileWork
from learning.distillation.tiles import MAX_BYTES

METHOD = "distilled"
SETS = Path(__file__).parent / "sets"
"""Where shipped sets lie, one folder each."""


@dataclass(frozen=True)
class Scores:
    """How well held-out targets are predicted.

    Attributes:
        n: points.
        right: points whose class is told right; None for continuous targets.
        rmse: root of the mean squared error of the actions, each in its own units; None for
            classes.
        explained: share of the variance that is explained (R squared), over all of them; None for
            classes.
    """

    n: int
    right: int | None = None
    rmse: tuple[float, ...] | None = None
    explained: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of points whose class is told right."""
        return None if self.right is None else self.right / self.n

    @property
    def value(self) -> float:
        """The one number that is to be large: accuracy, else the explained share."""
        value = self.accuracy if self.explained is None else self.explained
        assert value is not None
        return value


@dataclass(frozen=True)
class Distilled:
    """Few points that stand for many.

    Attributes:
        points: `(n, ...)` in the space of the kernel.
        labels: `(n, K)` standardised, as of `Examples.targets`.
        kernel: the network.
        preprocessing: from images in [0, 1] or states to the space of the kernel.
        names: of classes or actions.
        is_classes: whether `names` are classes.
        offset: `(K,)`; predictions are `labels * scale + offset`.
        scale: `(K,)`.
        regulariser: of the kernel ridge regression.
    """

    points: Tensor
    labels: Tensor
    kernel: KernelConfig
    preprocessing: Preprocessing
    names: tuple[str, ...]
    is_classes: bool
    offset: Tensor
    scale: Tensor
    regulariser: float = REGULARISER

    def __len__(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def n_bytes(self) -> int:
        """Memory that points and labels take."""
        return sum(part.numel() * part.element_size() for part in (self.points, self.labels))

    def ridge(
        self,
        dtype: torch.dtype = torch.float64,
        max_bytes: int = MAX_BYTES,
        work: TileWork | None = None,
    ) -> KernelRidge:
        """The regression that the points make.

        Args:
            dtype: of its computation.
            max_bytes: bound on the memory of kernels.
            work: who computes tiles of kernels; None: this process.

        Raises:
            ValueError: if the kernel matrix is singular.
        """
        points, labels = self.points.to(dtype), self.labels.to(dtype)
        return fit_ridge(self.kernel, points, labels, self.regulariser, max_bytes, work)

    def class_of(self) -> Tensor:
        """`(n,)` the class that each point speaks for most."""
        return self.labels.argmax(1)


def score(ridge: KernelRidge, held_out: Examples, prepared: Tensor) -> Scores:
    """Score a regression by held-out examples.

    Args:
        ridge: the regression.
        held_out: what it should tell.
        prepared: their points in the space of the kernel.
    """
    found = ridge.mean(prepared).cpu()
    if held_out.classes is not None:
        return Scores(len(held_out), right=int((found.argmax(1) == held_out.classes).sum()))
    scale = held_out.scale.double()
    truth = held_out.targets.double() * scale
    error = (found.double() * scale - truth).square()
    total = (held_out.targets.double() - held_out.targets.double().mean(0)).square().sum()
    explained = 1 - (error / scale.square()).sum() / total
    return Scores(
        len(held_out), rmse=tuple(error.mean(0).sqrt().tolist()), explained=float(explained)
    )


def save_distilled(
    folder: str | Path,
    distilled: Distilled,
    training: Mapping[str, Any],
    card: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a distilled set as a checkpoint folder, replacing an older one in one step.

    Args:
        folder: the final place.
        distilled: the set.
        training: JSON facts of how it was made.
        card: its model card, Markdown.
        dtype: that points and labels are stored in.

    Raises:
        OSError: if the folder cannot be written.
    """
    one = distilled
    tensors = {
        "points": one.points.to(dtype),
        "labels": one.labels.to(dtype),
        "mean": one.preprocessing.mean.float(),
        "std": one.preprocessing.std.float(),
        "offset": one.offset.float(),
        "scale": one.scale.float(),
    }
    if one.preprocessing.whitening is not None:
        tensors["whitening"] = one.preprocessing.whitening.float()
    config = {
        "method": METHOD,
        "config": {
            "kernel": asdict(one.kernel),
            "regulariser": one.regulariser,
            "pixels": one.preprocessing.pixels,
        },
        "spec": {"names": list(one.names), "is_classes": one.is_classes},
        "training": dict(training),
    }
    save_checkpoint(folder, config, tensors, card)


def shipped_sets() -> dict[str, Path]:
    """Folders of the shipped sets, by name."""
    return list_checkpoints(SETS)


def load_distilled(path_or_name: str | Path) -> tuple[Distilled, dict[str, Any]]:
    """Read what `save_distilled` wrote.

    Args:
        path_or_name: the set, a run that holds it as `last`, or the name of a shipped one.

    Returns:
        The set, and the facts of how it was made.

    Raises:
        CheckpointError: one line saying what is missing or broken.
    """
    folder = find_shipped(path_or_name, shipped_sets(), "distilled set")
    where = str(find_checkpoint(folder))
    document, tensors = read_checkpoint(folder)
    if document["method"] != METHOD:
        raise CheckpointError(f"{where} holds {document['method']!r:.60}, not a distilled set")
    try:
        settings, spec = document["config"], document["spec"]
        kernel = dict(settings["kernel"])
        kernel["convs"] = tuple(kernel["convs"])
        found = Distilled(
            points=tensors["points"],
            labels=tensors["labels"],
            kernel=KernelConfig(**kernel),
            preprocessing=Preprocessing(
                tensors["mean"],
                tensors["std"],
                tensors.get("whitening"),
                settings.get("pixels"),  # sets of before had all of their pixels
            ),
            names=tuple(spec["names"]),
            is_classes=bool(spec["is_classes"]),
            offset=tensors["offset"],
            scale=tensors["scale"],
            regulariser=float(settings["regulariser"]),
        )
        found.kernel.check_shape(tuple(found.points.shape[1:]))
    except (KeyError, TypeError, ValueError) as error:
        detail = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: not a distilled set ({detail})") from None
    if found.labels.shape != (len(found), len(found.names)):
        raise CheckpointError(
            f"{where}: labels must be ({len(found)}, {len(found.names)}), got "
            f"{tuple(found.labels.shape)}"
        )
    return found, document["training"]
