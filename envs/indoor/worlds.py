"""Where Room-to-Room episodes come from: instructions, graphs, and views.

Another source is a class that keeps `World` and a row of `WORLDS`.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from envs.indoor.graph import NavigationGraph
from envs.indoor.matterport import MatterportWorld, ReverieWorld, data_folder
from envs.indoor.r2r_data import Instruction
from envs.indoor.simulator import Simulator
from envs.indoor.symbolic import SymbolicViews


class World(Protocol):
    """Buildings, and instructions to follow in them."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        ...

    def instructions(self, split: str) -> Sequence[Instruction]:
        """Instructions of a split, always in the same order.

        Raises:
            ValueError: for an unknown split.
        """
        ...

    def graph(self, scan: str) -> NavigationGraph:
        """Graph of a building.

        Raises:
            ValueError: for an unknown one.
        """
        ...

    def symbolic_views(self, scan: str) -> SymbolicViews:
        """Categories seen from the viewpoints of a building, in the order of its graph."""
        ...

    def simulator(self, scan: str) -> Simulator:
        """What draws panoramas of a building.

        Raises:
            ValueError: where this world has none, or it cannot be built; the message says why.
        """
        ...


def _sketch(data: Path) -> World:
    from envs.indoor.sketch_world import SketchWorld

    return SketchWorld()


def _houses(data: Path) -> World:
    from envs.indoor.house_world import HouseWorld

    return HouseWorld()


def _r2r(data: Path) -> World:
    return MatterportWorld(data)


def _reverie(data: Path) -> World:
    return ReverieWorld(data)


WORLDS: dict[str, Callable[[Path], World]] = {
    "sketch": _sketch,
    "houses": _houses,
    "r2r": _r2r,
    "reverie": _reverie,
}
"""Makers by name; each takes the folder of data, which need not be there."""


def open_world(name: str, data: Path | None = None) -> World:
    """A world; a process opens each but once, and its environments share what it has read.

    Args:
        name: a key of `WORLDS`.
        data: folder of data, for worlds that read any; `data_folder()` if None.

    Raises:
        ValueError: for an unknown world, naming the known ones.
    """
    if name not in WORLDS:
        raise ValueError(f"unknown world {name!r}; known: {', '.join(WORLDS)}")
    return _open(name, data or data_folder())


@lru_cache(maxsize=8)
def _open(name: str, data: Path) -> World:
    return WORLDS[name](data)
