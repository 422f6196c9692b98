"""Pictures of a moving camera with the pose of what carries it, for the node `goal_views`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import Image

from decisive.goal_views import CutConfig, cut
from robots.driving import Pose
from robots.matching import Matcher
from robots.streaming import SECOND
from robots.view_memory import Sight
from ros_nodes import messages
from ros_nodes.navigation_messages import base_pose
from ros_nodes.parameters import Parameter
from ros_nodes.picture_input import read_picture
from ros_nodes.running import NEWEST, RELIABLE

CAMERAS = ("pinhole", "panorama")
TOPICS = {
    "pinhole": ("camera/color/image_raw", "base_pose"),
    "panorama": ("panorama/color/image_raw", "panorama/pose"),
}
"""Of the pictures and of the poses that belong to them, by kind of camera."""
_DEPTH = 64  # Poses that are kept: more than a second of them at 50 Hz.

VIEW_PARAMETERS = (
    Parameter("camera", "pinhole", "kind: a picture with the pose of the base, or a panorama with "
              "its own, which is cut into views all around", choices=CAMERAS),
    Parameter("camera_yaw", 0.0, "where a pinhole camera looks, rad counter-clockwise from the "
              "base's forward", -7.0, 7.0),
    Parameter("views", 12, "that a panorama is cut into", 1, 72),
    Parameter("rate", 2.0, "greatest number of pictures remembered per second; 0: every newest one",
              0.0, 1000.0),
    Parameter("max_age", 1.0, "greatest age in s of a picture and its pose", 0.01, 60.0),
    Parameter("max_skew", 0.05, "greatest time in s between a picture and its pose", 0.0, 1.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """A picture, and from where it was taken.

    Attributes:
        pixels: `(H, W, 3)`.
        pose: of the base, or of a panoramic camera.
        height: z of that pose, metres.
        stamp: of the picture, nanoseconds.
        frame: of the pose.
    """

    pixels: NDArray[np.uint8]
    pose: Pose
    height: float
    stamp: int
    frame: str

    def views(self, camera_yaw: float) -> tuple[list[NDArray[np.uint8]], list[Sight]]:
        """The picture of a pinhole camera, and its sight."""
        x, y, yaw = self.pose
        return [self.pixels], [Sight(x, y, self.height, yaw + camera_yaw, self.stamp)]

    def cuts(self, config: CutConfig) -> tuple[list[NDArray[np.uint8]], list[Sight]]:
        """Views all around out of a panorama, and their sights."""
        x, y, yaw = self.pose
        sights = [Sight(x, y, self.height, yaw + turn, self.stamp) for turn in config.yaws]
        return list(cut(self.pixels, config)), sights


class ViewInput:
    """Subscribes to pictures and poses, and hands over what belongs together, at `rate`."""

    def __init__(
        self,
        node: Node,
        value: dict[str, Any],
        take: Callable[[Shot], None],
        complain: Callable[[str, str], None],
    ) -> None:
        """Open the topics.

        Args:
            node: that subscribes.
            value: of `VIEW_PARAMETERS`.
            take: called with every picture that has a pose.
            complain: called with a kind and words, of what is malformed.
        """
        self._node, self._take, self._complain = node, take, complain
        self._period = round(SECOND / value["rate"]) if value["rate"] else 0
        self._next = 0  # steady time before which `rate` allows no other picture
        self._matcher = Matcher(
            ("picture", "pose"), value["max_age"], value["max_skew"], value["future"], _DEPTH
        )
        self.skipped = 0
        """Pictures that `rate` left out."""
        self.topics = TOPICS[value["camera"]]
        quality = NEWEST if value["camera"] == "pinhole" else RELIABLE
        node.create_subscription(Image, self.topics[0], self.on_picture, quality)
        node.create_subscription(PoseStamped, self.topics[1], self.on_pose, RELIABLE)

    @property
    def rejected(self) -> dict[str, int]:
        """How many pictures and poses were too old, from the future or out of order."""
        return self._matcher.rejected

    def on_picture(self, message: Image) -> None:
        """Hear a picture."""
        if time.monotonic_ns() < self._next:
            self.skipped += 1
            return
        self._hear("picture", message, lambda: read_picture(message, 3))

    def on_pose(self, message: PoseStamped) -> None:
        """Hear a pose."""
        self._hear("pose", message, lambda: (base_pose(message), message))

    def _hear(self, key: str, message: Any, read: Callable[[], Any]) -> None:
        topic = self.topics[key == "pose"]
        try:
            stamp, now = messages.nanoseconds(message.header.stamp), self._now()
            if not self._matcher.add(key, stamp, read(), now):
                return
        except ValueError as error:
            self._complain("malformed", f"{topic}: {error}")
            return
        matched = self._matcher.match(now)
        if matched is None:
            return
        pose, told = matched.values["pose"]
        self._next = time.monotonic_ns() + self._period
        height, frame = float(told.pose.position.z), str(told.header.frame_id)
        self._take(Shot(matched.values["picture"], pose, height, matched.newest, frame))

    def _now(self) -> int:
        now: int = self._node.get_clock().now().nanoseconds
        return now
