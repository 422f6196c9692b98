"""Differences of trainings of `decisive benchmark masks`, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decisive.benchmarks.masks_arms import Arm, Cell, CocoArm
from decisive.benchmarks.vision_report import mean_interval

Results = Mapping[Cell, Mapping[str, Any] | None]
"""Result of every cell of a form; None where it was not run."""
Part = Literal["seen", "unseen"]
PARTS: tuple[Part, ...] = ("seen", "unseen")
_DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval.

    Attributes:
        mean: over seeds.
        low: lower end; None without an interval.
        high: upper end.
        seeds: how many trainings of each arm.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: int

    def text(self, scale: float = 100.0, sign: bool = False) -> str:
        """As in tables; of one seed, whose interval is over scenes alone, with a star."""
        form = "+.1f" if sign else ".1f"
        told = f"{scale * self.mean:{form}}"
        if self.low is None or self.high is None:
            return told
        star = "*" if self.seeds == 1 else ""
        return f"{told} [{scale * self.low:{form}}, {scale * self.high:{form}}]{star}"


def by_seed(results: Results, arm: Arm | CocoArm) -> dict[int, Mapping[str, Any]]:
    """What was run of an arm."""
    return {
        cell.seed: result
        for cell, result in results.items()
        if cell.arm == arm and result is not None
    }


def combined(
    results: Results, weights: Mapping[Arm | CocoArm, float], part: Part
) -> Estimate | None:
    """A weighted sum of the mean IoU in true boxes of several arms, over the seeds all have.

    From two seeds up the interval is Student's of the mean over seeds, paired by seed. Of one seed
    it is a bootstrap over the test scenes, the same draws for all arms: trainings are held fixed.

    Args:
        results: of all cells.
        weights: of the arms; 1 and -1 make a difference.
        part: classes with masks in training, or without.

    Returns:
        None if there is no seed that all have, or no class of this part.
    """
    found = {arm: by_seed(results, arm) for arm in weights}
    seeds = sorted(set.intersection(*(set(own) for own in found.values())))
    if not seeds or any(part not in own[seeds[0]]["given_boxes"] for own in found.values()):
        return None
    values = [
        sum(weight * found[arm][seed]["given_boxes"][part] for arm, weight in weights.items())
        for seed in seeds
    ]
    if len(seeds) > 1:
        mean, low, high = mean_interval(values)
        return Estimate(mean, low, high, len(seeds))
    cells = [(weight, found[arm][seeds[0]]) for arm, weight in weights.items()]
    if len({tuple(cell["instances"]["class"]) for _, cell in cells}) > 1:
        return Estimate(values[0], None, None, 1)  # of other scenes
    low, high = np.quantile(scene_draws(cells, part), (0.025, 0.975)).tolist()
    return Estimate(values[0], low, high, 1)


def scene_draws(
    cells: Sequence[tuple[float, Mapping[str, Any]]], part: Part, n: int = _DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """A weighted sum of mean IoUs over classes, for test scenes drawn with replacement.

    Args:
        cells: weights, and results on the same scenes.
        part: which classes.
        n: draws.
        seed: of them.

    Returns:
        `(n,)`; draws without a scene that has a class leave that class out.
    """
    total = np.zeros(n)
    for weight, cell in cells:
        sums, counts = _by_scene_and_class(cell)
        unseen = np.array([name in cell["unseen"] for name in cell["classes"]])
        chosen = np.flatnonzero((unseen == (part == "unseen")) & (counts.sum(0) > 0))
        rng = np.random.default_rng(seed)  # the same scenes for every cell
        drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), n).astype(float)
        seen = drawn @ counts[:, chosen]
        means = drawn @ sums[:, chosen] / np.where(seen > 0, seen, np.nan)
        total += weight * np.nanmean(means, 1)
    return total


def _by_scene_and_class(
    cell: Mapping[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of IoUs and numbers of instances, `(scenes, classes)` both."""
    told = cell["instances"]
    n_scenes, n_classes = len(told["per_scene"]), len(cell["classes"])
    scene = np.repeat(np.arange(n_scenes), told["per_scene"])
    place = scene * n_classes + np.array(told["class"], np.int64)
    size = n_scenes * n_classes
    weights = (np.array(told["iou_per_mille"]) / 1000, np.ones(len(place)))
    sums, counts = (np.bincount(place, values, size).astype(np.float64) for values in weights)
    return sums.reshape(n_scenes, n_classes), counts.reshape(n_scenes, n_classes)


def mean_of(values: Sequence[float]) -> Estimate | None:
    """A mean over seeds, with an interval from two up."""
    if not values:
        return None
    if len(values) == 1:
        return Estimate(values[0], None, None, 1)
    return Estimate(*mean_interval(values), len(values))
