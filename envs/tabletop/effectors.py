"""The two arms: a driven cylinder, and an xArm6 that carries the same cylinder.

Both expose `Effector`. Positions are in metres, world frame; z is the height of the cylinder's
lower face above the table.
"""

import os
import tempfile
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
import pybullet
import pybullet_data
from numpy.typing import NDArray
from pybullet_utils.bullet_client import BulletClient

RADIUS = 0.0127
"""Radius of the cylinder in metres (half an inch, as in the paper's real cell)."""
LENGTH = 0.12
WORK_HEIGHT = 0.004
"""Height of the cylinder's lower face while it pushes."""
LIFT_HEIGHT = 0.07
"""Height at which the cylinder passes over every block and fixture."""
FRICTION = 0.05
"""Low on purpose: a slippery finger pushes along the face's normal, which makes pushing steerable.
At 0.5 the insertion expert falls from 99 to 44 successes of 100."""
COLOR = (0.15, 0.15, 0.18, 1.0)
PHYSICS_HZ = 240


class Effector(Protocol):
    """A vertical cylinder that can be sent to a point."""

    settling: int
    """Control steps that a stop takes after its command."""

    @property
    def bodies(self) -> tuple[int, ...]:
        """Bullet ids of everything the effector consists of."""
        ...

    @property
    def tip_link(self) -> tuple[int, int]:
        """`(body, link)` of the cylinder itself."""
        ...

    def home(self, position: NDArray[np.float64]) -> None:
        """Put the cylinder at `(3,)` position without stepping the simulation."""
        ...

    def command(self, position: NDArray[np.float64], substeps: int) -> None:
        """Set the motors to reach `(3,)` position after `substeps` simulation steps."""
        ...

    def position(self) -> NDArray[np.float64]:
        """Measured `(3,)` position."""
        ...

    def joints(self) -> dict[str, tuple[float, float]]:
        """Position and velocity of every driven joint by name, in m or rad."""
        ...


class Cylinder:
    """A cylinder on three driven prismatic axes: exact, cheap and stiff.

    The motors are velocity-controlled once per command instead of once per simulation step: the
    joints arrive exactly on time, and a control step costs two calls besides the physics.
    """

    settling = 0
    # Strong enough to shove blocks without lag; too weak downwards to squash one.
    _FORCES = (60.0, 60.0, 12.0)

    def __init__(self, client: BulletClient) -> None:
        """Add the cylinder to `client`'s world."""
        self._client = client
        half = LENGTH / 2
        shape = client.createCollisionShape(
            pybullet.GEOM_CYLINDER,
            radius=RADIUS,
            height=LENGTH,
            collisionFramePosition=[0, 0, half],
        )
        visual = client.createVisualShape(
            pybullet.GEOM_CYLINDER,
            radius=RADIUS,
            length=LENGTH,
            rgbaColor=COLOR,
            visualFramePosition=[0, 0, half],
        )
        self._body = client.createMultiBody(
            0.0,
            -1,
            -1,
            [0.0, 0.0, 0.0],
            linkMasses=[0.3] * 3,
            linkCollisionShapeIndices=[-1, -1, shape],
            linkVisualShapeIndices=[-1, -1, visual],
            linkPositions=[[0.0, 0.0, 0.0]] * 3,
            linkOrientations=[[0.0, 0.0, 0.0, 1.0]] * 3,
            linkInertialFramePositions=[[0.0, 0.0, 0.0]] * 3,
            linkInertialFrameOrientations=[[0.0, 0.0, 0.0, 1.0]] * 3,
            linkParentIndices=[0, 1, 2],
            linkJointTypes=[pybullet.JOINT_PRISMATIC] * 3,
            linkJointAxis=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        )
        for link in range(3):
            client.changeDynamics(
                self._body,
                link,
                lateralFriction=FRICTION,
                linearDamping=0.0,
                angularDamping=0.0,
                jointDamping=0.0,
            )
        self._joints = [0, 1, 2]

    @property
    def bodies(self) -> tuple[int, ...]:
        """See `Effector.bodies`."""
        return (self._body,)

    @property
    def tip_link(self) -> tuple[int, int]:
        """See `Effector.tip_link`."""
        return self._body, 2

    def home(self, position: NDArray[np.float64]) -> None:
        """See `Effector.home`."""
        for joint, value in zip(self._joints, position, strict=True):
            self._client.resetJointState(self._body, joint, float(value), 0.0)

    def command(self, position: NDArray[np.float64], substeps: int) -> None:
        """See `Effector.command`."""
        rate = PHYSICS_HZ / substeps
        states = self._client.getJointStates(self._body, self._joints)
        self._client.setJointMotorControlArray(
            self._body,
            self._joints,
            pybullet.VELOCITY_CONTROL,
            targetVelocities=[
                (float(goal) - state[0]) * rate
                for goal, state in zip(position, states, strict=True)
            ],
            forces=self._FORCES,
        )

    def position(self) -> NDArray[np.float64]:
        """See `Effector.position`."""
        states = self._client.getJointStates(self._body, self._joints)
        return np.array([state[0] for state in states])

    def joints(self) -> dict[str, tuple[float, float]]:
        """See `Effector.joints`: the three axes."""
        states = self._client.getJointStates(self._body, self._joints)
        return {axis: state[:2] for axis, state in zip("xyz", states, strict=True)}


_HOME_JOINTS = (0.0, -0.35, -0.95, 0.0, 1.30, 0.0)
_DOWN = (1.0, 0.0, 0.0, 0.0)


