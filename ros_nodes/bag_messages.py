"""Messages of rosbag2 files as arrays and back, with the `rosbags` package: no ROS needed.

`ros_nodes.messages` does the same for a ROS that is installed. Only the types below are ever read,
by the definitions that `rosbags` ships: those inside a bag would become code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from robots.matching import Feature

Array = NDArray[np.float64]
SECOND = 1_000_000_000
MAX_IMAGE_BYTES = 64 * 2**20
FRAME = "base_link"
CAMERA_FRAME = "camera_color_optical_frame"

TYPES = {
    "pose": "geometry_msgs/msg/PoseStamped",
    "joints": "sensor_msgs/msg/JointState",
    "image": "sensor_msgs/msg/Image",
    "twist": "geometry_msgs/msg/TwistStamped",
    "trajectory": "trajectory_msgs/msg/JointTrajectory",
    "positions": "std_msgs/msg/Float64MultiArray",
    "episode": "std_msgs/msg/String",
    "reward": "std_msgs/msg/Float32",
}
"""Message types by what they are for."""


@lru_cache(maxsize=1)
def store() -> Any:
    """The message definitions of Jazzy."""
    found = get_typestore(Stores.ROS2_JAZZY)
    found.max_sequence_length = MAX_IMAGE_BYTES
    return found


def _new(kind: str, /, **fields: Any) -> Any:
    return store().types[kind](**fields)


def _header(stamp: int, frame: str) -> Any:
    sec, nanosec = divmod(stamp, SECOND)
    time = _new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return _new("std_msgs/msg/Header", stamp=time, frame_id=frame)


# Arrays to messages.


def pose(stamp: int, position: Sequence[float], yaw: float) -> Any:
    """PoseStamped at `(3,)` metres, turned about z by `yaw` rad; `stamp` in nanoseconds."""
    point = _new("geometry_msgs/msg/Point", **_named("xyz", position))
    turn = (0.0, 0.0, float(np.sin(yaw / 2)), float(np.cos(yaw / 2)))
    return _new(
        TYPES["pose"],
        header=_header(stamp, FRAME),
        pose=_new(
            "geometry_msgs/msg/Pose",
            position=point,
            orientation=_new("geometry_msgs/msg/Quaternion", **_named("xyzw", turn)),
        ),
    )


def joints(stamp: int, names: Sequence[str], positions: Array) -> Any:
    """JointState of `(n,)` positions, m or rad."""
    nothing = np.zeros(0)
    return _new(
        TYPES["joints"],
        header=_header(stamp, ""),
        name=list(names),
        position=np.asarray(positions, np.float64),
        velocity=nothing,
        effort=nothing,
    )


def image(stamp: int, pixels: NDArray[np.uint8]) -> Any:
    """Image rgb8 of `(H, W, 3)` uint8."""
    height, width, _ = pixels.shape
    return _new(
        TYPES["image"],
        header=_header(stamp, CAMERA_FRAME),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=np.ascontiguousarray(pixels).reshape(-1),
    )


def twist(stamp: int, values: Sequence[float]) -> Any:
    """TwistStamped of `(6,)`: m/s along, rad/s about x, y, z."""
    vectors = [
        _new("geometry_msgs/msg/Vector3", **_named("xyz", part))
        for part in (values[:3], values[3:])
    ]
    body = _new("geometry_msgs/msg/Twist", linear=vectors[0], angular=vectors[1])
    return _new(TYPES["twist"], header=_header(stamp, FRAME), twist=body)


def text(value: str) -> Any:
    """String."""
    return _new(TYPES["episode"], data=value)


def number(value: float) -> Any:
    """Float32."""
    return _new(TYPES["reward"], data=float(value))


def _named(letters: str, values: Sequence[float]) -> dict[str, float]:
    return {letter: float(value) for letter, value in zip(letters, values, strict=True)}


# Messages to arrays. They trust nothing: what is malformed is a ValueError.


def stamp_of(message: Any) -> int:
    """Nanoseconds of a header's stamp."""
    stamp = message.header.stamp
    if stamp.sec < 0 or not 0 <= stamp.nanosec < SECOND:
        raise ValueError(f"a stamp must be >= 0, got {stamp.sec} s {stamp.nanosec} ns")
    return int(stamp.sec) * SECOND + int(stamp.nanosec)


