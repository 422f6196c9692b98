"""The hardware graphs as they are shipped, on topics named as a robot's driver names them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState

from ros_nodes import messages
from ros_nodes.graph import find_graph
from ros_nodes.operator import Operator
from ros_nodes.processes import running
from ros_nodes.running import COMMAND, COMMAND_TYPES, RELIABLE

pytestmark = pytest.mark.ros

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
COMMANDS = {
    "servo": ("twist", "servo_node/delta_twist_cmds"),
    "trajectory": ("trajectory", "joint_trajectory_controller/joint_trajectory"),
    "positions": ("positions", "forward_position_controller/commands"),
}
TOOL = (0.30, 0.0, 0.004)
OBJECTS = {"block": (0.36, 0.05, 0.4), "slot1": (0.54, 0.02, 0.1), "slot2": (0.54, 0.02, 0.1)}
FASTEST = 0.1 + 1e-9


class Arm:
    """A driver: publishes where its tool is, at 50 Hz, and notes its commands without moving.

    In place of a camera it publishes the poses of the objects too.
    """

    def __init__(self, domain: int, kind: str, topic: str) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        node = self._node = rclpy.create_node("driver", context=self.context)
        self.commands: list[np.ndarray] = []
        self._tool = node.create_publisher(PoseStamped, "tcp_pose_broadcaster/pose", RELIABLE)
        self._joints = node.create_publisher(JointState, "joint_states", RELIABLE)
        self._objects = {
            name: node.create_publisher(PoseStamped, f"objects/{name}", RELIABLE)
            for name in OBJECTS
        }
        read = {
            "twist": lambda m: messages.twist_array(m)[None],
            "trajectory": lambda m: messages.trajectory_arrays(m, ["x", "y", "z"])[0],
            "positions": lambda m: messages.multi_array_values(m, 3)[None],
        }[kind]
        node.create_subscription(
            COMMAND_TYPES[kind], topic, lambda m: self.commands.append(read(m)), COMMAND
        )
        node.create_timer(0.02, self._publish)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _publish(self) -> None:
        stamp = self._node.get_clock().now().to_msg()
        place, down = np.array(TOOL), np.array([1.0, 0.0, 0.0, 0.0])
        self._tool.publish(messages.pose_message(place, down, stamp, "base_link"))
        self._joints.publish(messages.joint_message(("x", "y", "z"), place, np.zeros(3), stamp))
        for name, (x, y, yaw) in OBJECTS.items():
            turn = np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
            pose = messages.pose_message(np.array([x, y, 0.0]), turn, stamp, "base_link")
            self._objects[name].publish(pose)

    def _spin(self) -> None:
        while not self._ended.is_set():
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._executor.shutdown(timeout_sec=0.2)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    number = 40 + WORKER
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path))
    return number


def displacement(kind: str, commands: list[np.ndarray]) -> Any:
    """What the commands ask of x, y, z: velocities, or ways from where the tool is."""
    rows = np.concatenate(commands)
    return rows[:, :3] if kind == "twist" else rows - np.array(TOOL)


@pytest.mark.parametrize("name", COMMANDS)
def test_hardware_graph_commands_the_controller_slowly_until_the_emergency_stop(
    name: str, domain: int, tmp_path: Path
) -> None:
    kind, topic = COMMANDS[name]
    arm = Arm(domain, kind, topic)
    try:
        with running(find_graph(f"hardware_{name}"), {}, tmp_path) as processes:
            operator = Operator(domain, processes.check)
            try:
                operator.wait_active()
                operator.rest(0.5)
                assert not arm.commands  # disarmed
                operator.arm()
                operator.spin_until(
                    lambda: len(arm.commands) > 5 and displacement(kind, arm.commands).any(),
                    20.0,
                    "motion",
                )
                operator.estop(True)
                time.sleep(0.2)
                heard = len(arm.commands)
                operator.rest(0.5)
                assert len(arm.commands) <= heard + 5  # the stop is repeated a few times
                assert operator.gate["state"] == "estop"
            finally:
                operator.close()
            assert set(processes.stop().values()) == {0}
        moved = displacement(kind, arm.commands)
        assert np.isfinite(moved).all()
        assert not displacement(kind, arm.commands[-1:]).any()  # stand still, where the tool is
        if kind == "twist":
            assert np.abs(moved).max() <= FASTEST
            assert not moved[:, 2].any()
    finally:
        arm.close()
