"""Real Room-to-Room and REVERIE: annotations and graphs of Matterport3D, images where they are.

The annotations may be had without the images. Views are then symbolic, from REVERIE's lists of the
objects seen from every viewpoint. Pixels need Matterport3D itself, under its terms of use, and
habitat-sim; see docs/habitat.md.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from envs.indoor.graph import NavigationGraph, read_json
from envs.indoor.r2r_data import SPLITS, Instruction, read_instructions
from envs.indoor.simulator import Simulator
from envs.indoor.symbolic import SymbolicViews, read_categories, views_of_lists

_WAYS = (
    "r2r/R2R_{split}.json.gz",
    "r2r/R2R_{split}.json",
    "tasks/R2R/data/R2R_{split}.json",
)
_GOALS = ("reverie/REVERIE_v2_{split}.json.gz", "reverie/REVERIE_v2_{split}.json")
_GRAPHS = (
    "mp3d_connectivity/connectivity_90scans.json.gz",
    "connectivity",
    "mp3d_connectivity",
)
_OBJECTS = ("reverie/reverie_bbox_v1.json.gz",)
_CATEGORIES = ("mp3d_rooms/category_mapping.tsv.gz", "metadata/category_mapping.tsv")


def data_folder() -> Path:
    """The folder of data sets: `DECISIVE_DATA`, else `shared/data` beside the project."""
    named = os.environ.get("DECISIVE_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"


class MatterportWorld:
    """Room-to-Room as published. Buildings are read when they are first asked for.

    Attributes:
        splits: names of the splits.
        files: of a split's instructions, the first that is there.
    """

    splits = SPLITS
    files: Sequence[str] = _WAYS

    def __init__(self, data: Path | None = None) -> None:
        """Name the folder; nothing is read yet.

        Args:
            data: holds `r2r/` and `mp3d_connectivity/`, or Matterport3DSimulator's `tasks/` and
                `connectivity/`; `data_folder()` if None.
        """
        self.data = data or data_folder()
        self._instructions: dict[str, tuple[Instruction, ...]] = {}
        self._graphs: dict[str, NavigationGraph] = {}
        self._views: dict[str, SymbolicViews] = {}

    def instructions(self, split: str) -> Sequence[Instruction]:
        """Instructions of a split. Errors as for `read_instructions`."""
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}, or a JSON file")
        if split not in self._instructions:
            names = [name.format(split=split) for name in self.files]
            self._instructions[split] = read_instructions(self._find(names))
        return self._instructions[split]

    def graph(self, scan: str) -> NavigationGraph:
        """Graph of a scan."""
        if scan not in self._graphs:
            entries = self._connectivity(scan)
            self._graphs[scan] = NavigationGraph.from_connectivity(scan, entries)
        return self._graphs[scan]

    def symbolic_views(self, scan: str) -> SymbolicViews:
        """Categories of objects within 3 m, in the views where they are seen."""
        if scan not in self._views:
            lists = self._objects.get(scan, {})
            self._views[scan] = views_of_lists(self.graph(scan), lists, self._categories)
        return self._views[scan]

    def simulator(self, scan: str) -> Simulator:
        """Habitat with the mesh of a scan, where both are there."""
        from envs.indoor.habitat import HabitatSimulator, scene_file

        return HabitatSimulator(scene_file(scan, self.data), self.graph(scan))

    def _connectivity(self, scan: str) -> Any:
        """Entries of a scan: of its own file, or of the one that holds all."""
        place = self._find(_GRAPHS)
        if place.is_dir():
            file = place / f"{scan}_connectivity.json"
            if not file.is_file():
                raise ValueError(f"unknown scan {scan!r}: there is no {file}")
            return read_json(file)
        if scan not in self._all_graphs:
            raise ValueError(f"unknown scan {scan!r}: {place} holds {len(self._all_graphs)} others")
        return self._all_graphs[scan]

    @cached_property
    def _all_graphs(self) -> dict[str, Any]:
        return _read_object(self._find(_GRAPHS))

    @cached_property
    def _objects(self) -> dict[str, Any]:
        return _read_object(self._find(_OBJECTS))

    @cached_property
    def _categories(self) -> dict[str, int]:
        return read_categories(self._find(_CATEGORIES))

    def _find(self, names: Sequence[str]) -> Path:
        for name in names:
            if (self.data / name).exists():
                return self.data / name
        raise FileNotFoundError(
            f"{self.data} holds none of {', '.join(names)}; set DECISIVE_DATA to the folder of the "
            "Room-to-Room data, or use the world 'sketch', which needs none"
        )


class ReverieWorld(MatterportWorld):
    """The same buildings, told only what to find at the end (Qi et al. 2020, REVERIE, version 2).

    An instruction names an object and mostly its room; its path ends where the object is seen.
    Success is counted as in Room-to-Room, within 3 m of that end; the object is not pointed out.
    """

    files = _GOALS


def _read_object(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object of scans, got {type(content).__name__}")
    return content
