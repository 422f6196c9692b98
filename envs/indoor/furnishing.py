"""Puts furniture into a room: by rule where the room is a regular one, else anywhere it fits.

Whatever is placed leaves all doors of a room connected for a body of 0.5 m.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from envs.indoor.floor_plan import Door, Plan, Rect, Window
from envs.indoor.furnishing_rules import ABOVE, LAMPS, RULES, WINDOWS, Rule
from envs.indoor.furniture import KINDS, Furniture

Array = NDArray[np.float64]

_CELL = 0.1
_BODY = 0.25
_WALLS = ((0, 1), (0, -1), (1, 1), (1, -1))
_TRIES = 12


def furnish(
    plan: Plan, room: int, purpose: str, regular: bool, rng: np.random.Generator
) -> list[Furniture]:
    """Furniture of one room.

    Args:
        plan: the storey.
        room: index of the room.
        purpose: what it is for; decides what there is.
        regular: whether furniture stands by rule; otherwise it stands where it fits.
        rng: source of randomness.

    Raises:
        ValueError: for an unknown purpose.
    """
    if purpose not in RULES:
        raise ValueError(f"purpose must be one of {tuple(RULES)}, got {purpose!r}")
    placer = _Placer(plan, room, regular, rng)
    for rule in RULES[purpose]:
        # Drawn even where nothing fits, so that the numbers after it stay the same.
        there, tone = rng.random(rule.number) < rule.chance, int(rng.integers(3))
        for present in there:
            if present and not placer.place(rule, tone) and rule == RULES[purpose][0]:
                # The first piece is what shows the purpose: it may stand closer.
                placer.place(rule._replace(front=0.0, where="anywhere"), tone)
    placer.hang(LAMPS.get(purpose, "ceiling lamp"), WINDOWS.get(purpose))
    return placer.pieces


class _Placer:
    """What stands in a room so far, and where something else would fit."""

    def __init__(self, plan: Plan, room: int, regular: bool, rng: np.random.Generator) -> None:
        self.plan, self.room, self.regular, self.rng = plan, room, regular, rng
        self.clear = plan.clear(room)
        self.doors = [door for door in plan.doors if room in door.rooms]
        self.windows = [window for window in plan.windows if window.room == room]
        self.pieces: list[Furniture] = []
        self.kept = [_before_door(door, room) for door in self.doors]
        self.fronts: list[Rect] = []
        self.solid = [d.leaf_rect() for d in self.doors if d.leaf and d.rooms[1] == room]
        # Along each wall: from, to, lower edge, upper edge of what is there.
        self.walls: dict[tuple[int, int], list[tuple[float, float, float, float]]] = {
            wall: [] for wall in _WALLS
        }
        for door in self.doors:
            wall = door.axis, (1 if door.rooms[0] == room else -1) * door.side
            half = door.width / 2 + 0.14
            self.walls[wall].append((door.along - half, door.along + half, 0.0, 2.25))
        for window in self.windows:
            half = window.width / 2 + 0.05
            span = (window.along - half, window.along + half)
            self.walls[window.axis, window.outward].append((*span, window.sill - 0.02, 2.2))
        if plan.entrance.room == room:
            self._add_entrance(plan.entrance)

    def place(self, rule: Rule, tone: int) -> bool:
        """Place a piece at the best spot that leaves the doors connected, if there is one."""
        for width, depth, height in rule.sizes:
            spots = self._spots(rule, width, depth, height)
            for x, y, yaw in spots if rule.where == "anywhere" else spots[:_TRIES]:
                piece = Furniture(
                    rule.kind, self.room, x, y, yaw, width, depth, height, rule.base, tone
                )
                if not piece.blocks or self._walkable([*self.solid, piece.footprint]):
                    self._add(piece, rule.front)
                    return True
        return False

    def hang(self, lamp: str, at_windows: str | None) -> None:
        """Hang the lamp at the ceiling, and what belongs to windows."""
        drop = 0.6 if lamp == "pendant" else 0.16
        wide = 0.46 if lamp == "pendant" else 0.36
        table = next((p for p in self.pieces if p.kind == "dining table"), None)
        x, y = (table.x, table.y) if table else self.clear.center
        base = self.plan.height - drop
        self.pieces.append(Furniture(lamp, self.room, x, y, 0.0, wide, wide, drop, base))
        if max(self.clear.size) > 6.0 and lamp != "pendant":
            away = max(self.clear.size) / 3
            for sign in (-1, 1):
                dx, dy = (away, 0.0) if self.clear.size[0] > self.clear.size[1] else (0.0, away)
                self.pieces.append(
                    Furniture(
                        lamp, self.room, x + sign * dx, y + sign * dy, 0.0, wide, wide, drop, base
                    )
                )
        if at_windows is None:
            return
        for window in self.windows:
            long = at_windows == "curtain" and not self._stands_below(window)
            low = 0.05 if long else window.sill - 0.05
            size = (window.width + (0.5 if at_windows == "curtain" else 0.0), 0.08)
            at = window.at - window.outward * (0.06 + size[1] / 2 + 0.01)
            x, y = (at, window.along) if window.axis == 0 else (window.along, at)
            yaw = _yaw(window.axis, window.outward)
            self.pieces.append(
                Furniture(at_windows, self.room, x, y, yaw, *size, window.head + 0.12 - low, low)
            )

    def _stands_below(self, window: Window) -> bool:
        half = window.width / 2 + 0.25
        spans = self.walls[window.axis, window.outward]
        return any(
            low < window.along + half and high > window.along - half and bottom < 0.3
            for low, high, bottom, _ in spans
        )

    def _add_entrance(self, entrance: Window) -> None:
        at = entrance.at - entrance.outward * 0.09
        x, y = (at, entrance.along) if entrance.axis == 0 else (entrance.along, at)
        yaw = _yaw(entrance.axis, entrance.outward)
        piece = Furniture("front door", self.room, x, y, yaw, entrance.width, 0.05, entrance.head)
        self._add(piece, 0.9)
        half = entrance.width / 2 + 0.15
        span = (entrance.along - half, entrance.along + half, 0.0, 2.25)
        self.walls[entrance.axis, entrance.outward].append(span)

    def _add(self, piece: Furniture, front: float) -> None:
        self.pieces.append(piece)
        if piece.blocks:
            self.solid.append(piece.footprint)
        if front and (piece.blocks or piece.kind == "front door"):
            self.fronts.append(_front(piece, front))
        for axis, outward in _WALLS:
            at, _, _ = self.clear.side(axis, outward)
            near, low, high = piece.footprint.side(axis, outward)
            if abs(at - near) < 0.12:
                top = piece.base + piece.height + ABOVE.get(piece.kind, 0.0)
                self.walls[axis, outward].append((low, high, piece.base, top))

    def _spots(
        self, rule: Rule, width: float, depth: float, height: float
    ) -> list[tuple[float, float, float]]:
        """Positions and yaws where a piece would fit, the best first."""
        how, _, of = rule.where.partition(" ")
        anchors = [piece for piece in self.pieces if piece.kind == of]
        if of and not anchors:
            return []
        if how in ("before", "under", "around"):
            return self._spots_near(rule, how, anchors[-1], width, depth)
        if how == "free" or (how == "anywhere" and rule.kind == "dining table"):
            candidates = self._open_spots(width, depth)
        else:
            candidates = self._wall_spots(rule, width, depth, height)
        if not len(candidates):
            return []
        if self.regular or how in ("over", "free"):
            cost = self._cost(how, anchors, candidates)
            cost = cost + self.rng.uniform(0.0, 0.05, len(candidates))
        else:
            cost = self.rng.random(len(candidates))
        order = np.argsort(cost, kind="stable")
        order = order[cost[order] < 1e3]
        if (
            len(order) > _TRIES and how != "anywhere"
        ):  # a few of the best, then some that lie elsewhere
            order = np.concatenate([order[:6], order[6 :: max(1, len(order) // 6)]])
        return [(float(x), float(y), float(yaw)) for x, y, yaw in candidates[order]]

    def _wall_spots(self, rule: Rule, width: float, depth: float, height: float) -> Array:
        """`(N, 3)` x, y, yaw of free places along the walls."""
        found = []
        blocks = KINDS[rule.kind].blocks
        top = rule.base + height + ABOVE.get(rule.kind, 0.0)
        for axis, outward in _WALLS:
            at, low, high = self.clear.side(axis, outward)
            low, high = low + width / 2 + 0.01, high - width / 2 - 0.01
            if high < low:
                continue
            along = np.unique(np.append(np.arange(low, high, 0.12), high))
            free = np.ones(len(along), bool)
            for start, stop, bottom, over in self.walls[axis, outward]:
                if bottom < top and over > rule.base:
                    free &= (along + width / 2 <= start) | (along - width / 2 >= stop)
            along = along[free]
            across = np.full(len(along), at - outward * (depth / 2 + 0.005))
            xy = (across, along) if axis == 0 else (along, across)
            yaw = np.full(len(along), _yaw(axis, outward))
            spots = np.stack([*xy, yaw], axis=-1)
            if blocks:
                keep = self._fits(spots, rule, (width, depth), axis, outward)
                spots = spots[keep]
            found.append(spots)
        return np.concatenate(found) if found else np.zeros((0, 3))

    def _fits(
        self, spots: Array, rule: Rule, size: tuple[float, float], axis: int, outward: int
    ) -> NDArray[np.bool_]:
        """Which places at one wall are free, with what must be free in front of them."""
        (width, depth), front, anywhere = size, rule.front, rule.where == "anywhere"
        half = (depth / 2, width / 2) if axis == 0 else (width / 2, depth / 2)
        low, high = spots[:, :2] - half, spots[:, :2] + half
        kept = [] if anywhere else [*self.kept, *self.fronts]
        taken = _overlap(low, high, [*self.solid, *kept])
        ahead_low, ahead_high = low.copy(), high.copy()
        if outward > 0:
            ahead_low[:, axis] -= front
        else:
            ahead_high[:, axis] += front
        inside = ahead_low[:, axis] >= (self.clear.x0, self.clear.y0)[axis] - 1e-9
        inside &= ahead_high[:, axis] <= (self.clear.x1, self.clear.y1)[axis] + 1e-9
        return ~taken & inside & ~_overlap(ahead_low, ahead_high, self.solid)

    def _open_spots(self, width: float, depth: float) -> Array:
        """`(N, 3)` of free places off the walls, in both directions."""
        found = []
        for yaw, (dx, dy) in ((0.0, (depth, width)), (math.pi / 2, (width, depth))):
            room = self.clear.inset(0.3)
            xs = np.arange(room.x0 + dx / 2, room.x1 - dx / 2 + 1e-9, 0.15)
            ys = np.arange(room.y0 + dy / 2, room.y1 - dy / 2 + 1e-9, 0.15)
            if len(xs) and len(ys):
                grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1).reshape(-1, 2)
                half = np.array([dx / 2, dy / 2])
                taken = _overlap(grid - half, grid + half, [*self.solid, *self.kept, *self.fronts])
                grid = grid[~taken]
                found.append(np.column_stack([grid, np.full(len(grid), yaw)]))
        return np.concatenate(found) if found else np.zeros((0, 3))

    def _spots_near(
        self, rule: Rule, how: str, anchor: Furniture, width: float, depth: float
    ) -> list[tuple[float, float, float]]:
        """Places in front of, below or around a piece."""
        front = np.array([math.cos(anchor.yaw), math.sin(anchor.yaw)])
        left = np.array([-front[1], front[0]])
        here = np.array([anchor.x, anchor.y])
        if how == "under":
            return [(anchor.x, anchor.y, anchor.yaw)]
        if how == "before":
            rug = rule.kind == "rug"
            reach = anchor.depth / 2 + (depth / 2 - 0.5 if rug else depth / 2 + 0.4)
            if rule.kind == "desk chair":
                reach = anchor.depth / 2 + depth / 2 - 0.1
            x, y = here + front * reach
            yaw = anchor.yaw + (math.pi if rule.kind == "desk chair" else 0.0)
            spots = [(float(x), float(y), yaw)]
        else:
            spots = []
            for side in (1, -1):
                for along in np.arange(-anchor.width / 2 + 0.35, anchor.width / 2 - 0.3, 0.6):
                    x, y = here + side * front * (anchor.depth / 2 + 0.12) + left * along
                    yaw = anchor.yaw + (math.pi if side > 0 else 0.0)
                    spots.append((float(x), float(y), yaw + self.rng.uniform(-0.15, 0.15)))
        return [spot for spot in spots if self._free_for(rule, spot, width, depth, anchor)]

    def _free_for(
        self,
        rule: Rule,
        spot: tuple[float, float, float],
        width: float,
        depth: float,
        anchor: Furniture,
    ) -> bool:
        rect = Furniture(rule.kind, self.room, *spot, width, depth, 1.0).footprint
        low, high = np.array([[rect.x0, rect.y0]]), np.array([[rect.x1, rect.y1]])
        room = self.clear.inset(0.05)
        inside = room.holds(rect.x0, rect.y0) and room.holds(rect.x1, rect.y1)
        if not KINDS[rule.kind].blocks:
            return inside
        solid = [r for r in self.solid if r != anchor.footprint]
        return inside and not bool(_overlap(low, high, [*solid, *self.kept])[0])

    def _cost(self, how: str, anchors: Sequence[Furniture], spots: Array) -> Array:
        """Lower is better; 1000 and more is out of the question."""
        xy, yaw = spots[:, :2], spots[:, 2]
        facing = np.stack([np.cos(yaw), np.sin(yaw)], -1)
        low, high = (self.clear.x0, self.clear.y0), (self.clear.x1, self.clear.y1)
        middle = np.array(self.clear.center)
        off = np.abs(((xy - middle) * np.stack([-facing[:, 1], facing[:, 0]], -1)).sum(-1))
        if how == "free":
            return np.linalg.norm(xy - middle, axis=-1)
        if how == "corner":
            ends = np.minimum(xy - low, np.subtract(high, xy))
            return ends.max(-1)
        if how == "centre":
            return off
        if how == "opposite":
            door = self.doors[0]
            into = door.side if door.rooms[1] == self.room else -door.side
            return off + 3.0 * (facing[:, door.axis] * into > -0.5)
        if how == "window" and self.windows:
            at = np.array([_point(window) for window in self.windows])
            return np.linalg.norm(xy[:, None] - at[None], axis=-1).min(-1)
        if how in ("by", "over", "facing"):
            return self._cost_of(how, anchors, xy, facing)
        return off

    def _cost_of(self, how: str, anchors: Sequence[Furniture], xy: Array, facing: Array) -> Array:
        """Cost of places beside, above or opposite to one of some pieces."""
        costs = []
        for anchor in anchors:
            front = np.array([math.cos(anchor.yaw), math.sin(anchor.yaw)])
            away = xy - (anchor.x, anchor.y)
            same = facing @ front
            if how == "by":
                # A nightstand stands at the head of the bed: the back edges count.
                back = np.linalg.norm(away + front * anchor.depth / 2, axis=-1)
                costs.append(back + 1.0 * (same < 0.5))
            elif how == "over":
                side = np.abs(away @ (-front[1], front[0]))
                near = (side < anchor.width / 2 + 0.2) & (np.abs(away @ front) < anchor.depth)
                costs.append(side + 1e4 * ((same < 0.5) | ~near))
            else:
                side = np.abs(away @ (-front[1], front[0]))
                costs.append(side + 2.0 * (same > -0.5))
        return np.min(costs, axis=0)

    def _walkable(self, solid: list[Rect]) -> bool:
        """Whether a body gets from every door of the room to every other."""
        rect = self.clear
        nx, ny = (max(1, math.ceil(extent / _CELL)) for extent in rect.size)
        free = np.zeros((nx, ny), bool)
        margin = math.ceil(_BODY / _CELL)
        free[margin : nx - margin, margin : ny - margin] = True
        for block in solid:
            x0, x1 = _cells(block.x0 - _BODY, block.x1 + _BODY, rect.x0)
            y0, y1 = _cells(block.y0 - _BODY, block.y1 + _BODY, rect.y0)
            free[max(x0, 0) : max(x1, 0), max(y0, 0) : max(y1, 0)] = False
        entries = []
        for door in self.doors:
            x, y = _inside(door, self.room, 0.5)
            i = min(max(int((x - rect.x0) / _CELL), margin), nx - margin - 1)
            j = min(max(int((y - rect.y0) / _CELL), margin), ny - margin - 1)
            if not free[i, j]:
                return False
            entries.append((i, j))
        reached = _flood(free, entries[0])
        enough = reached.sum() > 0.7 * free.sum() or reached.sum() > 250
        return enough and all(reached[entry] for entry in entries)


def _flood(free: NDArray[np.bool_], start: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells that can be reached from one, by sweeps over whole rows and columns."""
    reached = np.zeros_like(free)
    reached[start] = True
    size = 0
    # Runs of free cells along each axis, numbered: a run is reached as a whole.
    runs = []
    for axis in (0, 1):
        table = free if axis else free.T
        edge = np.ones_like(table)
        edge[:, 1:] = table[:, 1:] != table[:, :-1]
        number = np.cumsum(edge.ravel()).reshape(table.shape) - 1
        runs.append(number if axis else number.T)
    while reached.sum() > size:
        size = int(reached.sum())
        for number in runs:
            touched = np.bincount(number.ravel(), reached.ravel()) > 0
            reached = touched[number] & free
    return reached


