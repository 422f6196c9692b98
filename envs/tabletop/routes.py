"""Ways of the finger between square blocks: clearances, and a planner on a visibility graph."""

import math

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW

Array = NDArray[np.float64]


def square_distance(points: Array, poses: Array, half: float) -> Array:
    """Distance from points to squares.

    Args:
        points: `(m, 2)` in metres.
        poses: `(n, 3)` x, y, yaw of the squares.
        half: their half width.

    Returns:
        `(m, n)` distance in metres, 0 inside.
    """
    offset = points[:, None] - poses[None, :, :2]
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    local = np.stack(
        [cos * offset[..., 0] + sin * offset[..., 1], cos * offset[..., 1] - sin * offset[..., 0]],
        -1,
    )
    return np.asarray(np.hypot(*np.moveaxis(np.maximum(np.abs(local) - half, 0.0), -1, 0)))


def way_distance(start: Array, ends: Array, poses: Array, half: float) -> Array:
    """Distance from straight ways to squares.

    Args:
        start: `(2,)` where all ways begin, in metres.
        ends: `(m, 2)`.
        poses: `(n, 3)` x, y, yaw of the squares.
        half: their half width.

    Returns:
        `(m, n)` least distance in metres, 0 where a way crosses a square.
    """
    cos, sin = np.cos(poses[:, 2]), np.sin(poses[:, 2])
    rotation = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], 1)
    origin = np.einsum("nij,nj->ni", rotation, start - poses[:, :2])
    way = np.einsum("nij,mj->mni", rotation, ends - start)
    way = np.where(np.abs(way) < 1e-12, 1e-12, way)
    near, far = (-half - origin) / way, (half - origin) / way
    enter = np.minimum(near, far).max(axis=-1)
    leave = np.maximum(near, far).min(axis=-1)
    crosses = (enter <= leave) & (leave >= 0) & (enter <= 1)
    # Convex shapes are closest at a corner of the one or at an end of the other.
    corners = half * np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    to_corner = corners - origin[:, None]
    along = (to_corner * way[:, :, None]).sum(-1) / (way**2).sum(-1)[..., None]
    beside = to_corner - np.clip(along, 0.0, 1.0)[..., None] * way[:, :, None]
    distance = np.hypot(beside[..., 0], beside[..., 1]).min(axis=-1)
    distance = np.minimum(distance, square_distance(ends, poses, half))
    distance = np.minimum(distance, square_distance(start[None], poses, half))
    return np.asarray(np.where(crosses, 0.0, distance))


def limit_axes(delta: Array, longest: float) -> Array:
    """`delta` shortened so that neither component exceeds `longest` metres."""
    largest = float(np.abs(delta).max())
    return delta if largest <= longest else delta * (longest / largest)


class RoutePlanner:
    """Shortest way of the finger between blocks: a visibility graph over points around each block.

    Circling discs one at a time gets stuck where discs overlap, which they do among many blocks.
    """

    _RING = 0.025
    """Radius of the ring of points around a block, more than its half width (metres)."""
    _GAP = 0.0015
    """Air kept between finger and blocks."""
    _ARRIVED = 0.006
    """A point of the graph counts as reached from here (metres). Nearer to the noise that
    recordings add, the finger dithers about it, and who learns from that stands still there: 22 %
    of the steps at 1 mm."""

    def __init__(self, half: float, weights: Array | None = None) -> None:
        """Plan among n squares.

        Args:
            half: half width of the blocks in metres.
            weights: `(8 n,)` factors, at least 1, on the length of ways to each of the graph's
                points: other weights, other routes.
        """
        self._half = half
        self._weights = weights
        self._waypoint: Array | None = None

    def restart(self) -> None:
        """Forget the way chosen: there is a new goal."""
        self._waypoint = None

    def waypoint(self, finger: Array, goal: Array, poses: Array) -> Array:
        """Next point to head straight for.

        Args:
            finger: `(2,)` in metres.
            goal: `(2,)` in metres.
            poses: `(n, 3)` of all blocks.
        """
        if self._free(finger, goal[None], poses)[0]:
            self._waypoint = None
            return goal
        if self._waypoint is not None:  # keep to the way chosen while it is open
            ahead = float(np.hypot(*(self._waypoint - finger))) > self._ARRIVED
            if ahead and self._free(finger, self._waypoint[None], poses)[0]:
                return self._waypoint
        angles = np.arange(8) * (math.pi / 4)
        ring = (self._half + self._RING) * np.stack([np.cos(angles), np.sin(angles)], -1)
        points = (poses[:, None, :2] + ring).reshape(-1, 2)
        weights = np.ones(len(points)) if self._weights is None else self._weights
        keep = (square_distance(points, poses, self._half) > RADIUS + self._GAP).all(axis=1)
        keep &= ((points > WORKSPACE_LOW) & (points < WORKSPACE_HIGH)).all(axis=1)
        away = np.hypot(*(points - finger).T)

        def way(near: float) -> tuple[float, Array]:
            far = keep & (away > near)
            nodes = np.concatenate([finger[None], points[far], goal[None]])
            factors = np.concatenate([[1.0], weights[far], [1.0]])
            return self._search(nodes, factors, poses)

        length, point = way(self._ARRIVED)
        if (keep & (away > 0.001) & (away <= self._ARRIVED)).any():
            # A point that counts as reached may see what the finger beside it does not: one goes
            # all the way to it where the way without it is none, or leads back.
            shorter, nearer = way(0.001)
            if length > shorter + 2 * self._ARRIVED:
                point = nearer
        self._waypoint = point
        return point

    def _search(self, nodes: Array, factors: Array, poses: Array) -> tuple[float, Array]:
        """A* from the first node to the last: how long the way is, and the node after the first.

        Without a way it is endless, and the node is the last.
        """
        n = len(nodes)
        to_goal = np.hypot(*(nodes - nodes[-1]).T)
        best = np.full(n, np.inf)
        best[0] = 0.0
        parent = np.zeros(n, dtype=int)
        open_ = np.ones(n, dtype=bool)
        while True:
            node = int(np.argmin(np.where(open_, best + to_goal, np.inf)))
            if not open_[node] or not np.isfinite(best[node]):
                return math.inf, nodes[-1]
            if node == n - 1:
                while parent[node] != 0:
                    node = int(parent[node])
                return float(best[-1]), nodes[node]
            open_[node] = False
            # Ways are looked at only from nodes that come up: most never do.
            far = np.hypot(*(nodes - nodes[node]).T) * factors
            nearer = np.flatnonzero(open_ & (best[node] + far < best))
            nearer = nearer[self._free(nodes[node], nodes[nearer], poses)]
            best[nearer], parent[nearer] = best[node] + far[nearer], node

    def _free(self, start: Array, ends: Array, poses: Array) -> NDArray[np.bool_]:
        """Whether straight ways from a point keep off all blocks.

        Leaving a block one already touches is allowed.
        """
        room = square_distance(start[None], poses, self._half)
        need = np.minimum(RADIUS + self._GAP, room - 1e-6)
        return np.asarray((way_distance(start, ends, poses, self._half) >= need).all(axis=1))
