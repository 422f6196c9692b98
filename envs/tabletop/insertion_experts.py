"""Scripted expert for insertion by displacements, and what it shares with the one for pushes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
Phase = Literal["start", "sideways", "forward", "nudge", "retreat"]
Array = NDArray[np.float64]
HALF = 0.02
CONTACT = HALF + RADIUS
_MAX_STEP = 0.028
_SPEED = 0.013
"""Advance per control step (metres); faster, and the line is followed less closely."""
_GATE = 0.05
"""Nearer to the mouth than this, a block that is out of line is brought back (metres)."""
_RESTART = 0.11
_NEAR = 0.10
"""Nearer to the mouth than this, the finger goes around the block on the far side of the slot."""
_ENTRY = 0.0235
"""Depth (negative) at which the front face is about to meet the mouth."""
"""How far from the mouth it is brought."""


class Style:
    """What two people would do differently, drawn once an episode."""

    def __init__(self, env: BlockInsertionEnv, mode: Mode, seed: int | None) -> None:
        """Draw from `seed`; `consistent` draws nothing and takes the nearest slot."""
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


def _drift(heading: float, turn: float) -> float:
    """What to add to a turn so that the block does go where its face points (rad).

    Bullet's friction is not quite isotropic: pushed along a world heading between about 18 and
    50 degrees off the x axis, a block strays towards that axis by up to 6 degrees.
    """
    from_x = wrap_angle(2 * heading) / 2
    if from_x * turn <= 0 or abs(from_x) > 0.9:
        return 0.0
    return math.copysign(min(0.1, 0.6 * max(0.0, abs(from_x) - 0.3)), turn)


@dataclass(frozen=True)
class View:
    """What the expert looks at: finger and block in the world, block in the slot's frame."""

    finger: Array
    block: tuple[float, float, float]
    slot: Array
    depth: float
    offset: float
    yaw: float

    @property
    def front_offset(self) -> float:
        """Offset of the middle of the block's front face, which has to meet the mouth."""
        return self.offset + HALF * math.sin(self.yaw)

    def angle_from_behind(self, point: Array) -> float:
        """Direction from block to point (rad): 0 is away from the slot, positive to the left."""
        away = point - np.array(self.block[:2])
        return wrap_angle(math.atan2(away[1], away[0]) - self.slot[2] - math.pi)

    def in_slot(self, point: Array) -> tuple[float, float]:
        """World point in the slot's frame."""
        delta = point - self.slot[:2]
        cos, sin = math.cos(self.slot[2]), math.sin(self.slot[2])
        return float(cos * delta[0] + sin * delta[1]), float(cos * delta[1] - sin * delta[0])

    def to_world(self, point: Sequence[float] | Array) -> Array:
        """Inverse of `in_slot`."""
        cos, sin = math.cos(self.slot[2]), math.sin(self.slot[2])
        x, y = point
        return self.slot[:2] + np.array([cos * x - sin * y, sin * x + cos * y])


