"""`sim_base`: a base in a procedural house, with the topics of a real one, in real time.

Its camera gives true colours, depth and classes. The graph of the house is published too: where a
robot can stand, and which straight ways are free; on hardware that is a map made before.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger

from ros_nodes import messages
from ros_nodes.house_base import HouseBase
from ros_nodes.navigation_messages import (
    PANORAMA,
    base_message,
    odometry_message,
    panorama_messages,
)
from ros_nodes.parameters import Parameter, current, declare
from ros_nodes.running import COMMAND, LATCHED, RELIABLE, run

MAP, BASE = "map", "base_link"

PARAMETERS = (
    Parameter("house", "house_test_000000", "name of the house"),
    Parameter("viewpoint", 0, "where the base starts, a number of the graph", 0, 10_000,
              fixed=False),
    Parameter("yaw", 0.0, "where it looks then, rad counter-clockwise from +x", -7.0, 7.0,
              fixed=False),
    Parameter("rate", 50.0, "poses per second", 10.0, 200.0),
    Parameter("panorama_rate", 2.0, "panoramas per second", 0.1, 10.0),
    Parameter("height", 64, "rows of a panorama, which is twice as wide", 16, 512),
)  # fmt: skip


class SimBase(Node):
    """Shell around `HouseBase`."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("sim_base", **options)
        value = declare(self, PARAMETERS)
        self.base = HouseBase(value["house"])
        self._height: int = value["height"]
        self._lock = threading.Lock()
        self._graph = self.create_publisher(String, "graph", LATCHED)
        self._pose = self.create_publisher(PoseStamped, "base_pose", RELIABLE)
        self._odometry = self.create_publisher(Odometry, "odom", RELIABLE)
        self._panorama = {
            key: self.create_publisher(kind, f"panorama/{topic}", RELIABLE)
            for key, (kind, topic) in PANORAMA.items()
        }
        self.create_subscription(TwistStamped, "robot/command", self._on_command, COMMAND)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._begin()
        graph = self.base.graph
        told = {"scan": graph.scan, "connectivity": graph.connectivity()}
        self._graph.publish(String(data=json.dumps(told)))
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._drive, args=(1.0 / value["rate"],), daemon=True),
            threading.Thread(target=self._look, args=(1.0 / value["panorama_rate"],), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _begin(self) -> None:
        with self._lock:
            self.base.place(current(self, "viewpoint"), current(self, "yaw"))

    def _on_reset(self, request: Any, response: Any) -> Any:
        try:
            self._begin()
            response.success, response.message = True, self.base.graph.scan
        except ValueError as error:
            response.success, response.message = False, str(error)
        return response

    def _on_command(self, message: Any) -> None:
        speed, *_, turn = messages.twist_array(message)
        with self._lock:
            self.base.command(float(speed), float(turn), time.monotonic())

    def _drive(self, period: float) -> None:
        due = before = time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            with self._lock:
                self.base.drive(before, now - before)
                pose, velocity = self.base.pose, self.base.velocity(now)
                stamp = self.get_clock().now().to_msg()
            before = now
            self._pose.publish(base_message(pose, stamp, MAP))
            self._odometry.publish(odometry_message(pose, *velocity, stamp, (MAP, BASE)))
            due = max(due + period, time.monotonic())
            self._ended.wait(max(due - time.monotonic(), 0.0))

    def _look(self, period: float) -> None:
        while not self._ended.wait(period):
            with self._lock:
                where, stamp = self.base.camera(), self.get_clock().now().to_msg()
            seen = self.base.scene.simulator.observe(where, (self._height, 2 * self._height))
            for key, message in panorama_messages(seen, stamp, MAP).items():
                self._panorama[key].publish(message)

    def finish(self) -> None:
        """End the motion."""
        self._ended.set()
        for thread in self._threads:
            thread.join(1.0)
        self.base.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SimBase, argv)


if __name__ == "__main__":
    raise SystemExit(main())
