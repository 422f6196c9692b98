"""Procedural houses of a study: panoramas, graphs, instructions, kept on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decisive.progress import progress
from decisive.rendering import panoramas_of, set_name
from decisive.workers import process_pool
from envs.indoor.categories import CATEGORIES
from envs.indoor.goals import goal_entries
from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House, generate_house, house_name
from envs.indoor.instructions import r2r_entries
from envs.indoor.r2r_data import Instruction, read_instructions
from learning.atomic import write_file

if TYPE_CHECKING:
    from agents.vln.places import Array
    from world_models.pathdreamer.panoramas import PanoramaSet

FEATURES = (*CATEGORIES, "depth", "known")
"""Names of the features of a heading; see `agents.vln.views`."""


TOLD = {"way": r2r_entries, "goal": goal_entries}
"""What instructions tell."""


@dataclass(frozen=True)
class HouseSet:
    """Houses of a split one after the other, as they are seen and talked about.

    Attributes:
        split: "train", "val" or "test".
        predictability: of the houses.
        rendered: houses of which there are panoramas.
        walked: houses, the first of these, of which there are instructions.
        paths: of each, with three instructions each.
        height: rows of the panoramas.
        folder: where they are kept.
        workers: processes that render and write.
        told: what instructions tell, "way" or "goal".
        first: number of the first house.
    """

    split: str
    predictability: float
    rendered: int
    walked: int
    paths: int
    height: int
    folder: Path
    workers: int = 1
    told: str = "way"
    first: int = 0

    @cached_property
    def panoramas(self) -> PanoramaSet:
        """From every viewpoint; rendered if they are not there."""
        return panoramas_of(
            self.folder / "panoramas",
            self.split,
            range(self.first, self.first + self.rendered),
            self.predictability,
            (self.height, 2 * self.height),
            self.workers,
        )

    @cached_property
    def lessons(self) -> tuple[Instruction, ...]:
        """Instructions; written if they are not there."""
        told = "" if self.told == "way" else f"-{self.told}"
        name = set_name(self.split, self._numbers, self.predictability)
        file = self.folder / "instructions" / f"{name}-{self.paths}{told}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, json.dumps(self._write_lessons()).encode())
        return read_instructions(file)

    def _write_lessons(self) -> list[dict[str, Any]]:
        write = partial(
            _entries,
            split=self.split,
            predictability=self.predictability,
            paths=self.paths,
            told=self.told,
        )
        found: list[dict[str, Any]] = []
        with (
            progress(f"instructions in {self.walked} houses", self.walked) as meter,
            process_pool(self.workers) as pool,
        ):
            for entries in pool.map(write, self._numbers):
                found += [entry | {"path_id": len(found) + k} for k, entry in enumerate(entries)]
                meter.advance()
        return found

    @cached_property
    def spans(self) -> dict[str, range]:
        """Numbers of a house's panoramas within the set."""
        return dict(self.panoramas.houses)

    def graph(self, scan: str) -> NavigationGraph:
        """Graph of a house, the same object each time."""
        if scan not in self._graphs:
            self._graphs[scan] = graph_of(self.panoramas, scan)
        return self._graphs[scan]

    def views(self, scan: str) -> Array:
        """`(N, 12, F)` what is really seen from the viewpoints of a house."""
        from agents.vln.views import view_features

        data = self.panoramas
        return np.stack(
            [
                view_features(data.semantic[k], data.depth[k].astype(np.float32), len(CATEGORIES))
                for k in self.spans[scan]
            ]
        )

    def house(self, scan: str) -> House:
        """A house of the set, built anew."""
        number = self.first + list(self.spans).index(scan)
        assert scan == house_name(number, self.split, self.predictability)
        return generate_house(number, self.split, self.predictability)

    @property
    def _numbers(self) -> range:
        """Of the houses that are talked about."""
        return range(self.first, self.first + self.walked)

    @cached_property
    def _graphs(self) -> dict[str, NavigationGraph]:
        return {}


def graph_of(data: PanoramaSet, scan: str) -> NavigationGraph:
    """The graph of a house, from its panoramas; viewpoints are named as in the house itself."""
    span = dict(data.houses)[scan]
    adjacent = np.zeros((len(span), len(span)), bool)
    for k, index in enumerate(span):
        adjacent[k, [other - span.start for other in data.neighbors[index]]] = True
    names = [f"{scan}_{k:03d}" for k in range(len(span))]
    return NavigationGraph(scan, names, data.positions[span.start : span.stop], adjacent)


def _entries(
    seed: int, split: str, predictability: float, paths: int, told: str
) -> list[dict[str, Any]]:
    return TOLD[told]([generate_house(seed, split, predictability)], seed, paths)
