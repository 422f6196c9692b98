"""Kinematics of serial arms: against Bullet, against themselves, and on files that lie."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path

import numpy as np
import pybullet
import pybullet_data
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pybullet_utils.bullet_client import BulletClient

from robots import urdf
from robots.kinematics import (
    Chain,
    InverseConfig,
    Unreachable,
    pose_error,
    quaternion_rotation,
    rotation_quaternion,
    rotation_vector,
)
from robots.urdf import parse_joints, read_joints, rotation_rpy

DATA = Path(pybullet_data.getDataPath())
XARM = DATA / "xarm" / "xarm6_robot_white.urdf"
KUKA = DATA / "kuka_iiwa" / "model.urdf"
ARMS = {"xarm6": (XARM, "world", "link6"), "iiwa": (KUKA, "lbr_iiwa_link_0", "lbr_iiwa_link_7")}
ELBOW = {
    "xarm6": (0.1, -0.35, -0.95, 0.05, 1.30, 0.2),
    "iiwa": (0.1, 0.6, 0.1, -1.2, 0.2, 0.9, 0.3),
}


def arm(name: str, **options: object) -> Chain:
    return Chain.from_urdf(*ARMS[name], **options)  # type: ignore[arg-type]


@pytest.fixture(params=ARMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Bullet:
    """An arm in Bullet whose links have their inertia at their origin.

    Bullet passes link frames on as 32 bit floats, those of the inertia as 64: here they are one.
    """

    def __init__(self, name: str, folder: Path) -> None:
        path, _, tip = ARMS[name]
        text = re.sub(
            r"<inertial>.*?</inertial>",
            '<inertial><mass value="1"/><inertia ixx="0.1" iyy="0.1" izz="0.1" ixy="0" ixz="0" '
            'iyz="0"/></inertial>',
            re.sub(r"<(visual|collision)>.*?</\1>", "", path.read_text(), flags=re.DOTALL),
            flags=re.DOTALL,
        )
        plain = folder / "arm.urdf"
        plain.write_text(text)
        self.client = BulletClient(pybullet.DIRECT)
        self.body = self.client.loadURDF(str(plain), useFixedBase=True)
        info = [
            self.client.getJointInfo(self.body, i)
            for i in range(self.client.getNumJoints(self.body))
        ]
        self.moving = [i for i, row in enumerate(info) if row[2] != pybullet.JOINT_FIXED]
        self.tip = next(i for i, row in enumerate(info) if row[12].decode() == tip)
        self.names = tuple(info[i][1].decode() for i in self.moving)
        self.limits = np.array([info[i][8:10] for i in self.moving])

    def forward(self, joints: np.ndarray) -> np.ndarray:
        for i, value in zip(self.moving, joints, strict=True):
            self.client.resetJointState(self.body, i, value)
        position, turn = self.client.getLinkState(
            self.body, self.tip, computeForwardKinematics=True
        )[:2]
        pose = np.eye(4)
        pose[:3, :3] = np.reshape(self.client.getMatrixFromQuaternion(turn), (3, 3))
        pose[:3, 3] = position
        return pose


# Against Bullet.


def test_forward_kinematics_is_that_of_bullet(name: str, tmp_path: Path) -> None:
    chain, bullet = arm(name), Bullet(name, tmp_path)
    assert chain.names == bullet.names
    np.testing.assert_allclose(np.stack([chain.low, chain.high], 1), bullet.limits, atol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(200):
        joints = rng.uniform(chain.low, chain.high)
        np.testing.assert_allclose(chain.forward(joints), bullet.forward(joints), atol=1e-9)
    bullet.client.disconnect()


def test_inverse_kinematics_agrees_with_bullet_on_where_the_arm_is(
    name: str, tmp_path: Path
) -> None:
    chain, bullet = arm(name), Bullet(name, tmp_path)
    rng = np.random.default_rng(1)
    for _ in range(50):
        joints = np.array(ELBOW[name]) + rng.normal(size=chain.n) * 0.2
        goal = bullet.forward(joints + rng.normal(size=chain.n) * 0.03)
        found = chain.inverse(goal, joints)
        error = pose_error(goal, bullet.forward(found))
        assert np.linalg.norm(error[:3]) <= 1e-5 + 1e-9
        assert np.linalg.norm(error[3:]) <= 1e-4 + 1e-9
        assert (found >= chain.low).all()
        assert (found <= chain.high).all()
    bullet.client.disconnect()


def test_the_robot_of_the_simulator_is_the_chain_with_a_tool() -> None:
    from envs.tabletop.effectors import LENGTH, XArm6

    client = BulletClient(pybullet.DIRECT)
    robot = XArm6(client)
    robot.home(np.array([0.3, 0.1, 0.05]))
    chain = arm("xarm6", tool=(0.0, 0.0, LENGTH))
    joints = np.array([robot.joints()[joint][0] for joint in chain.names])
    # Bullet gives its link frame with 32 bits.
    np.testing.assert_allclose(chain.forward(joints)[:3, 3], robot.position(), atol=1e-6)
    client.disconnect()


# By itself.


def test_a_planar_arm_is_where_the_formula_says() -> None:
    text = (
        b'<robot name="r"><link name="a"/><link name="b"/><link name="c"/><link name="d"/>'
        b'<joint name="q1" type="continuous"><parent link="a"/><child link="b"/>'
        b'<axis xyz="0 0 2"/></joint>'
        b'<joint name="q2" type="revolute"><parent link="b"/><child link="c"/>'
        b'<origin xyz="1 0 0"/><axis xyz="0 0 1"/>'
        b'<limit lower="-2" upper="2" velocity="3"/></joint>'
        b'<joint name="s" type="prismatic"><parent link="c"/><child link="d"/>'
        b'<origin xyz="0.5 0 0"/><limit lower="0" upper="0.2" velocity="1" effort="5"/></joint>'
        b"</robot>"
    )
    chain = Chain(parse_joints(text, "a", "d"))
    assert chain.names == ("q1", "q2", "s")
    assert chain.low.tolist() == [-math.inf, -2.0, 0.0]
    assert chain.velocity.tolist() == [math.inf, 3.0, 1.0]
    assert chain.reach == pytest.approx(1.7)
    pose = chain.forward(np.array([math.pi / 2, math.pi / 2, 0.1]))
    np.testing.assert_allclose(pose[:3, 3], [-0.6, 1.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(pose[:3, :3], rotation_rpy(0, 0, math.pi), atol=1e-15)
    jacobian = chain.jacobian(np.array([0.0, 0.0, 0.1]))
    want = [[0, 0, 1], [1.6, 0.6, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 1, 0]]
    np.testing.assert_allclose(jacobian, want, atol=1e-15)


def test_the_jacobian_is_the_slope_of_forward_kinematics(name: str) -> None:
    chain, rng, step = arm(name, tool=(0.01, -0.02, 0.12)), np.random.default_rng(2), 1e-6
    for _ in range(20):
        joints = rng.uniform(chain.low, chain.high)
        slope = [
            pose_error(chain.forward(joints + step * e), chain.forward(joints - step * e))
            for e in np.eye(chain.n)
        ]
        np.testing.assert_allclose(
            chain.jacobian(joints), np.array(slope).T / (2 * step), atol=1e-8
        )


def test_many_configurations_at_once_are_each_alone(name: str) -> None:
    chain, rng = arm(name), np.random.default_rng(3)
    many = rng.uniform(chain.low, chain.high, (4, 5, chain.n))
    poses = chain.forward(many)
    assert poses.shape == (4, 5, 4, 4)
    np.testing.assert_allclose(poses[2, 3], chain.forward(many[2, 3]), atol=1e-14)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(ARMS)))
def test_joints_found_bring_the_tip_where_it_should_be(seed: int, which: str) -> None:
    chain, rng = arm(which), np.random.default_rng(seed)
    joints = rng.uniform(chain.low + 0.3, chain.high - 0.3)
    goal = joints + rng.uniform(-0.05, 0.05, chain.n)
    # Beside a singularity, or where a limit makes one, the nearest solution may be far.
    assume(np.linalg.svd(chain.jacobian(joints), compute_uv=False)[-1] > 0.1)
    found = chain.inverse(chain.forward(goal), joints, seconds=0.5)
    error = pose_error(chain.forward(goal), chain.forward(found))
    assert np.linalg.norm(error[:3]) <= 1e-5
    assert np.linalg.norm(error[3:]) <= 1e-4
    assert (found >= chain.low).all()
    assert (found <= chain.high).all()
    assert (np.abs(found - joints) <= chain.velocity * 0.5 + 1e-9).all()


def test_a_straight_way_of_the_tool_is_a_continuous_way_of_the_joints(name: str) -> None:
    chain, joints = arm(name), np.array(ELBOW[name])
    pose, largest = chain.forward(joints), 0.0
    for i in range(400):
        pose[1, 3] += 0.001 if i < 200 else -0.001
        after = chain.inverse(pose, joints, seconds=0.02)
        largest = max(largest, float(np.abs(after - joints).max()))
        joints = after
    assert largest < 0.02
    if chain.n == 6:  # a seventh joint is free to end elsewhere
        np.testing.assert_allclose(joints, ELBOW[name], atol=1e-4)


def test_a_setpoint_takes_less_than_a_millisecond() -> None:
    """Processor time, which other processes do not lengthen much; 0.3 ms on a free core."""
    chain, joints = arm("xarm6"), np.array(ELBOW["xarm6"])
    pose, times = chain.forward(joints), []
    for _ in range(200):
        pose[1, 3] += 0.0005
        begin = time.process_time()
        joints = chain.inverse(pose, joints, seconds=0.02)
        times.append(time.process_time() - begin)
    assert np.median(times) < 1e-3


def test_what_is_out_of_reach_or_would_be_a_jump_is_refused(name: str) -> None:
    chain, joints = arm(name), np.array(ELBOW[name])
    pose = chain.forward(joints)
    far = pose.copy()
    far[0, 3] += 3.0
    with pytest.raises(Unreachable, match=r"mm and .* degrees away"):
        chain.inverse(far, joints)
    near = pose.copy()
    near[1, 3] += 0.1
    assert np.abs(chain.inverse(near, joints) - joints).max() > 0.05
    with pytest.raises(Unreachable, match=r"joint .* would have to jump"):
        chain.inverse(near, joints, seconds=0.001)


def test_a_limit_holds_where_the_only_way_leads_through_it() -> None:
    chain = arm("xarm6")
    joints = np.array(ELBOW["xarm6"])
    joints[4] = chain.high[4]
    beyond = joints.copy()
    beyond[4] += 0.3
    with pytest.raises(Unreachable, match="limit"):
        chain.inverse(chain.forward(beyond), joints)
    # One that has been pushed beyond its limit comes back.
    found = chain.inverse(chain.forward(joints), joints + np.array([0, 0, 0, 0, 0.001, 0]))
    assert found[4] <= chain.high[4]


def test_a_joint_at_its_limit_leaves_the_way_to_the_others() -> None:
    chain = arm("iiwa")
    joints = np.array(ELBOW["iiwa"])
    joints[2] = chain.high[2]
    pose = chain.forward(joints)
    for _ in range(50):
        pose[1, 3] += 0.001
        joints = chain.inverse(pose, joints, seconds=0.05)
    assert joints[2] <= chain.high[2]


@pytest.mark.parametrize("bad", [np.zeros(5), np.full(6, math.nan), np.zeros((6, 1))])
def test_joints_that_are_none_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="joint1"):
        arm("xarm6").forward(bad)


def test_poses_and_settings_that_are_none_are_refused() -> None:
    chain = arm("xarm6")
    with pytest.raises(ValueError, match="finite"):
        chain.inverse(np.full((4, 4), math.nan), np.zeros(6))
    with pytest.raises(ValueError, match="pose must be"):
        chain.inverse(np.eye(3), np.zeros(6))
    with pytest.raises(ValueError, match="tool"):
        arm("xarm6", tool=(0.0, math.inf, 0.0))
    with pytest.raises(ValueError, match="a joint that moves"):
        Chain(read_joints(XARM, "world", "link_base"))
    for change in ({"position": 0.0}, {"damping": math.inf}, {"iterations": 0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            InverseConfig(**change)


# Rotations.

UNIT = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)


@settings(max_examples=200, deadline=None)
@given(UNIT)
def test_quaternions_and_rotations_are_each_others_inverse(quaternion: list[float]) -> None:
    rotation = quaternion_rotation(quaternion)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    again = quaternion_rotation(rotation_quaternion(rotation).tolist())
    np.testing.assert_allclose(again, rotation, atol=1e-7)


def test_half_turns_have_an_axis_too() -> None:
    for axis in np.eye(3):
        turn = quaternion_rotation([*axis, 0.0])
        np.testing.assert_allclose(np.abs(rotation_vector(turn)), axis * math.pi, atol=1e-12)
    assert rotation_vector(np.eye(3)).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(rotation_vector(rotation_rpy(0, 0, 0.3)), [0, 0, 0.3], atol=1e-15)


@pytest.mark.parametrize("bad", [[0.0] * 4, [1.0] * 3, [math.nan, 0.0, 0.0, 1.0]])
def test_an_orientation_that_is_none_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="quaternion"):
        quaternion_rotation(bad)


# Files.

GOOD = (
    '<robot><link name="a"/><link name="b"/><joint name="q" type="revolute"><parent link="a"/>'
    '<child link="b"/><axis xyz="0 0 1"/><limit lower="-1" upper="1" velocity="2"/></joint></robot>'
)
BAD = {
    "no XML": ("<robot", "no XML"),
    "another document": ("<svg/>", "this holds <svg>"),
    "an entity": (f'<!DOCTYPE r [<!ENTITY e "1">]>{GOOD.replace("2", "&e;")}', "document type"),
    "a file of another": (f'<!DOCTYPE r SYSTEM "file:///etc/passwd">{GOOD}', "document type"),
    "not of this chain": (GOOD.replace('"b"/><a', '"c"/><a'), "no chain"),
    "a circle": (GOOD.replace('parent link="a"', 'parent link="b"'), "no chain"),
    "two parents": (GOOD.replace("</robot>", "") + GOOD[GOOD.index("<joint") :], "twice"),
    "no link": (GOOD.replace('<link name="b"/>', ""), "there is no link 'b'"),
    "a floating joint": (GOOD.replace("revolute", "floating"), "floating"),
    "no child": (GOOD.replace('<child link="b"/>', ""), "no child link"),
    "no limits": (re.sub("<limit.*?/>", "", GOOD), "needs a <limit>"),
    "limits the wrong way": (GOOD.replace('lower="-1"', 'lower="3"'), "nothing"),
    "no speed": (GOOD.replace('velocity="2"', 'velocity="0"'), "nothing"),
    "no axis": (GOOD.replace("0 0 1", "0 0 0"), "without direction"),
    "too few numbers": (GOOD.replace("0 0 1", "0 1"), "must be 3 numbers"),
    "no numbers": (GOOD.replace("0 0 1", "x y z"), "must be 3 numbers"),
    "numbers that are none": (GOOD.replace("0 0 1", "0 0 nan"), "must be 3 numbers"),
    "infinite limits": (GOOD.replace('upper="1"', 'upper="inf"'), "must be 1 numbers"),
    "a mimic": (GOOD.replace("<axis", '<mimic joint="p"/><axis'), "mimics"),
}


def test_the_good_file_is_good() -> None:
    (joint,) = parse_joints(GOOD.encode(), "a", "b")
    assert (joint.name, joint.kind, joint.low, joint.high) == ("q", "revolute", -1.0, 1.0)


@pytest.mark.parametrize("which", BAD)
def test_a_file_that_lies_is_refused_in_one_sentence(which: str, tmp_path: Path) -> None:
    text, why = BAD[which]
    path = tmp_path / "arm.urdf"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        read_joints(path, "a", "b")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entities_in_another_encoding_are_refused_too() -> None:
    text = f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE r [<!ENTITY e "1">]>{GOOD}'
    with pytest.raises(ValueError, match="document type"):
        parse_joints(text.encode("utf-16"), "a", "b")


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urdf, "MAX_BYTES", 1000)
    path = tmp_path / "arm.urdf"
    path.write_text(GOOD + " " * 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_joints(path, "a", "b")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=0, max_size=6))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(place: int, junk: bytes) -> None:
    data = GOOD.encode()
    try:
        joints = parse_joints(data[:place] + junk + data[place + 1 :], "a", "b")
    except ValueError:
        return
    assert all(np.isfinite(joint.T_parent_joint).all() for joint in joints)
