"""Where one can dream: a procedural house, or panoramas of one's own, with places named in words.

A place is named by its viewpoint (`house_test_000003_004`), by the number of it (`4`), or by a
position (`2.0 3.5 1.5`, metres, world frame).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from envs.indoor.categories import CATEGORIES
from envs.indoor.equirectangular import pixels
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House
from envs.indoor.simulator import Panorama
from world_models.pathdreamer.panoramas import PanoramaSet, open_panoramas

Array = NDArray[np.float64]

_STEP = 0.05
"""Metres between the points of a way that are looked at for walls."""
_HEADROOM = 0.1
"""Metres that a camera keeps from floor and ceiling."""


@dataclass(frozen=True, eq=False)
class Place:
    """Somewhere to stand.

    Attributes:
        label: short, for people.
        position: `(3,)` of the camera in metres, world frame.
        viewpoint: its name; None where it is no viewpoint.
    """

    label: str
    position: Array
    viewpoint: str | None = None


class Scene(Protocol):
    """A building to walk through, really or in imagination."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def graph(self) -> NavigationGraph:
        """Its viewpoints."""
        ...

    @property
    def house(self) -> House | None:
        """Its plan, where it is procedural."""
        ...

    def observe(self, place: Place, size: tuple[int, int]) -> Panorama | None:
        """What is really seen from a place; None where that is not known.

        Raises:
            ValueError: for panoramas that are spoilt.
        """
        ...

    def check_step(self, start: Place, end: Place) -> None:
        """Make sure that a straight way leads from one place to another.

        Raises:
            ValueError: where it meets a wall, or no edge joins two viewpoints.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def open_scene(name: str | None, images: str | None = None) -> Scene:
    """A scene by its name.

    Args:
        name: of a procedural house, such as `house_test_000003`; of a house in the folder, if one
            is given, of which None is the first.
        images: folder of panoramas that `world_models.pathdreamer.panoramas` wrote.

    Raises:
        ValueError: for an unknown name or a broken folder.
        FileNotFoundError: where the folder holds no panoramas.
    """
    if images is not None:
        return FolderScene(open_panoramas(images), name, Path(images).name)
    return HouseScene(name or "")


class HouseScene:
    """A procedural house."""

    def __init__(self, name: str) -> None:
        """Build it.

        Args:
            name: such as `house_test_000003`.

        Raises:
            ValueError: for what is no name of a house.
        """
        from envs.indoor.procedural import ProceduralSimulator
        from envs.indoor.worlds import open_world

        simulator = open_world("houses").simulator(name)
        assert isinstance(simulator, ProceduralSimulator)
        self.name, self.simulator = name, simulator
        self.house: House = simulator.house
        self.graph = self.house.graph

    def observe(self, place: Place, size: tuple[int, int]) -> Panorama:
        """See `Scene.observe`."""
        return self.simulator.observe(place.viewpoint or place.position, size)

    def check_step(self, start: Place, end: Place) -> None:
        """See `Scene.check_step`; between positions, a body of `BODY_RADIUS` must find room."""
        if start.viewpoint is not None and end.viewpoint is not None:
            check_edge(self.graph, start, end)
            return
        length = float(np.linalg.norm(end.position - start.position))
        for share in np.linspace(0.0, 1.0, 1 + math.ceil(length / _STEP)):
            point = start.position + share * (end.position - start.position)
            high = _HEADROOM <= point[2] <= self.house.plan.height - _HEADROOM
            if not (high and self.house.free(point)):
                raise ValueError(
                    f"{self.name}: the way from {start.label} to {end.label} meets a wall or "
                    f"furniture after {share * length:.1f} m"
                )

    def close(self) -> None:
        """See `Scene.close`."""
        self.simulator.close()


class FolderScene:
    """One house of a set of panoramas; truth is known at its viewpoints only."""

    house = None

    def __init__(self, data: PanoramaSet, name: str | None = None, folder: str = "panoramas"):
        """Choose a house.

        Args:
            data: the set.
            name: of the house; the first, if None.
            folder: what the set is called in messages.

        Raises:
            ValueError: if the set has no such house.
        """
        known = dict(data.houses)
        self.name = data.houses[0][0] if name is None else name
        if self.name not in known:
            raise ValueError(
                f"{folder} has no house {self.name!r} (it has {len(known)}, such as "
                f"{data.houses[0][0]!r})"
            )
        self._data, self._span = data, known[self.name]
        n = len(self._span)
        leads = np.zeros((n, n), bool)
        for index in range(n):
            for other in data.neighbors[self._span.start + index]:
                leads[index, other - self._span.start] = other != self._span.start + index
        names = [str(index) for index in range(n)]
        positions = data.positions[self._span.start : self._span.stop]
        self.graph = NavigationGraph(self.name, names, positions, leads & leads.T)

    def observe(self, place: Place, size: tuple[int, int]) -> Panorama | None:
        """See `Scene.observe`; another size than that of the set takes the nearest pixels."""
        if place.viewpoint is None:
            return None
        seen = self._data.seen(self._span.start + self.graph.index(place.viewpoint))
        height, width = seen.depth.shape
        rows = (np.arange(size[0]) + 0.5) * height / size[0]
        columns = (np.arange(size[1]) + 0.5) * width / size[1]
        chosen = np.ix_(rows.astype(int), columns.astype(int))
        depth, semantic = seen.depth[chosen], seen.semantic[chosen]
        if not np.isfinite(depth).all() or (depth < 0).any():
            raise ValueError(
                f"{self.name}, viewpoint {place.viewpoint}: depth must be finite metres, 0 where "
                "there is none; this one holds NaN, infinity or negative numbers"
            )
        if semantic.max() >= len(CATEGORIES):
            raise ValueError(
                f"{self.name}, viewpoint {place.viewpoint}: class ids must be below "
                f"{len(CATEGORIES)} (mpcat40), got {semantic.max()}"
            )
        return Panorama(seen.rgb[chosen], semantic, depth, seen.position)

    def check_step(self, start: Place, end: Place) -> None:
        """See `Scene.check_step`; a wall is known only where the start's panorama shows it."""
        if start.viewpoint is not None and end.viewpoint is not None:
            check_edge(self.graph, start, end)
            return
        seen = self.observe(start, self._data.size)
        offset = end.position - start.position
        length = float(np.linalg.norm(offset))
        if seen is None or length == 0:
            return
        depth = float(seen.depth[pixels(offset, *seen.depth.shape)])
        if 0 < depth < length:
            raise ValueError(
                f"{self.name}: the way from {start.label} to {end.label} meets something after "
                f"{depth:.1f} m"
            )

    def close(self) -> None:
        """See `Scene.close`."""


