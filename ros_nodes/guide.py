"""Follows an instruction through a building of which only the graph is known. Knows no ROS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.vln.checkpoint import SavedRanker
from agents.vln.navigator import Errand, Navigator, NavigatorConfig
from agents.vln.places import DreamPlace, GraphPlace
from agents.vln.views import view_features
from decisive.benchmarks.house_data import FEATURES
from decisive.guesses import Guesser
from envs.indoor.categories import CATEGORIES
from envs.indoor.graph import NavigationGraph, read_json
from envs.indoor.r2r_data import check_text
from robots.driving import Pose
from world_models.pathdreamer.guidance import PanoramaLike
from world_models.pathdreamer.model import Pathdreamer

SUFFIX = "_connectivity.json"


@dataclass(frozen=True)
class Choice:
    """What a guide has decided.

    Attributes:
        path: viewpoints ahead, the present one first; of length 1 to stop here.
        probability: that it gave this choice.
    """

    path: list[int]
    probability: float

    @property
    def stop(self) -> bool:
        """Whether the route ends here."""
        return len(self.path) == 1


class Guide:
    """A path ranker, what was seen, and a world model that says what was not."""

    def __init__(
        self,
        graph: NavigationGraph,
        ranker: SavedRanker,
        model: Pathdreamer | None = None,
        samples: int = 3,
        config: NavigatorConfig | None = None,
    ) -> None:
        """Start with nothing seen.

        Args:
            graph: of the building.
            ranker: ranks paths against instructions.
            model: predicts what has not been seen; None leaves it hidden.
            samples: ideas of each place.
            config: how far to look ahead.

        Raises:
            ValueError: for a ranker of other views than those of panoramas.
        """
        if ranker.features != FEATURES:
            raise ValueError(
                "the ranker does not rank panoramas (its features are not those of "
                "agents.vln.views); train it with `decisive benchmark navigation --world houses`"
            )
        self.graph = graph
        self._vocabulary, self._model, self._samples = ranker.vocabulary, model, samples
        self._navigator = Navigator(ranker.ranker, config)
        self._seen: dict[int, PanoramaLike] = {}
        self._place = self._empty_place()
        self._errand: Errand | None = None

    @property
    def max_hops(self) -> int:
        """A walk ends after so many."""
        return self._navigator.config.max_hops

    def nearest(self, pose: Pose) -> tuple[int, float]:
        """The viewpoint nearest to a base, and its distance in metres."""
        away = np.linalg.norm(self.graph.positions[:, :2] - np.array(pose[:2]), axis=1)
        return int(away.argmin()), float(away.min())

    def begin(self, instruction: str, viewpoint: int, yaw: float) -> None:
        """Begin an errand, with nothing seen but what will be.

        Args:
            instruction: in words.
            viewpoint: where one stands.
            yaw: where one looks, rad counter-clockwise from +x.

        Raises:
            ValueError: for an instruction that nobody could follow; see `check_text`.
        """
        words = self._vocabulary.encode(check_text(instruction))
        self._seen.clear()
        self._place = self._empty_place()
        # Room-to-Room's headings run clockwise from +y.
        self._errand = Errand(self._place, words, math.pi / 2 - yaw, (viewpoint,))

    @property
    def history(self) -> tuple[int, ...]:
        """Viewpoints that were visited, the present one last."""
        return () if self._errand is None else self._errand.history

    def see(self, panorama: PanoramaLike) -> None:
        """What is seen from the present viewpoint."""
        viewpoint = self.history[-1]
        self._seen[viewpoint] = panorama
        self._place.views[viewpoint] = view_features(
            panorama.semantic, panorama.depth, len(CATEGORIES)
        )

    def choose(self) -> Choice:
        """Where to go from here; the panorama from here must have been seen."""
        assert self._errand is not None
        ranked = self._navigator.rank([self._errand])[0]
        hop = ranked.choice()
        shares = ranked.first_hops()
        here = self.history[-1]
        if hop is None:
            return Choice([here], shares[here])
        return Choice(ranked.path_by(hop), shares[hop])

    def go(self, viewpoint: int) -> None:
        """One stands at a viewpoint now."""
        old = self._errand
        assert old is not None
        self._errand = Errand(old.place, old.words, old.heading, (*old.history, viewpoint))

    def _empty_place(self) -> GraphPlace:
        graph = self.graph
        views = np.zeros((len(graph), 12, len(FEATURES)), np.float32)
        if self._model is None:
            return GraphPlace(graph.positions, graph.neighbors, views)
        guesser = Guesser(
            lambda viewpoint: self._seen[viewpoint],
            graph.positions,
            (self._model.config.height, 2 * self._model.config.height),
            self._model,
            self._samples,
        )
        return DreamPlace(graph.positions, graph.neighbors, views, guesser)


def read_graph(path: Path) -> NavigationGraph:
    """The graph of a file `<scan>_connectivity.json`, as Matterport3D's simulator has them.

    Raises:
        ValueError: for anything else.
        OSError: if it cannot be read.
    """
    if not path.name.endswith(SUFFIX):
        raise ValueError(f"a graph is a file <scan>{SUFFIX}, got {path.name!r}")
    return NavigationGraph.from_connectivity(path.name.removesuffix(SUFFIX), read_json(path))


def floor_points(graph: NavigationGraph, path: list[int]) -> NDArray[np.float64]:
    """`(N, 2)` metres of viewpoints."""
    return graph.positions[path][:, :2]
