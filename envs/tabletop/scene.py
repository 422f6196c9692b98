"""A Bullet world with a table, blocks, fixtures and an effector, that resets by saved state."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pybullet
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

from envs.tabletop.effectors import (
    LIFT_HEIGHT,
    PHYSICS_HZ,
    WORK_HEIGHT,
    Cylinder,
    Effector,
    XArm6,
)
from envs.tabletop.quiet import quiet

CONTROL_HZ = 10
SUBSTEPS = PHYSICS_HZ // CONTROL_HZ
WORKSPACE_LOW = np.array([0.15, -0.48])
WORKSPACE_HIGH = np.array([0.65, 0.48])
"""Where the effector may be sent (metres, world frame)."""

ARMS: dict[str, Callable[[BulletClient], Effector]] = {"cylinder": Cylinder, "xarm6": XArm6}
TABLE_FRICTION = 1.0
BLOCK_FRICTION = 0.5
BLOCK_MASS = 0.08
COLORS = {
    "red": (0.84, 0.31, 0.12, 1.0),
    "green": (0.00, 0.62, 0.45, 1.0),
    "blue": (0.05, 0.40, 0.72, 1.0),
    "yellow": (0.95, 0.76, 0.16, 1.0),
    "fixture": (0.94, 0.94, 0.95, 1.0),
    "table": (0.66, 0.65, 0.63, 1.0),
}
"""Close to the palette of Okabe and Ito, which colour-blind people can tell apart."""


Configuration = list[tuple[tuple[Sequence[float], Sequence[float]], list[float]]]
"""Of every body its base's position (metres) and quaternion (xyzw), and its joints (rad or m)."""


