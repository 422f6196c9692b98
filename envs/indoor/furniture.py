"""Pieces of furniture: where each stands, which category it has, whether it is in the way."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from envs.indoor import fixture_bodies as fixtures
from envs.indoor import furniture_bodies as bodies
from envs.indoor.categories import ID
from envs.indoor.floor_plan import Rect
from envs.indoor.furniture_bodies import Builder, Part


@dataclass(frozen=True)
class Furniture:
    """A piece of furniture where it stands or hangs.

    Attributes:
        kind: key of `KINDS`.
        room: index of its room.
        x: of its middle, world frame, metres.
        y: likewise.
        yaw: azimuth of its front in radians.
        width: from its left to its right, metres.
        depth: from its back to its front.
        height: of the piece itself.
        base: height of its lower edge above the floor.
        tone: which of a few colours it has, 0 to 2.
    """

    kind: str
    room: int
    x: float
    y: float
    yaw: float
    width: float
    depth: float
    height: float
    base: float = 0.0
    tone: int = 0

    @property
    def category(self) -> str:
        """Name of its category."""
        return KINDS[self.kind].category

    @property
    def blocks(self) -> bool:
        """Whether one cannot walk through where it is."""
        return KINDS[self.kind].blocks

    @property
    def footprint(self) -> Rect:
        """The smallest rectangle along x and y that holds it."""
        cos, sin = abs(np.cos(self.yaw)), abs(np.sin(self.yaw))
        half_x = float(cos * self.depth + sin * self.width) / 2
        half_y = float(sin * self.depth + cos * self.width) / 2
        return Rect(self.x - half_x, self.y - half_y, self.x + half_x, self.y + half_y)

    def parts(self) -> list[Part]:
        """Its bodies."""
        kind = KINDS[self.kind]
        parts = kind.build(self.depth, self.width, self.height)
        toned = {name: f"{name}{self.tone}" for name in ("fabric", "art", "towel", "rug")}
        return [
            part._replace(
                material=toned.get(part.material, part.material),
                category=part.category or kind.category,
            )
            for part in parts
        ]


class Kind(NamedTuple):
    """What all pieces of a kind share: category, noun for instructions, bodies, obstacle or not."""

    category: str
    noun: str
    build: Builder
    blocks: bool = True


KINDS: dict[str, Kind] = {
    "bed": Kind("bed", "bed", bodies.bed),
    "sofa": Kind("sofa", "sofa", bodies.sofa),
    "armchair": Kind("chair", "armchair", bodies.armchair),
    "chair": Kind("chair", "chair", bodies.chair),
    "desk chair": Kind("chair", "chair", bodies.desk_chair),
    "stool": Kind("stool", "stool", bodies.stool),
    "table": Kind("table", "table", bodies.table),
    "dining table": Kind("table", "table", bodies.dining_table),
    "coffee table": Kind("table", "coffee table", bodies.coffee_table),
    "desk": Kind("table", "desk", bodies.desk),
    "chest": Kind("chest_of_drawers", "chest of drawers", bodies.chest),
    "nightstand": Kind("chest_of_drawers", "nightstand", bodies.nightstand),
    "wardrobe": Kind("cabinet", "wardrobe", bodies.wardrobe),
    "sideboard": Kind("cabinet", "sideboard", bodies.sideboard),
    "tv stand": Kind("furniture", "television", bodies.tv_stand),
    "bookcase": Kind("shelving", "bookcase", bodies.bookcase),
    "rack": Kind("shelving", "shelves", bodies.rack),
    "clothes rail": Kind("clothes", "clothes", bodies.clothes_rail),
    "counter": Kind("counter", "counter", fixtures.counter),
    "kitchen sink": Kind("counter", "kitchen sink", fixtures.kitchen_sink),
    "stove": Kind("appliances", "stove", fixtures.stove),
    "fridge": Kind("appliances", "fridge", fixtures.fridge),
    "upper cabinets": Kind("cabinet", "wall cabinets", fixtures.upper_cabinets, False),
    "island": Kind("counter", "kitchen island", fixtures.island),
    "toilet": Kind("toilet", "toilet", fixtures.toilet),
    "vanity": Kind("sink", "sink", fixtures.vanity),
    "bathtub": Kind("bathtub", "bathtub", fixtures.bathtub),
    "shower": Kind("shower", "shower", fixtures.shower),
    "washer": Kind("appliances", "washing machine", fixtures.washer),
    "basket": Kind("clothes", "laundry basket", fixtures.basket),
    "plant": Kind("plant", "plant", fixtures.plant),
    "fireplace": Kind("fireplace", "fireplace", fixtures.fireplace),
    "floor lamp": Kind("lighting", "floor lamp", fixtures.floor_lamp),
    "ceiling lamp": Kind("lighting", "ceiling lamp", fixtures.ceiling_lamp, False),
    "pendant": Kind("lighting", "hanging lamp", fixtures.pendant, False),
    "picture": Kind("picture", "picture", fixtures.picture, False),
    "board": Kind("board_panel", "notice board", fixtures.board, False),
    "mirror": Kind("mirror", "mirror", fixtures.mirror, False),
    "towel": Kind("towel", "towel", fixtures.towel, False),
    "curtain": Kind("curtain", "curtains", fixtures.curtain, False),
    "blinds": Kind("blinds", "blinds", fixtures.blinds, False),
    "rug": Kind("floor", "rug", fixtures.rug, False),
    "front door": Kind("door", "front door", fixtures.front_door, False),
    "treadmill": Kind("gym_equipment", "treadmill", fixtures.treadmill),
    "weights": Kind("gym_equipment", "rack of weights", fixtures.weights),
    "gym bench": Kind("gym_equipment", "weight bench", fixtures.gym_bench),
    "bench": Kind("seating", "bench", fixtures.bench),
    "column": Kind("column", "column", fixtures.column),
}
"""All kinds of furniture."""

assert all(kind.category in ID for kind in KINDS.values())
