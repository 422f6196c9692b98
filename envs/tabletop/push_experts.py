"""Scripted experts for pushing, with displacements and with whole pushes."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.steering import (
    Circle,
    face_headings,
    nearest_face,
    push_face,
    see_face,
    wrap_angle,
)

if TYPE_CHECKING:
    from envs.tabletop.push import BlockPushEnv

Mode = Literal["consistent", "diverse"]
_HALF = 0.02
_CLEARANCE = _HALF * math.sqrt(2) + RADIUS + 0.008


class _Assignment:
    """Which block goes where, in which order, drawn once an episode."""

    def __init__(self, env: BlockPushEnv, mode: Mode, seed: int | None) -> None:
        if mode not in ("consistent", "diverse"):
            raise ValueError(f"mode must be 'consistent' or 'diverse', got {mode!r}")
        self.env = env
        self.rng = np.random.default_rng(seed)
        self.diverse = mode == "diverse"
        plans = [
            list(zip(order, zones, strict=True))
            for order in itertools.permutations(range(env.n_pairs))
            for zones in itertools.permutations(range(env.n_pairs))
        ]
        costs = np.array([self._cost(plan) for plan in plans])
        if self.diverse:
            # Any plan about as short as the shortest is as good to a person: either order, and
            # either zone where they are about as far.
            fair = np.flatnonzero(costs < costs.min() + 0.06)
            self.plan = plans[int(self.rng.choice(fair))]
        else:
            self.plan = plans[int(np.argmin(costs))]

    def _cost(self, plan: list[tuple[int, int]]) -> float:
        blocks = self.env.scene.block_poses()[:, :2].copy()
        cost = 0.0
        for block, zone in plan:
            goal = self.env.zones[zone]
            cost += float(np.linalg.norm(goal - blocks[block]))
            for other in range(len(blocks)):
                if other != block and _segment_distance(blocks[other], blocks[block], goal) < 0.075:
                    cost += 1.0
            blocks[block] = goal
        return cost

    def current(self, poses: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]] | None:
        """First block of the plan that is not in its zone, and the zone."""
        for block, zone in self.plan:
            goal = self.env.zones[zone]
            if np.linalg.norm(goal - poses[block, :2]) > 0.6 * self.env.tolerance:
                return block, goal
        return None


class PushExpert:
    """Pushes by displacements: walks around the block, then steers one of its faces to the zone."""

    def __init__(
        self, env: BlockPushEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._task = _Assignment(env, mode, seed)
        rng = self._task.rng
        self._speed = 0.016 * (rng.uniform(0.75, 1.15) if self._task.diverse else 1.0)
        self._sides = rng.choice([-1, 1], size=env.n_pairs) if self._task.diverse else None
        self._faces: dict[int, int] = {}

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(2,)` displacement in metres. Reads the simulator, not `obs`."""
        env = self._task.env
        poses = env.scene.block_poses()
        current = self._task.current(poses)
        if current is None:
            return np.zeros(2, np.float32)
        index, goal = current
        block = poses[index]
        to_goal = goal - block[:2]
        heading = math.atan2(to_goal[1], to_goal[0])
        face_index = self._face(index, block, heading)
        face = see_face(env.target, block, face_index)
        error = wrap_angle(heading - face.heading)
        others = [
            Circle((float(x), float(y)), _CLEARANCE)
            for i, (x, y, _) in enumerate(poses)
            if i != index
        ]
        speed = min(self._speed, max(0.006, 0.4 * float(np.hypot(*to_goal))))
        side = 0 if self._sides is None else int(self._sides[index])
        delta = push_face(env.target, face, _HALF, error, speed, side, others)
        return delta.astype(np.float32)

    def _face(self, index: int, block: NDArray[np.float64], heading: float) -> int:
        chosen = self._faces.get(index)
        headings = face_headings(float(block[2]))
        if chosen is None or abs(wrap_angle(heading - headings[chosen])) > math.radians(75):
            chosen = nearest_face(block.tolist(), heading)
            second = nearest_face(block.tolist(), heading, 1)
            usable = abs(wrap_angle(heading - headings[second])) < math.radians(60)
            if self._task.diverse and usable and self._task.rng.random() < 0.5:
                chosen = second
            self._faces[index] = chosen
        return chosen


class PushPrimitiveExpert:
    """Pushes by whole pushes: each moves a block along one of its own axes towards its zone."""

    def __init__(
        self, env: BlockPushEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._task = _Assignment(env, mode, seed)

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        env = self._task.env
        poses = env.scene.block_poses()
        current = self._task.current(poses)
        if current is None:
            return np.array([*env.target, 0.0, 0.0], np.float32)
        index, goal = current
        others = np.delete(poses, index, axis=0)[:, :2]
        rng = self._task.rng if self._task.diverse else None
        return axis_push(poses[index], goal, _HALF, others, rng)


def axis_push(
    block: NDArray[np.float64],
    goal: NDArray[np.float64],
    half: float,
    others: NDArray[np.float64],
    rng: np.random.Generator | None,
    longest: float = 0.10,
    run_up: float = 0.010,
) -> NDArray[np.float32]:
    """One push through a face's centre that brings a block closer to a goal.

    A block at yaw t reaches any goal by pushes along its own two axes, in either order. Where other
    blocks stand in the finger's way on all useful faces, a short push on a free face makes room.

    Args:
        block: `(3,)` x, y, yaw.
        goal: `(2,)` in metres.
        half: block half width.
        others: `(n, 2)` centres of the blocks that the finger must not come down on.
        rng: draws the axis among the useful ones; None takes the longer way to go.
        longest: most that one push moves the block, in metres.
        run_up: gap between finger and face at the start, metres.

    Returns:
        `(4,)` start and displacement.
    """
    forwards = [np.array([math.cos(h), math.sin(h)]) for h in face_headings(float(block[2]))]
    starts = [block[:2] - forward * (half + RADIUS + run_up) for forward in forwards]
    ways = [float((goal - block[:2]) @ forward) for forward in forwards]
    near = half * math.sqrt(2) + RADIUS
    free = [
        bool((np.linalg.norm(others - start, axis=1) > near).all())
        and bool(((start > WORKSPACE_LOW) & (start < WORKSPACE_HIGH)).all())
        for start in starts
    ]
    ranked = sorted((i for i in range(4) if free[i]), key=lambda i: -ways[i])
    useful = [i for i in ranked if ways[i] > 0.008]
    if useful:
        face = useful[0] if rng is None else int(rng.choice(useful))
        distance = min(ways[face], longest)
    else:
        # The best face is blocked: leave it sideways rather than backwards.
        face, distance = (ranked[0] if ranked else int(np.argmax(ways))), 0.03
    push = forwards[face] * (run_up + distance)
    start = np.clip(starts[face], WORKSPACE_LOW, WORKSPACE_HIGH)
    return np.concatenate([start, push]).astype(np.float32)


def _segment_distance(
    point: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> float:
    along = b - a
    t = float(np.clip((point - a) @ along / max(float(along @ along), 1e-12), 0.0, 1.0))
    return float(np.linalg.norm(point - a - t * along))
