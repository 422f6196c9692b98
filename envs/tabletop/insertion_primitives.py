"""Scripted expert for insertion by whole pushes, planned with the unicycle model of pushing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.insertion_experts import CONTACT, HALF, Mode, Style, View, look
from envs.tabletop.push_primitive import MAX_PUSH
from envs.tabletop.scene import WORKSPACE_HIGH, WORKSPACE_LOW
from envs.tabletop.steering import TURN_CONSTANT

if TYPE_CHECKING:
    from envs.tabletop.insertion import BlockInsertionEnv

Array = NDArray[np.float64]
RUN_UP = 0.010
"""Gap between finger and face at the start of a push, metres."""
_STEP = 0.001
_LONGEST = 0.10
_READY_OFFSET = 0.0012
_READY_YAW = math.radians(2.5)
_STAGE = -0.030
"""Depth before the mouth up to which pushes only line the block up, metres."""
_INSERTED = 0.025
_OFFSETS = np.linspace(-0.012, 0.012, 17)
_TILTS = np.radians((-18.0, -12.0, -6.0, -3.0, 0.0, 3.0, 6.0, 12.0, 18.0))


@dataclass(frozen=True)
class Pushes:
    """Candidate pushes of one block, slot frame: what the model says they do.

    `N` candidates, `S` points along each.
    """

    start: Array
    """`(N, 2)` where the finger comes down."""
    direction: Array
    """`(N, 2)` unit vectors."""
    poses: Array
    """`(N, S, 3)` the block's depth, offset and yaw once the finger has gone `travel[s]`."""
    travel: Array
    """`(S,)` metres from the start."""


def predict_pushes(pose: tuple[float, float, float], headings: Array, tilts: Array) -> Pushes:
    """Model every push of a grid of contact points and directions.

    The finger slides along the face without friction: the block advances along the face's normal n
    and turns by -b / `TURN_CONSTANT` per metre, b being the contact's offset. With u the finger's
    direction and v the block's advance, contact asks for v (1 + b^2 / `TURN_CONSTANT`) = u n.

    Args:
        pose: depth, offset and yaw of the block in the slot's frame.
        headings: `(F,)` push directions of the faces to try, rad, slot frame.
        tilts: `(T,)` angles to try between the finger's way and that direction, rad.
    """
    face, across, tilt = (
        grid.ravel() for grid in np.meshgrid(headings, _OFFSETS, tilts, indexing="ij")
    )
    turn = face - pose[2]
    b = across.copy()
    yaw = np.full_like(face, pose[2])
    center = np.tile(np.array(pose[:2]), (len(face), 1))
    normal = np.stack([np.cos(face), np.sin(face)], axis=1)
    left = np.stack([-normal[:, 1], normal[:, 0]], axis=1)
    direction = np.stack([np.cos(face + tilt), np.sin(face + tilt)], axis=1)
    touch = center - CONTACT * normal + across[:, None] * left
    start = touch - direction * (RUN_UP / np.cos(tilt))[:, None]
    n_steps = round(_LONGEST / _STEP)
    poses = np.empty((len(face), n_steps, 3))
    for i in range(n_steps):
        angle = yaw + turn
        cos, sin = np.cos(angle), np.sin(angle)
        forward = direction[:, 0] * cos + direction[:, 1] * sin
        sideways = direction[:, 1] * cos - direction[:, 0] * sin
        advance = _STEP * forward / (1.0 + b * b / TURN_CONSTANT)
        turned = -advance * b / TURN_CONSTANT
        center = center + advance[:, None] * np.stack([cos, sin], axis=1)
        yaw = yaw + turned
        b = b + _STEP * sideways + turned * CONTACT
        poses[:, i, :2] = center
        poses[:, i, 2] = np.where(np.abs(b) < 0.9 * HALF, yaw, np.nan)
    travel: Array = RUN_UP + _STEP * np.arange(1, n_steps + 1, dtype=np.float64)
    return Pushes(start, direction, poses, travel)


