"""Walks that begin in a building and go on in imagination."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decisive.scenes import Place, Scene
from envs.indoor.categories import CATEGORIES
from envs.indoor.simulator import Panorama
from world_models.pathdreamer.dreamer import Dreamed, Dreamer
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.places import class_shares
from world_models.pathdreamer.scores import StructureScores


@dataclass(frozen=True)
class Step:
    """A step of a walk.

    Attributes:
        place: where it led.
        hops: steps since something was really seen; 0 where it was seen.
        truth: what is there; None where that is not known.
        dreams: what was predicted, one a sample; none where it was seen.
    """

    place: Place
    hops: int
    truth: Panorama | None
    dreams: tuple[Dreamed, ...] = ()

    @property
    def views(self) -> Sequence[Panorama | Dreamed]:
        """What the walker has: the dreams, or the one real view."""
        if self.dreams:
            return self.dreams
        assert self.truth is not None
        return (self.truth,)

    @property
    def imagined(self) -> float:
        """Share of the pixels that were imagined: not seen from anywhere before."""
        if not self.dreams:
            return 0.0
        return float(np.mean([1.0 - dream.guidance.valid.mean() for dream in self.dreams]))

    @property
    def classes(self) -> dict[str, float]:
        """Share of the solid angle by class, the largest first; a mean over the samples."""
        ids = np.stack([view.semantic for view in self.views])
        shares = class_shares(ids, len(CATEGORIES)).mean(axis=0)
        order = np.argsort(-shares, kind="stable")
        return {CATEGORIES[k]: round(float(shares[k]), 4) for k in order if shares[k] >= 5e-4}


class Walk:
    """Several imaginations of one walk: each sample has a memory and a seed of its own."""

    def __init__(
        self,
        scene: Scene,
        model: Pathdreamer,
        size: tuple[int, int] | None = None,
        samples: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
    ) -> None:
        """Stand nowhere yet, remembering nothing.

        Raises:
            ValueError: for a value out of range, or a size that the model cannot predict.
        """
        if samples < 1:
            raise ValueError(f"samples must be at least 1, got {samples}")
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        self.scene = scene
        self.dreamers = [
            Dreamer(model, size, dream_seed(seed, sample), temperature) for sample in range(samples)
        ]
        self.size = self.dreamers[0].size
        self.steps: list[Step] = []

    def check(self, place: Place) -> None:
        """Make sure that one can go to a place from where one is.

        Raises:
            ValueError: for a way through a wall.
        """
        if self.steps:
            self.scene.check_step(self.steps[-1].place, place)

    def see(self, place: Place) -> Step:
        """Go somewhere and really look.

        Raises:
            ValueError: for a way through a wall, or where nothing real can be seen.
        """
        self.check(place)
        truth = self.scene.observe(place, self.size)
        if truth is None:
            raise ValueError(
                f"{self.scene.name}: no panorama was taken at {place.label}; what is seen must be "
                "a viewpoint"
            )
        for dreamer in self.dreamers:
            dreamer.see(truth)
        self.steps.append(Step(place, 0, truth))
        return self.steps[-1]

    def dream(self, place: Place) -> Step:
        """Go somewhere in imagination.

        Raises:
            ValueError: for a way through a wall.
        """
        self.check(place)
        truth = self.scene.observe(place, self.size)
        hops = 1 + (self.steps[-1].hops if self.steps else 0)
        dreams = tuple(dreamer.dream(place.position) for dreamer in self.dreamers)
        self.steps.append(Step(place, hops, truth, dreams))
        return self.steps[-1]


def dream_seed(seed: int, sample: int) -> int:
    """Seed of the latents of a sample; no two samples of two seeds share one."""
    return int(np.random.SeedSequence((seed, sample)).generate_state(1)[0])


def measures(steps: Iterable[Step]) -> dict[str, dict[str, float]]:
    """How near the dreams come to the truth, and how near copying comes.

    Returns:
        For `hole` pixels (never seen), `seen` and `all` ones the scores of
        `world_models.pathdreamer.scores.StructureScores`, and those of the guidance whose holes
        have the value of the nearest pixel under `..._nearest_fill`; empty without a truth.
    """
    scores: dict[str, StructureScores] = {}
    for step in steps:
        if step.truth is None:
            continue
        truth = _tensors(step.truth.rgb, step.truth.semantic, step.truth.depth)
        for dream in step.dreams:
            guidance = dream.guidance
            valid = torch.from_numpy(guidance.valid)[None]
            dreamed = _tensors(dream.rgb, dream.semantic, dream.depth)
            filled = _tensors(guidance.filled_rgb, guidance.filled_semantic, guidance.filled_depth)
            for where, mask in (
                ("hole", ~valid),
                ("seen", valid),
                ("all", torch.ones_like(valid)),
            ):
                for who, (rgb, ids, depth) in (("", dreamed), ("_nearest_fill", filled)):
                    score = scores.setdefault(where + who, StructureScores(len(CATEGORIES)))
                    score.add(ids, depth, truth[1], truth[2], mask)
                    score.add_colours(rgb, truth[0], mask)
    found = {name: score.results() for name, score in scores.items()}
    return {
        name: {key: round(value, 5) for key, value in score.items()}
        for name, score in found.items()
        if score
    }


def _tensors(
    rgb: NDArray[np.uint8], semantic: NDArray[np.uint8], depth: NDArray[np.float32]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A panorama as `StructureScores` reads it."""
    colours = torch.from_numpy(rgb.astype(np.float32) / 255).movedim(-1, 0)[None]
    ids = torch.from_numpy(semantic.astype(np.int64))[None]
    return colours, ids, torch.from_numpy(np.asarray(depth, np.float32))[None]


def describe(step: Step, index: int) -> dict[str, Any]:
    """A step as JSON values."""
    return {
        "step": index,
        "place": step.place.viewpoint or step.place.label,
        "position": [round(float(value), 4) for value in step.place.position],
        "seen": not step.dreams,
        "hops": step.hops,
        "imagined": round(step.imagined, 4),
        "classes": step.classes,
    }
