"""What a navigator may think of places where it has not been: projected, or predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from agents.vln.places import Array, GraphPlace, Imagined
from agents.vln.views import view_features
from envs.indoor.categories import CATEGORIES
from world_models.pathdreamer.batches import stack_guidance
from world_models.pathdreamer.guidance import (
    Guidance,
    PanoramaLike,
    Points,
    project,
    unproject,
)
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.panoramas import PanoramaSet

GUIDED, DREAMED = 0.5, 0.75
"""Confidence told of projected and of predicted views; the ranker learns what each is worth."""

Guess = Mapping[int, Array]
"""`(K, 12, F)` views by viewpoint."""


@dataclass
class Guesser:
    """Projects and predicts the unseen places of one house, from those visited.

    Each place is predicted from what was really seen, not from other predictions. Its latent is
    always the same, so that an idea of it changes only where more has been seen.

    Attributes:
        look: panorama of a viewpoint; asked only for those that were visited.
        positions: `(N, 3)` metres of the viewpoints.
        size: height and width of the panoramas.
        model: predicts; None projects only.
        samples: ideas of each place.
        seed: of the latents.
        first: number of viewpoint 0 among those of all houses, so that their latents differ.
    """

    look: Callable[[int], PanoramaLike]
    positions: NDArray[np.float64]
    size: tuple[int, int]
    model: Pathdreamer | None = None
    samples: int = 1
    seed: int = 0
    first: int = 0
    _known: dict[frozenset[int], dict[int, Array]] = field(default_factory=dict)

    @classmethod
    def of_house(
        cls,
        data: PanoramaSet,
        span: range,
        model: Pathdreamer | None = None,
        samples: int = 1,
        seed: int = 0,
    ) -> Guesser:
        """For one house of a set, whose panoramas have the numbers `span`."""
        return cls(
            lambda viewpoint: data.seen(span[viewpoint]),
            data.positions[span.start : span.stop],
            data.size,
            model,
            samples,
            seed,
            span.start,
        )

    def __call__(
        self, place: GraphPlace, visited: Sequence[int], unseen: Sequence[int]
    ) -> Imagined:
        """Views for `DreamPlace`; answers are remembered."""
        known = self._known.setdefault(frozenset(visited), {})
        missing = [viewpoint for viewpoint in unseen if viewpoint not in known]
        if missing:
            projected = self.project(visited, missing)
            known.update(self.guesses(missing, projected))
        views = np.stack([known[viewpoint] for viewpoint in unseen], axis=1)
        told = GUIDED if self.model is None else DREAMED
        return Imagined(views, np.full(views.shape[:2], told, np.float32))

    def project(self, visited: Sequence[int], places: Sequence[int]) -> list[Guidance]:
        """What was seen from visited viewpoints, as it looks from others."""
        panoramas = [self.look(viewpoint) for viewpoint in visited]
        points = Points.joined([unproject(panorama) for panorama in panoramas])
        return [project(points, self.positions[place], self.size) for place in places]

    def guesses(self, places: Sequence[int], projected: Sequence[Guidance]) -> Guess:
        """Views of places by what was projected there."""
        n = len(CATEGORIES)
        if self.model is None:
            return {
                place: view_features(found.semantic, found.depth, n, found.valid)[None]
                for place, found in zip(places, projected, strict=True)
            }
        predicted = self._predict(places, projected)
        return {
            place: np.stack(
                [view_features(*idea, n, found.valid) for idea in predicted[k :: len(places)]]
            )
            for k, (place, found) in enumerate(zip(places, projected, strict=True))
        }

    def _predict(
        self, places: Sequence[int], projected: Sequence[Guidance]
    ) -> list[tuple[Array, Array]]:
        """Probabilities and depths: of all places for the first sample, then for the second..."""
        assert self.model is not None
        found: list[tuple[Array, Array]] = []
        noises = (
            torch.cat([self._noise(place, sample) for place in places])
            for sample in range(self.samples)
        )
        with torch.inference_mode():
            for seen in self.model.structure.ideas(stack_guidance(projected), noises):
                found += zip(seen.logits.softmax(1).numpy(), seen.depth.numpy(), strict=True)
        return found

    def _noise(self, place: int, sample: int) -> torch.Tensor:
        assert self.model is not None
        number = (self.seed * 1_000_003 + self.first + place) * 64 + sample
        return self.model.noise(1, self.size, torch.Generator().manual_seed(number))
