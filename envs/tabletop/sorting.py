"""Sorting: blocks of two colours into two zones, in any order."""

import math
from typing import Any, ClassVar, Literal

import numpy as np

from envs.fields import Field
from envs.tabletop.base import Progress, TabletopEnv, yaw4
from envs.tabletop.push import block_fields, scatter
from envs.tabletop.scene import Scene
from envs.tabletop.sorting_experts import HALF, SortExpert
from envs.tabletop.sorting_primitives import SortPrimitiveExpert

ZONE_EDGE = 0.13
"""A blue block is in place where y > 0.13 m, a yellow one where y < -0.13 m."""
MIN_BLOCKS, MAX_BLOCKS = 2, 16
STEPS_PER_BLOCK = {"delta": 30, "push": 6}

_SPACING = 0.055
_FEW = 8
_AREA_FEW = ((0.30, 0.50), (-0.10, 0.10))
_AREA_MANY = ((0.30, 0.58), (-0.12, 0.12))
_ZONE_DEPTH = 0.20


class BlockSortingEnv(TabletopEnv):
    """Push blue blocks to the left (y > 0.13 m) and yellow ones to the right (y < -0.13 m).

    State `(4 + 4 n,)`: `target_xy`, `effector_xy`, then `blue1_xy`, `blue1_yaw4`, `blue2_xy`, ...,
    `yellow1_xy`, `yellow1_yaw4`, ... (metres, world). The colour of a block is told by its place in
    the vector alone: blues first, always in the same order. Of n blocks `ceil(n / 2)` are blue.

    The effector starts at (0.25, 0), the 30 mm cubes scattered at any yaw over x 0.30 to 0.50,
    |y| < 0.10 (x to 0.58, |y| < 0.12 with more than 8), centres at least 55 mm apart: none is in
    place. A block is in place while its centre lies beyond its zone's edge, at any x and any yaw;
    the painted strip shows the zone's first 200 mm. `score`: fraction of blocks in place; success:
    all of them. The distance behind the reward is the sum over blocks of what is missing in y.
    30 steps of displacements or 6 pushes per block.
    """

    default_limits: ClassVar[dict[str, int]] = {
        control: 8 * steps for control, steps in STEPS_PER_BLOCK.items()
    }

    def __init__(self, *, n_blocks: int = 8, **options: Any) -> None:
        """Build the scene.

        Args:
            n_blocks: 2 to 16; an odd one more is blue.
            options: see `TabletopEnv`.

        Raises:
            ValueError: on an unknown or impossible option.
        """
        if isinstance(n_blocks, bool) or int(n_blocks) != n_blocks:
            raise ValueError(f"n_blocks must be a whole number, got {n_blocks!r}")
        if not MIN_BLOCKS <= n_blocks <= MAX_BLOCKS:
            raise ValueError(f"n_blocks must be {MIN_BLOCKS} to {MAX_BLOCKS}, got {n_blocks}")
        self.n_blocks = int(n_blocks)
        self.n_blue = (self.n_blocks + 1) // 2
        self.signs = np.where(np.arange(self.n_blocks) < self.n_blue, 1.0, -1.0)
        """`(n,)` +1 where a block belongs to the zone at positive y (blue), else -1."""
        self.zone_edge = ZONE_EDGE
        super().__init__(**options)

    def _build(self, scene: Scene) -> None:
        for sign in self.signs:
            scene.add_block((HALF, HALF, HALF), "blue" if sign > 0 else "yellow")
        for sign, color in ((1.0, "blue"), (-1.0, "yellow")):
            zone = scene.add_marking((0.20, _ZONE_DEPTH / 2), color, alpha=0.45)
            scene.place(zone, (0.40, sign * (ZONE_EDGE + _ZONE_DEPTH / 2)), 0.0, 0.0002)

    def _place(self, rng: np.random.Generator) -> None:
        area = _AREA_FEW if self.n_blocks <= _FEW else _AREA_MANY
        points = scatter(rng, self.n_blocks, area, _SPACING)
        yaws = rng.uniform(0, 2 * math.pi, self.n_blocks)
        for body, xy, yaw in zip(self.scene.blocks, points, yaws, strict=True):
            self.scene.place(body, xy, yaw, HALF)

    def _task_fields(self) -> tuple[Field, ...]:
        blues = [f"blue{i + 1}" for i in range(self.n_blue)]
        yellows = [f"yellow{i + 1}" for i in range(self.n_blocks - self.n_blue)]
        return tuple(field for name in blues + yellows for field in block_fields(name))

    def _task_state(self) -> list[float]:
        values: list[float] = []
        for x, y, yaw in self.scene.block_poses():
            values += [x, y, *yaw4(yaw)]
        return values

    def _measure(self) -> Progress:
        missing = np.maximum(ZONE_EDGE - self.signs * self.scene.block_poses()[:, 1], 0.0)
        placed = missing == 0.0
        return Progress(bool(placed.all()), float(placed.mean()), float(missing.sum()))

    def _default_limit(self) -> int:
        return STEPS_PER_BLOCK[self.control] * self.n_blocks

    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> SortExpert | SortPrimitiveExpert:
        """Scripted expert; `diverse` draws the block order, faces, routes and speed."""
        if self.control == "push":
            return SortPrimitiveExpert(self, mode, seed)
        return SortExpert(self, mode, seed)
