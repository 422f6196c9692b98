"""Scripted expert for sorting by displacements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.routes import Array, RoutePlanner, limit_axes, square_distance
from envs.tabletop.steering import nearest_face, see_face, wrap_angle

if TYPE_CHECKING:
    from envs.tabletop.sorting import BlockSortingEnv

Mode = Literal["consistent", "diverse"]

HALF = 0.015
"""Half width of the 30 mm cubes."""
CONTACT = HALF + RADIUS
"""Distance of the finger's centre from a block's while it pushes a face."""
_FASTEST = 0.029
"""Advance per control step in metres, while pushing and moving alike."""
_TURN_GAIN = 0.045
"""Contact offset per heading error (m/rad), limited to the face."""
_TURNING = 0.014
"""Advance per step while a block has to turn: struck at full speed it flies ahead of the finger
and turns 3 degrees a step, pushed at this one 10."""
_STRAIGHT = math.radians(10)
"""Heading error from which a block is turned first."""


def check_mode(mode: str) -> bool:
    """Whether a mode is the diverse one.

    Raises:
        ValueError: for an unknown mode.
    """
    if mode not in ("consistent", "diverse"):
        raise ValueError(f"mode must be 'consistent' or 'diverse', got {mode!r}")
    return mode == "diverse"


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
        self._diverse = check_mode(mode)
        self._env = env
        self._rng = np.random.default_rng(seed)
        n = env.n_blocks
        self._speed = _FASTEST * (self._rng.uniform(0.7, 1.0) if self._diverse else 1.0)
        self._taste = self._rng.uniform(0.0, 0.10, n) if self._diverse else np.zeros(n)
        self._routes = RoutePlanner(
            HALF, self._rng.uniform(1.0, 1.5, 8 * n) if self._diverse else None
        )
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
        behind = face.along < -CONTACT + 0.005 and abs(face.across) < HALF
        if behind and face.along > -CONTACT - 0.006:
            self._wanted = self._best_heading(poses, self._block)[1]
        error = wrap_angle(self._wanted - face.heading)
        if abs(error) > math.radians(60):
            self._face = nearest_face(block.tolist(), self._wanted)
            face = see_face(finger, block, self._face)
            error = wrap_angle(self._wanted - face.heading)
            behind = face.along < -CONTACT + 0.005 and abs(face.across) < HALF
        across = float(np.clip(-_TURN_GAIN * error, -0.8 * HALF, 0.8 * HALF))
        if behind and face.along > -CONTACT - 0.03:
            advance = self._speed if abs(error) < _STRAIGHT else min(self._speed, _TURNING)
            goal = face.point(-CONTACT + advance, across)
            return limit_axes(goal - finger, self._speed)
        stage = face.point(-CONTACT - 0.006, across)
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
        reach = length + 2.6 * HALF
        hit = (along > 0) & (along < reach) & (across < 2.5 * HALF)
        hostile = (np.delete(env.signs, block) != sign)[:, None]
        near = 1.0 - 0.5 * along / reach
        cost = (hit * near * np.where(hostile, 0.25, 0.02)).sum(axis=0)
        cost = cost + 0.04 * np.abs(self._ASIDE)
        # Back to the middle from the far ends of the table, where the finger cannot follow.
        cost = cost + 4.0 * (stray(x + np.maximum(length, 0.04) * forward[0]) - stray(x))
        best = int(np.argmin(cost))
        return float(cost[best]), float(headings[best])

    def _cost(self, poses: Array, missing: Array, block: int, heading: float) -> float:
        """Way to go and to push, and whether the finger has room behind the block, in metres."""
        away = np.array([math.cos(heading), math.sin(heading)]) * (CONTACT + 0.006)
        stage = poses[block, :2] - away
        others = np.delete(poses, block, axis=0)
        cost = float(np.hypot(*(stage - self._env.target))) + 0.5 * float(missing[block])
        room = square_distance(stage[None], others, HALF) > RADIUS + 0.002
        return cost + 0.08 * float((~room).sum())


def stray(x: Any) -> Any:
    """How far blocks at x lie outside the part of the table that is easy to work on, in metres."""
    return np.maximum(np.maximum(x - 0.58, 0.22 - x), 0.0)
