"""What lies on the table, as a camera sees it: colours, outlines, heights, and where it may stand.

Metres and radians; world frame: z up, the table's surface at z = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = tuple[float, float, float]

TABLE: Color = (0.66, 0.65, 0.63)
"""Reflectance of the simulated table; see `EstimationConfig.table_color`."""
RED: Color = (0.84, 0.31, 0.12)
GREEN: Color = (0.00, 0.62, 0.45)
PALE_BLUE: Color = (0.3855, 0.5375, 0.6705)
PALE_YELLOW: Color = (0.7905, 0.6995, 0.4185)
WHITE: Color = (0.94, 0.94, 0.95)
"""The simulated blocks, zones and fixtures, as they look in white light."""


@dataclass(frozen=True)
class Pose2D:
    """Where something stands on the table, world frame: metres and radians."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class BlockModel:
    """A block with a square top; its yaw is known up to quarter turns.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light; only its hue and saturation count.
        half_xy: half of the square's side, metres.
        height: of the top face, metres.
        kind: class that labels of instances call it; "" for what is told by its colour alone.
    """

    name: str
    color: Color
    half_xy: float = 0.02
    height: float = 0.03
    kind: str = "block"

    @property
    def outline(self) -> Array:
        """`(4, 2)` corners of the top face, anticlockwise."""
        return _square(self.half_xy)

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return math.pi / 2


@dataclass(frozen=True)
class ZoneModel:
    """A painted square.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light.
        half_xy: half of the square's side, metres.
        height: of the paint, metres.
        kind: as of a block; paint has no class.
    """

    name: str
    color: Color
    half_xy: float = 0.03
    height: float = 0.0
    kind: str = ""

    @property
    def outline(self) -> Array:
        """`(4, 2)` corners, anticlockwise."""
        return _square(self.half_xy)

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return math.pi / 2


@dataclass(frozen=True)
class SlotModel:
    """A U of three walls. Its pose is the middle of its mouth and the direction into it.

    Attributes:
        name: key of the result.
        color: RGB in [0, 1] under white light.
        heading: rough direction into the slot, rad, to tell several alike apart: each model takes
            the one that is nearest in heading. A single one serves all models.
        half_mouth: half of the inner width, metres: half a block and the play.
        depth: from the mouth to the back wall, metres.
        wall: thickness of the walls, metres.
        chamfer: length that is cut off the inner corners of the mouth at 45 degrees, metres.
        height: of the walls, metres.
        fixed_to: name of another slot that is built as one piece with this, or nothing.
        offset: pose in the frame of that other slot. Two slots that are found as the offset says,
            within `EstimationConfig.fixed_tolerance`, are given poses that obey it exactly; others
            are left as found.
        kind: as of a block.
    """

    name: str
    color: Color
    heading: float = 0.0
    half_mouth: float = 0.021
    depth: float = 0.045
    wall: float = 0.012
    chamfer: float = 0.002
    height: float = 0.02
    fixed_to: str = ""
    offset: Pose2D = Pose2D(0.0, 0.0, 0.0)
    kind: str = "slot"

    @property
    def outline(self) -> Array:
        """`(10, 2)` corners of the walls' upper faces, anticlockwise; x points into the slot."""
        inner, cut = self.half_mouth, self.chamfer
        outer, back = inner + self.wall, self.depth + self.wall
        left = [(cut, inner), (self.depth, inner)]
        left = [(back, outer), (0.0, outer), (0.0, inner + cut), *left]
        return np.array([*left, *((x, -y) for x, y in reversed(left))])

    @property
    def period(self) -> float:
        """The turn after which it looks the same, rad."""
        return 2 * math.pi


Model = BlockModel | ZoneModel | SlotModel

ONE_BLOCK = (BlockModel("block", RED), ZoneModel("zone", PALE_BLUE))
TWO_BLOCKS = (
    BlockModel("block1", RED),
    BlockModel("block2", GREEN),
    ZoneModel("zone1", PALE_BLUE),
    ZoneModel("zone2", PALE_YELLOW),
)
FACING = Pose2D(-0.38, 0.0, math.pi)
"""Pose of the second simulated slot in the frame of the first, where there are two."""
INSERTION = (
    BlockModel("block", RED),
    SlotModel("slot1", WHITE, heading=math.pi / 2),
    SlotModel("slot2", WHITE, heading=-math.pi / 2, fixed_to="slot1", offset=FACING),
)
MODELS: dict[str, tuple[Model, ...]] = {
    "decisive/BlockPush-v0": ONE_BLOCK,
    "decisive/BlockPushMultimodal-v0": TWO_BLOCKS,
    "decisive/BlockInsertion-v0": INSERTION,
}
"""What lies on the table of each task; the names begin those of the state's fields."""


def wrap(angle: float, period: float) -> float:
    """The angle in [-period / 2, period / 2) that differs from it by whole periods (rad)."""
    return (angle + period / 2) % period - period / 2


def _square(half: float) -> Array:
    return half * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
