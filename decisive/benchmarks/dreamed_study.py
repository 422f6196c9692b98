"""What dreamed houses are worth to learn in: a follower taught on real and dreamed panoramas.

Of some houses everything was seen. Of others only the graph, the routes with their instructions,
and one panorama are known, that of each route's start: what else a follower would see along it is
dreamed. The arms learn from the first alone, from both, and from both with all panoramas true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decisive.benchmarks.house_data import FEATURES, HouseSet
from decisive.benchmarks.house_study import HousePlan, HouseStudy
from decisive.benchmarks.navigation_study import learn_ranker, walk_lessons
from decisive.progress import progress
from envs.indoor.house import GENERATOR

if TYPE_CHECKING:
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import GraphPlace
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary
    from envs.indoor.r2r_data import Instruction
    from world_models.pathdreamer.model import Pathdreamer

ARMS = ("real", "real-and-dreamed", "all-real")
"""What the follower has learned in; the last had all panoramas."""


@dataclass(frozen=True)
class DreamedPlan(HousePlan):
    """What decides the result of a seed; see `HousePlan` for what is not told here.

    The follower walks with what it sees and the graph, without imagining: the arms differ in what
    it has learned from. The world model has seen none of the houses that are dreamed.

    Attributes:
        learned: houses of `train` whose panoramas are all real.
        more: houses of `val` that are dreamed.
        more_paths: described in each of them.
    """

    learned: int = 40
    ranker_seconds: float = 200.0
    more: int = 100
    more_paths: int = 3


class DreamedStudy:
    """A world model and three followers of one seed."""

    def __init__(self, plan: DreamedPlan, seed: int, work: Path, workers: int = 1) -> None:
        """Nothing is rendered or trained yet; see `HouseStudy`, whose world model this one takes.

        Raises:
            ValueError: for walks in the houses that are dreamed.
        """
        if plan.split == "val":
            raise ValueError("houses of val are dreamed to learn in; walk in those of test")
        self.plan, self.seed = plan, seed
        self._study = HouseStudy(plan, seed, work, workers)
        self.folder = work / f"dreamed-p{round(100 * plan.predictability):03d}-seed{seed}"
        more, height = plan.more, plan.height
        self.more = HouseSet(
            "val", plan.predictability, more, more, plan.more_paths, height, work, workers
        )

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split with the follower of an arm."""
        walks = self._study.walks
        places: dict[str, GraphPlace] = {}

        def place_of(scan: str) -> GraphPlace:
            if scan not in places:
                places[scan] = self._study.plain_place(walks, scan)
            return places[scan]

        return walk_lessons(
            self.follower(arm), walks.lessons, walks.graph, place_of, self.plan.horizon
        )

    def follower(self, arm: str) -> SavedRanker:
        """The follower of an arm, trained if it is not there."""
        title = (
            f"Follower taught in procedural houses: {arm}\n\n"
            f"Synthetic, generator {GENERATOR}, predictability {self.plan.predictability:g}."
        )

        def routes(vocabulary: Vocabulary) -> list[Route]:
            found = self._real(vocabulary, self._study.train)
            if arm == "all-real":
                found += self._real(vocabulary, self.more)
            elif arm == "real-and-dreamed":
                found += self._dreamed(vocabulary)
            return found

        return learn_ranker(
            self.folder / arm,
            routes,
            # The same words for all arms, so that they differ in the panoramas alone.
            (*self._study.train.lessons, *self.more.lessons),
            FEATURES,
            {"cpu_seconds": self.plan.ranker_seconds, "seed": self.seed},
            title,
        )

    def _real(self, vocabulary: Vocabulary, houses: HouseSet) -> list[Route]:
        return [
            self._route(vocabulary, houses, one, self._study.plain_place(houses, one.scan))
            for one in houses.lessons
        ]

    def _dreamed(self, vocabulary: Vocabulary) -> list[Route]:
        return [
            self._route(vocabulary, self.more, one, self._dreams[one.path_id])
            for one in self.more.lessons
        ]

    def _route(
        self, vocabulary: Vocabulary, houses: HouseSet, one: Instruction, place: GraphPlace
    ) -> Route:
        from agents.vln.training import Route

        graph = houses.graph(one.scan)
        path = tuple(graph.index(viewpoint) for viewpoint in one.path)
        words = vocabulary.encode(one.text)
        return Route((place,), graph.distances, words, one.heading, path)

    @cached_property
    def _dreams(self) -> dict[str, GraphPlace]:
        """By path: its house as it is dreamed from the start of the path."""
        distinct = {one.path_id: one for one in self.more.lessons}
        found = {}
        with progress("dreaming houses", len(distinct)) as meter:
            for path_id, one in distinct.items():
                found[path_id] = self._dream(self._study.dreamer, one)
                meter.advance()
        return found

    def _dream(self, model: Pathdreamer, one: Instruction) -> GraphPlace:
        """A house whose only real view is that from the start of a path.

        Dreamed is what a follower can meet on it: the path, and what lies a hop beside it.
        """
        from agents.vln.places import GraphPlace
        from decisive.guesses import Guesser

        houses = self.more
        graph, data, span = houses.graph(one.scan), houses.panoramas, houses.spans[one.scan]
        path = [graph.index(viewpoint) for viewpoint in one.path]
        plain = self._study.plain_place(houses, one.scan)
        beside = {other for viewpoint in path for other in (viewpoint, *graph.neighbors[viewpoint])}
        unseen = sorted(beside - {path[0]})
        guesser = Guesser.of_house(data, span, model, 1, self.seed)
        views = np.zeros_like(plain.views)
        views[path[0]] = plain.views[path[0]]
        views[unseen] = guesser(plain, path[:1], unseen).views[0]
        return GraphPlace(plain.positions, graph.neighbors, views)
