"""Scripted experts for insertion, with displacements and with whole pushes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.effectors import RADIUS
from envs.tabletop.steering import (
    TURN_CONSTANT,
    Circle,
    Face,
    limit_step,
    navigate,
    see_face,
    wrap_angle,
)

if TYPE_CHECKING:
    from envs.tabletop.insertion import BlockInsertionEnv

Mode = Literal["consistent", "diverse"]
Array = NDArray[np.float64]
_HALF = 0.02
_CONTACT = _HALF + RADIUS
_MAX_STEP = 0.028


class _Style:
    """What two people would do differently, drawn once an episode."""

    def __init__(self, env: BlockInsertionEnv, mode: Mode, seed: int | None) -> None:
        if mode not in ("consistent", "diverse"):
            raise ValueError(f"mode must be 'consistent' or 'diverse', got {mode!r}")
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.diverse = mode == "diverse"
        block = np.array(env.scene.pose(env.scene.blocks[0])[:2])
        distances = np.linalg.norm(env.slot_poses[:, :2] - block, axis=1)
        self.slot = int(np.argmin(distances))
        """Index of the slot to use."""
        self.side = 0
        """Way around the block: +1 counter-clockwise, -1 clockwise, 0 the shorter."""
        self.turn = 0
        """Which way a block that is far from aligned is turned; 0 the shorter."""
        self.speed = 1.0
        if self.diverse:
            self.slot = int(rng.integers(env.n_slots))
            self.side = int(rng.choice([-1, 1]))
            self.turn = int(rng.choice([-1, 1]))
            self.speed = float(rng.uniform(0.75, 1.15))


def _face_index(yaw_error: float, world_yaw: float, heading: float, turn: int) -> int:
    raise NotImplementedError


class InsertionExpert:
    """Inserts by displacements.

    Pushes the block sideways onto the slot's axis, which also turns it parallel, then steers it
    along the axis into the slot. What to do next follows from where block and finger are, so that a
    policy without memory can imitate it; only a jam at the mouth is remembered, while it is undone.
    """

    def __init__(
        self, env: BlockInsertionEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._env = env
        self._style = _Style(env, mode, seed)

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(2,)` displacement in metres. Reads the simulator, not `obs`."""
        env = self._env
        slot = env.slot_poses[self._style.slot]
        block = env.scene.pose(env.scene.blocks[0])
        depth, offset, _ = env.block_in_slot(self._style.slot)
        finger = env.target
        angle = self._angle(finger, block, slot)
        if self._on_axis(depth, offset, angle):
            delta = self._forward(finger, block, slot, depth, offset)
        else:
            delta = self._sideways(finger, block, slot, offset)
        return np.clip(delta, -0.03, 0.03).astype(np.float32)

    @staticmethod
    def _angle(finger: Array, block: tuple[float, float, float], slot: Array) -> float:
        """Direction from block to finger in the slot's frame, measured from straight behind."""
        away = finger - np.array(block[:2])
        return abs(wrap_angle(math.atan2(away[1], away[0]) - slot[2] - math.pi))

    @staticmethod
    def _on_axis(depth: float, offset: float, angle: float) -> bool:
        """Whether to push along the axis now.

        The corridor is wide for a finger behind the block and narrow for one at its side: where
        the finger is takes the place of a memory.
        """
        behind = max(0.0, 1.0 - angle / math.radians(60))
        room = max(0.0, -depth - 0.06)
        return abs(offset) < 0.004 + behind * (0.003 + 0.2 * room) or depth > -0.022

    def _forward(
        self, finger: Array, block: tuple[float, float, float], slot: Array, depth: float, offset: float
    ) -> Array:
        size = abs(offset)
        wanted = -math.copysign(min(size / 0.03, 0.5 * math.sqrt(16 * size), 0.5), offset)
        speed = 0.014 * self._style.speed if depth < -0.05 else 0.006
        return self._push(finger, block, slot[2] + wanted, speed)

    def _sideways(
        self, finger: Array, block: tuple[float, float, float], slot: Array, offset: float
    ) -> Array:
        heading = slot[2] - math.copysign(math.pi / 2, offset)
        speed = min(0.014 * self._style.speed, max(0.002, abs(offset)))
        return self._push(finger, block, heading, speed)

    def _push(
        self, finger: Array, block: tuple[float, float, float], heading: float, speed: float
    ) -> Array:
        face, error = self._choose_face(finger, block, heading)
        across = float(np.clip(-TURN_CONSTANT * error / 0.012, -0.016, 0.016))
        gap = abs(face.across - across)
        touching = face.along < -_CONTACT + 0.006 and abs(face.across) < _HALF + 0.004
        if touching and face.along > -_CONTACT - 0.03 and gap < 0.02:
            goal = face.point(-_CONTACT + speed, across)
            if gap > 0.006 and face.along < -_CONTACT - 0.002:
                goal = face.point(-_CONTACT - 0.004, across)
            return limit_step(goal - finger, _MAX_STEP)
        own = Circle((block[0], block[1]), _HALF * math.sqrt(2) + RADIUS + 0.004)
        goal = face.point(-_CONTACT - 0.014, across)
        return navigate(finger, goal, [own], self._style.side, _MAX_STEP)

    def _choose_face(
        self, finger: Array, block: tuple[float, float, float], heading: float
    ) -> tuple[Face, float]:
        """Face to push so that the block goes along `heading`, and the turn it still needs."""
        quarter = math.pi / 2
        error = wrap_angle(4 * (heading - block[2])) / 4
        if self._style.turn * error < 0 and abs(error) > math.radians(25):
            error -= math.copysign(quarter, error)
        index = round((heading - error - block[2]) / quarter) % 4
        return see_face(finger, block, index), error


class InsertionPrimitiveExpert:
    """Inserts by whole pushes."""

    def __init__(
        self, env: BlockInsertionEnv, mode: Mode = "consistent", seed: int | None = None
    ) -> None:
        """Draw the episode's style from `seed`; `consistent` draws nothing."""
        self._env = env
        self._style = _Style(env, mode, seed)

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(4,)` push: start and displacement in metres. Reads the simulator, not `obs`."""
        return np.zeros(4, np.float32)
