"""The two sides of the policy node without a graph, and the simulated arm that joints drive."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")

from robots.components import component_names
from robots.kinematics import Chain, Unreachable, quaternion_rotation
from robots.matching import Matched
from robots.streaming import Reference, Workspace
from ros_nodes import messages
from ros_nodes.arm import locate
from ros_nodes.policy_observations import Observations, features_of
from ros_nodes.policy_setpoints import Arm, Setpoints, action_message
from ros_nodes.safety_gate import gate_config
from ros_nodes.simulation import SimulatedRobot

pytestmark = pytest.mark.ros

URDF = "package://pybullet_data/xarm/xarm6_robot_white.urdf"
CHAIN = Chain.from_urdf(locate(URDF), "link_base", "link6", (0.0, 0.0, 0.12))
DOWN = [1.0, 0.0, 0.0, 0.0]
VALUES: dict[str, Any] = {
    "command": "trajectory",
    "lockstep": False,
    "joints": list(CHAIN.names),
    "orientation": DOWN,
    "height": 0.004,
    "rate": 5.0,
    "setpoint_rate": 50.0,
    "arrival": 0.001,
    "patience": 0.1,
    "frame": "base_link",
    "features": [],
    "max_age": 0.1,
    "max_skew": 0.05,
    "future": 0.05,
}
SECOND = 10**9


def joints_at(x: float, y: float, z: float = 0.004) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = quaternion_rotation(DOWN), (x, y, z)
    return CHAIN.inverse(pose, np.array([0.0, 0.11, -0.30, 0.0, 0.18, 0.0]))


def started(place: tuple[float, float] = (0.3, 0.0)) -> Reference:
    reference = Reference(Workspace((0.15, -0.45), (0.65, 0.45), 0.04))
    reference.start(np.array(place))
    return reference


# Motion.


def test_a_chunk_of_joints_leads_the_tool_straight_and_level() -> None:
    setpoints = Setpoints(VALUES, started(), CHAIN)
    joints = joints_at(0.3, 0.0)
    here = np.array([0.3, 0.0])
    message = setpoints.go(np.array([0.02, -0.03]), here, joints, SECOND)
    positions, times = messages.trajectory_arrays(message, CHAIN.names)
    np.testing.assert_allclose(times, np.arange(1, 11) * 0.02)
    tips = CHAIN.forward(positions)
    shares = np.arange(1, 11)[:, None] / 10
    np.testing.assert_allclose(tips[:, :2, 3], here + shares * [0.02, -0.03], atol=2e-5)
    np.testing.assert_allclose(tips[:, 2, 3], 0.004, atol=2e-5)
    np.testing.assert_allclose(tips[:, :3, :3] - quaternion_rotation(DOWN), 0, atol=1e-3)
    steps = np.diff(np.vstack([joints, positions]), axis=0)
    assert np.abs(steps).max() < 0.05  # continuous
    assert setpoints.setpoint(SECOND, None) is None  # the chunk says it all


def test_single_positions_follow_the_same_way() -> None:
    setpoints = Setpoints({**VALUES, "command": "positions"}, started(), CHAIN)
    here = np.array([0.3, 0.0])
    assert setpoints.go(np.array([0.02, -0.03]), here, joints_at(0.3, 0.0), SECOND) is None
    for i in range(11):
        message = setpoints.setpoint(SECOND + i * SECOND // 50, None)
        tip = CHAIN.forward(messages.multi_array_values(message, 6))[:3, 3]
        np.testing.assert_allclose(tip[:2], here + i / 10 * np.array([0.02, -0.03]), atol=2e-5)
    # Long after its end there is nothing more to say.
    assert setpoints.setpoint(10 * SECOND, None) is None
    assert setpoints.over(10 * SECOND)


def test_a_tool_that_is_not_where_it_should_work_is_not_thrown_there() -> None:
    setpoints = Setpoints({**VALUES, "command": "positions"}, started(), CHAIN)
    high = joints_at(0.3, 0.0, z=0.2)
    setpoints.go(np.zeros(2), np.array([0.3, 0.0]), high, SECOND)
    with pytest.raises(Unreachable, match="jump"):
        setpoints.setpoint(SECOND, None)


def test_what_is_out_of_reach_is_said_to_be() -> None:
    setpoints = Setpoints(VALUES, started((0.65, 0.44)), CHAIN)
    with pytest.raises(Unreachable, match="out of reach"):
        setpoints.go(np.zeros(2), np.array([0.65, 0.44]), joints_at(0.5, 0.3), SECOND)


def test_joints_go_out_in_the_order_of_the_parameter() -> None:
    names = list(reversed(CHAIN.names))
    arm = Arm(CHAIN, {**VALUES, "joints": names})
    arm.begin(joints_at(0.3, 0.0))
    sent = arm.at(np.array([0.3, 0.0]), 0.1)
    np.testing.assert_allclose(sent[::-1], joints_at(0.3, 0.0), atol=1e-3)
    with pytest.raises(ValueError, match="must name those of the arm"):
        Arm(CHAIN, {**VALUES, "joints": ["x", "y", "z"]})
    arm.clear()
    with pytest.raises(ValueError, match="not been observed"):
        arm.at(np.array([0.3, 0.0]), 0.1)


def test_axes_of_the_table_need_no_arm() -> None:
    values = {**VALUES, "joints": ["x", "y", "z"]}
    message = Setpoints(values, started()).go(
        np.array([0.02, 0.0]), np.array([0.3, 0.0]), None, SECOND
    )
    positions, _ = messages.trajectory_arrays(message, ["x", "y", "z"])
    np.testing.assert_allclose(positions[-1], [0.32, 0.0, 0.004])


# Observations.


def spec(fields: list[tuple[str, int]], actions: list[tuple[str, int]], size: int = 0) -> Any:
    make = lambda rows: tuple(SimpleNamespace(name=name, size=n) for name, n in rows)  # noqa: E731
    return SimpleNamespace(
        observation={"state": (size or sum(n for _, n in fields),)},
        observation_fields=make(fields),
        action_fields=make(actions),
        action_dim=sum(n for _, n in actions) or 3,
    )


def test_the_tool_of_an_arm_comes_from_its_joints() -> None:
    seen = Observations(spec([("target_xy", 2), ("effector_xy", 2)], []), VALUES, CHAIN)
    assert list(seen.topics) == ["fk:joint_states"]
    joints = joints_at(0.31, 0.07)
    message = messages.joint_message(CHAIN.names, joints, None, messages.stamp_of(SECOND))
    value = seen.read("fk:joint_states", message)
    matched = Matched({"fk:joint_states": value}, SECOND, SECOND)
    state = seen.layout(matched, np.array([0.4, 0.1]))["state"]
    np.testing.assert_allclose(state, [0.4, 0.1, 0.31, 0.07], atol=2e-5)
    measured, found = seen.tool_of(matched)
    np.testing.assert_allclose(measured, [0.31, 0.07], atol=2e-5)
    assert found is not None
    assert found.tolist() == joints.tolist()
    message.position[2] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        seen.read("fk:joint_states", message)


def test_forward_kinematics_without_an_arm_are_refused() -> None:
    values = {**VALUES, "features": ["effector_xy = fk:joint_states xy"]}
    with pytest.raises(ValueError, match="urdf"):
        Observations(spec([("effector_xy", 2)], []), values, None)


def test_two_fields_of_one_topic_each_get_their_joints() -> None:
    lines = ["a = joints:joint_states q2,q1", "b = joints:joint_states q3"]
    seen = Observations(spec([("a", 2), ("b", 1)], []), {**VALUES, "features": lines}, None)
    message = messages.joint_message(
        ("q1", "q2", "q3"), [1.0, 2.0, 3.0], None, messages.stamp_of(1)
    )
    value = seen.read("joints:joint_states", message)
    matched = Matched({"joints:joint_states": value}, 1, 1)
    assert seen.layout(matched, np.zeros(2))["state"].tolist() == [2.0, 1.0, 3.0]


WHOLE = {**VALUES, "lockstep": True}


def test_a_whole_state_comes_by_the_names_of_its_fields() -> None:
    seen = Observations(spec([("a", 2), ("b", 1)], []), WHOLE, None)
    assert list(seen.topics) == ["joints:observation"]
    assert seen.tool is None
    names = ("b.0", "a.1", "a.0", "other")
    message = messages.joint_message(names, [3.0, 2.0, 1.0, 9.0], None, messages.stamp_of(1))
    matched = Matched({"joints:observation": seen.read("joints:observation", message)}, 1, 1)
    assert seen.layout(matched, np.zeros(2))["state"].tolist() == [1.0, 2.0, 3.0]
    short = messages.joint_message(("a.0",), [1.0], None, messages.stamp_of(1))
    with pytest.raises(ValueError, match="lacks"):
        seen.read("joints:observation", short)


def test_a_state_without_fields_has_numbers_for_names() -> None:
    (feature,) = features_of(spec([], [], size=3), [], vector=True)
    assert feature.part == "obs.0,obs.1,obs.2"


def test_an_action_is_sent_as_it_is() -> None:
    action = np.array([0.1, -0.2, 1e9])
    message = action_message(spec([], [("go", 2), ("grip", 1)]), action, 0.1, 7 * SECOND)
    assert list(message.joint_names) == ["go.0", "go.1", "grip.0"]
    assert list(message.points[0].positions) == action.tolist()
    assert messages.nanoseconds(message.header.stamp) == 7 * SECOND
    unnamed = action_message(spec([], []), action, 0.1, 1)
    assert list(unnamed.joint_names) == ["action.0", "action.1", "action.2"]


def test_names_of_entries_add_up_and_differ() -> None:
    assert component_names([("a", 2), ("b", 1)], 3, "x") == ("a.0", "a.1", "b.0")
    assert component_names([], 2, "x") == ("x.0", "x.1")
    for fields, size in (([("a", 2)], 3), ([("a", 1), ("a", 1)], 2)):
        with pytest.raises(ValueError, match="each once"):
            component_names(fields, size, "x")


# The gate of an arm.

LIMITS: dict[str, Any] = {
    "command": "positions",
    "joints": list(CHAIN.names),
    "low": CHAIN.low.tolist(),
    "high": CHAIN.high.tolist(),
    "velocity": [1.0] * 6,
    "acceleration": [10.0] * 6,
    "hold": 0.1,
    "twist_frame": "pose",
    "urdf": URDF,
    "base_link": "link_base",
    "tip_link": "link6",
    "tool": [0.0, 0.0, 0.12],
    "workspace_low": [0.1, -0.5, 0.0],
    "workspace_high": [0.6, 0.5, 0.5],
    "command_timeout": 0.1,
    "inference_timeout": 0.0,
    "inference_max_age": 0.0,
    "max_age": 0.1,
    "max_skew": 0.05,
    "future": 0.05,
    "rearm": "explicit",
    "fresh": 3,
}


def test_a_gate_knows_the_box_of_its_arm() -> None:
    box = gate_config(LIMITS).box
    assert box is not None
    assert not box.is_left(joints_at(0.3, 0.0), joints_at(0.5, 0.1))
    assert box.is_left(joints_at(0.3, 0.0), joints_at(0.62, 0.0))
    assert gate_config({**LIMITS, "urdf": ""}).box is None


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"joints": list(reversed(CHAIN.names))}, "order"),
        ({"joints": ["a", "b", "c", "d", "e", "f"]}, "those of the arm"),
        ({"tip_link": "tool0"}, "there is no link 'tool0'"),
        ({"workspace_low": [0.1, -0.5]}, "coordinates"),
        ({"workspace_low": [0.7, -0.5, 0.0]}, "low < high"),
        ({"command": "twist"}, "commands of joints"),
        ({"twist_frame": "base"}, "kind twist, not positions"),
    ],
)
def test_a_gate_whose_arm_is_another_does_not_start(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        gate_config({**LIMITS, **change})


# A camera's delay.


def test_only_what_was_seen_after_a_way_says_that_it_has_ended() -> None:
    setpoints = Setpoints({**VALUES, "command": "twist"}, started())
    end = np.array([0.32, 0.0])
    setpoints.go(np.array([0.02, 0.0]), np.array([0.3, 0.0]), None, SECOND)
    over = SECOND + SECOND // 5  # a way takes 0.2 s at 5 Hz
    late = SECOND // 4
    for measured, after, arrived in [
        (end, -0.01, False),
        (end, 0.01, True),
        (end - 0.005, 0.01, False),
        (end - 0.005, 0.09, False),  # it is given 0.1 s to get there
        (end - 0.005, 0.11, True),
    ]:
        stamp = over + round(after * SECOND)
        assert setpoints.arrived(measured, stamp, stamp + late, stamp + late) == arrived


def test_setpoints_outlast_a_way_by_what_observations_may_be_late() -> None:
    values = {**VALUES, "command": "twist", "max_age": 0.3}
    clock = SimpleNamespace(nanoseconds=0, to_msg=lambda: messages.stamp_of(1))
    setpoints = Setpoints(values, started())
    setpoints.go(np.array([0.02, 0.0]), np.array([0.3, 0.0]), None, SECOND)
    for after, said in [(0.1, True), (0.79, True), (0.81, False)]:  # 0.2 + 1.5 periods + 0.3
        clock.nanoseconds += 1
        message = setpoints.setpoint(SECOND + round(after * SECOND), clock)
        assert (message is not None) == said


# The simulated arm.


@pytest.fixture
def robot() -> Any:
    made = SimulatedRobot("decisive/BlockInsertion-v0", {"arm": "xarm6"}, joints=True)
    made.reset(0)
    yield made
    made.close()


def measured(robot: SimulatedRobot) -> np.ndarray:
    return np.array([state[0] for state in robot.table.scene.effector.joints().values()])


def test_joints_go_where_they_are_told_and_no_faster_than_they_can(robot: Any) -> None:
    begin = measured(robot)
    np.testing.assert_allclose(robot.target, begin)
    goal = begin + np.array([0.05, -0.02, 0.03, 0.1, 0.02, -0.1])
    for _ in range(12):
        robot.drive(goal, 5)
    np.testing.assert_allclose(measured(robot), goal, atol=2e-3)
    np.testing.assert_allclose(robot.target, goal)
    robot.drive(goal + np.array([1.0, 0, 0, 0, 0, 0]), 5)
    # 5 of 240 steps a second, at 3.14 rad/s.
    assert 0 < measured(robot)[0] - goal[0] <= 3.14 * 5 / 240 + 0.01


def test_joints_stay_within_their_limits(robot: Any) -> None:
    goal = robot.target
    goal[5] = 100.0
    for _ in range(300):
        robot.drive(goal, 5)
    assert measured(robot)[5] <= CHAIN.high[5] + 0.01


def test_a_reset_brings_the_arm_home_and_it_stays_there(robot: Any) -> None:
    home = measured(robot)
    for _ in range(20):
        robot.drive(home + 0.1, 5)
    robot.reset(1)
    np.testing.assert_allclose(measured(robot), home, atol=1e-6)
    for _ in range(40):
        robot.drive(robot.target, 5)
    np.testing.assert_allclose(measured(robot), home, atol=2e-3)
