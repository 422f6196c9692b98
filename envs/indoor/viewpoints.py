"""Where one can stand in a house, and which straight ways lead from there.

Viewpoints are placed as in Matterport3D: 1.5 m up, about 2 m apart, just inside doors and through
the rooms; an edge is a straight way that is free to both sides. Matterport3D's graphs of
`connectivity/` have 4.07 edges a viewpoint of 2.27 m on average.
"""

import math

import numpy as np
from numpy.typing import NDArray

from envs.indoor.floor_plan import Plan, Rect
from envs.indoor.graph import NavigationGraph

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

CAMERA_HEIGHT = 1.5
"""Of viewpoints above the floor, in metres."""

LONGEST = 4.2
"""Greatest length of an edge in metres."""

_APART = 1.9
_GRID = 0.15
_ROOMY = 0.4


def draw_viewpoints(
    scan: str, plan: Plan, blocks: Array, radius: float
) -> tuple[NavigationGraph, tuple[int, ...]] | None:
    """Viewpoints of a storey.

    Args:
        scan: name of the graph.
        plan: the storey.
        blocks: `(N, 4)` x0, y0, x1, y1 of what stops a walker, metres.
        radius: what must be free around viewpoints and to both sides of edges, metres.

    Returns:
        The graph, and the room of each viewpoint; None where no such graph is connected.
    """
    clearance = _Clearance(blocks)
    points, rooms = _doorways(plan, clearance, radius)
    for room, corridor in enumerate(plan.corridor):
        grid = _free_grid(plan, room, clearance, radius)
        own = [k for k, r in enumerate(rooms) if r == room]
        _spread(points, rooms, room, own, grid, _APART * (0.95 if corridor else 1.0))
    spare = [_free_grid(plan, k, clearance, radius, 0.35)[0] for k in range(len(plan.rooms))]
    xy, adjacent = _connected(np.array(points), np.concatenate(spare), clearance, radius)
    rooms = [_room_at(plan, point) for point in xy]
    if set(rooms) != set(range(len(plan.rooms))):
        return None
    names = [f"{scan}_{k:03d}" for k in range(len(xy))]
    positions = np.column_stack([xy, np.full(len(xy), CAMERA_HEIGHT)])
    return NavigationGraph(scan, names, positions, adjacent), tuple(rooms)


class _Clearance:
    """How far points and straight ways are from what stops a walker."""

    def __init__(self, blocks: Array) -> None:
        self.blocks = blocks

    def within(self, rect: Rect) -> "_Clearance":
        """What is in or at a rectangle only."""
        low, high = self.blocks[:, :2], self.blocks[:, 2:]
        near = (low <= (rect.x1, rect.y1)).all(-1) & (high >= (rect.x0, rect.y0)).all(-1)
        return _Clearance(self.blocks[near])

    def of(self, points: Array) -> Array:
        """Distance in metres of each of `(N, 2)` points."""
        low, high = self.blocks[:, :2], self.blocks[:, 2:]
        away = np.maximum(np.maximum(low - points[:, None], points[:, None] - high), 0.0)
        return np.sqrt((away**2).sum(-1)).min(-1)

    def free(self, starts: Array, ends: Array, radius: float) -> Bools:
        """Whether each straight way keeps `radius` (in x or in y) from everything."""
        enter = np.full((len(starts), len(self.blocks)), 0.0)
        leave = np.full_like(enter, 1.0)
        for axis in (0, 1):
            step = ends[:, axis] - starts[:, axis]
            scale = 1.0 / np.where(np.abs(step) < 1e-12, 1e-12, step)[:, None]
            low = (self.blocks[:, axis] - radius - starts[:, axis, None]) * scale
            high = (self.blocks[:, axis + 2] + radius - starts[:, axis, None]) * scale
            np.maximum(enter, np.minimum(low, high), out=enter)
            np.minimum(leave, np.maximum(low, high), out=leave)
        return np.asarray((enter >= leave).all(-1), bool)

    def joins(self, xy: Array, radius: float) -> Bools:
        """`(N, N)`: which points a free way of at most `LONGEST` joins."""
        lengths = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
        first, second = np.nonzero(np.triu(lengths <= LONGEST, 1))
        free = self.free(xy[first], xy[second], radius)
        adjacent = np.zeros((len(xy), len(xy)), bool)
        adjacent[first[free], second[free]] = adjacent[second[free], first[free]] = True
        return adjacent


