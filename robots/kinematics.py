"""Where the tip of a serial arm is, and which joints bring it somewhere. NumPy only.

Poses are `(4, 4)` and map points of the tip's frame to that of the base (`T_base_tip`), metres. The
frames are those of the links, as URDF has them (not of their inertia).

Inverse kinematics is damped least squares with the damping of Sugihara 2011, "Solvability-
Unconcerned Inverse Kinematics by the Levenberg-Marquardt Method", eq. 23: the squared error itself
plus a little, so that steps are careful far away and those of Newton near the end. It starts from
the present joints and ends at the nearest solution: there are others, with the elbow elsewhere, and
an arm that is commanded from one to the other throws whatever it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robots.urdf import MOVING, Joint, read_joints

Array = NDArray[np.float64]


class Unreachable(ValueError):
    """No joints near the present ones bring the tip to a pose."""


@dataclass(frozen=True)
class InverseConfig:
    """When inverse kinematics has succeeded, and when it gives up.

    Attributes:
        position: greatest distance from the pose, metres.
        orientation: greatest angle from it, rad.
        iterations: steps at most; from a setpoint 2 mm away it takes two.
        damping: the part of the damping that stays, beside the squared error.
        lever: metres that count as much as a radian.
    """

    position: float = 1e-5
    orientation: float = 1e-4
    iterations: int = 30
    damping: float = 1e-9
    lever: float = 0.3

    def __post_init__(self) -> None:
        """Refuse what never succeeds."""
        for name in ("position", "orientation", "damping", "lever"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")


class Chain:
    """A serial chain of joints from a base to a tip."""

    def __init__(
        self,
        joints: Sequence[Joint],
        tool: Sequence[float] = (0.0, 0.0, 0.0),
        config: InverseConfig | None = None,
    ) -> None:
        """Take the joints apart.

        Args:
            joints: from the base outwards, with the fixed ones.
            tool: `(3,)` position of the tip in the last link's frame, metres.
            config: of the inverse.

        Raises:
            ValueError: without a joint that moves.
        """
        moving = [joint for joint in joints if joint.kind in MOVING]
        if not moving:
            raise ValueError("a chain needs a joint that moves, got none")
        if np.shape(tool) != (3,) or not np.isfinite(tool).all():
            raise ValueError(f"tool must be 3 numbers in metres, got {list(tool)}")
        self.config = config or InverseConfig()
        self.names: tuple[str, ...] = tuple(joint.name for joint in moving)
        """Names of the joints that move, in order."""
        self.low: Array = np.array([joint.low for joint in moving])
        """`(n,)` least positions, rad or m."""
        self.high: Array = np.array([joint.high for joint in moving])
        """`(n,)` greatest positions."""
        self.velocity: Array = np.array([joint.velocity for joint in moving])
        """`(n,)` greatest speeds, rad/s or m/s."""
        self.turns: NDArray[np.bool_] = np.array([joint.kind != "prismatic" for joint in moving])
        """`(n,)` whether a joint turns; else it slides."""
        self._axes: Array = np.array([joint.axis for joint in moving])
        self._last = np.eye(4)
        self._last[:3, 3] = tool
        # A joint's transform is constant + cos(q) even + sin(q) odd, or constant + q slide.
        parts, fixed = [], np.eye(4)
        for joint in joints:
            fixed = fixed @ joint.T_parent_joint
            if joint.kind in MOVING:
                parts.append(_parts(joint, fixed))
                fixed = np.eye(4)
        self._constant, self._even, self._odd, self._slide = np.array(parts).swapaxes(0, 1)
        self._last = fixed @ self._last

    @classmethod
    def from_urdf(
        cls,
        path: Path | str,
        base: str,
        tip: str,
        tool: Sequence[float] = (0.0, 0.0, 0.0),
        config: InverseConfig | None = None,
    ) -> Chain:
        """The chain between two links of a URDF file; see `robots.urdf.read_joints`."""
        return cls(read_joints(path, base, tip), tool, config)

    @property
    def n(self) -> int:
        """Number of joints that move."""
        return len(self.names)

    @cached_property
    def reach(self) -> float:
        """Metres: the tip is never further from an axis that turns, so a radian moves it no more.

        The sum of all lengths, and of the ways of prismatic joints; infinite where these are.
        """
        lengths = np.linalg.norm(self._constant[:, :3, 3], axis=-1).sum()
        slides = np.where(self.turns, 0.0, np.maximum(np.abs(self.low), np.abs(self.high)))
        return float(lengths + np.linalg.norm(self._last[:3, 3]) + slides.sum())

    def forward(self, joints: Array) -> Array:
        """Pose of the tip.

        Args:
            joints: `(..., n)` rad or m.

        Returns:
            `(..., 4, 4)` T_base_tip.

        Raises:
            ValueError: for another number of joints.
        """
        frames = self._frames(self._checked(joints))
        pose = frames[..., 0, :, :]
        for i in range(1, self.n):
            pose = pose @ frames[..., i, :, :]
        return pose @ self._last

    def jacobian(self, joints: Array) -> Array:
        """Velocity of the tip by velocities of the joints, both in the base's frame.

        Args:
            joints: `(n,)` rad or m.

        Returns:
            `(6, n)`: rows x, y, z (m) and rx, ry, rz (rad).
        """
        return self._pose_and_jacobian(self._checked(joints))[1]

    def inverse(self, pose: Array, start: Array, seconds: float = math.inf) -> Array:
        """Joints that bring the tip to a pose, near those it starts from.

        Args:
            pose: `(4, 4)` T_base_tip.
            start: `(n,)` present joints; those beyond a limit start at it.
            seconds: time for the way. No joint may need more, at its greatest speed.

        Returns:
            `(n,)` joints within their limits.

        Raises:
            Unreachable: if the pose is missed by more than the tolerance, or a joint would have to
                jump.
            ValueError: for wrong shapes or numbers that are not finite.
        """
        target, begin = np.asarray(pose, np.float64), self._checked(start)
        if target.shape != (4, 4) or not np.isfinite(target).all() or begin.ndim != 1:
            raise ValueError(f"pose must be (4, 4) and finite, start (n,); got {target.shape}")
        joints = np.clip(begin, self.low, self.high)
        config, miss = self.config, (math.inf, math.inf)
        for _ in range(config.iterations + 1):
            present, jacobian = self._pose_and_jacobian(joints)
            error = pose_error(target, present)
            miss = (math.hypot(*error[:3]), math.hypot(*error[3:]))
            if miss[0] <= config.position and miss[1] <= config.orientation:
                self._refuse_jump(joints, begin, seconds)
                return joints
            joints = self._step(joints, jacobian, error)
        raise Unreachable(
            f"no joints near {_shown(begin)} bring the tip to {_shown(target[:3, 3])} m: it stays "
            f"{miss[0] * 1e3:.2f} mm and {math.degrees(miss[1]):.2f} degrees away, which is out of "
            "reach or beyond a limit of a joint"
        )

    def _refuse_jump(self, joints: Array, begin: Array, seconds: float) -> None:
        allowed = np.where(np.isfinite(self.velocity), self.velocity, math.inf) * seconds
        beyond = np.abs(joints - begin) > allowed + 1e-9
        if beyond.any():
            i = int(np.argmax(beyond))
            raise Unreachable(
                f"joint {self.names[i]} would have to jump by {joints[i] - begin[i]:.3f} in "
                f"{seconds:.3g} s, at most {self.velocity[i]:g} a second; start nearer to the pose"
            )

    def _step(self, joints: Array, jacobian: Array, error: Array) -> Array:
        """One step of damped least squares within the limits.

        A joint that the step would push through its limit goes there and no further, and the others
        make up for it.
        """
        weight = np.array([1.0 / self.config.lever] * 3 + [1.0] * 3)
        weighted, wanted = jacobian * weight[:, None], error * weight
        damping = 0.5 * float(wanted @ wanted) + self.config.damping
        free, step = np.ones(self.n, bool), np.zeros(self.n)
        for _ in range(self.n):
            part = weighted[:, free]
            left = wanted - weighted[:, ~free] @ step[~free]
            normal = part.T @ part + damping * np.eye(part.shape[1])
            step[free] = np.linalg.solve(normal, part.T @ left)
            bounded = np.clip(joints + step, self.low, self.high) - joints
            hit = free & (bounded != step)
            step = bounded
            free &= ~hit
            if not hit.any() or not free.any():
                break
        return joints + step

    def _pose_and_jacobian(self, joints: Array) -> tuple[Array, Array]:
        frames = self._frames(joints)
        poses = np.empty((self.n, 4, 4))
        pose = frames[0]
        poses[0] = pose
        for i in range(1, self.n):
            pose = pose @ frames[i]
            poses[i] = pose
        tip = pose @ self._last
        # The axis is the same before and after the joint's own motion.
        axes = (poses[:, :3, :3] @ self._axes[:, :, None])[:, :, 0]
        turning = _cross(axes, tip[:3, 3] - poses[:, :3, 3])
        jacobian = np.empty((6, self.n))
        jacobian[:3] = np.where(self.turns[:, None], turning, axes).T
        jacobian[3:] = np.where(self.turns[:, None], axes, 0.0).T
        return tip, jacobian

    def _frames(self, joints: Array) -> Array:
        """`(..., n, 4, 4)` pose of every joint's frame in the one before it."""
        # A sliding joint has no even and odd part: whatever its sine is, it does not count.
        cos, sin = np.cos(joints)[..., None, None], np.sin(joints)[..., None, None]
        frames = self._constant + cos * self._even + sin * self._odd
        return frames if self.turns.all() else frames + joints[..., None, None] * self._slide

    def _checked(self, joints: Array) -> Array:
        values = np.asarray(joints, np.float64)
        if values.shape[-1:] != (self.n,) or not np.isfinite(values).all():
            raise ValueError(
                f"joints must be {self.n} finite numbers ({', '.join(self.names)}), got {values}"
            )
        return values


