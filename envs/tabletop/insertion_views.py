"""The scene of BlockInsertion as its cameras see it, with masks, depth and the block's true pose.

No episode is played: block and effector are put wherever an episode may take them.
"""

import math
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from envs.tabletop.camera import (
    POLICY_EYE,
    POLICY_FIELD_OF_VIEW,
    POLICY_TARGET,
    ROBOT_CAMERA,
    PinholeCamera,
    rgbd_ids,
)
from envs.tabletop.clutter_bodies import N_COLORS, Color, Split, color, contrast, ids
from envs.tabletop.effectors import COLOR as EFFECTOR_COLOR
from envs.tabletop.effectors import LIFT_HEIGHT, RADIUS, WORK_HEIGHT
from envs.tabletop.insertion import INSERTED, BlockInsertionEnv
from envs.tabletop.instance_pictures import InstancePicture, check_pictures, instances, picture_rng
from envs.tabletop.perturbation import NOMINAL, draw_variation
from envs.tabletop.push import BLOCK, HALF
from envs.tabletop.scene import COLORS, WORKSPACE_HIGH, WORKSPACE_LOW, Scene

CLASSES: tuple[str, ...] = ("block", "slot", "effector")
SOURCE = "Synthetic: the scene of decisive/BlockInsertion-v0 rendered with PyBullet's TinyRenderer"
_STREAM = 22
_BLOCK_AREA = ((0.22, -0.30), (0.62, 0.30))
"""Where blocks are pushed about: least and greatest x and y, metres."""
_TRIES = 200


