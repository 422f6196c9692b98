"""Walks a graph by an instruction: rank the paths ahead, go one hop along the best, look, repeat.

The hop taken is the one in which most probability meets, summed over the paths that begin with it:
many likely paths through one door outweigh a single one through another.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from agents.vln.branches import Branches, branches, decisions
from agents.vln.forest import plant
from agents.vln.places import Place
from agents.vln.ranker import PathRanker


@dataclass(frozen=True)
class NavigatorConfig:
    """How to walk.

    Attributes:
        horizon: hops looked ahead.
        beam: paths extended at each further hop; None extends all.
        max_hops: the walk ends after so many.
    """

    horizon: int = 3
    beam: int | None = None
    max_hops: int = 15

    def __post_init__(self) -> None:
        """Refuse what cannot walk."""
        if self.horizon < 1 or self.max_hops < 1:
            raise ValueError(f"horizon and max_hops must be at least 1, got {self}")
        if self.beam is not None and self.beam < 1:
            raise ValueError(f"beam must be at least 1 path, or None for all, got {self.beam}")


@dataclass(frozen=True)
class Ranked:
    """Paths ahead with their probabilities.

    Attributes:
        branches: the paths.
        probabilities: `(m,)` of the leaves, their sum is 1: the mean over the samples of what the
            place imagines.
    """

    branches: Branches
    probabilities: NDArray[np.float64]

    def best(self) -> tuple[list[int], bool]:
        """Most probable path, from the present viewpoint, and whether it leads on beyond."""
        leaf = int(self.probabilities.argmax())
        node = int(self.branches.leaf_nodes[leaf])
        return self.branches.path(node), bool(self.branches.leads_on[leaf])

    def first_hops(self) -> dict[int, float]:
        """Probability of going to each neighbour first; the present viewpoint means stopping."""
        shares: dict[int, float] = {}
        for leaf, probability in enumerate(self.probabilities.tolist()):
            path = self.branches.path(int(self.branches.leaf_nodes[leaf]))
            hop = path[min(1, len(path) - 1)]
            shares[hop] = shares.get(hop, 0.0) + probability
        return shares

    def choice(self) -> int | None:
        """The first hop in which most probability meets; None where that is to stop."""
        shares = self.first_hops()
        hop = max(shares, key=lambda viewpoint: shares[viewpoint])
        return None if hop == self.branches.path(0)[-1] else hop

    def path_by(self, hop: int) -> list[int]:
        """The most probable path that begins with a hop, the present viewpoint first."""
        paths = [self.branches.path(int(node)) for node in self.branches.leaf_nodes]
        on = [leaf for leaf, path in enumerate(paths) if path[1:2] == [hop]]
        return paths[max(on, key=lambda leaf: float(self.probabilities[leaf]))]


@dataclass(frozen=True)
class Walk:
    """Where a navigator went.

    Attributes:
        path: viewpoints, the start first.
        stopped: whether it chose to stop, rather than ran out of hops.
        seconds: of each decision; the mean over those that were ranked together.
    """

    path: list[int]
    stopped: bool
    seconds: list[float]


@dataclass(frozen=True)
class Errand:
    """What a navigator is asked to do.

    Attributes:
        place: the building as this navigator knows it.
        words: `(L,)` numbers of the instruction's words.
        heading: in which one looks at the start, radians clockwise from +y.
        history: viewpoints visited, the present one last; at first only the start.
    """

    place: Place
    words: NDArray[np.int64]
    heading: float
    history: tuple[int, ...]


class Navigator:
    """A path ranker that walks."""

    def __init__(self, ranker: PathRanker, config: NavigatorConfig | None = None) -> None:
        """Put a ranker into evaluation mode and walk by it.

        Args:
            ranker: ranks.
            config: how to walk.
        """
        self.ranker = ranker.eval()
        self.config = config or NavigatorConfig()

    def rank(self, errands: Sequence[Errand]) -> list[Ranked]:
        """Rank the paths ahead, for each errand.

        With a beam, paths are extended hop by hop, and of each hop the most probable ones only.
        """
        horizon, beam = self.config.horizon, self.config.beam
        if beam is None:
            return self._rank(errands, [branches(e.place, e.history[-1], horizon) for e in errands])
        keep: list[frozenset[tuple[int, ...]]] = [frozenset({(e.history[-1],)}) for e in errands]
        ranked: list[Ranked] = []
        for hops in range(1, horizon + 1):
            onward = [
                branches(errand.place, errand.history[-1], hops, kept)
                for errand, kept in zip(errands, keep, strict=True)
            ]
            ranked = self._rank(errands, onward)
            keep = [
                kept | _best_prefixes(found, beam) for kept, found in zip(keep, ranked, strict=True)
            ]
        return ranked

    def choose(self, errand: Errand) -> int | None:
        """Neighbour to go to; None to stop."""
        return self.rank([errand])[0].choice()

    def walk(self, errand: Errand) -> Walk:
        """Follow an instruction to its end."""
        return self.walk_all([errand])[0]

    def walk_all(self, errands: Sequence[Errand], batch: int = 32) -> list[Walk]:
        """Follow many instructions, side by side: the same walks as one by one, but cheaper.

        Args:
            errands: what to do.
            batch: errands that are ranked together.
        """
        walks = [Walk(list(errand.history), False, []) for errand in errands]
        active = list(range(len(errands)))
        for _ in range(self.config.max_hops):
            on: list[int] = []
            for first in range(0, len(active), batch):
                on += self._step(errands, walks, active[first : first + batch])
            active = on
        return walks

    def _step(self, errands: Sequence[Errand], walks: list[Walk], chosen: list[int]) -> list[int]:
        """One hop for the chosen errands; those that go on."""
        before = time.perf_counter()
        now = [replace(errands[k], history=tuple(walks[k].path)) for k in chosen]
        ranked = self.rank(now)
        seconds = (time.perf_counter() - before) / len(chosen)
        on = []
        for k, found in zip(chosen, ranked, strict=True):
            walks[k].seconds.append(seconds)
            hop = found.choice()
            if hop is None:
                walks[k] = replace(walks[k], stopped=True)
            else:
                walks[k].path.append(hop)
                on.append(k)
        return on

    def _rank(self, errands: Sequence[Errand], onward: Sequence[Branches]) -> list[Ranked]:
        samples = [
            decisions(errand.place, errand.words, errand.history, errand.heading, ahead)
            for errand, ahead in zip(errands, onward, strict=True)
        ]
        with torch.inference_mode():
            forest = plant([decision for group in samples for decision in group])
            logs = self.ranker.log_probabilities(forest).double().numpy()
        ranked, start = [], 0
        for group, ahead in zip(samples, onward, strict=True):
            size = len(ahead.leaf_nodes) * len(group)
            probabilities = np.exp(logs[start : start + size]).reshape(len(group), -1).mean(0)
            ranked.append(Ranked(ahead, probabilities))
            start += size
        return ranked


def _best_prefixes(ranked: Ranked, beam: int) -> frozenset[tuple[int, ...]]:
    """The most probable paths that lead on, of the outermost hop."""
    on = np.flatnonzero(ranked.branches.leads_on)
    best = on[np.argsort(-ranked.probabilities[on], kind="stable")[:beam]]
    nodes = ranked.branches.leaf_nodes[best].tolist()
    return frozenset(tuple(ranked.branches.path(node)) for node in nodes)
