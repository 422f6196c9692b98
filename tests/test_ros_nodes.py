"""Nodes in this process, their callbacks called directly: what no message may do to them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
pytest.importorskip("rclpy")

import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.context import Context
from rclpy.parameter import Parameter
from ros_cases import Sink, contexts
from sensor_msgs.msg import Image, JointState, TimeReference
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from agents import make_policy, save_policy
from decisive.recording import RecordConfig, record
from envs.tabletop.camera import ROBOT_CAMERA
from ros_nodes import messages
from ros_nodes.graph import share
from ros_nodes.object_poses import ObjectPoses, camera_pose
from ros_nodes.policy import Job, PolicyNode
from ros_nodes.safety_gate import SafetyGate

pytestmark = pytest.mark.ros
NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.fixture
def context() -> Iterator[Context]:
    """A fresh one each time: a participant keeps the types of the topics it once had."""
    yield from contexts(52)


def settings_of(node: str, file: str = "sim_insertion.yaml", **changes: Any) -> list[Parameter]:
    """Parameters of a node as a shipped file has them."""
    values = yaml.safe_load(share(f"config/{file}").read_text())[f"/**/{node}"]["ros__parameters"]
    return [Parameter(name, value=value) for name, value in {**values, **changes}.items()]


class GateBench:
    """A gate whose output is kept, and a robot beside it."""

    def __init__(self, context: Context, **changes: Any) -> None:
        overrides = settings_of("safety_gate", **changes)
        self.node = SafetyGate(context=context, parameter_overrides=overrides)
        self.out = self.node._output = Sink()  # type: ignore[assignment]
        self.diagnostics = self.node._diagnostics = Sink()  # type: ignore[assignment]

    def stamp(self) -> Any:
        return self.node.get_clock().now().to_msg()

    def observe(self, x: float = 0.3) -> None:
        place, turn = np.array([x, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0])
        message = messages.pose_message(place, turn, self.stamp(), "base_link")
        self.node._on_pose(message)

    def infer(self) -> None:
        message = TimeReference(time_ref=self.stamp())
        message.header.stamp = self.stamp()
        self.node._on_inference(message)

    def arm(self) -> None:
        for _ in range(3):
            self.observe()
        request = SetBool.Request(data=True)
        assert self.node._on_arm(request, SetBool.Response()).success

    def move(self, linear: list[float], angular: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
        self.infer()
        message = messages.twist_message(linear, angular, self.stamp(), "base_link")
        self.node._on_command(message)

    def level(self) -> bytes:
        self.node._report()
        level: bytes = self.diagnostics.messages[-1].status[0].level
        return level

    def close(self) -> None:
        self.node.finish()
        self.node.destroy_node()


@pytest.fixture
def bench(context: Context) -> Iterator[GateBench]:
    made = GateBench(context)
    yield made
    made.close()


def test_a_command_within_the_limits_is_the_message_itself(bench: GateBench) -> None:
    bench.arm()
    bench.move([0.05, -0.02, 0.0])
    assert messages.twist_array(bench.out.messages[0]).tolist() == [0.05, -0.02, 0, 0, 0, 0]
    assert bench.level() == DiagnosticStatus.OK


@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(0, 11),
    st.sampled_from(NOT_FINITE),
    st.lists(st.floats(-10, 10), min_size=6, max_size=6),
)
def test_no_field_that_is_not_finite_gets_through(
    bench: GateBench, field: int, bad: float, others: list[float]
) -> None:
    """Twelve numbers come in: six of a command, three of a position, three of a quaternion."""
    bench.node.gate.reset_estop()
    bench.arm()
    bench.out.messages.clear()
    before = bench.node.gate.health.stops
    if field < 6:
        values = np.array(others)
        values[field] = bad
        bench.move(values[:3].tolist(), tuple(values[3:].tolist()))
        assert bench.node.gate.state == "stopped"
        assert bench.node.gate.health.stops == before + 1
        assert bench.level() == DiagnosticStatus.ERROR
    else:
        message = PoseStamped()
        message.header.stamp = bench.stamp()
        message.pose.orientation.w = 1.0
        part, axis = divmod(field - 6, 3)
        setattr((message.pose.position, message.pose.orientation)[part], "xyz"[axis], bad)
        counted = bench.node.gate.health.reasons["observation not finite"]
        bench.node._on_pose(message)
        assert bench.node.gate.health.reasons["observation not finite"] == counted + 1
        assert bench.node.gate.position is not None
        assert np.isfinite(bench.node.gate.position).all()
    for message in bench.out.messages:
        assert not messages.twist_array(message).any()


@pytest.mark.parametrize("kind", ["trajectory", "positions"])
def test_the_stop_of_a_joint_controller_holds_where_the_robot_is(
    context: Context, kind: str
) -> None:
    axes = {"low": [-1.0] * 2, "high": [1.0] * 2, "velocity": [0.5] * 2, "acceleration": [5.0] * 2}
    bench = GateBench(context, command=kind, joints=["a", "b"], inference_timeout=0.0, **axes)
    try:
        for _ in range(3):
            state = JointState(name=["b", "a"], position=[0.2, 0.1])
            state.header.stamp = bench.stamp()
            bench.node._on_joints(state)
        assert bench.node._on_arm(SetBool.Request(data=True), SetBool.Response()).success
        if kind == "trajectory":
            positions, times = np.array([[0.101, 0.2], [0.102, 0.2]]), [0.02, 0.04]
            message: Any = messages.trajectory_message(
                ["a", "b"], positions, times, messages.stamp_of(0)
            )
        else:
            message = messages.multi_array([0.101, 0.2])
        bench.node._on_command(message)
        assert bench.out.messages == [message]
        bench.node._on_estop_service(SetBool.Request(data=True), SetBool.Response())
        stop = bench.out.messages[-1]
        if kind == "trajectory":
            assert isinstance(stop, JointTrajectory)
            assert stop.joint_names == ["a", "b"]
            assert list(stop.points[0].positions) == [0.1, 0.2]
        else:
            assert isinstance(stop, Float64MultiArray)
            assert list(stop.data) == [0.1, 0.2]
    finally:
        bench.close()


def test_a_base_is_slowed_before_its_fence_where_its_pose_looks_at_it(context: Context) -> None:
    overrides = settings_of(
        "safety_gate", "sim_navigation.yaml", high=[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    )
    node = SafetyGate(context=context, parameter_overrides=overrides)
    out = node._output = Sink()  # type: ignore[assignment]

    def sent(yaw: float) -> float:
        """Speed let through at 0.1 m from the fence, after half a second of asking."""
        for _ in range(10):
            stamp = node.get_clock().now().to_msg()
            turn = np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)])
            node._on_pose(messages.pose_message(np.array([0.9, 0.0, 0.0]), turn, stamp, "map"))
            if node.gate.state != "armed":
                answer = node._on_arm(SetBool.Request(data=True), SetBool.Response())
                if not answer.success:
                    continue
            heard = TimeReference(time_ref=stamp)
            heard.header.stamp = stamp
            node._on_inference(heard)
            node._on_command(
                messages.twist_message([0.6, 0.0, 0.0], [0.0, 0.0, 0.0], stamp, "base_link")
            )
            time.sleep(0.05)
        return float(messages.twist_array(out.messages[-1])[0])

    try:
        assert sent(math.pi) == 0.6
        assert 0.0 < sent(0.0) < 0.5
        assert node.gate.health.reasons["position"] > 0
    finally:
        node.finish()
        node.destroy_node()


def test_malformed_joint_commands_are_refused(context: Context) -> None:
    axes = {"low": [-1.0], "high": [1.0], "velocity": [0.5], "acceleration": [5.0]}
    bench = GateBench(context, command="trajectory", joints=["a"], inference_timeout=0.0, **axes)
    try:
        message = messages.trajectory_message(["b"], [[0.0]], [0.1], messages.stamp_of(0))
        bench.node._on_command(message)
        assert bench.node.gate.health.reasons["malformed command"] == 1
        assert bench.out.messages == []
    finally:
        bench.close()


@pytest.mark.parametrize(
    "change", [{"low": [0.0]}, {"command": "trajectory"}, {"hold": 50.0}, {"rearm": "maybe"}]
)
def test_a_gate_with_impossible_settings_does_not_start(context: Context, change: dict) -> None:
    from rclpy.exceptions import ParameterException

    with pytest.raises((ValueError, ParameterException)):
        GateBench(context, **change)


# Pictures.


def malformed(rng: np.random.Generator) -> Image:
    """A picture that is none, in one of many ways."""
    message = messages.image_message(
        np.zeros((96, 96, 3), np.uint8), "rgb8", messages.stamp_of(10**9), "camera"
    )
    fault = int(rng.integers(6))
    if fault == 0:
        message.height = int(rng.choice([0, 10**9, 97]))
    elif fault == 1:
        message.width = int(rng.choice([0, 10**9, 97]))
    elif fault == 2:
        message.step = int(rng.integers(0, 288))
    elif fault == 3:
        message.encoding = str(rng.choice(["", "rgb9", "bayer_rggb8", "x" * 1000]))
    elif fault == 4:
        message.data = message.data[: int(rng.integers(0, 27648))]
    else:
        message.is_bigendian = 7
    return message


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_thousand_malformed_pictures_change_nothing(context: Context) -> None:
    overrides = [
        Parameter("checkpoint", value="block-push-pixels-ibc"),
        Parameter("autostart", value=False),
    ]
    node = PolicyNode(context=context, parameter_overrides=overrides)
    eyes = ObjectPoses(context=context)
    try:
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        feature = next(f for f in node._observations.features if f.source == "image")
        reads = [node._reader(f"image:{feature.topic}", feature), eyes._reader("color")]
        rng = np.random.default_rng(0)
        for read in reads:
            read(malformed(rng))
        before = rss_mb()
        for _ in range(1000):
            message = malformed(rng)
            for read in reads:
                read(message)
        assert node._counts["malformed"] == 1001
        assert node._active
        assert eyes._last == (-1, [])
        assert rss_mb() - before < 20
    finally:
        node.finish()
        for each in (node, eyes):
            each.destroy_node()


def test_diagnostics_warn_of_what_a_kernel_policy_was_never_shown(
    context: Context, tmp_path: Path
) -> None:
    demos = record(RecordConfig("decisive/BlockInsertion-v0", episodes=8), tmp_path / "staging")
    settings = {"frame": "slot1", "relations": True, "points": 200}
    save_policy(make_policy("kernel", demos, settings), tmp_path / "kernel", "")
    overrides = settings_of(
        "policy", checkpoint=str(tmp_path / "kernel"), autostart=False, lockstep=True
    )
    node = PolicyNode(context=context, parameter_overrides=overrides)
    said = node._diagnostics = Sink()  # type: ignore[assignment]
    try:
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        near = demos.observations["state"][len(demos.actions) // 2]
        # Of one number alone, metres: all points together would look the same from the slot.
        away = near + np.eye(len(near), dtype=np.float32)[0] * 5.0
        for state, level, beyond in (
            (near, DiagnosticStatus.OK, "0"),
            (away, DiagnosticStatus.WARN, "1"),
        ):
            now = node.get_clock().now().nanoseconds
            place = np.zeros(2)
            node._reference.start(place)
            wanted = node._counts["decisions"] + 1
            assert node._worker is not None
            node._worker.submit(Job(state, place, None, now, now, True, 0))
            end = time.monotonic() + 10.0
            while node._counts["decisions"] < wanted and time.monotonic() < end:
                time.sleep(0.01)
            node._report()
            status = said.messages[-1].status[0]
            told = {pair.key: pair.value for pair in status.values}
            assert (status.level, told["beyond"]) == (level, beyond)
            assert (float(told["variance"]) > float(told["threshold"])) == (beyond == "1")
        assert told["beyond what was shown"] == "1"
    finally:
        node.finish()
        node.destroy_node()


def test_a_checkpoint_that_does_not_fit_leaves_the_policy_unconfigured(context: Context) -> None:
    for name, why in (("particle-16-ibc", "delta_xy"), ("no-such-policy", "no-such-policy")):
        overrides = [
            Parameter("checkpoint", value=name),
            Parameter("autostart", value=False),
        ]
        node = PolicyNode(context=context, parameter_overrides=overrides)
        try:
            with pytest.raises((ValueError, OSError), match=why):
                node._configure()
            assert node.trigger_configure().name == "FAILURE"
            answer = node._on_reset(Trigger.Request(), Trigger.Response())
            assert not answer.success
        finally:
            node.destroy_node()


def test_words_that_are_no_episode_change_nothing(context: Context) -> None:
    eyes = ObjectPoses(context=context)
    eyes._last = (7, [])
    for text in ("", "{", "[]", "3", '{"event": "end"}'):
        eyes._on_episode(String(data=text))
    assert eyes._last == (7, [])
    eyes._on_episode(String(data='{"event": "start"}'))
    assert eyes._last == (-1, [])
    eyes.destroy_node()


def test_the_shipped_camera_pose_is_that_of_the_simulated_camera() -> None:
    values = yaml.safe_load(share("config/camera.yaml").read_text())
    found = values["/**/object_poses"]["ros__parameters"]
    pose = camera_pose(found["camera_position"], found["camera_orientation"])
    np.testing.assert_allclose(pose, ROBOT_CAMERA.T_world_camera, atol=1e-8)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
    for bad in ([0.0] * 4, [1.0, 0.0, 0.0], [math.nan, 0.0, 0.0, 1.0]):
        with pytest.raises(ValueError, match="camera_orientation"):
            camera_pose([0.0] * 3, bad)
