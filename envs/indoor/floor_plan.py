"""Floor plans: where rooms, doors and windows are, before any room has a purpose.

A corridor has rooms along both sides; narrow or deep ones may be reached through a neighbour.
At either end there may be a large room with another off it, or a second corridor across the first.
Nothing here depends on what the rooms are for, so plans are the same for every predictability.

World frame: z up, metres; walls run along x or y. A room's rectangle reaches to the middle of its
walls; what is free of wall is `Plan.clear`.
"""

import itertools
import math
from dataclasses import dataclass, field

import numpy as np

WALL = 0.12
"""Thickness of walls in metres."""

DOOR_HEIGHT = 2.05
"""Height of doors in metres."""

SMALLEST, MOST = 6, 14
"""Least and greatest number of rooms, corridors included."""


@dataclass(frozen=True)
class Rect:
    """A rectangle `[x0, x1] x [y0, y1]` in metres."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def size(self) -> tuple[float, float]:
        """Extent along x and y."""
        return self.x1 - self.x0, self.y1 - self.y0

    @property
    def area(self) -> float:
        """Square metres."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    @property
    def center(self) -> tuple[float, float]:
        """Middle."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def inset(self, margin: float) -> "Rect":
        """The rectangle that is smaller (larger if negative) by a margin on every side."""
        return Rect(self.x0 + margin, self.y0 + margin, self.x1 - margin, self.y1 - margin)

    def holds(self, x: float, y: float) -> bool:
        """Whether a point is inside, borders included."""
        return self.x0 <= x <= self.x1 and self.y0 <= y <= self.y1

    def side(self, axis: int, outward: int) -> tuple[float, float, float]:
        """Where the side facing `outward` along `axis` is, and its two ends along the other."""
        if axis == 0:
            return (self.x1 if outward > 0 else self.x0), self.y0, self.y1
        return (self.y1 if outward > 0 else self.y0), self.x0, self.x1


@dataclass(frozen=True)
class Door:
    """A way between two rooms.

    Attributes:
        rooms: the two; the door belongs to the second and opens into it.
        axis: direction of the wall's normal, 0 for x and 1 for y.
        at: where the middle of the wall is along `axis`.
        along: where the middle of the door is along the wall.
        width: clear width in metres.
        side: +1 where the second room is towards the positive end of `axis`, else -1.
        leaf: whether a door hangs in it, else it is an open passage.
        hinge: +1 where it hangs at the end with the greater coordinate along the wall, else -1.
    """

    rooms: tuple[int, int]
    axis: int
    at: float
    along: float
    width: float
    side: int
    leaf: bool
    hinge: int

    def point(self, into: float = 0.0) -> tuple[float, float]:
        """The point `into` metres beyond the middle of the door, in the second room."""
        across = self.at + self.side * into
        return (across, self.along) if self.axis == 0 else (self.along, across)

    def gap(self, depth: float = WALL / 2) -> Rect:
        """The floor in the opening, `depth` metres to either side of the wall's middle."""
        half = self.width / 2
        if self.axis == 0:
            return Rect(self.at - depth, self.along - half, self.at + depth, self.along + half)
        return Rect(self.along - half, self.at - depth, self.along + half, self.at + depth)

    def leaf_rect(self) -> Rect:
        """The floor under the open door: at right angles to the wall, at the hinge."""
        hinge = self.along + self.hinge * (self.width / 2 - 0.02)
        near = self.at + self.side * WALL / 2
        far = near + self.side * (self.width - 0.02)
        low, high = min(near, far), max(near, far)
        if self.axis == 0:
            return Rect(low, hinge - 0.02, high, hinge + 0.02)
        return Rect(hinge - 0.02, low, hinge + 0.02, high)


@dataclass(frozen=True)
class Window:
    """A window, or the front door, in an outer wall.

    Attributes:
        room: which room it is in.
        axis: direction of the wall's normal, 0 for x and 1 for y.
        at: where the middle of the wall is along `axis`.
        along: where the middle of the window is along the wall.
        width: metres.
        outward: +1 where the positive end of `axis` is outside, else -1.
        sill: height of its lower edge in metres.
        head: height of its upper edge in metres.
    """

    room: int
    axis: int
    at: float
    along: float
    width: float
    outward: int
    sill: float = 0.9
    head: float = 2.05


