"""The study of navigation with symbolic views: categories of objects by heading."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decisive.benchmarks.navigation_study import card, learn_ranker, walk_lessons
from envs.indoor.categories import CATEGORIES
from envs.indoor.worlds import World, open_world

if TYPE_CHECKING:
    from agents.vln.checkpoint import SavedRanker
    from agents.vln.places import GraphPlace
    from agents.vln.training import Route
    from agents.vln.vocabulary import Vocabulary
    from world_models.symbolic_views import SymbolicViews

ARMS = ("baseline", "world-model", "ground-truth")
_CONFIDENCE = 0.5
"""What the ranker is told about predicted views; it learns what that is worth."""
_MATTERPORT = (
    "Room-to-Room and REVERIE are derived from Matterport3D, under its terms of use (academic, "
    "non-commercial); object lists are REVERIE's."
)


@dataclass(frozen=True)
class SymbolicPlan:
    """What decides the result of a seed.

    Attributes:
        world: "r2r", "reverie" or "sketch".
        split: where the arms walk.
        horizon: hops looked ahead.
        episodes: only the first so many instructions; None for all.
        ranker_seconds: CPU-seconds of a training of the ranker.
        views_seconds: of the world model.
    """

    world: str
    split: str
    horizon: int
    episodes: int | None
    ranker_seconds: float
    views_seconds: float


class SymbolicStudy:
    """A world as places to walk in, and the trainings of one seed."""

    def __init__(self, plan: SymbolicPlan, seed: int, work: Path, data: Path | None = None) -> None:
        """Open the world; nothing is trained yet.

        Args:
            plan: what to do.
            seed: of the trainings.
            work: where trainings are kept.
            data: folder of data; None for the usual one.
        """
        self.plan, self.seed = plan, seed
        self.world: World = open_world(plan.world, data)
        budget = f"{plan.views_seconds:g}-{plan.ranker_seconds:g}"
        self.folder = work / f"{plan.world}-{budget}-seed{seed}"
        self._places: dict[tuple[str, str], GraphPlace] = {}

    def walk(self, arm: str) -> dict[str, Any]:
        """Walk every instruction of the split; results with their rows."""
        lessons = self.world.instructions(self.plan.split)[: self.plan.episodes]

        def place_of(scan: str) -> GraphPlace:
            return self.place(scan, arm)

        return walk_lessons(self.ranker, lessons, self.world.graph, place_of, self.plan.horizon)

    def place(self, scan: str, arm: str) -> GraphPlace:
        """A building as an arm sees it; the same object each time."""
        from agents.vln.places import DreamPlace, GraphPlace, OraclePlace

        if (scan, arm) not in self._places:
            graph = self.world.graph(scan)
            parts = (graph.positions, graph.neighbors, headings_of(self.world.symbolic_views(scan)))
            if arm == "world-model":
                made: GraphPlace = DreamPlace(*parts, dream_of(self.views))
            else:
                made = {"baseline": GraphPlace, "ground-truth": OraclePlace}[arm](*parts)
            self._places[scan, arm] = made
        return self._places[scan, arm]

    @cached_property
    def views(self) -> SymbolicViews:
        """The world model, trained if it is not there."""
        import torch

        from learning.train_config import TrainConfig
        from world_models.symbolic_training import load_views, save_views, train_views
        from world_models.symbolic_views import SymbolicViews, SymbolicViewsConfig

        folder = self.folder / "world-model"
        if not folder.exists():
            scans = sorted({one.scan for one in self.world.instructions("train")})
            places = [self.place(scan, "baseline") for scan in scans]
            rate = np.concatenate([place.views for place in places]).mean((0, 1))
            torch.manual_seed(self.seed)
            torch.set_num_threads(1)
            model = SymbolicViews(SymbolicViewsConfig(len(CATEGORIES)), rate)
            config = TrainConfig(
                cpu_seconds=self.plan.views_seconds, batch_size=24, lr=2e-3, seed=self.seed
            )
            facts = train_views(model, places, config)
            save_views(folder, model, facts, card(self._title("World model"), self.seed, facts))
        return load_views(folder)

    @cached_property
    def ranker(self) -> SavedRanker:
        """The ranker, trained on the views of all arms if it is not there."""
        return learn_ranker(
            self.folder / "ranker",
            self._routes,
            self.world.instructions("train"),
            CATEGORIES,
            {"cpu_seconds": self.plan.ranker_seconds, "seed": self.seed},
            self._title("Path ranker"),
        )

    def _routes(self, vocabulary: Vocabulary) -> list[Route]:
        from agents.vln.training import Route

        routes = []
        for one in self.world.instructions("train"):
            if len(set(one.path)) < len(one.path):
                continue  # one path of REVERIE comes back; the ranker knows simple paths only
            graph = self.world.graph(one.scan)
            places = tuple(self.place(one.scan, arm) for arm in ARMS)
            path = tuple(graph.index(viewpoint) for viewpoint in one.path)
            words = vocabulary.encode(one.text)
            routes.append(Route(places, graph.distances, words, one.heading, path))
        return routes

    def _title(self, what: str) -> str:
        real = self.plan.world in ("r2r", "reverie")
        told = _MATTERPORT if real else "Synthetic sketches."
        return f"{what} on {self.plan.world}, symbolic views\n\nData: split `train`. {told}"


def headings_of(views: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Views by heading: what is seen in any of the three elevations.

    Args:
        views: `(N, 36, F)`, 12 headings looking down, level and up.

    Returns:
        `(N, 12, F)`.
    """
    return views.reshape(len(views), 3, 12, -1).max(axis=1).astype(np.float32)


def dream_of(views: SymbolicViews) -> Any:
    """What `DreamPlace` asks: the expected views, as one sample."""
    from agents.vln.places import Imagined

    def dream(place: GraphPlace, visited: Sequence[int], unseen: Sequence[int]) -> Imagined:
        predicted = views.predict(place, visited, unseen)[None]
        return Imagined(predicted, np.full(predicted.shape[:2], _CONFIDENCE, np.float32))

    return dream
