"""Pushing: one block to a zone, and two blocks to two zones in any order."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from envs.fields import Field
from envs.tabletop.base import Progress, TabletopEnv, yaw4
from envs.tabletop.push_experts import PushExpert, PushPrimitiveExpert
from envs.tabletop.scene import Scene

HALF = 0.02
"""Half width of the 40 mm blocks."""
BLOCK = (HALF, HALF, 0.015)
_ZONE_X = (0.30, 0.50)


def block_fields(name: str) -> tuple[Field, Field]:
    """Position and orientation fields of one block."""
    return (
        Field(f"{name}_xy", 2, "point", "m", f"centre of {name}"),
        Field(f"{name}_yaw4", 2, "yaw4", "1", f"cos and sin of four times the yaw of {name}"),
    )


class BlockPushEnv(TabletopEnv):
    """Push one block to a zone; orientation does not count.

    State `(10,)`: `target_xy`, `effector_xy`, `block_xy`, `block_yaw4`, `zone_xy` (metres, world).
    The effector starts at (0.25, 0), the block around (0.40, -0.18) at any yaw, the zone around
    (0.40, 0.20). Success: block centre within `tolerance` (20 mm) of the zone's centre, for every
    method alike. 100 steps of displacements or 12 pushes.
    """

    default_limits: ClassVar[dict[str, int]] = {"delta": 100, "push": 12}
    tolerance: ClassVar[float] = 0.02
    n_pairs: ClassVar[int] = 1

    def _build(self, scene: Scene) -> None:
        colors = ("red", "green")[: self.n_pairs]
        zones = ("blue", "yellow")[: self.n_pairs]
        for color in colors:
            scene.add_block(BLOCK, color)
        self._zone_bodies = [scene.add_marking((0.03, 0.03), color) for color in zones]

    def _place(self, rng: np.random.Generator) -> None:
        blocks = scatter(rng, self.n_pairs, (_ZONE_X, (-0.32, -0.08)), 0.10)
        zones = scatter(rng, self.n_pairs, (_ZONE_X, (0.10, 0.30)), 0.12)
        for body, xy, yaw in zip(
            self.scene.blocks, blocks, rng.uniform(0, 2 * math.pi, self.n_pairs), strict=True
        ):
            self.scene.place(body, xy, yaw, BLOCK[2])
        for body, xy in zip(self._zone_bodies, zones, strict=True):
            self.scene.place(body, xy, 0.0, 0.0002)
        self.zones = zones

    def _places(self) -> Sequence[int]:
        return self._zone_bodies

    def _task_fields(self) -> tuple[Field, ...]:
        if self.n_pairs == 1:
            zone = Field("zone_xy", 2, "point", "m", "centre of the zone")
            return (*block_fields("block"), zone)
        fields: list[Field] = []
        for i in range(self.n_pairs):
            fields += block_fields(f"block{i + 1}")
        for i in range(self.n_pairs):
            fields.append(Field(f"zone{i + 1}_xy", 2, "point", "m", f"centre of zone {i + 1}"))
        return tuple(fields)

    def _task_state(self) -> list[float]:
        values: list[float] = []
        for x, y, yaw in self.scene.block_poses():
            values += [x, y, *yaw4(yaw)]
        return values + self.zones.ravel().tolist()

    def _measure(self) -> Progress:
        if self.n_pairs == 1:
            left = float(np.hypot(*(self.scene.block_poses()[0, :2] - self.zones[0])))
            return Progress(left < self.tolerance, float(left < self.tolerance), left)
        distances = np.linalg.norm(
            self.scene.block_poses()[:, None, :2] - self.zones[None], axis=-1
        )
        # Any block may go to any zone: the best assignment counts.
        best = min(
            itertools.permutations(range(self.n_pairs)),
            key=lambda order: sum(distances[i, z] for i, z in enumerate(order)),
        )
        assigned = np.array([distances[i, z] for i, z in enumerate(best)])
        done = assigned < self.tolerance
        return Progress(bool(done.all()), float(done.mean()), float(assigned.sum()))

    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> PushExpert | PushPrimitiveExpert:
        """Scripted expert; `diverse` draws block order, zones, faces, routes and speed."""
        if self.control == "push":
            return PushPrimitiveExpert(self, mode, seed)
        return PushExpert(self, mode, seed)


class BlockPushMultimodalEnv(BlockPushEnv):
    """Push two blocks to two zones, any block to any zone, in any order.

    State `(16,)`: `target_xy`, `effector_xy`, `block1_xy`, `block1_yaw4`, `block2_xy`,
    `block2_yaw4`, `zone1_xy`, `zone2_xy` (metres, world). Success: both zones hold a block within
    `tolerance` (40 mm, as in the paper) at once. 200 steps of displacements or 24 pushes.
    """

    default_limits: ClassVar[dict[str, int]] = {"delta": 200, "push": 24}
    tolerance: ClassVar[float] = 0.04
    n_pairs: ClassVar[int] = 2


def scatter(
    rng: np.random.Generator,
    n: int,
    area: tuple[tuple[float, float], tuple[float, float]],
    spacing: float,
) -> np.ndarray:
    """`(n, 2)` points in a rectangle, any two at least `spacing` apart (both coordinates count)."""
    (x0, x1), (y0, y1) = area
    points: list[np.ndarray] = []
    while len(points) < n:
        point = rng.uniform((x0, y0), (x1, y1))
        if all(np.hypot(*(point - other)) >= spacing for other in points):
            points.append(point)
    return np.array(points).reshape(n, 2)
