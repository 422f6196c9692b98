"""Four topics of a panoramic camera as one panorama; see `ros_nodes.navigation_messages`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from envs.indoor.categories import CATEGORIES
from robots.matching import Matcher
from ros_nodes import messages
from ros_nodes.navigation_messages import PANORAMA, read_panorama
from ros_nodes.parameters import Parameter
from ros_nodes.running import RELIABLE
from world_models.pathdreamer.panoramas import Seen

PANORAMA_PARAMETERS = (
    Parameter("panorama_age", 2.0, "greatest age in s of a panorama", 0.05, 60.0),
    Parameter("panorama_skew", 0.02, "greatest time in s between its colours, depth, classes and "
              "pose", 0.0, 1.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
)  # fmt: skip


class PanoramaInput:
    """Subscribes to `panorama/...` and hands over what belongs together."""

    def __init__(
        self, node: Node, value: dict[str, Any], take: Callable[[Seen, int], None]
    ) -> None:
        """Open the topics.

        Args:
            node: that subscribes.
            value: of `PANORAMA_PARAMETERS`.
            take: called with every panorama and its stamp in nanoseconds. May raise `ValueError`.
        """
        self._node, self._take = node, take
        self._matcher = Matcher(
            list(PANORAMA), value["panorama_age"], value["panorama_skew"], value["future"], depth=4
        )
        for key, (kind, topic) in PANORAMA.items():
            node.create_subscription(kind, f"panorama/{topic}", self._reader(key), RELIABLE)

    def _reader(self, key: str) -> Callable[[Any], None]:
        def read(message: Any) -> None:
            now = self._node.get_clock().now().nanoseconds
            try:
                if not self._matcher.add(key, messages.nanoseconds(message.header.stamp), message,
                                         now):  # fmt: skip
                    return
                matched = self._matcher.match(now)
                if matched is not None:
                    seen = read_panorama(matched.values, len(CATEGORIES))
                    self._take(seen, matched.newest)
            except ValueError as error:
                self._node.get_logger().warning(f"panorama: {error}", throttle_duration_sec=1.0)

        return read
