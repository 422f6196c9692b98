"""Procedural houses: a plan, purposes of rooms that go together, signs of them, and furniture.

A house is a pure function of its split, its seed and its predictability. The splits draw from
streams of random numbers that have nothing in common. The predictability changes neither the
plan nor anything else about rooms that it leaves regular.

`GENERATOR` changes whenever houses do; results name it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.indoor.floor_plan import WALL, Plan, Rect, draw_plan
from envs.indoor.furnishing import furnish
from envs.indoor.furniture import Furniture
from envs.indoor.graph import NavigationGraph
from envs.indoor.room_types import HALLWAY, PURPOSES, TypeModel
from envs.indoor.viewpoints import draw_viewpoints

Array = NDArray[np.float64]

GENERATOR = 1
"""Version of the generator; frozen before anything is trained on its houses."""

SPLITS: dict[str, int] = {"train": 0, "val": 1, "test": 2}
"""Splits, and the number that sets their random streams apart."""

BODY_RADIUS = 0.2
"""Of who walks here, in metres."""

_FURNISHINGS, _PLANS = 20, 10
"""Tries: of furnishing a plan, and of plans. Of 600 plans 13 cannot be furnished."""


@dataclass(frozen=True)
class Room:
    """A room.

    Attributes:
        purpose: one of `room_types.PURPOSES`, or "hallway".
        rect: to the middle of its walls.
        clear: its floor between the walls.
        regular: whether it follows the correlated model; else it was drawn on its own.
        signs: style of its door, floor, colour of its walls: `{"door": .., "floor": .., "wall": ..}`.
    """  # noqa: E501

    purpose: str
    rect: Rect
    clear: Rect
    regular: bool
    signs: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class House:
    """A house; equal only to itself.

    Attributes:
        name: such as `house_train_000012`, with its predictability where that is below 1.
        split: "train", "val" or "test".
        seed: within the split.
        predictability: from 0 (every room on its own) to 1.
        plan: where rooms, doors and windows are.
        rooms: what each is.
        furniture: all of it.
        graph: viewpoints at 1.5 m and straight ways between them, of `BODY_RADIUS` to each side.
        viewpoint_rooms: index of the room of each viewpoint.
        palette: seed of the colours.
    """

    name: str
    split: str
    seed: int
    predictability: float
    plan: Plan
    rooms: tuple[Room, ...]
    furniture: tuple[Furniture, ...]
    graph: NavigationGraph
    viewpoint_rooms: tuple[int, ...]
    palette: int

    def room_of(self, viewpoint: str) -> int:
        """Index of the room a viewpoint is in.

        Raises:
            ValueError: for an unknown viewpoint.
        """
        return self.viewpoint_rooms[self.graph.index(viewpoint)]

    def room_at(self, position: ArrayLike) -> int | None:
        """Index of the room at a point, x and y in metres; None outside."""
        x, y = np.asarray(position, float)[:2]
        return next((k for k, room in enumerate(self.rooms) if room.rect.holds(x, y)), None)

    def free(self, position: ArrayLike, radius: float = BODY_RADIUS) -> bool:
        """Whether a round body can be somewhere.

        Args:
            position: x and y of its middle in metres, world frame.
            radius: of the body.

        Raises:
            ValueError: for what is not two or three finite numbers.
        """
        point = np.asarray(position, float)
        if point.shape not in ((2,), (3,)) or not np.isfinite(point).all():
            raise ValueError(f"position must be two finite numbers, got {position!r}")
        if self.room_at(point) is None:
            return False
        blocks = self._blocks
        nearest = np.clip(point[:2], blocks[:, :2], blocks[:, 2:])
        return bool(np.linalg.norm(nearest - point[:2], axis=-1).min() >= radius)

    @cached_property
    def _blocks(self) -> Array:
        return obstacles(self.plan, self.furniture)


def house_name(seed: int, split: str, predictability: float = 1.0) -> str:
    """Name of a house, also that of its scan."""
    name = f"house_{split}_{seed:06d}"
    return name if predictability == 1.0 else f"{name}_p{round(100 * predictability):03d}"


def generate_house(seed: int, split: str = "train", predictability: float = 1.0) -> House:
    """Build a house.

    Args:
        seed: not negative.
        split: "train", "val" or "test"; no house is in two of them.
        predictability: how much rooms tell of each other; see `envs.indoor.room_types`.

    Raises:
        ValueError: for values outside these.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {tuple(SPLITS)}, got {split!r}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    name = house_name(seed, split, predictability)
    for redrawn in range(_PLANS):
        for attempt in range(_FURNISHINGS):
            house = _attempt(name, seed, split, predictability, (redrawn, attempt))
            if house is not None:
                return house
    raise AssertionError(f"{name}: none of {_PLANS} plans gave a house that can be walked")