class InsertionPrimitiveExpert:
    """Inserts by whole pushes.

    `diverse` draws the slot, and for each push one of the faces that do about equally well.

    Lines the block up with the slot's axis by pushes from the sides and from behind, shortens the
    way to the mouth in portions that stay straight, and pushes it in. A block that has caught a
    corner is turned straight from the side.
    """

    def __init__(
        self, env: BlockInsertionEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._env = env
        self._style = Style(env, mode, seed)
        self._last_pose = (math.inf, math.inf, math.inf)

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        view = look(self._env, self._style)
        start, end = self._plan(view)
        begin = np.clip(view.to_world(start), WORKSPACE_LOW, WORKSPACE_HIGH)
        push = np.clip(view.to_world(end) - begin, -MAX_PUSH, MAX_PUSH)
        return np.concatenate([begin, push]).astype(np.float32)

    def _plan(self, view: View) -> tuple[Array, Array]:
        pose = (view.depth, view.offset, view.yaw)
        stuck = math.dist(pose, self._last_pose) < 0.001
        self._last_pose = pose
        straight = abs(view.offset) < _READY_OFFSET and abs(view.yaw) < _READY_YAW
        if view.depth > -HALF + 0.0005 and abs(view.offset) > 0.012:
            return self._bring_back(view)
        if view.depth > -HALF + 0.0005:
            turned = abs(view.yaw) > math.radians(3.5)
            return self._straighten(view) if turned else self._push_in(view)
        if straight and view.depth > _STAGE - 0.004:
            return self._push_in(view)
        return self._line_up(view, straight, stuck) or self._bring_back(view)

    def _push_in(self, view: View) -> tuple[Array, Array]:
        """Along the axis, at the offset from which the front face meets the mouth straightest."""
        if view.depth > _INSERTED - 0.004:
            # It is in, but leans on a wall: set the finger down on the side that is raised.
            raised = np.array([view.depth, view.offset - math.copysign(0.014, view.offset)])
            return raised, raised + np.array([0.0, 0.001])
        end = _INSERTED - CONTACT - 0.0008  # no pressing: a pressed block rises with the finger
        if view.depth > -HALF:
            return np.array([view.depth - CONTACT - RUN_UP, 0.0]), np.array([end, 0.0])
        pose = (view.depth, view.offset, view.yaw)
        pushes = predict_pushes(pose, np.array([view.yaw]), np.array([-view.yaw]))
        entry = np.argmin(np.abs(pushes.poses[:, :, 0] + HALF), axis=1)
        _, offset, yaw = pushes.poses[np.arange(len(entry)), entry].T
        cost = np.abs(offset + HALF * np.sin(yaw)) / 0.001 + np.abs(yaw) / 0.03
        # Far off the middle, the block jams in the slot instead.
        cost = np.where(np.abs(pushes.start[:, 1]) < 0.0045, cost, np.inf)
        start = pushes.start[int(np.nanargmin(cost))]
        return start, np.array([end, start[1]])

    def _straighten(self, view: View) -> tuple[Array, Array]:
        """Turn a block that has caught a corner, by a push at the rear of its far side."""
        side = -1.0 if view.yaw > 0 else 1.0
        along = min(view.depth - 0.007, -RADIUS - 0.002)
        touch = side * view.offset + CONTACT
        end = min(CONTACT, touch - 0.015 * math.sin(abs(view.yaw)))
        return np.array([along, side * (CONTACT + 0.024)]), np.array([along, side * end])

    def _line_up(self, view: View, straight: bool, stuck: bool) -> tuple[Array, Array] | None:
        """Best push towards lying straight on the axis before the mouth, or None."""
        pose = (view.depth, view.offset, view.yaw)
        quarters = np.array([0.0]) if straight else np.array([0.0, 0.5, -0.5]) * math.pi
        pushes = predict_pushes(pose, view.yaw + quarters, _TILTS)
        depth, offset, yaw = np.moveaxis(pushes.poses, 2, 0)
        # Concave: putting one thing right is worth more than bettering two. Yaw comes first.
        weight = 0.15 if stuck or abs(view.yaw) > math.radians(12) else 1.0
        cost = weight * np.log1p(np.abs(offset) / 0.001) + np.log1p(np.abs(yaw) / 0.02)
        cost = cost + 8.0 * np.abs(depth - _STAGE)
        cost = np.where(np.isnan(yaw) | (depth > max(_STAGE, view.depth + 0.001)), np.inf, cost)
        way = pushes.travel[None, :, None] * pushes.direction[:, None]
        finger_end = pushes.start[:, None] + way
        for points in (pushes.start[:, None], finger_end):
            blocked = (points[..., 0] > -0.018) & (np.abs(points[..., 1]) < 0.055)
            cost = np.where(blocked, np.inf, cost)
        cost = np.where(np.abs(offset) > max(0.03, abs(view.offset)) + 0.01, np.inf, cost)
        ends = view.slot[:2] + _rotated(finger_end, view.slot[2])
        starts = view.slot[:2] + _rotated(pushes.start, view.slot[2])
        cost[((starts < WORKSPACE_LOW) | (starts > WORKSPACE_HIGH)).any(axis=-1)] = np.inf
        cost[((ends < WORKSPACE_LOW) | (ends > WORKSPACE_HIGH)).any(axis=-1)] = np.inf
        if stuck:
            cost[:, pushes.travel < RUN_UP + 0.01] = np.inf
        best = int(np.argmin(cost.min(axis=1)))
        if self._style.diverse and view.depth < _STAGE - 0.04:
            # Far from the mouth another face, or another order of pushes, does about as well.
            per_face = cost.min(axis=1).reshape(len(quarters), -1)
            useful = np.flatnonzero(per_face.min(axis=1) < cost.min() + 1.0)
            chosen = int(self._style.rng.choice(useful)) if len(useful) else 0
            best = chosen * per_face.shape[1] + int(np.argmin(per_face[chosen]))
        step = int(np.argmin(cost[best]))
        if not np.isfinite(cost[best, step]):
            return None
        return pushes.start[best], finger_end[best, step]

    def _bring_back(self, view: View) -> tuple[Array, Array]:
        """Push a block that lies against the walls, or on them, away from the slot."""
        outward = 1.0 if view.offset > 0 else -1.0
        place = np.array([view.depth, view.offset])
        aside = abs(view.offset) > 0.052
        heading = math.pi if aside else outward * math.radians(100)
        quarter = math.pi / 2
        heading = view.yaw + quarter * round((heading - view.yaw) / quarter)
        forward = np.array([math.cos(heading), math.sin(heading)])
        start = place - (CONTACT + RUN_UP) * forward
        if not aside:
            start[0] = min(start[0], -RADIUS - 0.003)  # not on a wall
        return start, start + (RUN_UP + (0.10 if aside else 0.06)) * forward


def _rotated(points: Array, angle: float) -> Array:
    """`(..., 2)` points turned by an angle (rad)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])
