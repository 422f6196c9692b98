"""Views into procedural houses with what they show: which room, which furniture, which colours."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.captions.facts import Facts, describe
from envs.captions.words import NOUNS
from envs.indoor.house import House, generate_house
from envs.indoor.procedural import ProceduralSimulator

FIELD_OF_VIEW = math.radians(80)
"""Of a view, from its left to its right."""
PITCH = math.radians(-12)
"""Of its middle: it looks a little down."""
VIEWS_PER_HOUSE = 4
"""Views that come from one house."""
LEAST, NOTICED = 0.02, 0.004
"""Shares of the picture: to be told, and to be seen at all."""
_TRIES = 60
_STREAM = 31
_NAMES = {"tv stand": "television", "rack": "shelf", "desk chair": "chair", "vanity": "sink",
          "gym bench": "weight bench"}  # fmt: skip
"""Kinds of furniture that have other names here."""
_NEAR = 1.3
"""Metres: a view whose median pixel is nearer shows a wall or the side of a wardrobe."""


class Drawn(NamedTuple):
    """A picture `(H, W, 3)` uint8 and what it shows."""

    image: NDArray[np.uint8]
    facts: Facts


def draw_house_view(k: int, split: str, seed: int, size: int) -> Drawn:
    """View k of a split, a function of the arguments alone.

    Args:
        k: 0 or more; four after each other are of one house.
        split: of `envs.indoor.house.SPLITS`.
        seed: of the houses and the views.
        size: pixels of a side.
    """
    simulator = _simulator(_house_seed(k, seed), split)
    house = simulator.house
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, k)))
    for _ in range(_TRIES):
        viewpoint = int(rng.integers(len(house.graph.viewpoints)))
        heading = float(rng.uniform(0, 2 * math.pi))
        position = house.graph.positions[viewpoint]
        found = tell(simulator, glimpse(simulator, position, heading, size))
        if found is not None:
            return found
    raise RuntimeError(f"{house.name} has no view of a single thing in {_TRIES} tries")


def _house_seed(k: int, seed: int) -> int:
    return seed * 100_000 + k // VIEWS_PER_HOUSE


@lru_cache(maxsize=1)
def _simulator(seed: int, split: str) -> ProceduralSimulator:
    return ProceduralSimulator(generate_house(seed, split))


class Glimpse(NamedTuple):
    """What the renderer says of a view.

    Attributes:
        rays: `(4 * size * size, 6)` float32, four for each pixel.
        ids: `(size, size)` piece of furniture that each pixel shows; -1 the building.
        shares: `(rooms,)` of the rays that end in each room of the house.
        near: median distance of the rays, metres.
    """

    rays: NDArray[np.float32]
    ids: NDArray[np.int64]
    shares: NDArray[np.float64]
    near: float

    @property
    def room(self) -> int:
        """Index of the room that fills most of it.

        Through an open door one sees another room than the one where one stands.
        """
        return int(self.shares.argmax())


def glimpse(
    simulator: ProceduralSimulator, position: NDArray[np.float64], heading: float, size: int
) -> Glimpse:
    """Look from a place, without colours; see `view_rays`."""
    rays = view_rays(position, heading, 2 * size)
    pieces, rooms, distance = _cast(simulator, rays)
    # The upper left of each pixel's four rays says what it shows.
    ids = pieces.reshape(2 * size, 2 * size)[::2, ::2]
    shares = np.bincount(rooms, minlength=len(simulator.house.rooms)) / len(rooms)
    return Glimpse(rays, ids, shares, float(np.median(distance)))


def picture(simulator: ProceduralSimulator, seen: Glimpse) -> NDArray[np.uint8]:
    """`(size, size, 3)` uint8: the colours of a view, each pixel the mean of its four rays."""
    size = len(seen.ids)
    fine = simulator.shade_rays(seen.rays).reshape(size, 2, size, 2, 3)
    return np.rint(fine.astype(np.float32).mean((1, 3))).astype(np.uint8)


def tell(simulator: ProceduralSimulator, seen: Glimpse) -> Drawn | None:
    """A view and what is said of it; None where nothing in it can be told."""
    if seen.near < _NEAR:
        return None
    house, image = simulator.house, picture(simulator, seen)
    things = describe(image, seen.ids, spoken_names(house), LEAST, NOTICED)
    return Drawn(image, Facts(house.rooms[seen.room].purpose, things)) if things else None


def view_rays(position: NDArray[np.float64], heading: float, size: int) -> NDArray[np.float32]:
    """Rays of a pinhole camera that looks a little down, row by row from the upper left.

    Args:
        position: `(3,)` metres, world frame.
        heading: azimuth of the optical axis, radians counter-clockwise from +x.
        size: pixels of a side.

    Returns:
        `(size * size, 6)` float32: origins and unit directions.
    """
    reach = math.tan(FIELD_OF_VIEW / 2)
    steps = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
    right, down = np.meshgrid(steps, steps)
    forward = np.ones_like(right)
    cos, sin = math.cos(PITCH), math.sin(PITCH)
    ahead, up = cos * forward + sin * down, sin * forward - cos * down
    x = math.cos(heading) * ahead + math.sin(heading) * right
    y = math.sin(heading) * ahead - math.cos(heading) * right
    directions = np.stack([x, y, up], -1).reshape(-1, 3)
    rays = np.empty((size * size, 6), np.float32)
    rays[:, :3] = position
    rays[:, 3:] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return rays


def _cast(
    simulator: ProceduralSimulator, rays: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """What each ray sees: piece of furniture (-1: the building), room, distance in metres."""
    hit = simulator.cast(rays)
    distance = hit["t_hit"].numpy()
    part = simulator.mesh.part.take(hit["primitive_ids"].numpy(), mode="clip")
    seen = np.where(np.isinf(distance), -1, simulator.mesh.piece[part])
    return seen.astype(np.int64), simulator.mesh.room[part].astype(np.int64), distance


def spoken_names(house: House) -> list[str | None]:
    """What each piece of furniture is called in captions; None for what has no name here."""
    names = [_NAMES.get(piece.kind, piece.kind) for piece in house.furniture]
    return [name if name in NOUNS else None for name in names]