def obstacles(plan: Plan, furniture: tuple[Furniture, ...]) -> Array:
    """`(N, 4)` x0, y0, x1, y1 of all that stops a walker: walls, open doors, furniture."""
    found = [piece.footprint for piece in furniture if piece.blocks]
    found += [door.leaf_rect() for door in plan.doors if door.leaf]
    for room, rect in enumerate(plan.rooms):
        doors = [door for door in plan.doors if room in door.rooms]
        for axis, outward in ((0, 1), (0, -1), (1, 1), (1, -1)):
            at, low, high = rect.side(axis, outward)
            gaps = sorted(
                (door.along - door.width / 2, door.along + door.width / 2)
                for door in doors
                if door.axis == axis and abs(door.at - at) < 1e-9 and low < door.along < high
            )
            near, far = sorted((at, at - outward * WALL / 2))
            start = low
            for begin, end in [*gaps, (high, high)]:
                if axis == 0:
                    found.append(Rect(near, start, far, begin))
                else:
                    found.append(Rect(start, near, begin, far))
                start = end
    return np.array([(r.x0, r.y0, r.x1, r.y1) for r in found])


def _attempt(
    name: str, seed: int, split: str, predictability: float, attempt: tuple[int, int]
) -> House | None:
    """One try, numbered by plan and furnishing; None where the viewpoints cannot be joined."""
    redrawn, refurnished = attempt
    own = (SPLITS[split], seed) if not redrawn else (SPLITS[split], seed, 0, redrawn)
    of_plan, of_types, of_palette = np.random.SeedSequence(own).spawn(3)
    of_rooms = np.random.SeedSequence((*own, 1 + refurnished))
    plan = draw_plan(np.random.default_rng(of_plan))
    model = TypeModel(plan, predictability)
    purposes, signs, regular = model.sample(np.random.default_rng(of_types))
    hall_signs = {"door": "white", "floor": "planks", "wall": "cream"}
    rooms = tuple(
        Room(
            purposes.get(k, HALLWAY),
            rect,
            plan.clear(k),
            regular.get(k, True),
            signs.get(k, hall_signs),
        )
        for k, rect in enumerate(plan.rooms)
    )
    furniture: list[Furniture] = []
    for k, child in enumerate(of_rooms.spawn(len(rooms))):
        rng = np.random.default_rng(child)
        furniture += furnish(plan, k, rooms[k].purpose, rooms[k].regular, rng)
    found = draw_viewpoints(name, plan, obstacles(plan, tuple(furniture)), BODY_RADIUS)
    if found is None:
        return None
    graph, viewpoint_rooms = found
    palette = int(of_palette.generate_state(1)[0])
    return House(
        name,
        split,
        seed,
        predictability,
        plan,
        rooms,
        tuple(furniture),
        graph,
        viewpoint_rooms,
        palette,
    )


__all__ = [
    "BODY_RADIUS",
    "GENERATOR",
    "PURPOSES",
    "SPLITS",
    "House",
    "Room",
    "generate_house",
    "house_name",
    "obstacles",
]
