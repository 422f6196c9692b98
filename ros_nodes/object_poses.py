"""`object_poses`: poses of blocks, slots and zones from a colour and a depth picture.

What the simulator knows by itself (`sim_robot`'s topics `objects/NAME`), a real cell sees with a
calibrated camera: by simple geometry, see `robots.pose_estimation`. What is looked for is told by
its colour, or by the instances that the node `perception` has found in the very same picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robots.instance_labels import InstanceLabels
from robots.matching import SECOND, Matched, Matcher
from robots.pose_estimation import DEFAULT, MODELS, SceneEstimator
from ros_nodes import messages
from ros_nodes.instance_messages import classes_of, label_array
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import NEWEST, RELIABLE, run, tells_start

SOURCES: dict[str, tuple[Any, str]] = {
    "color": (Image, "camera/color/image_raw"),
    "depth": (Image, "camera/depth/image_raw"),
    "info": (CameraInfo, "camera/color/camera_info"),
}
MASKS: dict[str, tuple[Any, str]] = {
    "labels": (Image, "perception/labels"),
    "instances": (String, "perception/instances"),
}
"""More sources, where instances tell what is what."""
KEPT, KEPT_WITH_MASKS = 4, 16
"""Pictures that wait for their other half: masks come later than their picture."""

PARAMETERS = (
    Parameter("env", "decisive/BlockInsertion-v0", "task whose objects are looked for",
              choices=tuple(MODELS)),
    Parameter("camera_position", [0.62, 0.0, 1.25], "position of the camera's optical frame in m"),
    Parameter("camera_orientation", [0.704659468, 0.704659468, -0.058779533, -0.058779533],
              "its orientation, a quaternion x y z w (z forward, x right, y down)"),
    Parameter("masks", False, "go by the instances of the node perception, not by colours"),
    Parameter("frame", "base_link", "frame of the camera's position, and of the poses"),
    Parameter("hold", 0.5, "seconds for which a hidden block keeps its last pose", 0.0, 1000.0),
    Parameter("max_age", 0.2, "greatest age in s of a picture", 0.01, 5.0),
    Parameter("max_skew", 0.02, "greatest time in s between colour and depth", 0.0, 1.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
    Parameter("lockstep", False, "for a simulator that waits: no picture may be lost"),
    Parameter("follow_episodes", True, "forget where things stand when `episode` tells of a start"),
)  # fmt: skip


def camera_pose(position: Sequence[float], orientation: Sequence[float]) -> NDArray[np.float64]:
    """`(4, 4)` transform from camera to base, of a position and a quaternion xyzw.

    Raises:
        ValueError: for wrong lengths or a quaternion that is no rotation.
    """
    place, turn = np.asarray(position, np.float64), np.asarray(orientation, np.float64)
    if place.shape != (3,) or turn.shape != (4,):
        raise ValueError("camera_position needs 3 numbers and camera_orientation 4 (x y z w)")
    if not np.isfinite(place).all() or not abs(float(np.linalg.norm(turn)) - 1.0) < 1e-3:
        raise ValueError(f"camera_orientation must be a quaternion of length 1, got {turn}")
    x, y, z, w = turn / np.linalg.norm(turn)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = place
    return pose


@dataclass(frozen=True)
class Stamped:
    """A value, and when it was measured: nanoseconds."""

    stamp: int
    value: Any


class ObjectPoses(Node):
    """Shell around `SceneEstimator`: pictures in, poses out, under the stamp of the picture."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("object_poses", **options)
        self.value = declare(self, PARAMETERS)
        value = self.value
        self._camera = camera_pose(value["camera_position"], value["camera_orientation"])
        models = MODELS[value["env"]]
        self._estimator = SceneEstimator(models, replace(DEFAULT, hold=value["hold"]))
        sources = SOURCES | (MASKS if value["masks"] else {})
        self._matcher = Matcher(
            list(sources),
            value["max_age"],
            value["max_skew"],
            value["future"],
            depth=KEPT_WITH_MASKS if value["masks"] else KEPT,
        )
        self._poses = {
            model.name: self.create_publisher(PoseStamped, f"objects/{model.name}", RELIABLE)
            for model in models
        }
        self._last: tuple[int, list[tuple[str, PoseStamped]]] = (-1, [])
        quality = RELIABLE if value["lockstep"] else NEWEST
        for key, (kind, topic) in sources.items():
            # What the node perception says is small, or as large as a picture: none may be lost.
            of_masks = RELIABLE if key in MASKS else quality
            self.create_subscription(kind, topic, self._reader(key), of_masks)
        self.create_service(Trigger, "~/reset", self._on_reset)
        if value["follow_episodes"]:
            self.create_subscription(String, "episode", self._on_episode, RELIABLE)

    def _reader(self, key: str) -> Any:
        def read(message: Any) -> None:
            now = self.get_clock().now().nanoseconds
            try:
                stamp, value = self._value(key, message)
                if self._matcher.add(key, stamp, Stamped(stamp, value), now):
                    matched = self._matcher.match(now)
                    if matched is not None:
                        self._estimate(matched)
                elif stamp == self._last[0]:
                    self._publish()  # asked again: answer again
            except ValueError as error:
                self.get_logger().warning(f"{key}: {error}", throttle_duration_sec=1.0)

        return read

    def _value(self, key: str, message: Any) -> tuple[int, Any]:
        """Stamp in nanoseconds, and what is made of a message."""
        if key == "instances":
            return classes_of(message.data)
        stamp = messages.nanoseconds(message.header.stamp)
        if key == "info":
            return stamp, messages.intrinsics(message)
        if key == "labels":
            return stamp, label_array(message)
        return stamp, (messages.image_array if key == "color" else messages.depth_array)(message)

    def _estimate(self, matched: Matched) -> None:
        values = {key: stamped.value for key, stamped in matched.values.items()}
        labels = None
        if self.value["masks"]:
            if len({matched.values[key].stamp for key in ("color", *MASKS)}) > 1:
                return  # masks of another picture
            labels = InstanceLabels(values["labels"], values["instances"])
        found = self._estimator.update(
            values["color"],
            values["depth"],
            values["info"],
            self._camera,
            matched.newest / SECOND,
            labels,
        )
        stamp = messages.stamp_of(matched.newest)
        poses = []
        for name, sighting in found.items():
            if sighting is None:
                continue
            half = sighting.pose.yaw / 2
            place = np.array([sighting.pose.x, sighting.pose.y, 0.0])
            turn = np.array([0.0, 0.0, math.sin(half), math.cos(half)])
            poses.append((name, messages.pose_message(place, turn, stamp, self.value["frame"])))
        self._last = (matched.newest, poses)
        self._publish()

    def _publish(self) -> None:
        for name, message in self._last[1]:
            self._poses[name].publish(message)

    def _forget(self) -> None:
        self._estimator.reset()
        self._matcher.clear(keep_last=True)
        self._last = (-1, [])

    def _on_reset(self, request: Any, response: Any) -> Any:
        self._forget()
        response.success, response.message = True, "the next picture shows a new scene"
        return response

    def _on_episode(self, message: Any) -> None:
        if tells_start(message.data):
            self._forget()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(ObjectPoses, argv)


if __name__ == "__main__":
    raise SystemExit(main())