def feature_value(message: Any, feature: Feature) -> Any:
    """What a message says for a feature: a pose `((3,), (4,))`, joints `(n,)`, or pixels."""
    if feature.source == "pose":
        return pose_arrays(message)
    if feature.source == "joints":
        return joint_positions(message, feature.part.split(","))
    return image_array(message)


def pose_arrays(message: Any) -> tuple[Array, Array]:
    """Position `(3,)` in metres and unit quaternion `(4,)` xyzw."""
    p, q = message.pose.position, message.pose.orientation
    place, turn = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    norm = math.hypot(*turn)  # without overflow at 1e200, unlike a root of squares
    if not np.isfinite(place).all() or not 1e-6 <= norm < np.inf:
        raise ValueError(f"a pose must be finite with a rotation, got {place} and {turn}")
    return place, turn if abs(norm - 1) <= 1e-3 else turn / norm


def joint_positions(message: Any, names: Sequence[str]) -> Array:
    """`(n,)` positions of the named joints, m or rad."""
    if len(set(message.name)) != len(message.name) or len(message.position) != len(message.name):
        raise ValueError(f"a joint state names {len(message.name)} joints, not each of them once")
    where = {name: i for i, name in enumerate(message.name)}
    if missing := [name for name in names if name not in where]:
        raise ValueError(f"a joint state lacks {', '.join(missing)}")
    values = np.array([message.position[where[name]] for name in names], np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"joint positions must be finite, got {values.tolist()}")
    return values


def image_array(message: Any) -> NDArray[np.uint8]:
    """`(H, W, 3)` uint8 RGB of an image rgb8 or bgr8, a copy; rows may be padded."""
    if message.encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"pictures must be rgb8 or bgr8, got {message.encoding[:32]!r}")
    height, width, step = int(message.height), int(message.width), int(message.step)
    n_bytes = len(message.data)
    if not height or not width or step < 3 * width or n_bytes < step * height:
        raise ValueError(f"a picture of {width} x {height} does not fit {n_bytes} bytes")
    if n_bytes > MAX_IMAGE_BYTES:
        raise ValueError(f"a picture has {n_bytes} bytes, more than {MAX_IMAGE_BYTES}")
    rows = np.frombuffer(message.data, np.uint8, step * height).reshape(height, step)
    pixels = rows[:, : 3 * width].reshape(height, width, 3)
    return pixels[..., ::-1].copy() if message.encoding == "bgr8" else pixels.copy()


def twist_array(message: Any) -> Array:
    """`(6,)` m/s and rad/s."""
    v, w = message.twist.linear, message.twist.angular
    return np.array([v.x, v.y, v.z, w.x, w.y, w.z])


def trajectory_arrays(message: Any, names: Sequence[str]) -> tuple[Array, Array]:
    """`(T, n)` positions in the order of `names`, and `(T,)` seconds after the beginning."""
    if sorted(message.joint_names) != sorted(names) or not message.points:
        raise ValueError(f"a trajectory must have points of {', '.join(names)}")
    order = [message.joint_names.index(name) for name in names]
    if any(len(point.positions) != len(names) for point in message.points):
        raise ValueError(f"every point of a trajectory must have {len(names)} positions")
    times = [p.time_from_start.sec + p.time_from_start.nanosec / SECOND for p in message.points]
    if times[0] < 0 or min(np.diff(times), default=1.0) <= 0:
        raise ValueError("times of a trajectory must increase")
    positions = np.array([point.positions for point in message.points], np.float64)
    return positions[:, order], np.array(times)


def multi_array_values(message: Any, n: int) -> Array:
    """`(n,)` values of a flat array."""
    if len(message.data) != n:
        raise ValueError(f"an array must have {n} values, got {len(message.data)}")
    return np.array(message.data, np.float64)
