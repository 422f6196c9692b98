"""Room-to-Room in procedural houses: synthetic, with pixels, and without a licence.

Any house can be walked by its name, so files of `envs.indoor.instructions.r2r_entries` serve as
splits too. The splits of this world are small; they are written when they are first asked for,
which takes about half a second a house.
"""

import math
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from envs.indoor.graph import NavigationGraph
from envs.indoor.house import House, generate_house, house_name
from envs.indoor.instructions import sample_paths, write_instructions
from envs.indoor.procedural import ProceduralSimulator
from envs.indoor.r2r_data import Instruction
from envs.indoor.simulator import Simulator
from envs.indoor.symbolic import SymbolicViews, views_of_panorama

PATHS = 8
"""Of each house in a split; each with three instructions."""

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
    found: list[Instruction] = []
    kind, n = _HOUSES[split]
    for seed in range(n):
        house = _house(house_name(seed, kind))
        rng = np.random.default_rng((1, seed))
        # One draw for both splits of the same houses: no path is in both.
        paths = sample_paths(house, rng, 2 * PATHS)[split == "val_seen" :: 2]
        rng = np.random.default_rng((2, tuple(_HOUSES).index(split), seed))
        for path in paths:
            heading = float(rng.uniform(0.0, 2.0 * math.pi))
            path_id = f"{split}-{len(found) // 3:03d}"
            for k, text in enumerate(write_instructions(house, path, rng, heading=heading)):
                name = f"{path_id}_{k}"
                found.append(Instruction(name, path_id, house.name, path, heading, text))
    return tuple(found)
