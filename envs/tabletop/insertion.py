"""Insertion: slide a block across the table into a slot that is barely wider than the block."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from envs.fields import Field
from envs.tabletop.base import Progress, TabletopEnv, yaw4
from envs.tabletop.insertion_experts import InsertionExpert
from envs.tabletop.insertion_primitives import InsertionPrimitiveExpert
from envs.tabletop.push import BLOCK, HALF, block_fields
from envs.tabletop.scene import SUBSTEPS, Box, Scene
from envs.tabletop.steering import wrap_angle

DEPTH = 0.045
"""From the slot's mouth to its back wall, in metres."""
INSERTED = DEPTH - HALF
"""How far past the mouth a fully inserted block's centre lies, in metres."""
CHAMFER = 0.002
"""The mouth's corners are cut at 45 degrees over this length (metres)."""
WALL = 0.012
WALL_HEIGHT = 0.02
SLOT_FRICTION = 0.3
POSITION_TOLERANCE = 0.004
YAW_TOLERANCE = math.radians(5)
HOLD_STEPS = 3
CLEARANCE_RANGE = (0.2, 5.0)
"""Millimetres per side."""


class BlockInsertionEnv(TabletopEnv):
    """Slide a 40 mm block into a U-shaped slot with `clearance` millimetres to spare on each side.

    State `(16,)`: `target_xy`, `effector_xy`, `block_xy`, `block_yaw4`, `slot1_xy`,
    `slot1_heading`, `slot2_xy`, `slot2_heading` (metres, world). A slot's point is the centre of
    its mouth, its heading the direction in which a block enters. With one slot the second repeats
    the first. The effector starts at (0.25, 0).

    One slot: mouth in x 0.52 to 0.56, y +-0.08, heading +-0.3 rad; block in x 0.31 to 0.37,
    y +-0.10, any yaw. Two slots: a rigid pair, mouths near (0.42, +-0.19), opening towards each
    other, shifted by up to 15 mm and turned by up to 0.15 rad; block in x 0.37 to 0.47, y +-0.03,
    any yaw; either slot counts.

    Success: for `HOLD_STEPS` control steps in a row the block's centre is within 4 mm of full
    depth (touching the back wall), its yaw within 5 degrees of the slot's (mod 90), and it lies
    flat on the table. After a whole push the world first comes to rest, with the effector lifted.
    Score: 1 on success, 0.5 while more than half of the block is inside, else 0.
    150 steps of displacements or 25 pushes.
    """

    default_limits: ClassVar[dict[str, int]] = {"delta": 150, "push": 25}

    def __init__(self, clearance: float = 1.0, slots: Literal[1, 2] = 1, **options: Any) -> None:
        """Build the slots.

        Args:
            clearance: play between block and wall in millimetres per side.
            slots: 1, or 2 of which either counts.
            **options: see `TabletopEnv`.

        Raises:
            ValueError: on an impossible option.
        """
        low, high = CLEARANCE_RANGE
        if not low <= clearance <= high:
            raise ValueError(f"clearance must be {low} to {high} mm per side, got {clearance}")
        if slots not in (1, 2):
            raise ValueError(f"slots must be 1 or 2, got {slots!r}")
        self.clearance = float(clearance) / 1000.0
        """Play per side in metres."""
        self.n_slots = int(slots)
        self.slot_poses: NDArray[np.float64] = np.zeros((self.n_slots, 3))
        """`(n, 3)` x, y (mouth's centre) and heading of every slot, world frame."""
        self._held = 0
        super().__init__(**options)

    def _build(self, scene: Scene) -> None:
        scene.add_block(BLOCK, "red")
        boxes = slot_boxes(self.clearance)
        self._slot_bodies = [scene.add_fixture(boxes, SLOT_FRICTION) for _ in range(self.n_slots)]

    def _place(self, rng: np.random.Generator) -> None:
        if self.n_slots == 1:
            self.slot_poses = rng.uniform((0.52, -0.08, -0.3), (0.56, 0.08, 0.3))[None]
            x, y = rng.uniform((0.31, -0.10), (0.37, 0.10))
        else:
            dx, dy, turn = rng.uniform((-0.015, -0.015, -0.15), (0.015, 0.015, 0.15))
            headings = turn + np.array([0.5, -0.5]) * math.pi
            reach = np.stack([np.cos(headings), np.sin(headings)], axis=1)
            mouths = np.array([0.42 + dx, dy]) + 0.19 * reach
            self.slot_poses = np.column_stack([mouths, headings])
            x, y = rng.uniform((0.37, -0.03), (0.47, 0.03))
        for body, (slot_x, slot_y, heading) in zip(self._slot_bodies, self.slot_poses, strict=True):
            self.scene.place(body, (slot_x, slot_y), heading)
        self.scene.place(self.scene.blocks[0], (x, y), rng.uniform(0, 2 * math.pi), BLOCK[2])
        self._held = 0

    def _places(self) -> Sequence[int]:
        return self._slot_bodies[0], self._slot_bodies[-1]

    def _task_fields(self) -> tuple[Field, ...]:
        fields = list(block_fields("block"))
        for i in (1, 2):
            fields += [
                Field(f"slot{i}_xy", 2, "point", "m", f"centre of the mouth of slot {i}"),
                Field(f"slot{i}_heading", 2, "heading", "1", f"direction into slot {i}"),
            ]
        return tuple(fields)

    def _task_state(self) -> list[float]:
        x, y, yaw = self.scene.pose(self.scene.blocks[0])
        values = [x, y, *yaw4(yaw)]
        for slot_x, slot_y, heading in (self.slot_poses[0], self.slot_poses[-1]):
            values += [slot_x, slot_y, math.cos(heading), math.sin(heading)]
        return values

    def block_in_slot(self, slot: int) -> tuple[float, float, float]:
        """Block seen from a slot's mouth.

        Args:
            slot: index into `slot_poses`.

        Returns:
            Depth of the centre past the mouth, offset to the left (metres), and yaw in the slot's
            frame (rad, in [-pi / 4, pi / 4): a quarter turn changes nothing).
        """
        return in_slot_frame(self.scene.pose(self.scene.blocks[0]), self.slot_poses[slot])

    def is_inserted(self) -> bool:
        """Whether the block is fully in some slot and flat on the table, at this instant."""
        if not self.scene.is_upright(self.scene.blocks[0], BLOCK[2]):
            return False
        for slot in range(self.n_slots):
            depth, offset, yaw = self.block_in_slot(slot)
            close = math.hypot(depth - INSERTED, offset) < POSITION_TOLERANCE
            if close and abs(yaw) < YAW_TOLERANCE:
                return True
        return False

    def _tick(self) -> None:
        self._held = self._held + 1 if self.is_inserted() else 0
        super()._tick()

    def _push(self, action: NDArray[np.float64]) -> None:
        super()._push(action)
        if not self.is_inserted():
            return
        # What was counted during the push does not matter: it must stay when left alone.
        self._held = 0
        self.scene.effector.command(self.scene.tip(), SUBSTEPS)
        for _ in range(HOLD_STEPS):
            self.scene.step()
            self._tick()

    def _measure(self) -> Progress:
        places = [self.block_in_slot(slot) for slot in range(self.n_slots)]
        distance = min(math.hypot(depth - INSERTED, offset) for depth, offset, _ in places)
        if self._held >= HOLD_STEPS:
            return Progress(True, 1.0, distance)
        half_in = any(0 < depth < DEPTH and abs(offset) < HALF / 2 for depth, offset, _ in places)
        return Progress(False, 0.5 if half_in else 0.0, distance)

    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> InsertionExpert | InsertionPrimitiveExpert:
        """Scripted expert; `diverse` draws slot, faces, ways around the block and speed."""
        if self.control == "push":
            return InsertionPrimitiveExpert(self, mode, seed)
        return InsertionExpert(self, mode, seed)


