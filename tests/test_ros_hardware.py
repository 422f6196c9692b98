"""The hardware graphs as they are shipped, on topics named as a robot's driver names them."""

from __future__ import annotations

import itertools
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import JointState

from robots.kinematics import Chain, quaternion_rotation
from ros_nodes import messages
from ros_nodes.arm import locate, read_arm
from ros_nodes.graph import find_graph, share
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


def values_of(kind: str, node: str) -> dict[str, Any]:
    """Parameters of a node as the shipped file has them."""
    text = share(f"config/hardware_{kind}.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)[f"/**/{node}"]["ros__parameters"]
    return found


def arm_of(kind: str) -> Chain:
    chain = read_arm(values_of(kind, "policy"))
    assert chain is not None
    return chain


def pose_of(place: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = quaternion_rotation([1.0, 0.0, 0.0, 0.0]), place
    return pose


CHAIN = arm_of("trajectory")
JOINTS = CHAIN.inverse(pose_of(TOOL), np.array([0.0, -0.35, -0.95, 0.0, 1.30, 0.0]))
"""Of the arm, with its tool at that place."""


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
            "trajectory": lambda m: messages.trajectory_arrays(m, CHAIN.names)[0],
            "positions": lambda m: messages.multi_array_values(m, CHAIN.n)[None],
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
        self._joints.publish(messages.joint_message(CHAIN.names, JOINTS, np.zeros(6), stamp))
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
    if kind == "twist":
        return rows[:, :3]
    return CHAIN.forward(rows)[:, :3, 3] - CHAIN.forward(JOINTS)[:3, 3]


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
        else:  # along the table, at the height
            assert np.abs(moved[:, 2]).max() < 0.001
            assert np.abs(moved[:, :2]).max() < 0.08
    finally:
        arm.close()


@pytest.mark.parametrize("file", ["hardware_trajectory", "hardware_positions", "sim_joints"])
def test_limits_and_arms_of_the_files_are_those_of_the_description(file: str) -> None:
    values = yaml.safe_load(share(f"config/{file}.yaml").read_text())
    gate, policy = (values[f"/**/{node}"]["ros__parameters"] for node in ("safety_gate", "policy"))
    for name in ("urdf", "base_link", "tip_link", "tool", "joints", "command"):
        assert gate[name] == policy[name]
    chain = read_arm(gate)
    assert chain is not None
    assert tuple(gate["joints"]) == chain.names == tuple(f"joint{i}" for i in range(1, 7))
    np.testing.assert_allclose(gate["low"], chain.low, atol=1e-9)
    np.testing.assert_allclose(gate["high"], chain.high, atol=1e-9)
    assert (np.array(gate["velocity"]) <= chain.velocity).all()
    # All that the policy may command is in the gate's box, and within reach.
    low, high = (
        policy.get(f"workspace_{end}", default)
        for end, default in (("low", [0.15, -0.48]), ("high", [0.65, 0.48]))
    )
    for corner in itertools.product(*zip(low, high, strict=True)):
        place = np.array([*corner, policy["height"]])
        assert (np.array(gate["workspace_low"]) < place).all()
        assert (np.array(gate["workspace_high"]) > place).all()
        joints = JOINTS
        for way in np.linspace(TOOL, place, 50):
            joints = chain.inverse(pose_of(tuple(way)), joints, seconds=0.1)


def test_packages_are_found_where_ros_or_python_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert locate("package://pybullet_data/xarm/xarm6_robot_white.urdf").is_file()
    assert locate("/somewhere/arm.urdf") == Path("/somewhere/arm.urdf")
    (tmp_path / "share" / "my_arm").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert locate("package://my_arm/urdf/a.urdf") == tmp_path / "share/my_arm/urdf/a.urdf"
    for missing in ("package://no_such_arm/a.urdf", "package://../a.urdf", "package://a.b/c"):
        with pytest.raises(ValueError, match="give the path of the file"):
            locate(missing)