def _doorways(
    plan: Plan, clearance: _Clearance, radius: float
) -> tuple[list[tuple[float, float]], list[int]]:
    """A point just inside each door, and one in the corridor before doors that have none near."""
    points: list[tuple[float, float]] = []
    rooms: list[int] = []
    for door in plan.doors:
        options = np.array([door.point(into) for into in (0.45, 0.35, 0.55, 0.3)])
        good = np.flatnonzero(clearance.of(options) >= radius)
        if len(good):
            points.append(tuple(options[good[0]].tolist()))
            rooms.append(door.rooms[1])
    for door in plan.doors:
        room = door.rooms[0]
        if not plan.corridor[room]:
            continue
        middle = plan.rooms[room].center[door.axis]
        if door.leaf and abs(middle - door.at) < 1.2:
            spot = door.point(-abs(middle - door.at))
        else:
            spot = door.point(-0.6)
        near = [p for p, r in zip(points, rooms, strict=True) if r == room]
        apart = min((math.dist(spot, p) for p in near), default=math.inf)
        if apart > 0.8 and clearance.of(np.array([spot]))[0] >= radius:
            points.append(spot)
            rooms.append(room)
    return points, rooms


def _free_grid(
    plan: Plan, room: int, clearance: _Clearance, radius: float, step: float = _GRID
) -> tuple[Array, Array]:
    """Points of a grid in a room with room to stand, and their clearance."""
    rect = plan.clear(room).inset(radius + 0.02)
    xs = np.linspace(rect.x0, rect.x1, max(2, round(rect.size[0] / step)))
    ys = np.linspace(rect.y0, rect.y1, max(2, round(rect.size[1] / step)))
    grid = np.stack(np.meshgrid(xs, ys, indexing="ij"), -1).reshape(-1, 2)
    space = clearance.within(rect.inset(-0.8)).of(grid)
    return grid[space >= radius], space[space >= radius]


def _spread(
    points: list[tuple[float, float]],
    rooms: list[int],
    room: int,
    own: list[int],
    grid: tuple[Array, Array],
    apart: float,
) -> None:
    """Add points of a room, the roomiest first, none nearer than `apart` to another."""
    spots, space = grid
    if not len(spots):
        return
    roomy = space >= min(_ROOMY, float(space.max()))
    spots, space = spots[roomy], space[roomy]
    nearest = np.full(len(spots), math.inf)
    for k in own:
        nearest = np.minimum(nearest, np.linalg.norm(spots - points[k], axis=-1))
    if not own:
        nearest[:] = 10.0
    reach = apart if len(own) else 0.0
    while (nearest >= reach).any():
        # Close packing: among the spots that are far enough, one that is not much farther.
        score = np.where(
            nearest >= reach, 2.0 * np.minimum(space, 0.9) - np.minimum(nearest, apart + 0.4), -9.0
        )
        best = int(np.argmax(score))
        points.append((float(spots[best, 0]), float(spots[best, 1])))
        rooms.append(room)
        nearest = np.minimum(nearest, np.linalg.norm(spots - spots[best], axis=-1))
        reach = apart


def _connected(
    xy: Array, spare: Array, clearance: _Clearance, radius: float
) -> tuple[Array, Bools]:
    """Join all points by some of the spare ones, and leave out those that cannot be reached."""
    while True:
        adjacent = clearance.joins(xy, radius)
        part = _parts(adjacent)
        if part.max() == 0:
            return xy, adjacent
        least = int(np.argmin(np.bincount(part)))
        mine, others = xy[part == least], xy[part != least]
        both = spare[_seen(spare, mine, clearance, radius).any(1)]
        ways = _seen(both, others, clearance, radius).sum(1)
        if not ways.any():
            xy = others
            continue
        crowd = (np.linalg.norm(both[:, None] - xy[None], axis=-1) < 0.7).sum(1)
        best = int(np.argmax(np.where(ways > 0, np.minimum(ways, 4) - 2.0 * crowd, -99.0)))
        xy = np.concatenate([xy, both[best : best + 1]])


def _seen(spots: Array, points: Array, clearance: _Clearance, radius: float) -> Bools:
    """`(spots, points)`: between which there is a free way of at most `LONGEST`."""
    lengths = np.linalg.norm(spots[:, None] - points[None], axis=-1)
    seen = lengths <= LONGEST
    one, two = np.nonzero(seen)
    seen[one, two] = clearance.free(spots[one], points[two], radius)
    return seen


def _parts(adjacent: Bools) -> NDArray[np.intp]:
    """Number of the connected part of each point, the first 0."""
    part = np.full(len(adjacent), -1)
    for start in range(len(adjacent)):
        if part[start] >= 0:
            continue
        frontier = np.zeros(len(adjacent), bool)
        frontier[start] = True
        number = part.max() + 1
        while frontier.any():
            part[frontier] = number
            frontier = adjacent[frontier].any(0) & (part < 0)
    return part


def _room_at(plan: Plan, point: Array) -> int:
    return next(k for k in range(len(plan.rooms)) if plan.clear(k).holds(point[0], point[1]))