def pose_error(target: Array, present: Array) -> Array:
    """What brings one pose to another: `(6,)` way (m) and rotation vector (rad), base frame."""
    error = np.empty(6)
    error[:3] = target[:3, 3] - present[:3, 3]
    error[3:] = rotation_vector(target[:3, :3] @ present[:3, :3].T)
    return error


def rotation_vector(rotation: Array) -> Array:
    """`(3,)` axis times angle (rad, at most pi) of a `(3, 3)` rotation."""
    r = rotation.tolist()
    x, y, z = r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]
    sin, cos = math.hypot(x, y, z) / 2, (r[0][0] + r[1][1] + r[2][2] - 1) / 2
    angle = math.atan2(sin, cos)
    if sin > 1e-9:
        return np.array([x, y, z]) * (angle / (2 * sin))
    if cos > 0:
        return np.array([x, y, z]) / 2
    # Half a turn: R + 1 = 2 a a^T, whose greatest column has the axis.
    column = np.argmax(np.diag(rotation))
    axis: Array = (rotation + np.eye(3))[:, column]
    return axis / np.linalg.norm(axis) * math.pi


def quaternion_rotation(quaternion: Sequence[float]) -> Array:
    """`(3, 3)` rotation of an xyzw quaternion, which is normalised.

    Raises:
        ValueError: for one that says nothing.
    """
    values = np.asarray(quaternion, np.float64)
    if values.shape != (4,) or not np.isfinite(values).all() or np.linalg.norm(values) < 1e-6:
        raise ValueError(f"an orientation is a quaternion x y z w, got {list(quaternion)}")
    x, y, z, w = (values / np.linalg.norm(values)).tolist()
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def rotation_quaternion(rotation: Array) -> Array:
    """`(4,)` xyzw quaternion of a `(3, 3)` rotation, w >= 0."""
    vector = rotation_vector(rotation)
    angle = float(np.linalg.norm(vector))
    axis = vector / angle if angle > 0 else vector
    return np.array([*(axis * math.sin(angle / 2)), math.cos(angle / 2)])


def _parts(joint: Joint, before: Array) -> tuple[Array, Array, Array, Array]:
    """Constant, even, odd and sliding part of a joint's transform, after what is fixed before it.

    Rodrigues: R = (1 + K^2) - cos(q) K^2 + sin(q) K.
    """
    x, y, z = joint.axis.tolist()
    cross, square, slide = np.zeros((4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    if joint.kind == "prismatic":
        slide[:3, 3] = joint.axis
    else:
        cross[:3, :3] = [[0, -z, y], [z, 0, -x], [-y, x, 0]]
        square[:3, :3] = cross[:3, :3] @ cross[:3, :3]
    return before @ (np.eye(4) + square), before @ -square, before @ cross, before @ slide


def _cross(first: Array, second: Array) -> Array:
    """Cross products of `(n, 3)` vectors, ten times faster than `np.cross` of a few."""
    a, b, c = first.T
    x, y, z = second.T
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=-1)


def _shown(values: Array) -> str:
    return f"({', '.join(f'{value:.3f}' for value in values)})"
