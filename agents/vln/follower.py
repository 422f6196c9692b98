"""The cheap way to follow an instruction: look, choose a neighbour or stop, look again.

A follower is a path ranker, at horizon 1 if nothing else is said, to whom nothing is imagined: it
knows the views from where it has been and the directions of the ways that leave. It learns by
imitation, and costs one pass over what it has walked so far.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.vln.checkpoint import load_ranker
from agents.vln.navigator import Errand, Navigator, NavigatorConfig, Walk
from agents.vln.places import Array, Imagined, Place
from agents.vln.ranker import PathRanker
from agents.vln.training import CourseConfig
from agents.vln.vocabulary import Vocabulary

FOLLOWER_COURSE = CourseConfig(horizons=(1,), per_route=4, detour=0.25)
"""Decisions that a follower learns from."""


class InstructionFollower:
    """Chooses the next viewpoint from an instruction and what was seen on the way."""

    def __init__(
        self,
        ranker: PathRanker,
        vocabulary: Vocabulary,
        max_hops: int = 15,
        horizon: int = 1,
    ) -> None:
        """Make a follower of a trained ranker.

        Args:
            ranker: trained with `FOLLOWER_COURSE` on a place that imagines nothing.
            vocabulary: with which it was trained.
            max_hops: a walk ends after so many.
            horizon: hops looked ahead along the graph, of which nothing is seen. On real
                Room-to-Room (val_unseen) a ranker of 420 CPU-seconds succeeded in 29.3 % at
                horizon 1 and in 35.7 % at horizon 3, which costs ten times as much.

        Raises:
            ValueError: if the two do not fit.
        """
        if ranker.config.words != len(vocabulary):
            raise ValueError(
                f"a ranker of {ranker.config.words} words needs a vocabulary of as many, "
                f"got {len(vocabulary)}"
            )
        self.vocabulary = vocabulary
        self._navigator = Navigator(ranker, NavigatorConfig(horizon=horizon, max_hops=max_hops))

    @classmethod
    def load(cls, folder: str | Path, horizon: int = 1) -> "InstructionFollower":
        """Read a checkpoint, of a follower or of any ranker.

        Raises:
            CheckpointError: if it is missing, broken or of another kind.
        """
        saved = load_ranker(folder)
        return cls(saved.ranker, saved.vocabulary, horizon=horizon)

    def choose(
        self, place: Place, instruction: str, history: Sequence[int], heading: float
    ) -> int | None:
        """Next viewpoint, a neighbour of the last; None to stop.

        Args:
            place: the building; only visited viewpoints are looked at.
            instruction: where to go.
            history: viewpoints visited, the present one last.
            heading: at the start, radians clockwise from +y.

        Raises:
            ValueError: for an instruction without words.
        """
        words = self.vocabulary.encode(instruction)
        return self._navigator.choose(Errand(_Sober(place), words, heading, tuple(history)))

    def walk(self, place: Place, instruction: str, start: int, heading: float = 0.0) -> Walk:
        """Walk until it stops. Arguments and errors as for `choose`."""
        words = self.vocabulary.encode(instruction)
        return self._navigator.walk(Errand(_Sober(place), words, heading, (start,)))


class _Sober:
    """A place of which nothing is imagined."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def positions(self) -> NDArray[np.float64]:
        return self._place.positions

    def neighbors(self, viewpoint: int) -> Sequence[int]:
        return self._place.neighbors(viewpoint)

    def look(self, viewpoint: int) -> Array:
        return self._place.look(viewpoint)

    def imagine(self, visited: Sequence[int], unseen: Sequence[int]) -> Imagined | None:
        return None