@dataclass(frozen=True)
class Link:
    """Two rooms whose purposes depend on each other; all links together are a tree.

    Attributes:
        rooms: the two.
        joined: whether a door joins them; else they are side by side or opposite.
    """

    rooms: tuple[int, int]
    joined: bool


@dataclass(frozen=True)
class Plan:
    """A storey.

    Attributes:
        rooms: rectangle of each room, to the middle of its walls; they share borders only.
        corridor: which rooms are corridors; the others have purposes.
        zones: for each room 0 (near the entrance), 1 or 2 (far from it).
        through: which rooms have no door to a corridor.
        links: a tree over the rooms that are not corridors.
        doors: ways between rooms; every room can be reached.
        windows: windows in outer walls.
        entrance: the front door, shut.
        height: of the ceiling in metres.
    """

    rooms: tuple[Rect, ...]
    corridor: tuple[bool, ...]
    zones: tuple[int, ...]
    through: tuple[bool, ...]
    links: tuple[Link, ...]
    doors: tuple[Door, ...]
    windows: tuple[Window, ...]
    entrance: Window
    height: float

    def clear(self, room: int) -> Rect:
        """The floor of a room between its walls."""
        return self.rooms[room].inset(WALL / 2)

    @property
    def outline(self) -> Rect:
        """The smallest rectangle around all rooms."""
        return Rect(
            min(r.x0 for r in self.rooms),
            min(r.y0 for r in self.rooms),
            max(r.x1 for r in self.rooms),
            max(r.y1 for r in self.rooms),
        )