@dataclass(frozen=True)
class InsertionConfig:
    """Which views.

    Attributes:
        size: columns. The policy's camera has as many rows, the robot's three quarters of them.
        split: `train`, `validation` or `test`.
        seed: of all views.
        arm: the bare cylinder, or the xArm6 that carries it. Policies never see the arm, cameras of
            robots do.
        camera: the policy's (square pictures of rectangular pixels) or `ROBOT_CAMERA`, which
            measures.
        varied: share of views with other colours, another light, and the camera moved by up to
            15 mm in each direction; what is told of the camera is true in these as well.
        clearance: of the slot, mm per side.
        min_share: least share of the picture that an instance fills.
    """

    size: int = 128
    split: Split = "train"
    seed: int = 0
    arm: Literal["cylinder", "xarm6"] = "cylinder"
    camera: Literal["policy", "robot"] = "policy"
    varied: float = 0.5
    clearance: float = 1.0
    min_share: float = 0.0003

    def __post_init__(self) -> None:
        """Reject what cannot be drawn; the environment sees to its own options."""
        check_pictures(self.size, self.split, self.seed, self.min_share)
        if self.camera not in ("policy", "robot"):
            raise ValueError(f"camera must be policy or robot, got {self.camera!r}")
        if self.camera == "robot" and self.size % 4:
            raise ValueError(f"size must be a multiple of 4 for a picture of 4:3, got {self.size}")
        if not 0.0 <= self.varied <= 1.0:
            raise ValueError(f"varied must be in [0, 1], got {self.varied}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the pictures."""
        return self.size if self.camera == "policy" else self.size * 3 // 4, self.size


@dataclass(frozen=True)
class InsertionView(InstancePicture):
    """A picture with masks, and what a pose is measured with.

    Attributes:
        depth: `(H, W)` float32 along the optical axis, metres; NaN beyond the table.
        camera: whose picture and depth it is.
        block_pose: x, y (metres) and yaw (rad) of the block, world frame.
        slot_pose: x, y of the middle of the slot's mouth and its heading, likewise.
    """

    depth: NDArray[np.float32]
    camera: PinholeCamera
    block_pose: tuple[float, float, float]
    slot_pose: tuple[float, float, float]


def policy_camera(
    size: tuple[int, int], offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> PinholeCamera:
    """The camera of `observation="pixels"`, as a pinhole camera that tells where its pixels look.

    `camera.render` asks TinyRenderer for a picture without minding where it samples its pixels;
    so the optical axis lies half a pixel right of and above the middle of the picture.

    Args:
        size: rows and columns.
        offset: of the eye from its nominal place, metres.
    """
    height, width = size
    eye = np.add(POLICY_EYE, offset).tolist()
    pose = PinholeCamera.look_at(eye, POLICY_TARGET, size, POLICY_FIELD_OF_VIEW[0]).T_world_camera
    fy, fx = (
        side / 2 / math.tan(math.radians(angle) / 2)
        for side, angle in zip(size, POLICY_FIELD_OF_VIEW, strict=True)
    )
    return PinholeCamera(height, width, fx, fy, width / 2, height / 2 - 1, pose)


def robot_camera(
    size: tuple[int, int], offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> PinholeCamera:
    """`ROBOT_CAMERA` with pixels of another size.

    Args:
        size: rows and columns, of its proportions.
        offset: of the eye from its nominal place, metres; it looks in the same direction.
    """
    known, scale = ROBOT_CAMERA, size[1] / ROBOT_CAMERA.width
    pose = known.T_world_camera.copy()
    pose[:3, 3] += offset
    cx, cy = (size[1] - 1) / 2, (size[0] - 1) / 2
    return PinholeCamera(*size, known.fx * scale, known.fy * scale, cx, cy, pose)


class InsertionViews:
    """Draws the views, with an environment of its own; close it, or use it in a `with`."""

    def __init__(self, config: InsertionConfig) -> None:
        """Build the scene.

        Raises:
            ValueError: for an option that the environment does not know.
        """
        self.config = config
        self._env = BlockInsertionEnv(clearance=config.clearance, arm=config.arm)
        self._colors = ids(config.split, N_COLORS)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Disconnect; a second call is harmless."""
        self._env.close()

    @property
    def scene(self) -> Scene:
        """The scene as the last view left it."""
        return self._env.scene

    def draw(self, k: int) -> InsertionView:
        """View k, 0 or more."""
        config, env, scene = self.config, self._env, self._env.scene
        rng = picture_rng(_STREAM, config.split, config.seed, k)
        env.reset(seed=int(rng.integers(2**31)))
        self._place_block(rng)
        self._place_effector(rng)
        varied = bool(rng.random() < config.varied)
        variation = draw_variation(1.0, rng) if varied else NOMINAL
        self._paint(rng, varied)
        make = policy_camera if config.camera == "policy" else robot_camera
        camera = make(config.shape, variation.camera_offset)
        image, depth, seen = rgbd_ids(scene.client, camera, variation.light)
        bodies = (scene.blocks[0], scene.fixtures[0], *scene.effector.bodies)
        classes = dict(zip(bodies, range(len(CLASSES)), strict=True))
        numbers, kinds = instances(seen, classes, config.min_share)
        x, y, heading = env.slot_poses[0].tolist()
        block = scene.pose(scene.blocks[0])
        return InsertionView(image, numbers, kinds, depth, camera, block, (x, y, heading))

    def _place_block(self, rng: np.random.Generator) -> None:
        """Where an episode starts, in the slot or its mouth, or anywhere else."""
        scene, case = self.scene, rng.random()
        block, slot = scene.blocks[0], scene.fixtures[0]
        if case < 0.2:
            return
        for _ in range(_TRIES):
            if case < 0.45:
                x, y, yaw = self._pose_in_slot(rng)
            else:
                (x, y), yaw = rng.uniform(*_BLOCK_AREA), rng.uniform(0, 2 * math.pi)
            scene.place(block, (x, y), yaw, BLOCK[2])
            if not self._overlap(block, -1, slot):
                return
        raise RuntimeError("the block could not be placed")

    def _pose_in_slot(self, rng: np.random.Generator) -> tuple[float, float, float]:
        x, y, heading = self._env.slot_poses[0]
        play = self._env.clearance
        depth, offset = rng.uniform(-HALF, INSERTED), rng.uniform(-0.5, 0.5) * play
        yaw = heading + rng.integers(4) * math.pi / 2 + rng.uniform(-0.4, 0.4) * play / HALF
        cos, sin = math.cos(heading), math.sin(heading)
        return x + cos * depth - sin * offset, y + sin * depth + cos * offset, yaw

    def _place_effector(self, rng: np.random.Generator) -> None:
        """Beside the block in half of the views, as while it pushes; low in most of them."""
        scene = self.scene
        body, link = scene.effector.tip_link
        near = rng.random() < 0.5
        height = WORK_HEIGHT if rng.random() < 0.8 else rng.uniform(0.035, LIFT_HEIGHT)
        x, y, _ = scene.pose(scene.blocks[0])
        for _ in range(_TRIES):
            point = rng.uniform(WORKSPACE_LOW, WORKSPACE_HIGH)
            if near:
                around, reach = rng.uniform(0, 2 * math.pi), rng.uniform(HALF + RADIUS, 0.06)
                point = np.add((x, y), (reach * math.cos(around), reach * math.sin(around)))
                point = np.clip(point, WORKSPACE_LOW, WORKSPACE_HIGH)
            scene.effector.home(np.array([*point, height]))
            others = (scene.blocks[0], scene.fixtures[0])
            if not any(self._overlap(body, link, other) for other in others):
                return
        raise RuntimeError("the effector could not be placed")

    def _overlap(self, body: int, link: int, other: int) -> bool:
        """Whether two bodies are in each other by more than a tenth of a millimetre."""
        points = self.scene.client.getClosestPoints(body, other, 0.0, link, -1)
        return any(point[8] < -1e-4 for point in points)

    def _paint(self, rng: np.random.Generator, varied: bool) -> None:
        """Give everything its colour: the environment's, or others that differ from the table's."""
        scene = self.scene
        table, block, slot, tool = (
            COLORS["table"][:3],
            COLORS["red"][:3],
            COLORS["fixture"][:3],
            EFFECTOR_COLOR[:3],
        )
        if varied:
            table = color(int(rng.choice(self._colors)), pale=True)
            block, slot, tool = (self._visible_color(rng, table) for _ in range(3))
        paint = scene.client.changeVisualShape
        paint(scene.table, -1, rgbaColor=(*table, 1.0))
        paint(scene.blocks[0], -1, rgbaColor=(*block, 1.0))
        paint(scene.fixtures[0], -1, rgbaColor=(*slot, 1.0))
        paint(*scene.effector.tip_link, rgbaColor=(*tool, 1.0))

    def _visible_color(self, rng: np.random.Generator, table: Color) -> Color:
        """Of four colours the one that stands out most from the table's."""
        paints = [color(int(number)) for number in rng.choice(self._colors, 4)]
        return max(paints, key=lambda paint: contrast(paint, table))
