"""Guesses of the places of a house that were made ahead, for the trainings of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.vln.places import Array, GraphPlace, Imagined


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