@dataclass
class _Draft:
    """A layout while it is drawn: the corridor runs along +x, the entrance is at low x."""

    rooms: list[Rect] = field(default_factory=list)
    corridor: list[bool] = field(default_factory=list)
    ways: list[tuple[int, int, str]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def add(self, rect: Rect, *, corridor: bool = False) -> int:
        self.rooms.append(rect)
        self.corridor.append(corridor)
        return len(self.rooms) - 1

    def link(self, a: int, b: int, *, joined: bool = False) -> None:
        self.links.append(Link((a, b), joined))


def draw_plan(rng: np.random.Generator) -> Plan:
    """Draw a storey of 6 to 14 rooms at random."""
    while True:
        draft, front = _layout(rng)
        if SMALLEST <= len(draft.rooms) <= MOST:
            break
    low, high = min(r.x0 for r in draft.rooms), max(r.x1 for r in draft.rooms)
    zones = [min(int(3 * (r.center[0] - low) / (high - low)), 2) for r in draft.rooms]
    middle = draft.rooms[front].center[1]
    rooms, outside = _turned(draft.rooms, (draft.rooms[front].x0, middle), rng)
    axis, at, along, outward = outside
    entrance = Window(front, axis, at, along, 0.95, outward, sill=0.0, head=DOOR_HEIGHT)
    doors = tuple(_door(rooms, way, rng) for way in draft.ways)
    reached = {room for a, b, _ in draft.ways for room in (a, b) if draft.corridor[a]}
    return Plan(
        rooms=tuple(rooms),
        corridor=tuple(draft.corridor),
        zones=tuple(zones),
        through=tuple(room not in reached for room in range(len(rooms))),
        links=tuple(draft.links),
        doors=doors,
        windows=tuple(_windows(rooms, draft.corridor, entrance, rng)),
        entrance=entrance,
        height=float(rng.uniform(2.5, 2.8)),
    )


def shared_wall(a: Rect, b: Rect) -> tuple[int, float, float, float, int] | None:
    """The wall between two rooms.

    Returns:
        Axis of its normal, where it is along that, its two ends along the other axis, and +1 if
        `b` lies towards the positive end, else -1. None where they share none.
    """
    for axis in (0, 1):
        for outward in (1, -1):
            at, low, high = a.side(axis, outward)
            other, low_b, high_b = b.side(axis, -outward)
            low, high = max(low, low_b), min(high, high_b)
            if abs(at - other) < 1e-9 and high - low > 1e-6:
                return axis, at, low, high, outward
    return None


def _layout(rng: np.random.Generator) -> tuple[_Draft, int]:
    """Rooms, ways and links, and the room with the front door."""
    draft = _Draft()
    half, length = rng.uniform(0.75, 0.95), rng.uniform(6.0, 10.5)
    north, south = half + rng.uniform(3.3, 5.4, 2)
    hall = draft.add(Rect(0, -half, length, half), corridor=True)
    above = _row(draft, hall, (0, length), (half, north), rng)
    below = _row(draft, hall, (0, length), (-south, -half), rng)
    front = hall
    if rng.random() < 0.6:
        west = -rng.uniform(4.0, 5.2)
        front, beside = _end(draft, hall, (west, 0), (-south, half, north), rng)
        draft.link(front, below[0])
        draft.link(beside, above[0])
    else:
        draft.link(above[0], below[0])
    back = rng.choice(["wall", "room", "across"], p=[0.35, 0.25, 0.4])
    if back == "room":
        east = length + rng.uniform(3.2, 4.6)
        last, _ = _end(draft, hall, (length, east), (-south, half, north), rng)
        draft.link(below[-1], last)
    elif back == "across":
        wing = _across(draft, hall, length, (-south, north), rng)
        draft.link(below[-1], wing[0])
    return draft, front


def _row(
    draft: _Draft,
    hall: int,
    span: tuple[float, float],
    band: tuple[float, float],
    rng: np.random.Generator,
) -> list[int]:
    """Rooms side by side along a corridor that runs along x; returns them in order of x."""
    edges = _cuts(*span, rng)
    deep = band[1] - band[0]
    inward = -1 if band[0] >= 0 else 1  # which way the corridor is
    row: list[int] = []
    reached: list[bool] = []
    for west, east in itertools.pairwise(edges):
        low, high, back = band[0], band[1], None
        if deep > 4.7 and east - west < 4.2 and rng.random() < 0.6:
            cut = rng.uniform(2.1, deep - 2.5)
            if inward < 0:
                high, back = high - cut, Rect(west, high - cut, east, high)
            else:
                low, back = low + cut, Rect(west, low, east, low + cut)
        room = draft.add(Rect(west, low, east, high))
        within = bool(row) and reached[-1] and back is None and east - west < 3.0
        within = within and rng.random() < 0.5
        extra = bool(row) and not within and rng.random() < 0.2
        if row:
            draft.link(row[-1], room, joined=within or extra)
        if within or extra:
            draft.ways.append((row[-1], room, "door" if within else "wide"))
        if not within:
            draft.ways.append((hall, room, "door"))
        row.append(room)
        reached.append(not within)
        if back is not None:
            behind = draft.add(back)
            draft.ways.append((room, behind, "door"))
            draft.link(room, behind, joined=True)
    return row


def _end(
    draft: _Draft,
    hall: int,
    span: tuple[float, float],
    ys: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """A large room across the end of a corridor, and another off it."""
    large = draft.add(Rect(span[0], ys[0], span[1], ys[1]))
    off = draft.add(Rect(span[0], ys[1], span[1], ys[2]))
    draft.ways.append((hall, large, "wide"))
    draft.ways.append((large, off, "wide" if rng.random() < 0.6 else "door"))
    draft.link(large, off, joined=True)
    return large, off


def _across(
    draft: _Draft, hall: int, at: float, band: tuple[float, float], rng: np.random.Generator
) -> list[int]:
    """A second corridor across the end of the first, with rooms along its far side."""
    east = at + rng.uniform(1.5, 1.8)
    far = east + rng.uniform(3.2, 4.4)
    second = draft.add(Rect(at, band[0], east, band[1]), corridor=True)
    draft.ways.append((hall, second, "open"))
    edges = _cuts(*band, rng)
    wing: list[int] = []
    for low, high in itertools.pairwise(edges):
        room = draft.add(Rect(east, low, far, high))
        draft.ways.append((second, room, "door"))
        if wing:
            draft.link(wing[-1], room)
        wing.append(room)
    return wing


def _cuts(low: float, high: float, rng: np.random.Generator) -> list[float]:
    """Borders between rooms of at least 2.2 m along a stretch, its ends included."""
    count = max(2, round((high - low) / rng.uniform(2.9, 4.2)))
    count = min(count, math.floor((high - low) / 2.2))
    widths = 2.2 + ((high - low) - 2.2 * count) * rng.dirichlet(np.full(count, 2.0))
    edges = low + np.concatenate([[0.0], np.cumsum(widths)])
    return [*(float(e) for e in edges[:-1]), high]


def _turned(
    rooms: list[Rect], entrance: tuple[float, float], rng: np.random.Generator
) -> tuple[list[Rect], tuple[int, float, float, int]]:
    """Mirror and turn a layout by quarters, its corner at the origin; the entrance with it."""
    mirror, quarters = (1.0, -1.0)[rng.integers(2)], int(rng.integers(4))
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([1.0, mirror])
    corners = np.array([[(r.x0, r.y0), (r.x1, r.y1)] for r in rooms]) @ turn.T
    origin = corners.reshape(-1, 2).min(0)
    low, high = (corners - origin).min(1), (corners - origin).max(1)
    # Rounding to micrometres makes borders that coincide do so exactly.
    low, high = np.round(low, 6), np.round(high, 6)
    point = np.round(np.array(entrance) @ turn.T - origin, 6)
    outward = turn @ (-1.0, 0.0)
    axis = int(abs(outward[1]) > 0.5)
    outside = axis, float(point[axis]), float(point[1 - axis]), int(np.sign(outward[axis]))
    rects = [Rect(*map(float, (*a, *b))) for a, b in zip(low, high, strict=True)]
    return rects, outside


def _door(rooms: list[Rect], way: tuple[int, int, str], rng: np.random.Generator) -> Door:
    """The door of a way; where along the wall is drawn at random."""
    a, b, kind = way
    wall = shared_wall(rooms[a], rooms[b])
    assert wall is not None, "ways join neighbours"
    axis, at, low, high, side = wall
    space = high - low
    if kind == "door":
        width = min(0.9, space - 0.5)
        margin = WALL / 2 + 0.15 + width / 2
        along = float(rng.uniform(low + margin, high - margin))
    else:
        width = space - WALL - 0.2 if kind == "open" else min(space - 0.6, rng.uniform(1.3, 2.0))
        along = (low + high) / 2
    hinge = 1 if along > (low + high) / 2 else -1
    return Door((a, b), axis, at, along, float(width), side, kind == "door", hinge)


def _windows(
    rooms: list[Rect], corridor: list[bool], entrance: Window, rng: np.random.Generator
) -> list[Window]:
    """One or two windows in every stretch of outer wall that is long enough."""
    windows = []
    for room, rect in enumerate(rooms):
        for axis, outward in ((0, 1), (0, -1), (1, 1), (1, -1)):
            for low, high in _outer(rooms, room, axis, outward):
                mine = entrance.room == room and (entrance.axis, entrance.outward) == (
                    axis,
                    outward,
                )
                if high - low < (1.2 if corridor[room] else 1.6) or mine:
                    continue
                count = 2 if high - low > 4.4 else 1
                share = (high - low) / count
                width = min(rng.uniform(0.9, 1.8), share - 0.7)
                at = rect.side(axis, outward)[0]
                for k in range(count):
                    along = low + share * (k + 0.5)
                    windows.append(Window(room, axis, at, along, float(width), outward))
    return windows


def _outer(rooms: list[Rect], room: int, axis: int, outward: int) -> list[tuple[float, float]]:
    """The stretches of one side of a room that no other room touches."""
    at, low, high = rooms[room].side(axis, outward)
    taken = []
    for other in range(len(rooms)):
        across, start, stop = rooms[other].side(axis, -outward)
        if other != room and abs(across - at) < 1e-9 and start < high and stop > low:
            taken.append((start, stop))
    free, start = [], low
    for begin, end in sorted(taken):
        if begin > start:
            free.append((start, begin))
        start = max(start, end)
    return [*free, (start, high)] if start < high else free
