"""Room-to-Room in procedural houses: synthetic, with pixels, and without a licence.

Any house can be walked by its name, so files of `envs.indoor.instructions.r2r_entries` serve as
splits too. The splits of this world are small, and lie written beside this module, because writing
them takes 20 s: what is remarkable is looked for with rays, from every viewpoint. After a change of
the houses or of the language (which makes new splits, not comparable with the old):

    python -m envs.indoor.house_world
"""

import gzip
import json
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House, generate_house, house_name
from envs.indoor.instructions import sample_paths, write_instructions
from envs.indoor.procedural import ProceduralSimulator
from envs.indoor.r2r_data import Instruction, read_instructions
from envs.indoor.simulator import Simulator
from envs.indoor.symbolic import SymbolicViews, views_of_panorama

PATHS = 8
"""Of each house in a split; each with three instructions."""

FOLDER = Path(__file__).parent / "assets"
"""Where the splits lie, in Room-to-Room's format."""

_HOUSES = {"train": ("train", 16), "val_seen": ("train", 16), "val_unseen": ("val", 8)}
_NAME = re.compile(r"house_(train|val|test)_(\d{6,9})(?:_p(\d{3}))?")
_SIZE = (64, 128)


class HouseWorld:
    """Splits `train`, `val_seen` (other paths in the same houses) and `val_unseen`."""

    splits = tuple(_HOUSES)

    def instructions(self, split: str) -> Sequence[Instruction]:
        """Instructions of a split.

        Raises:
            ValueError: for an unknown split.
        """
        if split not in _HOUSES:
            raise ValueError(f"unknown split {split!r}; known: {', '.join(_HOUSES)}")
        return _instructions(split)

    def graph(self, scan: str) -> NavigationGraph:
        """Graph of a house.

        Raises:
            ValueError: for what is no name of a house.
        """
        return _house(scan).graph

    def symbolic_views(self, scan: str) -> SymbolicViews:
        """Categories that cover half a percent of a view, really seen."""
        return _views(scan)

    def simulator(self, scan: str) -> Simulator:
        """Draws the house."""
        return ProceduralSimulator(_house(scan))


@lru_cache(maxsize=64)
def _house(scan: str) -> House:
    found = _NAME.fullmatch(scan)
    if not found:
        raise ValueError(f"unknown scan {scan!r}; houses are named like {house_name(0, 'train')}")
    split, seed, percent = found.groups()
    return generate_house(int(seed), split, 1.0 if percent is None else int(percent) / 100.0)


@lru_cache(maxsize=64)
def _views(scan: str) -> SymbolicViews:
    house = _house(scan)
    simulator = ProceduralSimulator(house)
    seen = [simulator.observe(name, _SIZE).semantic for name in house.graph.viewpoints]
    simulator.close()
    return np.array([views_of_panorama(semantic) for semantic in seen])


@lru_cache(maxsize=4)
def _instructions(split: str) -> tuple[Instruction, ...]:
    return read_instructions(split_file(split))


def split_file(split: str) -> Path:
    """Where a split lies."""
    return FOLDER / f"houses_{split}.json.gz"


def write_entries(split: str, houses: int | None = None) -> list[dict[str, Any]]:
    """Write a split anew: entries in Room-to-Room's format.

    Args:
        split: which.
        houses: only the first so many.
    """
    found: list[dict[str, Any]] = []
    kind, n = _HOUSES[split]
    for seed in range(n if houses is None else houses):
        house = _house(house_name(seed, kind))
        rng = np.random.default_rng((1, seed))
        # One draw for both splits of the same houses: no path is in both.
        paths = sample_paths(house, rng, 2 * PATHS)[split == "val_seen" :: 2]
        rng = np.random.default_rng((2, tuple(_HOUSES).index(split), seed))
        for path in paths:
            heading = float(rng.uniform(0.0, 2.0 * math.pi))
            entry = {
                "scan": house.name,
                "path_id": f"{split}-{len(found):03d}",
                "path": list(path),
                "distance": round(house.graph.distance(path[0], path[-1]), 2),
                "heading": heading,
                "instructions": write_instructions(house, path, rng, heading=heading),
                "synthetic": True,
            }
            found.append(entry)
    return found


def main() -> None:
    """Write all splits."""
    FOLDER.mkdir(exist_ok=True)
    for split in _HOUSES:
        content = json.dumps(write_entries(split), indent=0).encode()
        split_file(split).write_bytes(gzip.compress(content, mtime=0))
        print(f"{split_file(split)}: {split_file(split).stat().st_size} bytes")


if __name__ == "__main__":
    main()
