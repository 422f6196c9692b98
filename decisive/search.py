"""Where to look first: unvisited viewpoints ranked by what a world model expects there."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decisive.scenes import Scene, viewpoint_place
from decisive.statistics import resampled_means
from envs.indoor.categories import CATEGORIES, ID
from envs.indoor.graph import NavigationGraph
from world_models.pathdreamer.guidance import PanoramaLike
from world_models.pathdreamer.memory import PointMemory
from world_models.pathdreamer.model import Pathdreamer
from world_models.pathdreamer.places import (
    Imagined,
    RoomModel,
    class_shares,
    imagine,
    mean_depth,
    view_features,
)

Array = NDArray[np.float64]

ENOUGH = 0.01
"""Share of a view that an object covers where it counts as found."""
_UNREACHED = 1e-3
"""Score of what lies beyond the horizon: looked at last."""


@dataclass(frozen=True)
class Goal:
    """What is looked for.

    Attributes:
        name: of the room, or the category of the object.
        room: index in the room model; None for an object.
        category: id of mpcat40; 0 for a room.
    """

    name: str
    room: int | None
    category: int = 0


def read_goal(text: str, rooms: Sequence[str]) -> Goal:
    """A goal from a word, such as `kitchen`, `living_room` or `bed`.

    Args:
        text: name of a room, of a kind of furniture, or of a category.
        rooms: that the room model knows.

    Raises:
        ValueError: for anything else, naming what is known.
    """
    from envs.indoor.furniture import KINDS

    word = " ".join(text.replace("_", " ").lower().split())
    if word in rooms:
        return Goal(word, list(rooms).index(word))
    name = KINDS[word].category if word in KINDS else word.replace(" ", "_")
    if ID.get(name, 0):
        return Goal(name, None, ID[name])
    known = [*rooms, *CATEGORIES[1:], *KINDS]
    close = difflib.get_close_matches(word, known, 1)
    meant = f"perhaps {close[0]!r}; " if close else ""
    raise ValueError(
        f"unknown goal {text!r}: {meant}rooms are {', '.join(rooms)}; objects are categories of "
        "mpcat40, such as bed, toilet, sofa, appliances"
    )


def reach(graph: NavigationGraph, seen: Sequence[int], horizon: int | None) -> list[list[int]]:
    """Viewpoints that were not seen, by how many steps they are from the nearest one that was.

    Args:
        graph: of the building.
        seen: indices.
        horizon: most steps; all that can be reached, if None.
    """
    found, last = set(seen), sorted(set(seen))
    waves: list[list[int]] = []
    while last and (horizon is None or len(waves) < horizon):
        last = sorted({n for here in last for n in graph.neighbors[here]} - found)
        found |= set(last)
        if last:
            waves.append(last)
    return waves


def look(scene: Scene, viewpoints: Sequence[int], size: tuple[int, int]) -> list[PanoramaLike]:
    """What is really seen from viewpoints.

    Raises:
        ValueError: for a spoilt panorama.
    """
    views: list[PanoramaLike] = []
    for index in viewpoints:
        view = scene.observe(viewpoint_place(scene.graph, index), size)
        assert view is not None
        views.append(view)
    return views


def expect(
    model: Pathdreamer,
    graph: NavigationGraph,
    views: Sequence[PanoramaLike],
    waves: Sequence[Sequence[int]],
    samples: int,
    seed: int,
    temperature: float = 1.0,
    rgb: bool = False,
) -> Imagined:
    """Imagine the viewpoints of `reach`; see `world_models.pathdreamer.places.imagine`."""
    places = [[graph.positions[index] for index in wave] for wave in waves]
    return imagine(model, views, places, samples, seed, temperature, rgb)


def copied(
    views: Sequence[PanoramaLike], graph: NavigationGraph, viewpoints: Sequence[int]
) -> Imagined:
    """What the memory alone shows of viewpoints, holes as the nearest pixel: nothing imagined."""
    memory = PointMemory()
    for view in views:
        memory.add(view)
    size = views[0].depth.shape
    found = [memory.guidance(graph.positions[i], (size[0], size[1])) for i in viewpoints]
    ids = np.array([guidance.filled_semantic for guidance in found])
    depth = np.array([guidance.filled_depth for guidance in found])
    unseen = np.array([[1.0 - guidance.valid.mean() for guidance in found]])
    return Imagined(class_shares(ids, len(CATEGORIES))[None], mean_depth(depth)[None], unseen)


def chances(goal: Goal, imagined: Imagined, rooms: RoomModel) -> Array:
    """`(S, N)`: of a room its probability, of an object the share of the view it should cover."""
    if goal.room is None:
        return imagined.shares[..., goal.category]
    return rooms.probabilities(imagined.features)[..., goal.room]


def true_features(views: Sequence[PanoramaLike]) -> Array:
    """`(N, F)` of real views, for the room model."""
    shares = class_shares(np.array([view.semantic for view in views]), len(CATEGORIES))
    return view_features(shares, mean_depth(np.array([view.depth for view in views])))


@dataclass(frozen=True)
class Found:
    """A search that ended at its goal.

    Attributes:
        metres: walked.
        viewpoints: visited, the one with the goal included.
    """

    metres: float
    viewpoints: int


Choose = Callable[[int, list[int]], int]
"""From where one is and the viewpoints not visited yet, the one to go to."""


def search(graph: NavigationGraph, start: int, goals: set[int], choose: Choose) -> Found:
    """Go to one viewpoint after another by shortest ways, until a viewpoint of the goal is met.

    What lies on the way is visited too.

    Args:
        graph: of the building, connected.
        start: where one is, no goal.
        goals: viewpoints at which the search ends, at least one.
        choose: says where to go next.

    Raises:
        ValueError: for no goal, or one where one is.
    """
    if not goals or start in goals:
        raise ValueError("a search needs a goal elsewhere")
    here, metres, visited = start, 0.0, {start}
    while True:
        target = choose(here, [i for i in range(len(graph)) if i not in visited])
        for name in graph.shortest_path(graph.viewpoints[here], graph.viewpoints[target])[1:]:
            there = graph.index(name)
            metres += float(graph.distances[here, there])
            here = there
            visited.add(here)
            if here in goals:
                return Found(metres, len(visited) - 1)


def by_score(graph: NavigationGraph, scores: dict[int, float]) -> Choose:
    """Most chance for a metre of way first."""

    def choose(here: int, left: list[int]) -> int:
        return max(
            left,
            key=lambda i: max(scores.get(i, 0.0), _UNREACHED) / max(graph.distances[here, i], 0.1),
        )

    return choose


def nearest_first(graph: NavigationGraph) -> Choose:
    """Whatever is nearest."""

    def choose(here: int, left: list[int]) -> int:
        return min(left, key=lambda i: graph.distances[here, i])

    return choose


def at_random(rng: np.random.Generator) -> Choose:
    """In no order at all."""

    def choose(here: int, left: list[int]) -> int:
        return left[int(rng.integers(len(left)))]

    return choose


def mean_interval(values: Sequence[float], houses: Sequence[int]) -> tuple[float, float, float]:
    """A mean and its 95 % interval, bootstrapped over houses.

    Raises:
        ValueError: for no values.
    """
    column = np.asarray(values, float)[:, None]
    low, high = np.quantile(resampled_means(column, houses, 2000), [0.025, 0.975])
    return float(column.mean()), float(low), float(high)