def _cells(low: float, high: float, origin: float) -> tuple[int, int]:
    return math.floor((low - origin) / _CELL), math.ceil((high - origin) / _CELL)


def _yaw(axis: int, outward: int) -> float:
    """Azimuth of what looks away from a wall."""
    return ((math.pi, 0.0), (-math.pi / 2, math.pi / 2))[axis][0 if outward > 0 else 1]


def _point(window: Window) -> tuple[float, float]:
    return (window.at, window.along) if window.axis == 0 else (window.along, window.at)


def _inside(door: Door, room: int, into: float) -> tuple[float, float]:
    """The point `into` metres from the middle of a door, inside a room of the two."""
    return door.point(into if door.rooms[1] == room else -into)


def _before_door(door: Door, room: int) -> Rect:
    """What must stay free in front of a door, in one of its rooms."""
    half, deep = door.width / 2 + 0.05, 0.9
    ends = _inside(door, room, 0.0), _inside(door, room, deep)
    across = sorted(end[door.axis] for end in ends)
    if door.axis == 0:
        return Rect(across[0], door.along - half, across[1], door.along + half)
    return Rect(door.along - half, across[0], door.along + half, across[1])


def _front(piece: Furniture, reach: float) -> Rect:
    """The floor in front of a piece that stands at a wall."""
    dx, dy = math.cos(piece.yaw) * reach, math.sin(piece.yaw) * reach
    rect = piece.footprint
    return Rect(
        rect.x0 + min(dx, 0.0), rect.y0 + min(dy, 0.0), rect.x1 + max(dx, 0), rect.y1 + max(dy, 0)
    )


def _overlap(low: Array, high: Array, rects: Sequence[Rect]) -> NDArray[np.bool_]:
    """Which of N rectangles overlap any of some others."""
    if not rects:
        return np.zeros(len(low), bool)
    others = np.array([(r.x0, r.y0, r.x1, r.y1) for r in rects])
    apart = (low[:, None] >= others[None, :, 2:] - 1e-9) | (
        high[:, None] <= others[None, :, :2] + 1e-9
    )
    together = ~apart.any(-1)
    return np.asarray(together.any(-1), bool)