def in_slot_frame(
    block: tuple[float, float, float], slot: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Depth, offset and yaw of a block in a slot's frame; see `BlockInsertionEnv.block_in_slot`.

    Args:
        block: x, y, yaw in the world frame.
        slot: `(3,)` mouth x, y and heading in the world frame.
    """
    dx, dy = block[0] - slot[0], block[1] - slot[1]
    cos, sin = math.cos(slot[2]), math.sin(slot[2])
    yaw = wrap_angle(4 * (block[2] - slot[2])) / 4
    return float(cos * dx + sin * dy), float(cos * dy - sin * dx), yaw


def slot_boxes(clearance: float) -> list[Box]:
    """Walls of a slot in its own frame: origin at the mouth's centre, x into the slot.

    Args:
        clearance: play per side in metres.
    """
    inner = HALF + clearance
    back = DEPTH + WALL
    z = WALL_HEIGHT / 2
    boxes = [Box((DEPTH + WALL / 2, 0.0, z), (WALL / 2, inner + WALL, z))]
    for side in (1, -1):
        # The inner face starts behind the chamfer; a lip and a square standing on its corner
        # make up the rest of the wall.
        boxes += [
            Box(
                ((CHAMFER + back) / 2, side * (inner + WALL / 2), z),
                ((back - CHAMFER) / 2, WALL / 2, z),
            ),
            Box(
                (CHAMFER / 2, side * (inner + (CHAMFER + WALL) / 2), z),
                (CHAMFER / 2, (WALL - CHAMFER) / 2, z),
            ),
            Box(
                (CHAMFER, side * (inner + CHAMFER), z),
                (CHAMFER / math.sqrt(2), CHAMFER / math.sqrt(2), z),
                math.pi / 4,
            ),
        ]
    return boxes