@dataclass(frozen=True)
class Box:
    """One box of a fixture, in its frame: centre and half extents in metres, yaw in rad."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    yaw: float = 0.0


def yaw_quaternion(yaw: float) -> list[float]:
    """Rotation about z as an xyzw quaternion."""
    return [0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]


def quaternion_yaw(q: Sequence[float]) -> float:
    """Yaw of an xyzw quaternion."""
    x, y, z, w = q
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


class Scene:
    """The simulated table. Build bodies once, `freeze()`, then `restore()` at every reset."""

    def __init__(self, arm: str = "cylinder", gui: bool = False) -> None:
        """Connect a private Bullet server and add the table and the arm.

        Raises:
            ValueError: if `arm` is not one of `ARMS`.
        """
        if arm not in ARMS:
            raise ValueError(f"arm must be one of {sorted(ARMS)}, got {arm!r}")
        with quiet():
            self.client = BulletClient(pybullet.GUI if gui else pybullet.DIRECT)
            client = self.client
            if gui:
                client.configureDebugVisualizer(pybullet.COV_ENABLE_GUI, 0)
                client.resetDebugVisualizerCamera(0.9, 90, -50, [0.4, 0.0, 0.0])
            client.setGravity(0, 0, -9.81)
            client.setTimeStep(1 / PHYSICS_HZ)
            # 120 Hz physics costs the insertion expert 18 of 100 episodes; more than 20 iterations
            # gain nothing. Ordered pairs make runs independent of what the server did before.
            client.setPhysicsEngineParameter(
                numSolverIterations=20, deterministicOverlappingPairs=1, enableFileCaching=0
            )
            self.table = self._box([0.4, 0.0, -0.02], (0.4, 0.6, 0.02), COLORS["table"], 0.0)
            client.changeDynamics(self.table, -1, lateralFriction=TABLE_FRICTION)
            self.effector: Effector = ARMS[arm](client)
            body, link = self.effector.tip_link
            client.setCollisionFilterPair(self.table, body, -1, link, 0)
        self.blocks: list[int] = []
        self.fixtures: list[int] = []
        # BulletClient looks every function up anew; these two are called tens of times a step.
        server = self.client._client
        self._get_pose = partial(pybullet.getBasePositionAndOrientation, physicsClientId=server)
        self._step = partial(pybullet.stepSimulation, physicsClientId=server)
        self._poses: NDArray[np.float64] | None = None
        self._state = -1

    def _box(
        self,
        position: Sequence[float],
        half: Sequence[float],
        color: Sequence[float],
        mass: float,
    ) -> int:
        client = self.client
        return client.createMultiBody(
            mass,
            client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half),
            client.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=color),
            position,
        )

    def add_block(self, half: tuple[float, float, float], color: str) -> int:
        """Add a free block (half extents in metres) and return its index in `blocks`."""
        body = self._box([0.4, 0.0, half[2]], half, COLORS[color], BLOCK_MASS)
        # spinningFriction stands for the patch torque that four corner contacts understate.
        self.client.changeDynamics(
            body,
            -1,
            lateralFriction=BLOCK_FRICTION,
            spinningFriction=5e-4,
            linearDamping=0.04,
            angularDamping=0.04,
        )
        self.blocks.append(body)
        return len(self.blocks) - 1

    def add_fixture(self, boxes: Sequence[Box], friction: float = 0.3) -> int:
        """Add a static compound of boxes (a concave mesh would leak) and return its body."""
        client = self.client
        n = len(boxes)
        orientations = [yaw_quaternion(box.yaw) for box in boxes]
        centers = [box.center for box in boxes]
        halves = [box.half for box in boxes]
        collision = client.createCollisionShapeArray(
            shapeTypes=[pybullet.GEOM_BOX] * n,
            halfExtents=halves,
            collisionFramePositions=centers,
            collisionFrameOrientations=orientations,
        )
        visual = client.createVisualShapeArray(
            shapeTypes=[pybullet.GEOM_BOX] * n,
            halfExtents=halves,
            visualFramePositions=centers,
            visualFrameOrientations=orientations,
            rgbaColors=[COLORS["fixture"]] * n,
        )
        body = client.createMultiBody(0.0, collision, visual, [0.45, 0.0, 0.0])
        client.changeDynamics(body, -1, lateralFriction=friction)
        self.fixtures.append(body)
        return body

    def add_marking(self, half: tuple[float, float], color: str, alpha: float = 0.9) -> int:
        """Add a painted rectangle (half sizes in metres) that touches nothing; returns its body."""
        # Pale, or a block would vanish on a marking of its colour (TinyRenderer ignores alpha).
        pairs = zip(COLORS[color][:3], COLORS["table"][:3], strict=True)
        rgba = (*(0.45 * paint + 0.55 * table for paint, table in pairs), alpha)
        shape = self.client.createVisualShape(
            pybullet.GEOM_BOX, halfExtents=(*half, 0.0004), rgbaColor=rgba
        )
        return self.client.createMultiBody(0.0, -1, shape, [0.45, 0.0, 0.0002])

    def place(self, body: int, xy: Sequence[float], yaw: float, z: float = 0.0) -> None:
        """Put a body's frame at xy (metres, world), height z, turned by yaw (rad)."""
        self._poses = None
        self.client.resetBasePositionAndOrientation(
            body, [float(xy[0]), float(xy[1]), z], yaw_quaternion(yaw)
        )

    def freeze(self) -> None:
        """Remember the present state as what `restore` returns to."""
        self._state = self.client.saveState()

    def restore(self) -> None:
        """Return to the frozen state (under a millisecond; building anew costs 2 to 80)."""
        # restoreState keeps contacts that still fit, with their warm-start impulses: the next
        # episode would depend on the last one. Lifted apart, bodies lose them all.
        self._poses = None
        for i, body in enumerate(self.blocks + self.fixtures):
            self.place(body, (0.3 * i, 0.0), 0.0, 1.0)
        self.client.performCollisionDetection()
        self.client.restoreState(self._state)

    def step(self, n: int = SUBSTEPS) -> None:
        """Advance physics by n steps of 1/240 s."""
        self._poses = None
        step = self._step
        for _ in range(n):
            step()

    def configuration(self) -> Configuration:
        """Where everything is, which is all that a picture shows."""
        client = self.client
        return [
            (
                self._get_pose(body),
                [client.getJointState(body, k)[0] for k in range(client.getNumJoints(body))],
            )
            for body in range(client.getNumBodies())
        ]

    def configure(self, configuration: Configuration) -> None:
        """Put everything where it is in another scene of the same bodies, to draw it."""
        self._poses = None
        client = self.client
        for body, (base, joints) in enumerate(configuration):
            client.resetBasePositionAndOrientation(body, *base)
            for joint, position in enumerate(joints):
                client.resetJointState(body, joint, position)

    def pose(self, body: int) -> tuple[float, float, float]:
        """`(x, y, yaw)` of a body in the world frame."""
        (x, y, _), q = self._get_pose(body)
        return x, y, quaternion_yaw(q)

    def block_poses(self) -> NDArray[np.float64]:
        """`(n, 3)` x, y, yaw of every block."""
        if self._poses is None:
            self._poses = np.array([self.pose(body) for body in self.blocks]).reshape(-1, 3)
        return self._poses.copy()

    def is_upright(self, body: int, height: float, tolerance: float = 0.004) -> bool:
        """Whether a block lies flat on the table: centre at `height` and its z axis up."""
        (_, _, z), (qx, qy, _, _) = self.client.getBasePositionAndOrientation(body)
        return abs(z - height) < tolerance and 1 - 2 * (qx * qx + qy * qy) > math.cos(0.1)

    def tip(self) -> NDArray[np.float64]:
        """Measured `(3,)` effector position."""
        return self.effector.position()

    def close(self) -> None:
        """Disconnect; a second call is harmless."""
        if self.client.isConnected():
            self.client.disconnect()


__all__ = [
    "ARMS",
    "COLORS",
    "CONTROL_HZ",
    "LIFT_HEIGHT",
    "PHYSICS_HZ",
    "SUBSTEPS",
    "WORKSPACE_HIGH",
    "WORKSPACE_LOW",
    "WORK_HEIGHT",
    "Box",
    "Scene",
    "quaternion_yaw",
    "yaw_quaternion",
]
