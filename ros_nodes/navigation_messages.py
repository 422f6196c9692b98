"""Messages of navigation to arrays and back: panoramas, paths, poses of a base, labelled clouds.

Pure functions, no node, no graph; readers trust nothing, as in `ros_nodes.messages`.

A panorama is four messages of one stamp: colour (rgb8), depth along the ray (32FC1, metres; not
along z, which a panorama has not), class (mono8) and the pose of the camera. Columns run from the
back over the left, +x of the camera's level frame in the middle, to the right (`envs.indoor`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from robots.driving import Pose
from robots.matching import quaternion_yaw
from ros_nodes import messages
from world_models.pathdreamer.panoramas import Seen

if TYPE_CHECKING:  # torch, which the simulated base does without, takes seconds to load
    from world_models.pathdreamer.guidance import PanoramaLike

PANORAMA: dict[str, tuple[type, str]] = {
    "color": (Image, "color/image_raw"),
    "depth": (Image, "depth/image_raw"),
    "semantic": (Image, "semantic/image_raw"),
    "pose": (PoseStamped, "pose"),
}
"""Messages of a panorama: type, and the end of the topic."""

LEVEL = 0.02
"""Greatest tilt in rad of what must be level."""
MOST_POSES = 10_000
_POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("class", "u1"), ("pad", "u1", 3)]
)


def level_turn(yaw: float) -> list[float]:
    """Quaternion xyzw of a yaw in rad."""
    return [0.0, 0.0, math.sin(yaw / 2.0), math.cos(yaw / 2.0)]


def base_message(pose: Pose, stamp: Time, frame_id: str) -> PoseStamped:
    """Pose of a base on the floor."""
    return messages.pose_message([pose.x, pose.y, 0.0], level_turn(pose.yaw), stamp, frame_id)


def base_pose(message: PoseStamped) -> Pose:
    """Where a base stands; `ValueError` for a pose that is not finite or not level."""
    position, yaw = _level(message)
    return Pose(float(position[0]), float(position[1]), yaw)


def odometry_message(
    pose: Pose, speed: float, turn: float, stamp: Time, frames: tuple[str, str]
) -> Odometry:
    """Odometry of a base: its pose in `frames[0]`, forward m/s and rad/s in `frames[1]`."""
    message = Odometry(header=Header(stamp=stamp, frame_id=frames[0]), child_frame_id=frames[1])
    message.pose.pose = base_message(pose, stamp, frames[0]).pose
    message.twist.twist = messages.twist_message(
        [speed, 0.0, 0.0], [0.0, 0.0, turn], stamp, frames[1]
    ).twist
    return message


def path_message(points: npt.ArrayLike, stamp: Time, frame_id: str) -> Path:
    """Path through `(N, 2)` or `(N, 3)` metres; each pose looks at the next, the last as before."""
    rows = np.asarray(points, np.float64)
    if rows.ndim != 2 or rows.shape[1] not in (2, 3) or not np.isfinite(rows).all():
        raise ValueError(f"a path needs (N, 2) or (N, 3) finite metres, got {rows.shape}")
    places = np.zeros((len(rows), 3))
    places[:, : rows.shape[1]] = rows
    poses = []
    yaw = 0.0
    for k, place in enumerate(places):
        if k + 1 < len(places):
            ahead = places[k + 1] - place
            yaw = math.atan2(ahead[1], ahead[0])
        poses.append(messages.pose_message(place, level_turn(yaw), stamp, frame_id))
    return Path(header=Header(stamp=stamp, frame_id=frame_id), poses=poses)


def path_points(message: Path, most: int = MOST_POSES) -> npt.NDArray[np.float64]:
    """Positions of a path, `(N, 3)` metres.

    Raises:
        ValueError: for none, more than `most`, what is not finite, or a pose in a frame of its own.
    """
    if not 1 <= len(message.poses) <= most:
        raise ValueError(f"a path must have 1 to {most} poses, got {len(message.poses)}")
    points = []
    for pose in message.poses:
        if pose.header.frame_id not in ("", message.header.frame_id):
            raise ValueError(
                f"poses of a path must be in its frame {message.header.frame_id!r}, got "
                f"{pose.header.frame_id[:40]!r}"
            )
        points.append([pose.pose.position.x, pose.pose.position.y, pose.pose.position.z])
    found = np.array(points)
    if not np.isfinite(found).all():
        raise ValueError("positions of a path must be finite")
    return found


def panorama_messages(seen: PanoramaLike, stamp: Time, frame_id: str) -> dict[str, Any]:
    """The messages of a panorama that is aligned with `frame_id`, by the keys of `PANORAMA`."""
    depth = np.asarray(seen.depth, np.float32)
    depth = np.where((depth > 0) & (depth < np.inf), depth, np.float32(np.nan))
    return {
        "color": messages.image_message(seen.rgb, "rgb8", stamp, frame_id),
        "depth": messages.image_message(depth, "32FC1", stamp, frame_id),
        "semantic": messages.image_message(seen.semantic, "mono8", stamp, frame_id),
        "pose": messages.pose_message(seen.position, level_turn(0.0), stamp, frame_id),
    }


def read_panorama(found: Mapping[str, Any], n_classes: int, least: float = 0.5) -> Seen:
    """The panorama of four messages, turned so that it is aligned with the frame of its pose.

    Args:
        found: messages by the keys of `PANORAMA`.
        n_classes: ids of classes are below it.
        least: share of the pixels that must have a depth.

    Raises:
        ValueError: for images that do not fit each other, a camera that is not level, ids that are
            no class, or too little depth.
    """
    color, semantic = (messages.image_array(found[key]) for key in ("color", "semantic"))
    if found["color"].encoding not in ("rgb8", "bgr8"):
        raise ValueError(f"colours must be rgb8 or bgr8, got {found['color'].encoding[:32]!r}")
    if found["semantic"].encoding != "mono8":
        raise ValueError(f"classes must be mono8, got {found['semantic'].encoding[:32]!r}")
    depth = messages.depth_array(found["depth"])
    if not color.shape[:2] == semantic.shape == depth.shape:
        raise ValueError(
            "images of a panorama must be of one size, got "
            f"{color.shape[:2]}, {semantic.shape} and {depth.shape}"
        )
    if int(semantic.max()) >= n_classes:
        raise ValueError(f"classes must be below {n_classes}, got {int(semantic.max())}")
    depth = np.nan_to_num(depth, nan=0.0, posinf=0.0)
    known = float((depth > 0).mean())
    if known < least:
        raise ValueError(f"only {100 * known:.0f} % of the panorama has a depth, need {least:.0%}")
    position, yaw = _level(found["pose"])
    # Turning on the spot is a roll of the columns, which run clockwise.
    shift = -round(yaw / math.tau * depth.shape[1])
    rgb, semantic, depth = (np.roll(image, shift, axis=1) for image in (color, semantic, depth))
    return Seen(rgb, semantic, depth, position)


def labelled_cloud(
    positions: npt.ArrayLike, channels: npt.NDArray[np.uint8], stamp: Time, frame_id: str
) -> PointCloud2:
    """Cloud with the fields x y z (m), rgb (as PCL and RViz have it) and class (uint8).

    `positions` are `(3, N)` metres and `channels` `(N, 4)` red, green, blue and class, as
    `world_models.pathdreamer.guidance.Points` has them.
    """
    table = np.zeros(len(channels), _POINT)
    table["x"], table["y"], table["z"] = np.asarray(positions, np.float32)
    red, green, blue, table["class"] = channels.astype(np.uint32).T
    table["rgb"] = red << 16 | green << 8 | blue
    message = PointCloud2(header=Header(stamp=stamp, frame_id=frame_id), height=1)
    message.width, message.point_step, message.row_step = len(table), _POINT.itemsize, table.nbytes
    message.is_dense = True
    kinds = (*[PointField.FLOAT32] * 4, PointField.UINT8)
    message.fields = [
        PointField(name=name, offset=4 * k, datatype=kind, count=1)
        for k, (name, kind) in enumerate(zip(("x", "y", "z", "rgb", "class"), kinds, strict=True))
    ]
    message.data.frombytes(table.tobytes())
    return message


def labelled_points(
    message: PointCloud2,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """`(3, N)` and `(N, 4)` of a cloud that `labelled_cloud` made; `ValueError` for any other."""
    fields = [(f.name, f.offset, f.datatype) for f in message.fields]
    none = np.zeros((0, 4), np.uint8)
    model = labelled_cloud(np.zeros((3, 0)), none, message.header.stamp, "")
    if fields != [(f.name, f.offset, f.datatype) for f in model.fields] or message.is_bigendian:
        raise ValueError(f"a labelled cloud has x, y, z, rgb and class, got {fields[:8]}")
    count = message.width * message.height
    if message.point_step != _POINT.itemsize or len(message.data) != count * _POINT.itemsize:
        raise ValueError(f"cloud of {count} points has {len(message.data)} bytes")
    table = np.frombuffer(message.data.tobytes(), _POINT)
    colors = [(table["rgb"] >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
    positions = np.stack([table["x"], table["y"], table["z"]])
    return positions, np.stack([*colors, table["class"]], axis=1)


def _level(message: PoseStamped) -> tuple[npt.NDArray[np.float64], float]:
    """Position and yaw of a level pose."""
    position, quaternion = messages.pose_arrays(message)
    x, y, _, _ = quaternion
    if 2.0 * math.hypot(x, y) > LEVEL:
        raise ValueError(f"pose must be level, turned about z only; got quaternion {quaternion}")
    return position, quaternion_yaw(quaternion)
