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
from std_srvs.srv import Trigger

from ros_nodes import messages
from ros_nodes.graph import GRAPHS, Graph, NodeSpec
from ros_nodes.operator import Operator
from ros_nodes.processes import Processes
from ros_nodes.running import COMMAND, NEWEST, RELIABLE

PLACES = {
    "tool_pose": (0.30, 0.0, 0.0),
    "objects/block": (0.36, 0.05, 0.4),
    "objects/slot1": (0.54, 0.02, 0.1),
    "objects/slot2": (0.54, 0.02, 0.1),
}
"""x, y, yaw of what the insertion policy looks at."""
PERIOD = 0.02


class Ears:
    """Notes the commands that arrive, and when the tool's pose last did."""

    def __init__(self, domain: int, name: str = "ears") -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node(name, context=self.context)
        self.commands: list[tuple[float, np.ndarray]] = []
        self.last_pose = 0.0
        self.node.create_subscription(TwistStamped, "robot/command", self._note, COMMAND)
        self.node.create_subscription(PoseStamped, "tool_pose", self._on_pose, NEWEST)
        self._ended = threading.Event()
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._threads = [threading.Thread(target=self._spin)]
        self._threads[0].start()

    def _note(self, message: TwistStamped) -> None:
        self.commands.append((time.monotonic(), messages.twist_array(message)))

    def _on_pose(self, message: PoseStamped) -> None:
        self.last_pose = time.monotonic()

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


class Robot(Ears):
    """Publishes poses at 50 Hz and notes the commands that arrive.

    Its tool is led around in a circle, whatever is commanded, so that there is always something to
    command: near a tool that stands still the commanded position would soon stand still too.
    """

    def __init__(self, domain: int) -> None:
        super().__init__(domain, "robot")
        self.poses = {
            topic: self.node.create_publisher(PoseStamped, topic, RELIABLE) for topic in PLACES
        }
        self.silent: set[str] = set()
        self.spoil: Callable[[str, PoseStamped], None] = lambda topic, message: None
        self.last_poses: dict[str, float] = {}
        self._threads.append(threading.Thread(target=self._publish))
        self._threads[-1].start()

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
                self.last_poses[topic] = time.monotonic()
            due = max(due + PERIOD, time.monotonic())
            self._ended.wait(max(due - time.monotonic(), 0.0))


def arm_until_moving(operator: Operator, ears: Ears, seconds: float = 40.0) -> None:
    """Arm, again if the gate has stopped by itself: a busy machine may be late at the beginning."""
    end = time.monotonic() + seconds
    while True:
        operator.arm()
        begin = time.monotonic()
        while time.monotonic() < min(begin + 3.0, end):
            if len(ears.moving(begin)) > 5:
                return
            time.sleep(0.005)
        assert time.monotonic() < end, "the robot was not told to move"


def processes_of(domain: int, logs: Path, overrides: dict[str, Any], names: list[str]) -> Processes:
    """Nodes of a simulated cell, each writing a file of its own."""
    env = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_LOG_DIR": str(logs),
    }
    graph = Graph("test", GRAPHS["sim_insertion"].config, tuple(map(NodeSpec, names)))
    return Processes(graph, overrides, logs, env)


class Cell:
    """Robot, operator, and the processes of policy and gate."""

    def __init__(
        self, domain: int, logs: Path, overrides: dict[str, Any], names: list[str]
    ) -> None:
        self.logs = logs
        self.processes = processes_of(domain, logs, overrides, names)
        self.robot = Robot(domain)
        self.operator = Operator(domain)

    def start_moving(self) -> None:
        """Arm, and wait until the robot is told to move."""
        arm_until_moving(self.operator, self.robot)

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
    with local():
        made = Cell(domain, logs, settings, list(names))
        try:
            if "policy" in names:
                made.operator.wait_active()
            yield made
        finally:
            made.close()


class Simulated:
    """Simulator, policy and gate as processes; this one hears what the gate tells the robot."""

    def __init__(self, domain: int, logs: Path) -> None:
        self.logs = logs
        settings = {
            # The end of an episode would be the end of the motion.
            "sim_robot.set": ["max_episode_steps=100000"],
            "policy.checkpoint": "block-insertion-mse",
        }
        names = ["sim_robot", "policy", "safety_gate"]
        self.processes = processes_of(domain, logs, settings, names)
        self.ears = Ears(domain)
        self.operator = Operator(domain)

    def start_moving(self) -> None:
        """A fresh episode, armed, and in motion."""
        self.operator.wait_active()
        self.operator.call(Trigger, "sim_robot/reset", Trigger.Request())
        arm_until_moving(self.operator, self.ears)

    def log(self, name: str) -> str:
        path = self.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def close(self) -> None:
        self.processes.stop()
        self.operator.close()
        self.ears.close()


@contextlib.contextmanager
def simulated(domain: int, logs: Path) -> Iterator[Simulated]:
    """A running simulated cell: one process is the robot and all that the policy sees by."""
    with local():
        made = Simulated(domain, logs)
        try:
            yield made
        finally:
            made.close()


@contextlib.contextmanager
def local() -> Iterator[None]:
    """Nobody outside this machine hears or is heard."""
    key = "ROS_AUTOMATIC_DISCOVERY_RANGE"
    before = os.environ.get(key)
    os.environ[key] = "LOCALHOST"
    try:
        yield
    finally:
        os.environ.pop(key, None)
        if before is not None:
            os.environ[key] = before
