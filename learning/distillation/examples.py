"""Points with targets, made of labelled images or of demonstrations, as kernels like them.

Classes become one-hot vectors minus their mean, 1/C; continuous actions are standardised, and so
are points: each channel of images, each number of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learning.demonstrations import Demonstrations
from learning.image_set import ImageSet


@dataclass(frozen=True)
class Examples:
    """Points with targets.

    Attributes:
        points: `(N, C, H, W)` float32 images in [0, 1], or `(N, D)` states.
        targets: `(N, K)` float32: centred one-hot vectors, or standardised actions.
        classes: `(N,)` int64 class of each point; None for continuous targets.
        names: of the K classes, or of the K numbers that are predicted.
        offset: `(K,)` float32; `targets * scale + offset` are the one-hot vectors or actions.
        scale: `(K,)` float32.
        source: one line: what the points are and their licence.
    """

    points: Tensor
    targets: Tensor
    classes: Tensor | None
    names: tuple[str, ...]
    offset: Tensor
    scale: Tensor
    source: str

    def __post_init__(self) -> None:
        """Refuse what no regression can be made of."""
        n = len(self.points)
        if n == 0 or self.targets.shape != (n, len(self.names)):
            raise ValueError(
                f"targets must be ({n}, {len(self.names)}) for at least one point, got "
                f"{tuple(self.targets.shape)}"
            )
        for name in ("points", "targets"):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinite values")
        if self.classes is not None and len(torch.unique(self.classes)) < 2:
            only = self.names[int(self.classes[0])]
            raise ValueError(f"all labels are of one class, {only!r}: at least two are needed")

    def __len__(self) -> int:
        """Number of points."""
        return len(self.points)

    @property
    def is_images(self) -> bool:
        """Whether points are images."""
        return self.points.ndim == 4

    def at(self, points: Tensor) -> "Examples":
        """The same examples with other points, such as those in the space of a kernel."""
        return replace(self, points=points)

    def take(self, rows: Tensor | Sequence[int]) -> "Examples":
        """Some of the points, in the order of `rows`."""
        rows = torch.as_tensor(rows, dtype=torch.int64)
        classes = None if self.classes is None else self.classes[rows]
        return replace(self, points=self.points[rows], targets=self.targets[rows], classes=classes)


def image_examples(data: ImageSet, task: str | None = None) -> Examples:
    """Examples of a set of labelled images; those without a label are left out.

    Args:
        data: the set.
        task: whose classes are told apart; None: the only one.

    Raises:
        ValueError: if the set holds clips, or several tasks and none is named, or one class only.
    """
    if data.is_clips:
        raise ValueError("clips cannot be distilled: give a set of images")
    if task is None and len(data.tasks) > 1:
        raise ValueError(f"the images have several tasks; name one of {', '.join(data.tasks)}")
    task = next(iter(data.tasks)) if task is None else task
    if task not in data.tasks:
        raise ValueError(f"no task {task!r}; the tasks are {', '.join(data.tasks)}")
    labels = data.labels[:, list(data.tasks).index(task)]
    rows = np.flatnonzero(labels >= 0)
    if not len(rows):
        raise ValueError(f"no image has a label of {task!r}")
    names = data.tasks[task]
    images = torch.from_numpy(np.array(data.images[rows])).permute(0, 3, 1, 2).float().div_(255)
    classes = torch.from_numpy(labels[rows].astype(np.int64))
    share = 1 / len(names)
    one_hot = torch.nn.functional.one_hot(classes, len(names)).float()
    return Examples(
        images.contiguous(),
        one_hot - share,
        classes,
        names,
        torch.full((len(names),), share),
        torch.ones(len(names)),
        data.source,
    )


def demonstration_examples(demos: Demonstrations, like: Examples | None = None) -> Examples:
    """Examples of demonstrations: states and the actions taken there.

    Args:
        demos: with observations `state`.
        like: whose offset and scale are taken for the actions; None: those of `demos`.

    Raises:
        ValueError: if there are no states, or no action ever changes.
    """
    if "state" not in demos.observations:
        raise ValueError("demonstrations must hold states to be distilled; these have pixels only")
    actions = demos.actions.astype(np.float64)
    if like is None:
        offset, spread = actions.mean(0), actions.std(0)
        if not (spread > 0).any():
            raise ValueError("all actions are equal: there is nothing to predict")
        offset = torch.from_numpy(offset).float()
        scale = torch.from_numpy(np.where(spread > 0, spread, 1.0)).float()
    else:
        offset, scale = like.offset, like.scale
    return Examples(
        torch.from_numpy(np.array(demos.observations["state"], np.float32)),
        (torch.from_numpy(actions).float() - offset) / scale,
        None,
        tuple(f"action {k}" for k in range(demos.actions.shape[1])),
        offset,
        scale,
        f"demonstrations of {demos.meta.get('env', 'an unknown environment')}",
    )


def held_out(examples: Examples, share: float, seed: int) -> tuple[Examples, Examples]:
    """Split at random: the rest, and a share that is held out.

    Args:
        examples: to split.
        share: that is held out, in (0, 1).
        seed: of the split.
    """
    n = round(share * len(examples))
    if not 0 < n < len(examples):
        raise ValueError(f"{len(examples)} points are too few to hold out a share of {share}")
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return examples.take(order[n:]), examples.take(order[:n])


class Draw:
    """Draws batches of examples, as many of each class as of any other.

    Files are often sorted by class: their first rows are of one class only, and a distillation
    that met nothing else would know nothing else.
    """

    def __init__(self, examples: Examples) -> None:
        """Sort the rows by class; all are of one kind where targets are continuous."""
        if examples.classes is None:
            self._rows = [torch.arange(len(examples))]
        else:
            rows = [torch.nonzero(examples.classes == k)[:, 0] for k in range(len(examples.names))]
            self._rows = [found for found in rows if len(found)]

    @property
    def n_kinds(self) -> int:
        """Classes that occur."""
        return len(self._rows)

    @property
    def kinds(self) -> list[Tensor]:
        """Rows of each class that occurs."""
        return self._rows

    def rows(self, n: int, generator: torch.Generator) -> Tensor:
        """Rows of so many examples, without repetition while there are enough of a class.

        Where `n` is not a multiple of the classes, those that get one more are drawn.

        Args:
            n: how many.
            generator: draws them.
        """
        counts = torch.full((self.n_kinds,), n // self.n_kinds)
        counts[torch.randperm(self.n_kinds, generator=generator)[: n % self.n_kinds]] += 1
        found = []
        for rows, count in zip(self._rows, counts.tolist(), strict=True):
            whole, rest = divmod(count, len(rows))
            picks = _distinct(len(rows), rest, generator)
            found += [rows] * whole + [rows[picks]]
        return torch.cat(found)


def _distinct(n: int, count: int, generator: torch.Generator) -> Tensor:
    """`count` different numbers below `n`, in a time that does not grow with `n` when few."""
    if 4 * count >= n:
        return torch.randperm(n, generator=generator)[:count]
    found: NDArray[np.int64] = np.empty(0, np.int64)
    while len(found) < count:
        more = torch.randint(n, (2 * count,), generator=generator).numpy()
        joined = np.concatenate((found, more))
        found = joined[np.sort(np.unique(joined, return_index=True)[1])]
    return torch.from_numpy(found[:count].copy())
