"""Training of a path ranker on routes that somebody walked and described."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.vln.bitext import BitextConfig, BitextLoss, Translations
from agents.vln.branches import Branches, Decision, branches, decisions
from agents.vln.forest import plant
from agents.vln.places import Place
from agents.vln.ranker import PathRanker, ranking_loss
from learning.fit import Progress, fit
from learning.train_config import TrainConfig


@dataclass(frozen=True)
class Route:
    """A described route.

    Attributes:
        places: the building as different arms see it; a decision trains on one of them, drawn
            afresh each time, so the ranker learns on views it will meet: real, predicted, none.
        distances: `(N, N)` along the graph, metres: how to get back after a detour.
        words: `(L,)` numbers of the instruction's words.
        heading: in which one looks at the start, radians clockwise from +y.
        path: viewpoints.
    """

    places: tuple[Place, ...]
    distances: NDArray[np.float64]
    words: NDArray[np.int64]
    heading: float
    path: tuple[int, ...]


@dataclass(frozen=True)
class CourseConfig:
    """Which decisions along routes are trained on.

    Attributes:
        horizons: hops looked ahead, one drawn for each decision.
        per_route: decisions drawn from a route each time it comes up.
        detour: share of decisions that begin with a wrong hop off the route; right is then the
            shortest way to the goal.
        rivals: wrong paths that are extended beside the right one at each hop ahead, drawn
            afresh; None extends all.
    """

    horizons: tuple[int, ...] = (1, 1, 2, 3)
    per_route: int = 2
    detour: float = 0.25
    rivals: int | None = 3

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if not self.horizons or min(self.horizons) < 1:
            raise ValueError(f"horizons must be at least 1 hop, got {self.horizons}")
        if self.per_route < 1 or not 0 <= self.detour <= 1:
            raise ValueError(f"a course needs decisions and a detour in [0, 1], got {self}")
        if self.rivals is not None and self.rivals < 0:
            raise ValueError(f"rivals must be at least 0, or None for all, got {self.rivals}")


class Course:
    """Draws decisions with their answers."""

    def __init__(self, routes: Sequence[Route], config: CourseConfig, seed: int) -> None:
        """Hold the routes.

        Args:
            routes: to learn from.
            config: what to draw.
            seed: of the draws.

        Raises:
            ValueError: if there are none.
        """
        if not routes:
            raise ValueError("a course needs at least one route")
        self._routes = routes
        self._config = config
        self._rng = np.random.default_rng(seed)
        self._order: list[int] = []

    def draw(self, size: int) -> list[Decision]:
        """So many decisions (rounded up to whole routes), all routes in turn."""
        found: list[Decision] = []
        while len(found) < size:
            if not self._order:
                self._order = self._rng.permutation(len(self._routes)).tolist()
            route = self._routes[self._order.pop()]
            found += [self._decision(route) for _ in range(self._config.per_route)]
        return found

    def _decision(self, route: Route) -> Decision:
        rng = self._rng
        place = route.places[rng.integers(len(route.places))]
        at = int(rng.integers(len(route.path)))
        history, rest = list(route.path[: at + 1]), list(route.path[at:])
        if rng.random() < self._config.detour:
            wrong = [v for v in place.neighbors(history[-1]) if [v] != rest[1:2]]
            if wrong:
                history.append(wrong[rng.integers(len(wrong))])
                rest = way_back(place, route.distances, history[-1], route.path[-1])
        onward = self._onward(place, rest, int(rng.choice(self._config.horizons)))
        target = onward.leaf_of(rest)
        seen = decisions(place, route.words, history, route.heading, onward, target)
        return seen[rng.integers(len(seen))]

    def _onward(self, place: Place, rest: Sequence[int], horizon: int) -> Branches:
        """Branches that hold the right path and some rivals."""
        start, rivals = rest[0], self._config.rivals
        if rivals is None or horizon == 1:
            return branches(place, start, horizon)
        frontier: list[tuple[int, ...]] = [(start,)]
        keep = set(frontier)
        for hops in range(1, horizon):
            frontier = [(*p, v) for p in frontier for v in place.neighbors(p[-1]) if v not in p]
            right = tuple(rest[: hops + 1])
            wrong = [path for path in frontier if path != right]
            chosen = self._rng.permutation(len(wrong))[:rivals]
            frontier = [wrong[k] for k in chosen] + [right] * (right in frontier)
            keep.update(frontier)
        return branches(place, start, horizon, frozenset(keep))


def way_back(place: Place, distances: NDArray[np.float64], start: int, goal: int) -> list[int]:
    """A shortest way along the graph, both ends included.

    Raises:
        ValueError: where there is none.
    """
    if not np.isfinite(distances[start, goal]):
        raise ValueError(f"there is no way from {start} to {goal}")
    way = [start]
    while way[-1] != goal:
        here = way[-1]
        # The last hop's distance is that of the edge; ties and rounding cannot make it turn round.
        way.append(
            min(
                (v for v in place.neighbors(here) if v not in way),
                key=lambda v: distances[here, v] + distances[v, goal],
            )
        )
    return way


def train_ranker(
    ranker: PathRanker,
    routes: Sequence[Route],
    course: CourseConfig,
    config: TrainConfig,
    progress: Progress | None = None,
    translations: Translations | None = None,
    bitext: BitextConfig | None = None,
) -> dict[str, float]:
    """Train a ranker in place; it ends with the averaged weights, in evaluation mode.

    Args:
        ranker: to train.
        routes: to learn from.
        course: which decisions along them.
        config: budget, batch (decisions a step), learning rate, seed, average.
        progress: called every `config.log_every` steps.
        translations: into a language that no route is described in; see `agents.vln.bitext`.
        bitext: how they are learned; None for the usual way.

    Returns:
        `steps`, `cpu_seconds` and `loss` (mean over the last tenth of the steps).
    """
    torch.manual_seed(config.seed)
    drawn = Course(routes, course, config.seed)
    rng = np.random.default_rng((config.seed, 1))
    translate = BitextLoss(bitext or BitextConfig())

    def draw_loss() -> Tensor:
        loss = ranking_loss(ranker, plant(drawn.draw(config.batch_size)))
        if translations is not None:
            pairs = translations.draw(translate.config.batch_size, rng)
            loss = loss + translate(ranker, pairs)
        return loss

    learned = ranker if translations is None else nn.ModuleList([ranker, translate])
    return fit(learned, draw_loss, config, progress)
