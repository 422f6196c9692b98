"""How one scene of the cluttered table is laid out, and whether it shows what it should."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.clutter_bodies import KINDS, Bodies, Color, color, contrast
from envs.tabletop.clutter_view import Strip, Table, draw_table
from envs.tabletop.insertion import (
    DEPTH,
    INSERTED,
    WALL,
    WALL_HEIGHT,
    YAW_TOLERANCE,
    in_slot_frame,
)
from envs.tabletop.push import BLOCK
from envs.tabletop.scene import COLORS, quaternion_yaw, yaw_quaternion
from envs.tabletop.sorting_experts import HALF as CUBE

TASKS: dict[str, tuple[str, ...]] = {
    "object": ("nothing", *KINDS),
    "inserted": ("no", "yes"),
    "zone": ("none", "left", "right", "both"),
}
"""Names of the tasks and of their classes, in order."""
NO_LABEL = -1
EDGE = 0.075
"""A block is in its zone where |y| is beyond this, metres; `BlockSortingEnv` has 0.13."""
_ZONE_DEPTH = 0.085
_CENTER = (0.40, 0.0)

Misses = Literal["beside", "halfway", "edge", "turned", "behind", "away"]
MISSES: tuple[Misses, ...] = ("beside", "halfway", "edge", "turned", "behind", "away")
"""How a block is not in the slot: at its wall, short of its end, tilted on a wall, lying on top
across it, behind it, somewhere else."""


@dataclass(frozen=True)
class Plan:
    """What a picture shows, before anything has a place.

    Attributes:
        setup: `open`, `slot` or `zones`.
        kind: of the main thing; None for nothing.
        miss: how the block misses the slot; None where it is in.
        full: whether the left and the right zone are full.
        n_distractors: how many.
    """

    setup: str
    kind: str | None
    miss: Misses | None
    full: tuple[bool, bool]
    n_distractors: int

    def labels(self) -> tuple[int, int, int]:
        """Class of each of `TASKS`, or `NO_LABEL`."""
        kind = 0 if self.kind is None else TASKS["object"].index(self.kind)
        inserted = int(self.miss is None) if self.setup == "slot" else NO_LABEL
        zone = self.full[0] + 2 * self.full[1] if self.setup == "zones" else NO_LABEL
        return kind, inserted, zone


class Layout:
    """One try at a scene.

    Attributes:
        table: how the table looks.
        strips: painted on it.
        free: bodies that physics moves.
        fixed: bodies that it does not.
        main: body of the main thing.
        cubes: body and side (+1 left) of each block to be sorted.
        slot: `(3,)` mouth x, y and heading.
    """

    def __init__(
        self,
        client: Any,
        what: Plan,
        rng: np.random.Generator,
        shapes: NDArray[np.int64],
        colors: NDArray[np.int64],
    ) -> None:
        """Clear the client's world and choose the table.

        Args:
            client: Bullet server.
            what: to be shown.
            rng: where the numbers come from.
            shapes: ids of distractors to draw from.
            colors: ids of colours to draw from.
        """
        client.resetSimulation()
        client.setGravity(0, 0, -9.81)
        self.client, self.what, self.rng = client, what, rng
        self._shapes, self._colors = shapes, colors
        self.bodies = Bodies(client)
        self.bodies.table()
        self.table: Table = draw_table(rng, (self._color(pale=True), self._color(pale=True)))
        self.free: list[int] = []
        self.fixed: list[int] = []
        self.strips: list[Strip] = []
        self.main: int | None = None
        self.cubes: list[tuple[int, int]] = []
        self.slot = np.zeros(3)
        self._taken: list[tuple[float, float, float]] = []
        """Circles x, y, radius in which nothing more goes."""

    def build(self) -> bool:
        """Add everything; False where there is no room."""
        if self.what.setup == "slot":
            self._add_slot()
        if self.what.setup == "zones":
            self._add_zones()
        rng = self.rng
        if self.what.kind is not None:
            scale = rng.uniform(0.8, 1.15)
            self.main = self.bodies.kind(self.what.kind, scale, self._visible_color())
            if not self._find_place(self.main, 0.05 if self.what.setup == "open" else 0.15):
                return False
        for _ in range(self.what.n_distractors):
            body = self.bodies.shape(
                int(rng.choice(self._shapes)), rng.uniform(0.025, 0.05), self._visible_color()
            )
            if not self._find_place(body, 0.16):
                return False
        return True

    def is_as_planned(self) -> bool:
        """Whether what came to rest has the labels of the plan, and none is a close call."""
        if self.what.setup == "slot":
            return self.is_in_slot() is (self.what.miss is None)
        return all(self._zone_state(*cube) is not None for cube in self.cubes) and (
            self.what.setup != "zones" or self._full() == self.what.full
        )

    def is_seen(self, seen: NDArray[np.int64], min_share: float) -> bool:
        """Whether all that a label depends on is in the picture and large enough."""
        needed = {body: 0.0012 for body, _ in self.cubes}
        if self.main is not None:
            needed[self.main] = min_share
        if self.what.setup == "slot":
            needed |= {self.free[0]: 0.0035, self.fixed[0]: 0.008}
        border = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        return all(
            (seen == body).mean() >= share and not (border == body).any()
            for body, share in needed.items()
        )

    def _color(self, *, pale: bool = False) -> Color:
        return color(int(self.rng.choice(self._colors)), pale=pale)

    def _visible_color(self, apart_from: Sequence[Sequence[float]] = ()) -> Color:
        """One that stands out from the table."""
        others = [*self.table.colors, *apart_from]
        best, most = self._color(), -1.0
        for _ in range(8):
            paint = self._color()
            distance = min(contrast(paint, other) for other in others)
            if distance > most:
                best, most = paint, distance
            if most > 0.35:
                break
        return best

    def _find_place(self, body: int, reach: float) -> bool:
        """Put a body at any yaw within `reach` metres of the middle, beside all others."""
        radius = self.bodies.radius(body)
        for _ in range(40):
            x, y = self.rng.uniform(-reach, reach, 2) + _CENTER
            if all(math.hypot(x - a, y - b) > radius + r + 0.004 for a, b, r in self._taken):
                self.bodies.put(body, (x, y), self.rng.uniform(0, 2 * math.pi))
                self._taken.append((x, y, radius))
                self.free.append(body)
                return True
        return False

    def _add_slot(self) -> None:
        rng = self.rng
        x, y = rng.uniform(-0.05, 0.05, 2) + _CENTER
        heading = rng.uniform(0, 2 * math.pi)
        self.slot = np.array([x, y, heading])
        paint = self._visible_color()
        clearance = rng.uniform(0.0008, 0.002)
        self.fixed.append(self.bodies.fixture(clearance, paint, (x, y), heading))
        block = self.bodies.block(BLOCK, self._visible_color([paint]))
        depth, offset, yaw, z = self._block_pose(clearance)
        cos, sin = math.cos(heading), math.sin(heading)
        bx, by = x + cos * depth - sin * offset, y + sin * depth + cos * offset
        turn = yaw_quaternion(heading + yaw)
        self.client.resetBasePositionAndOrientation(block, (bx, by, z), turn)
        self.free.append(block)
        half = DEPTH / 2
        self._taken += [(x + cos * half, y + sin * half, 0.048), (bx, by, 0.03)]

    def _block_pose(self, clearance: float) -> tuple[float, float, float, float]:
        """Depth past the mouth, offset to the left, yaw in the slot's frame, and height."""
        rng, flat = self.rng, BLOCK[2] + 0.0005
        side = 1.0 if rng.random() < 0.5 else -1.0
        quarter = rng.integers(4) * math.pi / 2
        above = WALL_HEIGHT + BLOCK[2] + 0.001
        offset = rng.uniform(-0.5, 0.5) * clearance
        match self.what.miss:
            case None:
                return INSERTED - rng.uniform(0.0002, 0.0015), offset, quarter, flat
            case "halfway":
                return rng.uniform(-0.018, INSERTED - 0.012), offset, quarter, flat
            case "beside":
                return rng.uniform(0.0, 0.04), side * rng.uniform(0.056, 0.066), quarter, flat
            case "edge":
                return rng.uniform(0.010, 0.03), side * rng.uniform(0.012, 0.03), quarter, above
            case "turned":
                yaw = side * rng.uniform(0.45, 1.1)
                return rng.uniform(0.015, 0.03), 0.0, yaw, above
            case "behind":
                depth = DEPTH + WALL + rng.uniform(0.022, 0.03)
                return depth, rng.uniform(-0.02, 0.02), quarter + rng.uniform(-0.05, 0.05), flat
            case _:
                depth, offset = rng.uniform(-0.11, -0.045), rng.uniform(-0.06, 0.06)
                return depth, offset, rng.uniform(0, 2 * math.pi), flat

    def is_in_slot(self) -> bool | None:
        """Whether the block is fully in, as BlockInsertion has it; None is too close to call."""
        (x, y, z), turn = self.client.getBasePositionAndOrientation(self.free[0])
        depth, offset, yaw = in_slot_frame((x, y, quaternion_yaw(turn)), self.slot)
        flat = 1 - 2 * (turn[0] ** 2 + turn[1] ** 2) > math.cos(0.1) and abs(z - BLOCK[2]) < 0.004
        distance = math.hypot(depth - INSERTED, offset)
        if flat and distance < 0.004 and abs(yaw) < YAW_TOLERANCE:
            return True
        return None if flat and distance < 0.010 else False

    def _add_zones(self) -> None:
        """Two blocks for each zone; in one that is not full, one or both lie before its edge."""
        rng = self.rng
        for side, name, full in ((1, "blue", self.what.full[0]), (-1, "yellow", self.what.full[1])):
            paint = COLORS[name][:3]
            pale = tuple(0.45 * a + 0.55 * b for a, b in zip(paint, COLORS["table"], strict=False))
            near, far = sorted((side * EDGE, side * (EDGE + _ZONE_DEPTH)))
            assert len(pale) == 3
            self.strips.append(Strip((0.30, near), (0.50, far), pale))
            inside = 2 if full else int(rng.integers(2))
            shade = np.clip(np.array(paint) * rng.uniform(0.8, 1.1), 0, 1)
            for number in range(2):
                red, green, blue = (float(value) for value in shade)
                body = self.bodies.block((CUBE, CUBE, CUBE), (red, green, blue))
                self._place_cube(body, side, number < inside)
                self.cubes.append((body, side))
                self.free.append(body)

    def _place_cube(self, body: int, side: int, inside: bool) -> None:
        rng = self.rng
        # A third of those outside touch the edge, or lie in the other zone.
        low, high = (EDGE + 0.010, EDGE + 0.070) if inside else (-0.04, EDGE - 0.030)
        if not inside and rng.random() < 1 / 3:
            low, high = (EDGE - 0.016, EDGE - 0.009)
        elif not inside and rng.random() < 1 / 6:
            low, high = (-EDGE - 0.070, -EDGE - 0.010)
        x, y = _CENTER
        for _ in range(40):
            x, y = _CENTER[0] + rng.uniform(-0.08, 0.08), side * rng.uniform(low, high)
            if all(math.hypot(x - a, y - b) > 0.024 + r for a, b, r in self._taken):
                break
        self.bodies.put(body, (x, y), rng.uniform(0, 2 * math.pi))
        self._taken.append((x, y, 0.024))

    def _zone_state(self, body: int, side: int) -> bool | None:
        """Whether a block is in its zone; None is too close to call."""
        y = self.client.getBasePositionAndOrientation(body)[0][1] * side
        return None if abs(y - EDGE) < 0.006 else y > EDGE

    def _full(self) -> tuple[bool, bool]:
        left, right = (
            all(self._zone_state(*cube) for cube in self.cubes if cube[1] == side)
            for side in (1, -1)
        )
        return left, right
