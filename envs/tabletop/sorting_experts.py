"""Scripted experts for sorting, with displacements and with whole pushes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.push_primitive import MAX_PUSH
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.steering import (
    face_headings,
    nearest_face,
    see_face,
    wrap_angle,
)

if TYPE_CHECKING:
    from envs.tabletop.sorting import BlockSortingEnv

Mode = Literal["consistent", "diverse"]
Array = NDArray[np.float64]

_HALF = 0.015
_MARGIN = 0.018
"""How far behind the zone's edge a block's centre is aimed: neighbours may still nudge it back."""

_CONTACT = _HALF + RADIUS
_FASTEST = 0.029
"""Advance per control step in metres, while pushing and moving alike."""
_STRAY_COST = 8.0
"""Blocks far from the middle are out of reach, so a push counts that many times where it strays."""
_TURN_GAIN = 0.045
"""Contact offset per heading error (m/rad), limited to the face."""
_TURNING = 0.014
"""Advance per step while a block has to turn: struck at full speed it flies ahead of the finger
and turns 3 degrees a step, pushed at this one 10."""
_STRAIGHT = math.radians(10)
"""Heading error from which a block is turned first."""


def _check_mode(mode: str) -> bool:
    if mode not in ("consistent", "diverse"):
        raise ValueError(f"mode must be 'consistent' or 'diverse', got {mode!r}")
    return mode == "diverse"


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


@dataclass(frozen=True)
class _Push:
    """One possible push of one block."""

    block: int
    value: float
    """Metres of progress it promises, less the harm it may do."""
    clean: bool
    """It brings its block into the zone and touches no other."""
    action: Array

    @property
    def key(self) -> tuple[int, int]:
        """Block and rough direction."""
        return self.block, round(math.atan2(self.action[3], self.action[2]) / (math.pi / 4)) % 8


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

    _RING = 0.040
    _GAP = 0.0015
    _ARRIVED = 0.001

    def __init__(self, weights: Array | None = None) -> None:
        """Remember `(8 n,)` factors on the length of ways by each point, if routes shall differ."""
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
        ring = self._RING * np.stack([np.cos(angles), np.sin(angles)], -1)
        points = (poses[:, None, :2] + ring).reshape(-1, 2)
        weights = np.ones(len(points)) if self._weights is None else self._weights
        keep = (square_distance(points, poses, _HALF) > RADIUS + self._GAP).all(axis=1)
        keep &= ((points > WORKSPACE_LOW) & (points < WORKSPACE_HIGH)).all(axis=1)
        keep &= np.hypot(*(points - finger).T) > self._ARRIVED
        points, weights = points[keep], weights[keep]
        nodes = np.concatenate([finger[None], points, goal[None]])
        factors = np.concatenate([[1.0], weights, [1.0]])
        path = self._search(nodes, factors, poses)
        self._waypoint = goal if path is None else nodes[path]
        return goal if path is None else nodes[path]

    def _search(self, nodes: Array, factors: Array, poses: Array) -> int | None:
        """A* from the first node to the last: the node after the first, or None without a way."""
        n = len(nodes)
        to_goal = np.hypot(*(nodes - nodes[-1]).T)
        best = np.full(n, np.inf)
        best[0] = 0.0
        parent = np.zeros(n, dtype=int)
        open_ = np.ones(n, dtype=bool)
        while True:
            node = int(np.argmin(np.where(open_, best + to_goal, np.inf)))
            if not open_[node] or not np.isfinite(best[node]):
                return None
            if node == n - 1:
                while parent[node] != 0:
                    node = int(parent[node])
                return node
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
        room = square_distance(start[None], poses, _HALF)
        need = np.minimum(RADIUS + self._GAP, room - 1e-6)
        return np.asarray((way_distance(start, ends, poses, _HALF) >= need).all(axis=1))


class SortPrimitiveExpert:
    """Sorts by whole pushes through the centre of a face, one or two per block.

    `consistent` takes the first block in the order of the state vector that one push can bring in
    without touching another, by its face closest to the zone; failing that, the push that promises
    most. `diverse` takes any of the former, by any useful face.
    """

    _RUN_UPS = (0.012, 0.006, 0.02, 0.03, 0.003)
    _FREE = 0.003
    """Gap that must stay between the descending finger and every block, metres."""
    _CORRIDOR = 2 * _HALF * 1.25
    """Other blocks nearer to the pushed block's path than this are taken along."""

    def __init__(
        self, env: BlockSortingEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._diverse = _check_mode(mode)
        self._env = env
        self._rng = np.random.default_rng(seed)
        self._before: Array | None = None
        self._futile: set[tuple[int, int]] = set()
        """Pushes tried since anything moved: something unforeseen is in their way."""

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        poses = self._env.scene.block_poses()
        if self._before is not None and np.abs(poses - self._before)[:, :2].max() > 0.003:
            self._futile.clear()
        self._before = poses
        pushes = [push for push in self._pushes(poses) if push.key not in self._futile]
        if not pushes:
            self._futile.clear()
            here = np.clip(self._env.target, WORKSPACE_LOW, WORKSPACE_HIGH)
            return np.array([*here, 0.0, 0.0], np.float32)
        clean = [push for push in pushes if push.clean]
        if self._diverse:
            best = max(push.value for push in pushes)
            choices = clean or [push for push in pushes if push.value > best - 0.02]
            chosen = choices[int(self._rng.integers(len(choices)))]
        elif clean:
            first = min(push.block for push in clean)
            chosen = max((push for push in clean if push.block == first), key=_straightness)
        else:
            chosen = max(pushes, key=lambda push: push.value)
        self._futile.add(chosen.key)
        return chosen.action.astype(np.float32)

    def _pushes(self, poses: Array) -> list[_Push]:
        env = self._env
        missing = env.zone_edge + _MARGIN - env.signs * poses[:, 1]
        unsorted = np.flatnonzero(missing > _MARGIN)
        return [
            push
            for block in unsorted
            for heading in face_headings(float(poses[block, 2]))
            if (push := self._push(poses, int(block), heading, float(missing[block]))) is not None
        ]

    def _push(self, poses: Array, block: int, heading: float, missing: float) -> _Push | None:
        forward = np.array([math.cos(heading), math.sin(heading)])
        gain = float(self._env.signs[block] * forward[1])
        run_up = self._run_up(poses, block, forward)
        if run_up is None:
            return None
        longest = MAX_PUSH / float(np.abs(forward).max()) - run_up
        # Towards the zone as far as is missing; sideways only a little, out of a jam.
        length = min(missing / gain if gain > 0.6 else 0.06, longest)
        center = poses[block, :2]
        # The finger stops at the edge of its workspace.
        room = np.where(forward > 0, WORKSPACE_HIGH - center, center - WORKSPACE_LOW)
        room = room / np.maximum(np.abs(forward), 1e-6) + _CONTACT
        length = min(length, float(room.min()))
        if length < 0.01:
            return None
        end = center + forward * length
        strayed = max(_stray(end[0]) - _stray(center[0]), 0.0)
        harm, touched = self._harm(poses, block, forward, length)
        value = gain * length - harm - _STRAY_COST * strayed
        clean = gain > 0.6 and gain * length > missing - 1e-6 and not touched and strayed == 0.0
        start = center - forward * (_HALF + RADIUS + run_up)
        return _Push(block, value, clean, np.concatenate([start, forward * (run_up + length)]))

    def _run_up(self, poses: Array, block: int, forward: Array) -> float | None:
        """Gap at the start such that the finger comes down on the free table, or None."""
        gaps = np.array(self._RUN_UPS)
        starts = poses[block, :2] - forward * (_HALF + RADIUS + gaps)[:, None]
        others = np.delete(poses, block, axis=0)
        free = (square_distance(starts, others, _HALF) > RADIUS + self._FREE).all(axis=1)
        free &= ((starts > WORKSPACE_LOW) & (starts < WORKSPACE_HIGH)).all(axis=1)
        usable = np.flatnonzero(free)
        return float(gaps[usable[0]]) if len(usable) else None

    def _harm(self, poses: Array, block: int, forward: Array, length: float) -> tuple[float, bool]:
        """Metres by which other blocks are set back, and whether any is touched."""
        env = self._env
        offset = poses[:, :2] - poses[block, :2]
        along = offset @ forward
        across = np.abs(offset @ np.array([-forward[1], forward[0]]))
        hit = (along > 0) & (along < length + self._CORRIDOR) & (across < self._CORRIDOR)
        hit[block] = False
        carried = np.maximum(length + 2 * _HALF - along, 0.005)
        setback = -carried * forward[1] * env.signs
        # A block of the same colour is taken along, less surely the further it is off the line.
        setback = np.where(setback < 0, 0.5 * setback * (1 - across / self._CORRIDOR), setback)
        placed = env.signs * poses[:, 1] > env.zone_edge
        setback = np.where(placed & (setback < 0), 0.0, setback)
        strayed = _stray(poses[:, 0] + carried * forward[0]) - _stray(poses[:, 0])
        harm = setback + 0.01 + _STRAY_COST * np.maximum(strayed, 0.0)
        return float(harm[hit].sum()), bool(hit.any())


def _stray(x: Any) -> Any:
    """How far blocks at x lie outside the part of the table that is easy to work on, in metres."""
    return np.maximum(np.maximum(x - 0.58, 0.22 - x), 0.0)


def _straightness(push: _Push) -> float:
    return abs(float(push.action[3])) / float(np.hypot(*push.action[2:]))


class SortExpert:
    """Sorts by displacements: walks behind a block, pushes it over the edge, takes the next.

    `consistent` takes the cheapest block: way to go, way to push, blocks in between. `diverse`
    draws a taste for each block that changes the order, the face among the useful ones, the way
    around blocks, and the speed.
    """

    _PATIENCE = 30
    """Steps after which a block is left for another."""
    _ASIDE = np.radians([0.0, 25.0, -25.0, 50.0, -50.0, 80.0, -80.0])
    """Directions considered, relative to straight across the edge."""

    def __init__(
        self, env: BlockSortingEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._diverse = _check_mode(mode)
        self._env = env
        self._rng = np.random.default_rng(seed)
        n = env.n_blocks
        self._speed = _FASTEST * (self._rng.uniform(0.7, 1.0) if self._diverse else 1.0)
        self._taste = self._rng.uniform(0.0, 0.10, n) if self._diverse else np.zeros(n)
        self._routes = RoutePlanner(self._rng.uniform(1.0, 1.5, 8 * n) if self._diverse else None)
        self._block, self._face, self._age = -1, 0, 0
        self._wanted = 0.0

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(2,)` displacement in metres. Reads the simulator, not `obs`."""
        env = self._env
        poses = env.scene.block_poses()
        missing = env.zone_edge - env.signs * poses[:, 1]
        self._age += 1
        done = self._block < 0 or missing[self._block] < -0.003
        if done or self._age > self._PATIENCE:
            self._choose(poses, missing)
        if self._block < 0:
            return np.zeros(2, np.float32)
        return self._push(poses).astype(np.float32)

    def _push(self, poses: Array) -> Array:
        finger = self._env.target
        block = poses[self._block]
        face = see_face(finger, block, self._face)
        behind = face.along < -_CONTACT + 0.005 and abs(face.across) < _HALF
        if behind and face.along > -_CONTACT - 0.006:
            self._wanted = self._best_heading(poses, self._block)[1]
        error = wrap_angle(self._wanted - face.heading)
        if abs(error) > math.radians(60):
            self._face = nearest_face(block.tolist(), self._wanted)
            face = see_face(finger, block, self._face)
            error = wrap_angle(self._wanted - face.heading)
            behind = face.along < -_CONTACT + 0.005 and abs(face.across) < _HALF
        across = float(np.clip(-_TURN_GAIN * error, -0.8 * _HALF, 0.8 * _HALF))
        if behind and face.along > -_CONTACT - 0.03:
            advance = self._speed if abs(error) < _STRAIGHT else min(self._speed, _TURNING)
            goal = face.point(-_CONTACT + advance, across)
            return limit_axes(goal - finger, self._speed)
        stage = face.point(-_CONTACT - 0.006, across)
        waypoint = self._routes.waypoint(finger, stage, poses)
        return limit_axes(waypoint - finger, self._speed)

    def _choose(self, poses: Array, missing: Array) -> None:
        """Take the cheapest block that is not in place, another one than the one given up."""
        given_up, self._block, self._age = self._block, -1, 0
        self._routes.restart()
        best = math.inf
        for block in np.flatnonzero(missing > 0):
            blocked, heading = self._best_heading(poses, int(block))
            cost = blocked + self._cost(poses, missing, int(block), heading) + self._taste[block]
            if block == given_up:
                cost += 1.0
            if cost < best:
                best, self._block, self._wanted = cost, int(block), heading
        if self._block >= 0:
            self._face = nearest_face(poses[self._block].tolist(), self._wanted)

    def _best_heading(self, poses: Array, block: int) -> tuple[float, float]:
        """Direction (rad, world) in which to push a block, and what stands in that way (metres).

        Straight across the edge, or aside where a block of the other colour is ahead: pushed on, it
        would have to come all the way back.
        """
        env = self._env
        x, y, _ = poses[block]
        sign = env.signs[block]
        headings = sign * math.pi / 2 + self._ASIDE
        forward = np.stack([np.cos(headings), np.sin(headings)])
        offset = np.delete(poses[:, :2], block, axis=0) - poses[block, :2]
        along = offset @ forward
        across = np.abs(offset @ np.stack([-forward[1], forward[0]]))
        missing = max(env.zone_edge - sign * y, 0.0)
        length = np.minimum(missing / np.maximum(sign * forward[1], 0.3), 0.12)
        reach = length + 2.6 * _HALF
        hit = (along > 0) & (along < reach) & (across < 2.5 * _HALF)
        hostile = (np.delete(env.signs, block) != sign)[:, None]
        near = 1.0 - 0.5 * along / reach
        cost = (hit * near * np.where(hostile, 0.25, 0.02)).sum(axis=0)
        cost = cost + 0.04 * np.abs(self._ASIDE)
        # Back to the middle from the far ends of the table, where the finger cannot follow.
        cost = cost + 4.0 * (_stray(x + np.maximum(length, 0.04) * forward[0]) - _stray(x))
        best = int(np.argmin(cost))
        return float(cost[best]), float(headings[best])

    def _cost(self, poses: Array, missing: Array, block: int, heading: float) -> float:
        """Way to go and to push, and whether the finger has room behind the block, in metres."""
        away = np.array([math.cos(heading), math.sin(heading)]) * (_CONTACT + 0.006)
        stage = poses[block, :2] - away
        others = np.delete(poses, block, axis=0)
        cost = float(np.hypot(*(stage - self._env.target))) + 0.5 * float(missing[block])
        room = square_distance(stage[None], others, _HALF) > RADIUS + 0.002
        return cost + 0.08 * float((~room).sum())