def look(env: BlockInsertionEnv, style: Style) -> View:
    """Present state as seen from the slot that `style` has chosen."""
    return View(
        env.target,
        env.scene.pose(env.scene.blocks[0]),
        env.slot_poses[style.slot],
        *env.block_in_slot(style.slot),
    )


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
        self._style = Style(env, mode, seed)
        self._phase: Phase = "start"
        self._nudges = 0
        self._nudge_side = 1
        self._still = 0
        self._last_depth = -math.inf

    def act(self, obs: Any, info: dict[str, Any]) -> NDArray[np.float32]:
        """`(2,)` displacement in metres. Reads the simulator, not `obs`."""
        view = look(self._env, self._style)
        self._phase = self._next_phase(view)
        delta = {
            "sideways": self._sideways,
            "forward": self._forward,
            "nudge": self._nudge,
            "retreat": self._retreat,
        }[self._phase](view)
        return np.clip(delta, -0.03, 0.03).astype(np.float32)

    def _next_phase(self, view: View) -> Phase:
        moved = abs(view.depth - self._last_depth) > 0.0005
        self._still = 0 if moved else self._still + 1
        self._last_depth = view.depth
        depth, offset = view.depth, abs(view.offset)
        if self._phase == "retreat" and depth > -_RESTART:
            return "retreat"
        if self._phase == "nudge":
            if not self._nudged(view) and self._still < 14:
                return "nudge"
            self._nudges += 1
            self._still = 0
            return "forward"
        before_mouth = max(0.0, -_ENTRY - depth)
        if depth > -_GATE:
            askew = abs(view.yaw) > math.radians(5) + 20.0 * before_mouth
            apart = abs(view.front_offset) > 0.0025 + 0.15 * before_mouth
            jammed = depth > -_ENTRY and self._still > 5
            if depth > -_ENTRY and (askew or jammed) and offset < 0.009 and self._nudges < 3:
                self._nudge_side = -1 if view.yaw > 0 else 1
                self._still = 0
                return "nudge"
            if (askew and depth < 0.0) or apart or jammed:
                self._nudges = 0
                return "retreat"
            return "forward"
        # Wide while steering along the axis, narrow while coming towards it from the side.
        room = 0.007 + 0.2 * max(0.0, -depth - 0.06) if self._phase != "sideways" else 0.004
        return "forward" if offset < room else "sideways"

    def _retreat(self, view: View) -> Array:
        """Sideways out of the mouth's way, until a finger fits in front of the block; then back."""
        outward = 1 if view.offset > 0 else -1
        if view.depth > -0.062 and abs(view.offset) < 0.052:
            heading = view.slot[2] + outward * math.radians(105)
            return self._push(view, heading, 0.012, outward)
        return self._push(view, view.slot[2] + math.pi, 0.014, -outward)

    def _nudge(self, view: View) -> Array:
        """Turn a block that has caught a corner at the mouth straight, from behind its far side.

        The finger stops where a block that lies straight on the axis would touch it.
        """
        side = self._nudge_side
        along = min(view.depth - 0.007, -RADIUS - 0.002)
        x, y = view.in_slot(view.finger)
        y *= side
        behind = view.depth - 0.045
        if y < CONTACT - 0.001 and x > behind + 0.006:
            aim = (behind, y)
        elif y < CONTACT + 0.009 and x < along - 0.006:
            aim = (min(x, behind), CONTACT + 0.014)
        elif abs(x - along) > 0.003:
            aim = (along, max(y, CONTACT + 0.012))
        else:
            aim = (along, max(y - 0.006, CONTACT))
        return limit_step(view.to_world((aim[0], side * aim[1])) - view.finger, _MAX_STEP)

    def _nudged(self, view: View) -> bool:
        """Whether the nudge has ended."""
        return self._nudge_side * view.in_slot(view.finger)[1] < CONTACT + 0.0005 and (
            view.in_slot(view.finger)[0] > view.depth - 0.02
        )

    def _forward(self, view: View) -> Array:
        size = abs(view.offset)
        wanted = -math.copysign(min(size / 0.03, 0.5 * math.sqrt(16 * size), 0.5), view.offset)
        wanted += _drift(view.slot[2] + wanted, wanted)
        speed = _SPEED * self._style.speed if view.depth < -0.07 else 0.006
        return self._push(view, view.slot[2] + wanted, speed, self._style.side)

    def _sideways(self, view: View) -> Array:
        heading = view.slot[2] - math.copysign(math.pi / 2, view.offset)
        speed = min(_SPEED * self._style.speed, max(0.002, abs(view.offset)))
        return self._push(view, heading, speed, self._style.side)

    def _push(self, view: View, heading: float, speed: float, side: int) -> Array:
        finger, block = view.finger, view.block
        face, error = self._choose_face(finger, block, heading)
        across = float(np.clip(-TURN_CONSTANT * error / 0.009, -0.016, 0.016))
        gap = abs(face.across - across)
        touching = face.along < -CONTACT + 0.006 and abs(face.across) < HALF + 0.004
        if touching and face.along > -CONTACT - 0.03 and gap < 0.02:
            goal = face.point(-CONTACT + speed, across)
            if gap > 0.006 and face.along < -CONTACT - 0.002:
                goal = face.point(-CONTACT - 0.004, across)
            return limit_step(goal - finger, _MAX_STEP)
        own = Circle((block[0], block[1]), HALF * math.sqrt(2) + RADIUS + 0.004)
        goal = face.point(-CONTACT - 0.014, across)
        here, there = view.angle_from_behind(finger), view.angle_from_behind(goal)
        if view.depth > -_NEAR and abs(there) < math.radians(150):
            side = 1 if there > here else -1  # never between block and slot
        elif abs(wrap_angle(there - here)) < math.radians(60):
            side = 0  # sent the long way, a finger that is nearly there would go all around
        return navigate(finger, goal, [own], side, _MAX_STEP)

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
