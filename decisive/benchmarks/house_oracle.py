"""An oracle that knows how houses are made: the ceiling of what any world model could guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.vln.places import Array, GraphPlace, Imagined
from envs.indoor.categories import ID
from envs.indoor.equirectangular import directions
from envs.indoor.house import House
from envs.indoor.room_types import PURPOSES, TypeModel
from world_models.pathdreamer.panoramas import PanoramaSet

CONFIDENCE = 0.9
ENOUGH = 0.005
"""Share of a panorama that furniture of a room fills where the room counts as seen."""

_BUILDING = tuple(
    ID[name] for name in ("void", "wall", "floor", "ceiling", "door", "window", "column", "beam")
)

Bank = Mapping[str, Array]
"""`(M, 12, F)` views from rooms of each purpose, of other houses."""


def seen_rooms(house: House, data: PanoramaSet, span: range) -> list[frozenset[int]]:
    """Rooms that show enough of their furniture in the panorama from each viewpoint.

    The room that one stands in is always among them.
    """
    unit = directions(*data.size)
    rects = [room.rect for room in house.rooms]
    found = []
    for k, index in enumerate(span):
        depth = data.depth[index].astype(np.float32)
        x, y = (data.positions[index][axis] + unit[..., axis] * depth for axis in (0, 1))
        furniture = ~np.isin(data.semantic[index], _BUILDING)
        rooms = {house.viewpoint_rooms[k]}
        for number, rect in enumerate(rects):
            inside = (x > rect.x0) & (x < rect.x1) & (y > rect.y0) & (y < rect.y1)
            if (inside & furniture).mean() >= ENOUGH:
                rooms.add(number)
        found.append(frozenset(rooms))
    return found


@dataclass
class Oracle:
    """Draws purposes of the rooms not seen from their exact joint posterior.

    It knows the plan, the purposes of all rooms that any visited viewpoint shows something of, and
    the style of every door. Where it draws the right purpose it is shown the true view, else one
    from a room of the drawn purpose in another house. So it knows at least as much as can be known
    before one has been there: the true furniture of a room of known purpose is a gift.

    Attributes:
        house: where.
        views: `(N, 12, F)`, the truth.
        seen: `seen_rooms`.
        bank: views of other houses.
        samples: draws.
        seed: of the draws.
    """

    house: House
    views: Array
    seen: Sequence[frozenset[int]]
    bank: Bank
    samples: int = 1
    seed: int = 0
    _drawn: dict[frozenset[int], list[dict[int, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Weigh the purposes."""
        self._model = TypeModel(self.house.plan, self.house.predictability)
        self._signs = {
            room: {"door": self.house.rooms[room].signs["door"]} for room in self._model.rooms
        }

    def __call__(
        self, place: GraphPlace, visited: Sequence[int], unseen: Sequence[int]
    ) -> Imagined:
        """Views for `DreamPlace`."""
        known = frozenset().union(*(self.seen[viewpoint] for viewpoint in visited))
        ideas = self.purposes(known)
        views = np.stack([[self._view(idea, viewpoint) for viewpoint in unseen] for idea in ideas])
        return Imagined(views, np.full(views.shape[:2], CONFIDENCE, np.float32))

    def purposes(self, known: frozenset[int]) -> list[dict[int, str]]:
        """Draws of the purposes of all rooms, those of known ones being true."""
        if known not in self._drawn:
            rng = np.random.default_rng([self.seed, self.house.seed, *sorted(known)])
            self._drawn[known] = [self._draw(known, rng) for _ in range(self.samples)]
        return self._drawn[known]

    def _draw(self, known: frozenset[int], rng: np.random.Generator) -> dict[int, str]:
        drawn = {
            room: self.house.rooms[room].purpose for room in self._model.rooms if room in known
        }
        for room in self._model.rooms:
            if room not in drawn:
                likely = self._model.posterior(room, drawn, self._signs)
                drawn[room] = PURPOSES[rng.choice(len(PURPOSES), p=likely)]
        return drawn

    def _view(self, idea: Mapping[int, str], viewpoint: int) -> Array:
        room = self.house.viewpoint_rooms[viewpoint]
        purpose = idea.get(room)
        if purpose is None or purpose == self.house.rooms[room].purpose:
            return self.views[viewpoint]
        others = self.bank[purpose]
        return others[np.random.default_rng([self.house.seed, viewpoint]).integers(len(others))]


def bank_of(houses: Sequence[tuple[House, Array]]) -> Bank:
    """Views by the purpose of the room they are from.

    Args:
        houses: each with its `(N, 12, F)` views.

    Raises:
        ValueError: if a purpose is missing: give more houses.
    """
    found: dict[str, list[NDArray[np.float32]]] = {purpose: [] for purpose in PURPOSES}
    for house, views in houses:
        for view, room in zip(views, house.viewpoint_rooms, strict=True):
            if (purpose := house.rooms[room].purpose) in found:
                found[purpose].append(view)
    if missing := [purpose for purpose, views in found.items() if not views]:
        raise ValueError(f"no room of {len(houses)} houses is a {missing[0]}; give more houses")
    return {purpose: np.stack(views) for purpose, views in found.items()}