def check_edge(graph: NavigationGraph, start: Place, end: Place) -> None:
    """Make sure that two viewpoints are neighbours, or the same.

    Raises:
        ValueError: if they are not, naming the neighbours.
    """
    assert start.viewpoint is not None
    assert end.viewpoint is not None
    i, j = graph.index(start.viewpoint), graph.index(end.viewpoint)
    if i != j and not graph.adjacent[i, j]:
        others = ", ".join(map(str, graph.neighbors[i])) or "nowhere"
        raise ValueError(
            f"{graph.scan}: no straight way from viewpoint {i} to {j}, something is between them; "
            f"from {i} one can go to {others}"
        )


def viewpoint_place(graph: NavigationGraph, index: int) -> Place:
    """The place of a viewpoint."""
    return Place(str(index), graph.positions[index].copy(), graph.viewpoints[index])


def read_place(graph: NavigationGraph, text: str) -> Place:
    """A place from its name, its number or `x y z`.

    Raises:
        ValueError: for anything else.
    """
    words = text.split()
    if len(words) == 3:
        try:
            position = np.array([float(word) for word in words])
        except ValueError:
            raise ValueError(f"a position is three numbers in metres, got {text!r}") from None
        if not np.isfinite(position).all():
            raise ValueError(f"a position is three finite numbers, got {text!r}")
        return Place("({:.1f}, {:.1f})".format(*position[:2]), position)
    name = text.strip()
    if name in graph.viewpoints:
        return viewpoint_place(graph, graph.index(name))
    if name.isascii() and name.isdecimal() and int(name) < len(graph):
        return viewpoint_place(graph, int(name))
    close = difflib.get_close_matches(name, graph.viewpoints, 1)
    meant = f", perhaps {close[0]}" if close else ""
    raise ValueError(
        f"{graph.scan} has no viewpoint {name!r}: name one by its number, 0 to {len(graph) - 1}, "
        f"by its name{meant}, or give a position as 'x y z'"
    )


def random_path(graph: NavigationGraph, hops: int, rng: np.random.Generator) -> list[Place]:
    """A shortest way of so many steps; of fewer, where no shortest way of the scene has so many.

    Raises:
        ValueError: for less than one step, or a scene without a way.
    """
    if hops < 1:
        raise ValueError(f"hops must be at least 1, got {hops}")
    ways: dict[int, list[Sequence[str]]] = {}
    for start in graph.viewpoints:
        for goal in graph.viewpoints:
            if start != goal and math.isfinite(graph.distance(start, goal)):
                way = graph.shortest_path(start, goal)
                ways.setdefault(len(way) - 1, []).append(way)
    possible = [length for length in ways if length <= hops]
    if not possible:
        raise ValueError(f"{graph.scan} has no two viewpoints that a way joins: give --path")
    found = ways[max(possible)]
    chosen = found[int(rng.integers(len(found)))]
    return [viewpoint_place(graph, graph.index(name)) for name in chosen]
