"""A robot cell for tests: this process is the robot, policy and gate are others, over DDS."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from ros_nodes import messages
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.operator import Operator
from ros_nodes.processes import Processes
from ros_nodes.running import COMMAND, RELIABLE

PLACES = {
    "tool_pose": (0.30, 0.0, 0.0),
    "objects/block": (0.36, 0.05, 0.4),
    "objects/slot1": (0.54, 0.02, 0.1),
    "objects/slot2": (0.54, 0.02, 0.1),
}
"""x, y, yaw of what the insertion policy looks at."""
PERIOD = 0.02


class Robot:
    """Publishes poses at 50 Hz and notes the commands that arrive.

    Its tool is led around in a circle, whatever is commanded, so that there is always something to
    command: near a tool that stands still the commanded position would soon stand still too.
    """

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("robot", context=self.context)
        self.poses = {
            topic: self.node.create_publisher(PoseStamped, topic, RELIABLE) for topic in PLACES
        }
        self.silent: set[str] = set()
        self.spoil: Callable[[str, PoseStamped], None] = lambda topic, message: None
        self.last_pose: dict[str, float] = {}
        self.commands: list[tuple[float, np.ndarray]] = []
        self.node.create_subscription(TwistStamped, "robot/command", self._note, COMMAND)
        self._ended = threading.Event()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._threads = [threading.Thread(target=work) for work in (self._publish, self._spin)]
        for thread in self._threads:
            thread.start()

    def _note(self, message: TwistStamped) -> None:
        self.commands.append((time.monotonic(), messages.twist_array(message)))

    def _publish(self) -> None:
        due = time.monotonic()
        while not self._ended.is_set():
            stamp = self.node.get_clock().now().to_msg()
            for topic, (x, y, yaw) in PLACES.items():
                if topic in self.silent:
                    continue
                if topic == "tool_pose":
                    angle = math.pi * time.monotonic()
                    x, y = x + 0.05 * math.cos(angle), y + 0.05 * math.sin(angle)
                turn = np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
                message = messages.pose_message(np.array([x, y, 0.0]), turn, stamp, "base_link")
                self.spoil(topic, message)
                self.poses[topic].publish(message)
                self.last_pose[topic] = time.monotonic()
            due = max(due + PERIOD, time.monotonic())
            self._ended.wait(max(due - time.monotonic(), 0.0))

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def moving(self, since: float = 0.0) -> list[float]:
        """Times of commands that move, after a time."""
        return [t for t, v in list(self.commands) if t > since and np.abs(v).max() > 0]

    def stopped_at(self, since: float) -> float:
        """Time at which the robot was told to stop for good, after a time: no motion follows.

        A policy that has nothing new stands still between two decisions, which is no stop.
        """
        heard = list(self.commands)
        last = max((t for t, v in heard if np.abs(v).max() > 0), default=since)
        assert any(t > last for t, _ in heard), "the robot was never told to stop"
        return max(since, min(t for t, _ in heard if t > last))

    def wait(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing happened for too long"
            time.sleep(0.005)

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._executor.shutdown(timeout_sec=0.2)
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


class Cell:
    """Robot, operator, and the processes of policy and gate."""

    def __init__(
        self, domain: int, logs: Path, overrides: dict[str, Any], names: list[str]
    ) -> None:
        self.logs = logs
        env = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(logs),
        }
        graph = Graph("test", GRAPHS["sim_insertion"].config, tuple(map(NodeSpec, names)))
        self.processes = Processes(graph, overrides, logs, env)
        self.robot = Robot(domain)
        self.operator = Operator(domain)

    def start_moving(self) -> None:
        """Arm, and wait until the robot is told to move."""
        self.operator.arm()
        begin = time.monotonic()
        self.robot.wait(lambda: len(self.robot.moving(begin)) > 5)

    def log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> dict[str, int]:
        statuses = self.processes.stop()
        self.operator.close()
        self.robot.close()
        return statuses


@contextlib.contextmanager
def cell(
    domain: int, logs: Path, names: tuple[str, ...] = ("policy", "safety_gate"), **overrides: Any
) -> Iterator[Cell]:
    """A running cell whose policy decides by the clock, 20 times a second."""
    settings = {
        "policy.arrival": 0.0,
        "policy.rate": 20.0,
        "safety_gate.inference_timeout": 0.125,
        **{name.replace("__", "."): value for name, value in overrides.items()},
    }
    before = {k: os.environ.get(k) for k in ("ROS_AUTOMATIC_DISCOVERY_RANGE",)}
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    made = Cell(domain, logs, settings, list(names))
    try:
        if "policy" in names:
            made.operator.wait_active()
        yield made
    finally:
        made.close()
        for key, value in before.items():
            os.environ.pop(key, None)
            if value is not None:
                os.environ[key] = value