class XArm6:
    """UFACTORY xArm6 with the cylinder as its tool, driven by inverse kinematics once per command.

    Only the cylinder collides: the arm's links never come near the table, and masking their meshes
    makes a simulation step 2.5 times cheaper.
    """

    settling = 1
    _FORCE = 1200.0

    def __init__(self, client: BulletClient) -> None:
        """Add the arm to `client`'s world, its base at the origin."""
        self._client = client
        path = _arm_urdf()
        try:
            self._body = client.loadURDF(str(path), useFixedBase=True)
        finally:
            path.unlink()
        n = client.getNumJoints(self._body)
        info = [client.getJointInfo(self._body, i) for i in range(n)]
        self._joints = [i for i in range(n) if info[i][2] == pybullet.JOINT_REVOLUTE]
        self._names = [info[i][1].decode() for i in self._joints]
        self._low, self._high, self._speed = (
            np.array([info[i][column] for i in self._joints]) for column in (8, 9, 11)
        )
        self.joint_goal: NDArray[np.float64] | None = None
        """`(6,)` rad: while it is set, `command` sends the joints there, whatever position it is
        given, within their limits and no faster than they can; for robots that take joints."""
        names = [entry[12].decode() for entry in info]
        self._tool, self._tip = names.index("tool"), names.index("tip")
        for link in range(-1, n):
            if link != self._tool:
                client.setCollisionFilterGroupMask(self._body, link, 0, 0)
        client.changeDynamics(self._body, self._tool, lateralFriction=FRICTION)

    @property
    def bodies(self) -> tuple[int, ...]:
        """See `Effector.bodies`."""
        return (self._body,)

    @property
    def tip_link(self) -> tuple[int, int]:
        """See `Effector.tip_link`."""
        return self._body, self._tool

    def home(self, position: NDArray[np.float64]) -> None:
        """See `Effector.home`."""
        for joint, value in zip(self._joints, _HOME_JOINTS, strict=True):
            self._client.resetJointState(self._body, joint, value, 0.0)
        for _ in range(20):
            for joint, value in zip(self._joints, self._inverse(position), strict=True):
                self._client.resetJointState(self._body, joint, value, 0.0)
        self.command(position, 24)

    def _inverse(self, position: NDArray[np.float64]) -> tuple[float, ...]:
        return self._client.calculateInverseKinematics(
            self._body,
            self._tip,
            [float(v) for v in position],
            _DOWN,
            maxNumIterations=20,
            residualThreshold=1e-5,
        )

    def command(self, position: NDArray[np.float64], substeps: int) -> None:
        """See `Effector.command`."""
        # Velocity control, as for the cylinder: a position target would be reached in the first few
        # of the substeps, at five times the speed, and would throw the block.
        rate = PHYSICS_HZ / substeps
        states = self._client.getJointStates(self._body, self._joints)
        goals = self._inverse(position) if self.joint_goal is None else self._bounded_goal()
        speeds = [(goal - state[0]) * rate for goal, state in zip(goals, states, strict=True)]
        if self.joint_goal is not None:
            speeds = np.clip(speeds, -self._speed, self._speed).tolist()
        self._client.setJointMotorControlArray(
            self._body,
            self._joints,
            pybullet.VELOCITY_CONTROL,
            targetVelocities=speeds,
            forces=[self._FORCE] * len(self._joints),
        )

    def _bounded_goal(self) -> list[float]:
        assert self.joint_goal is not None
        return np.clip(self.joint_goal, self._low, self._high).tolist()

    def position(self) -> NDArray[np.float64]:
        """See `Effector.position`."""
        state = self._client.getLinkState(self._body, self._tip, computeForwardKinematics=True)
        return np.array(state[4])

    def joints(self) -> dict[str, tuple[float, float]]:
        """See `Effector.joints`: `joint1` to `joint6`."""
        states = self._client.getJointStates(self._body, self._joints)
        return {name: state[:2] for name, state in zip(self._names, states, strict=True)}


def _arm_urdf() -> Path:
    """Write the arm's URDF with absolute mesh paths and the cylinder; the caller deletes it."""
    root = Path(pybullet_data.getDataPath()) / "xarm"
    tree = ElementTree.parse(root / "xarm6_robot_white.urdf")
    robot = tree.getroot()
    for mesh in robot.iter("mesh"):
        mesh.set("filename", mesh.attrib["filename"].replace("package://", f"{root}/"))
    rgba = " ".join(str(v) for v in COLOR)
    half = LENGTH / 2
    cylinder = f'<cylinder radius="{RADIUS}" length="{LENGTH}"/>'
    geometry = f'<origin xyz="0 0 {half}"/><geometry>{cylinder}</geometry>'
    for snippet in (
        f'<link name="tool"><inertial><origin xyz="0 0 {half}"/><mass value="0.1"/>'
        '<inertia ixx="1e-4" iyy="1e-4" izz="1e-4" ixy="0" ixz="0" iyz="0"/></inertial>'
        f'<visual>{geometry}<material name="tool"><color rgba="{rgba}"/></material></visual>'
        f"<collision>{geometry}</collision></link>",
        '<link name="tip"><inertial><mass value="1e-3"/>'
        '<inertia ixx="1e-7" iyy="1e-7" izz="1e-7" ixy="0" ixz="0" iyz="0"/></inertial></link>',
        '<joint name="tool_joint" type="fixed"><parent link="link6"/><child link="tool"/></joint>',
        '<joint name="tip_joint" type="fixed"><parent link="tool"/><child link="tip"/>'
        f'<origin xyz="0 0 {LENGTH}"/></joint>',
    ):
        robot.append(ElementTree.fromstring(snippet))
    handle, name = tempfile.mkstemp(suffix=".urdf")
    with os.fdopen(handle, "wb") as file:
        tree.write(file)
    return Path(name)
