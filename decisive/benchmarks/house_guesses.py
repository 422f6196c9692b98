"""What a navigator in a house may think of places where it has not been, arm by arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from agents.vln.places import Array, GraphPlace, Imagined
from agents.vln.views import view_features
from envs.indoor.categories import CATEGORIES
from world_models.pathdreamer.batches import stack_guidance
from world_models.pathdreamer.guidance import Guidance, Points, project, unproject
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
        data: panoramas of many houses.
        span: those of this one.
        model: predicts; None projects only.
        samples: ideas of each place.
        seed: of the latents.
    """

    data: PanoramaSet
    span: range
    model: Pathdreamer | None = None
    samples: int = 1
    seed: int = 0
    _known: dict[frozenset[int], dict[int, Array]] = field(default_factory=dict)

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
        panoramas = [self.data.seen(self.span[viewpoint]) for viewpoint in visited]
        points = Points.joined([unproject(panorama) for panorama in panoramas])
        return [
            project(points, self.data.positions[self.span[place]], self.data.size)
            for place in places
        ]

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
        number = (self.seed * 1_000_003 + self.span[place]) * 64 + sample
        return self.model.noise(1, self.data.size, torch.Generator().manual_seed(number))


class RecordedPlace(GraphPlace):
    """Knows guesses that were made ahead for some histories; imagines nothing at others."""

    def __init__(
        self, positions: NDArray[np.float64], neighbors: Sequence[Sequence[int]], views: Array
    ) -> None:
        """Start without guesses; see `GraphPlace` for the arguments."""
        super().__init__(positions, neighbors, views)
        self._guesses: dict[frozenset[int], tuple[list[int], Imagined]] = {}

    def record(self, visited: Iterable[int], unseen: Sequence[int], guess: Imagined) -> None:
        """Remember what was guessed of unseen viewpoints at a history."""
        self._guesses[frozenset(visited)] = list(unseen), guess

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        """What was guessed at this history; places without a guess are hidden."""
        if frozenset(visited) not in self._guesses:
            return None
        known, guess = self._guesses[frozenset(visited)]
        samples, _, headings, features = guess.views.shape
        views = np.zeros((samples, len(unseen), headings, features), np.float32)
        confidence = np.zeros((samples, len(unseen)), np.float32)
        for k, viewpoint in enumerate(unseen):
            if viewpoint in known:
                at = known.index(viewpoint)
                views[:, k], confidence[:, k] = guess.views[:, at], guess.confidence[:, at]
        return Imagined(views, confidence)


def within(neighbors: Sequence[Sequence[int]], start: int, hops: int) -> list[int]:
    """Viewpoints that can be reached in so many hops, near ones first; the start is left out."""
    found, frontier = {start: None}, [start]
    for _ in range(hops):
        frontier = [b for a in frontier for b in neighbors[a] if b not in found]
        found.update(dict.fromkeys(frontier))
    return list(found)[1:]
