"""How many natural points a distilled set is worth."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from learning.distillation.distilled import score
from learning.distillation.examples import Examples
from learning.distillation.kernel_config import KernelConfig
from learning.distillation.kip import generator_of
from learning.distillation.ridge import REGULARISER, fit_ridge
from learning.distillation.subsets import choose
from learning.distillation.tiles import MAX_BYTES


@dataclass(frozen=True)
class NaturalScore:
    """What random subsets of one size reach.

    Attributes:
        points: of a subset.
        values: score of each subset: accuracy, or explained share of the variance.
    """

    points: int
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of the values."""
        return sum(self.values) / len(self.values)


def natural_curve(
    kernel: KernelConfig,
    train: Examples,
    held_out: Examples,
    sizes: Sequence[int],
    seeds: Sequence[int] = (0, 1, 2),
    regulariser: float = REGULARISER,
    max_bytes: int = MAX_BYTES,
    done: Callable[[], None] = lambda: None,
) -> list[NaturalScore]:
    """Score random subsets of growing size by the same regression.

    Args:
        kernel: the network.
        train: to choose from, in the space of the kernel.
        held_out: to score by, likewise.
        sizes: of the subsets, multiples of the classes.
        seeds: one subset of each size for each.
        regulariser: of the regression.
        max_bytes: bound on the memory of kernels.
        done: called after each subset.
    """
    curve = []
    for size in sizes:
        values = []
        for seed in seeds:
            own = int(torch.randint(2**31, (), generator=generator_of(seed, size)))
            part = train.take(choose(train, "random", size, own))
            ridge = fit_ridge(
                kernel, part.points.double(), part.targets.double(), regulariser, max_bytes
            )
            values.append(score(ridge, held_out, held_out.points).value)
            done()
        curve.append(NaturalScore(size, tuple(values)))
    return curve


def growing_sizes(first: int, n_kinds: int, most: int) -> list[int]:
    """Sizes from `first` on, each about the double of the last, all multiples of the classes."""
    sizes = [first]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most // n_kinds * n_kinds))
        if sizes[-1] <= sizes[-2]:
            return sizes[:-1]
    return sizes


def natural_equivalent(value: float, curve: Sequence[NaturalScore]) -> float | None:
    """So many natural points score as high, by interpolation between logarithms of sizes.

    Args:
        value: to be reached.
        curve: by growing size.

    Returns:
        The first size that reaches it; None if none of the curve does. The first size of the curve
        where that is enough already.
    """
    if curve[0].mean >= value:
        return float(curve[0].points)
    for before, after in pairwise(curve):
        if after.mean >= value:
            share = (value - before.mean) / (after.mean - before.mean)
            ratio = math.log(after.points / before.points)
            return before.points * math.exp(share * ratio)
    return None
