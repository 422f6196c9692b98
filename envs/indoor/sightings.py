"""Which pieces of furniture are really seen from the viewpoints of a house, and where."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from envs.indoor.equirectangular import directions
from envs.indoor.furniture import KINDS
from envs.indoor.house import House
from envs.indoor.procedural import ProceduralSimulator

SIZE = (64, 128)
"""Of the panoramas in which furniture is looked for."""

ENOUGH = 12
"""Pixels of them that a piece must cover to count as seen."""

FARTHEST = 6.0
"""Metres within which furniture counts."""

UNREMARKABLE = frozenset(
    {"ceiling lamp", "pendant", "rug", "curtain", "blinds", "counter", "basket"}
)
"""Kinds that nobody mentions on the way."""


@dataclass(frozen=True)
class Sighting:
    """A piece of furniture seen from a viewpoint.

    Attributes:
        piece: index into `House.furniture`.
        noun: what it is called.
        azimuth: where its pixels are on average, radians counter-clockwise from +x.
        distance: of its middle over the floor, metres.
        pixels: how many it covers of a panorama of `SIZE`.
    """

    piece: int
    noun: str
    azimuth: float
    distance: float
    pixels: int


Sightings = Mapping[str, tuple[Sighting, ...]]
"""What is seen from each viewpoint, the nearest first."""


@lru_cache(maxsize=16)
def look_around(house: House) -> Sightings:
    """What is seen from every viewpoint of a house, by casting rays."""
    simulator = ProceduralSimulator(house)
    rays = directions(*SIZE).reshape(-1, 3)
    found = {}
    for viewpoint in house.graph.viewpoints:
        pieces = simulator.pieces(viewpoint, SIZE).ravel()
        here = house.graph.positions[house.graph.index(viewpoint)]
        seen = []
        for index in np.unique(pieces[pieces >= 0]):
            piece = house.furniture[index]
            mask = pieces == index
            distance = float(np.hypot(piece.x - here[0], piece.y - here[1]))
            if piece.kind in UNREMARKABLE or mask.sum() < ENOUGH or distance > FARTHEST:
                continue
            x, y, _ = rays[mask].mean(0)
            noun = KINDS[piece.kind].noun
            azimuth = float(np.arctan2(y, x))
            seen.append(Sighting(int(index), noun, azimuth, distance, int(mask.sum())))
        found[viewpoint] = tuple(sorted(seen, key=lambda sighting: sighting.distance))
    simulator.close()
    return found
