"""Where in a house things and rooms are truly seen, and what captions would ask for there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.captions.facts import SIDES, Thing
from envs.captions.house_views import LEAST, NOTICED, glimpse, spoken_names, tell
from envs.indoor.procedural import ProceduralSimulator

SIZE = 64
"""Pixels of a side of the views that are looked at."""


class Asked(NamedTuple):
    """What a sentence asks for.

    Attributes:
        place: purpose of the room that fills most of the view it was told of.
        thing: that was told; None asks for the room.
    """

    place: str
    thing: Thing | None = None


@dataclass(frozen=True)
class Sights:
    """What is seen from V viewpoints in H headings.

    Attributes:
        rooms: `(V, H)` index of the room that fills most of each view.
        purposes: of the rooms.
        shares: `(V, H, P)` share of the view that each piece of furniture fills.
        told: of a name and a colour, the pieces that captions tell of in these words.
        asked: what can be asked for: each thing as it is told, each purpose of a room that is
            seen.
    """

    rooms: NDArray[np.int64]
    purposes: tuple[str, ...]
    shares: NDArray[np.float64]
    told: Mapping[tuple[str, str | None], frozenset[int]]
    asked: tuple[Asked, ...]

    def shows(self, asked: Asked) -> NDArray[np.bool_]:
        """`(V, H)`: views in which it is truly seen.

        Of a room, those that it fills most of; of a thing, those in which a piece that is told in
        the same words fills `LEAST`.
        """
        if asked.thing is None:
            return self.room_shows(asked.place)
        pieces = sorted(self.told[asked.thing.name, asked.thing.color])
        return self.shares[..., pieces].max(-1) >= LEAST

    def room_shows(self, place: str) -> NDArray[np.bool_]:
        """`(V, H)`: views that a room of a purpose fills most of."""
        return np.array([purpose == place for purpose in self.purposes])[self.rooms]


def survey(simulator: ProceduralSimulator, yaws: Sequence[float]) -> Sights:
    """Look from every viewpoint of a house.

    Args:
        simulator: of the house.
        yaws: headings, radians counter-clockwise from +x.

    Raises:
        ValueError: for no or infinite headings.
    """
    if not len(yaws) or not all(map(math.isfinite, yaws)):
        raise ValueError(f"yaws must be finite, one at least, got {yaws}")
    house = simulator.house
    names, n = spoken_names(house), len(house.furniture)
    rooms = np.zeros((len(house.graph), len(yaws)), np.int64)
    shares = np.zeros((*rooms.shape, n))
    told: dict[tuple[str, str | None], set[int]] = {}
    asked: dict[Asked, None] = {}
    for place in np.ndindex(rooms.shape):
        seen = glimpse(simulator, house.graph.positions[place[0]], yaws[place[1]], SIZE)
        rooms[place] = seen.room
        shares[place] = np.bincount(seen.ids[seen.ids >= 0], minlength=n) / seen.ids.size
        drawn = tell(simulator, seen)
        for thing in () if drawn is None else drawn.facts.things:
            key = thing.name, thing.color
            told.setdefault(key, set()).add(_only(names, shares[place], thing.name))
            # Which side it is on is another matter for every view.
            asked[Asked(house.rooms[seen.room].purpose, replace(thing, side=SIDES[1]))] = None
    purposes = tuple(room.purpose for room in house.rooms)
    places = dict.fromkeys(purposes[room] for room in rooms.ravel().tolist())
    return Sights(
        rooms,
        purposes,
        shares,
        {key: frozenset(pieces) for key, pieces in told.items()},
        (*asked, *map(Asked, places)),
    )


def _only(names: Sequence[str | None], shares: NDArray[np.float64], name: str) -> int:
    """The one piece of a name that is noticed in a view."""
    (found,) = (k for k, own in enumerate(names) if own == name and shares[k] >= NOTICED)
    return found
