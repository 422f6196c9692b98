"""Panoramas, paths, poses and labelled clouds as messages, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from robots.driving import Pose
from ros_nodes import messages
from ros_nodes import navigation_messages as nav
from world_models.pathdreamer.panoramas import Seen

pytestmark = pytest.mark.ros
STAMP = messages.stamp_of(5_000_000_007)
CLASSES = 41


def panorama(rng: np.random.Generator, height: int = 8) -> Seen:
    size = (height, 2 * height)
    return Seen(
        rng.integers(0, 256, (*size, 3), np.uint8),
        rng.integers(0, CLASSES, size, np.uint8),
        rng.uniform(0.5, 9.0, size).astype(np.float32),
        rng.normal(size=3),
    )


def same(one: Seen, other: Seen) -> bool:
    names = ("rgb", "semantic", "depth", "position")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def test_a_panorama_comes_back_bit_for_bit_under_one_stamp_and_frame() -> None:
    seen = panorama(np.random.default_rng(0))
    seen.depth[0, :3] = 0.0
    found = nav.panorama_messages(seen, STAMP, "map")
    assert {m.header.frame_id for m in found.values()} == {"map"}
    assert {messages.nanoseconds(m.header.stamp) for m in found.values()} == {5_000_000_007}
    kinds = (found["color"].encoding, found["depth"].encoding, found["semantic"].encoding)
    assert kinds == ("rgb8", "32FC1", "mono8")
    assert np.isnan(messages.image_array(found["depth"])[0, :3]).all()  # as REP-118 has it
    assert same(nav.read_panorama(found, CLASSES), seen)


@settings(max_examples=30, deadline=None)
@given(st.integers(-16, 16))
def test_yawing_the_camera_rolls_the_panorama(columns: int) -> None:
    seen = panorama(np.random.default_rng(1))
    found = nav.panorama_messages(seen, STAMP, "map")
    # Turned to the left, what was in the middle is further right: columns run clockwise.
    turned = {key: np.roll(getattr(seen, key), columns, axis=1) for key in ("rgb", "semantic")}
    found["color"] = messages.image_message(turned["rgb"], "rgb8", STAMP, "map")
    found["semantic"] = messages.image_message(turned["semantic"], "mono8", STAMP, "map")
    depth = np.roll(seen.depth, columns, axis=1)
    found["depth"] = messages.image_message(depth, "32FC1", STAMP, "map")
    turn = nav.level_turn(columns / 16 * math.tau)
    found["pose"] = messages.pose_message(seen.position, turn, STAMP, "map")
    assert same(nav.read_panorama(found, CLASSES), seen)


def spoil(key: str, image: np.ndarray, encoding: str) -> dict[str, Any]:
    found = nav.panorama_messages(panorama(np.random.default_rng(2)), STAMP, "map")
    found[key] = messages.image_message(image, encoding, STAMP, "map")
    return found


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (spoil("depth", np.full((8, 16), np.nan, np.float32), "32FC1"), "only 0 %"),
        (spoil("depth", np.full((8, 16), np.inf, np.float32), "32FC1"), "only 0 %"),
        (spoil("depth", np.full((8, 16), -1.0, np.float32), "32FC1"), "only 0 %"),
        (spoil("depth", np.ones((4, 8), np.float32), "32FC1"), "of one size"),
        (spoil("semantic", np.full((8, 16), 77, np.uint8), "mono8"), "below 41, got 77"),
        (spoil("semantic", np.ones((8, 16), np.uint16), "mono16"), "must be mono8"),
        (spoil("color", np.ones((8, 16), np.uint8), "mono8"), "rgb8 or bgr8"),
    ],
)
def test_spoilt_panoramas_are_refused_in_one_sentence(found: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as error:
        nav.read_panorama(found, CLASSES)
    assert "\n" not in str(error.value)


def test_a_camera_that_hangs_askew_is_refused() -> None:
    found = nav.panorama_messages(panorama(np.random.default_rng(3)), STAMP, "map")
    askew = [math.sin(0.05), 0.0, 0.0, math.cos(0.05)]
    found["pose"] = messages.pose_message(np.zeros(3), askew, STAMP, "map")
    with pytest.raises(ValueError, match="level"):
        nav.read_panorama(found, CLASSES)
    with pytest.raises(ValueError, match="level"):
        nav.base_pose(found["pose"])


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-3.14, 3.14))
def test_the_pose_of_a_base_comes_back(x: float, y: float, yaw: float) -> None:
    pose = Pose(x, y, yaw)
    assert nav.base_pose(nav.base_message(pose, STAMP, "map")) == pytest.approx(pose, abs=1e-12)


def test_odometry_has_the_frames_of_rep_105() -> None:
    message = nav.odometry_message(Pose(1.0, 2.0, 0.5), 0.3, -0.2, STAMP, ("odom", "base_link"))
    assert (message.header.frame_id, message.child_frame_id) == ("odom", "base_link")
    assert message.pose.pose.position.y == 2.0
    assert message.pose.pose.orientation.z == pytest.approx(math.sin(0.25))
    assert (message.twist.twist.linear.x, message.twist.twist.angular.z) == (0.3, -0.2)


def test_a_path_looks_along_itself_and_comes_back() -> None:
    points = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    path = nav.path_message(points[:, :2], STAMP, "map")
    yaws = [nav.base_pose(pose).yaw for pose in path.poses]
    assert yaws == pytest.approx([0.0, math.pi / 2, math.pi / 2])
    np.testing.assert_array_equal(nav.path_points(path), points)
    assert nav.path_message(np.zeros((0, 2)), STAMP, "map").poses == []


def test_paths_without_sense_are_refused() -> None:
    path = nav.path_message(np.ones((3, 2)), STAMP, "map")
    with pytest.raises(ValueError, match="1 to 2 poses, got 3"):
        nav.path_points(path, most=2)
    second = list(path.poses)[1]
    second.pose.position.x = math.nan
    with pytest.raises(ValueError, match="finite"):
        nav.path_points(path)
    second.header.frame_id = "odom"
    with pytest.raises(ValueError, match="in its frame 'map', got 'odom'"):
        nav.path_points(path)
    path.poses = []
    with pytest.raises(ValueError, match="got 0"):
        nav.path_points(path)
    with pytest.raises(ValueError, match="finite metres"):
        nav.path_message([[math.nan, 0.0]], STAMP, "map")


def empty_cloud() -> Any:
    return nav.labelled_cloud(np.zeros((3, 0)), np.zeros((0, 4), np.uint8), STAMP, "map")


def test_a_labelled_cloud_keeps_places_colours_and_classes() -> None:
    rng = np.random.default_rng(4)
    positions = rng.normal(size=(3, 50)).astype(np.float32)
    channels = rng.integers(0, 256, (50, 4), np.uint8)
    message = nav.labelled_cloud(positions, channels, STAMP, "map")
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb", "class"]
    found = nav.labelled_points(message)
    np.testing.assert_array_equal(found[0], positions)
    np.testing.assert_array_equal(found[1], channels)
    # What other readers see of it, such as PCL: places, and colour as 0x00RRGGBB.
    np.testing.assert_array_equal(messages.cloud_array(message), positions.T)
    assert bytes(message.data[12:16])[::-1] == bytes([0, *channels[0, :3]])
    assert nav.labelled_points(empty_cloud())[1].shape == (0, 4)


def test_other_clouds_are_no_labelled_ones() -> None:
    plain = messages.cloud_message(np.zeros((2, 3)), None, STAMP, "map")
    with pytest.raises(ValueError, match="x, y, z, rgb and class"):
        nav.labelled_points(plain)
    short = empty_cloud()
    short.width = 3
    with pytest.raises(ValueError, match="3 points has 0 bytes"):
        nav.labelled_points(short)
