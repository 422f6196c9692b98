"""ROS messages and arrays: every round trip, and what a stranger may send."""

import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"  # read when a message type is first imported

from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField
from std_msgs.msg import Float64MultiArray, MultiArrayDimension, MultiArrayLayout

from ros_nodes import messages as m

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
NOW = m.stamp_of(1_700_000_000_123_456_789)
NAMES = ("shoulder", "elbow", "wrist")
BAD = (math.nan, math.inf, -math.inf)
few = settings(deadline=None, max_examples=50)
hundreds = settings(deadline=None, max_examples=300)
thousand = settings(deadline=None, max_examples=1000)
finite = st.floats(allow_nan=False, allow_infinity=False)
uint32 = st.integers(0, 2**32 - 1)


def refused(function, *args, **options):
    """Whether it raises ValueError, with one short line; anything else passes through."""
    try:
        function(*args, **options)
    except ValueError as error:
        sentence = str(error)
    else:
        return False
    assert 0 < len(sentence) < 300
    assert "\n" not in sentence
    return True


# Images


def pixels_of(encoding, height, width):
    pixel = m.ENCODINGS[encoding]
    shape = (height, width) if pixel.channels == 1 else (height, width, pixel.channels)
    return hnp.arrays(pixel.dtype, shape)


def stretched(message, padding, big_endian):
    """The same image with bytes of 0xAB after each row, in the other byte order if wished."""
    pixel = m.ENCODINGS[message.encoding]
    rows = np.frombuffer(message.data, pixel.dtype.newbyteorder("<")).reshape(message.height, -1)
    if big_endian:
        rows = rows.astype(pixel.dtype.newbyteorder(">"))
    padded = np.full((message.height, message.step + padding), 0xAB, np.uint8)
    padded[:, : message.step] = rows.view(np.uint8)
    other = Image(header=message.header, height=message.height, width=message.width)
    other.encoding, other.step = message.encoding, message.step + padding
    other.is_bigendian = int(big_endian)
    other.data.frombytes(padded.tobytes())
    return other


@pytest.mark.parametrize("encoding", m.ENCODINGS)
@given(data=st.data(), height=st.integers(1, 9), width=st.integers(1, 9))
@few
def test_every_encoding_survives_in_any_size_padding_and_byte_order(encoding, data, height, width):
    pixels = data.draw(pixels_of(encoding, height, width))
    message = m.image_message(pixels, encoding, NOW, "camera")
    assert (message.height, message.width, message.header.stamp) == (height, width, NOW)
    assert len(message.data) == message.step * height == pixels.nbytes
    other = stretched(message, data.draw(st.integers(0, 7)), data.draw(st.booleans()))
    for read in (m.image_array(message), m.image_array(other)):
        assert read.dtype == pixels.dtype
        assert read.tobytes() == pixels.tobytes()
        assert not read.flags.writeable


def test_blue_comes_first_on_the_wire_of_bgr_only():
    red = np.array([[[255, 2, 3]]], np.uint8)
    assert m.image_message(red, "rgb8", NOW, "").data.tolist() == [255, 2, 3]
    assert m.image_message(red, "bgr8", NOW, "").data.tolist() == [3, 2, 255]
    clear = np.array([[[255, 2, 3, 4]]], np.uint8)
    assert m.image_message(clear, "bgra8", NOW, "").data.tolist() == [3, 2, 255, 4]


def test_big_endian_is_read_as_such():
    message = Image(height=1, width=1, encoding="16UC1", is_bigendian=1, step=2, data=[1, 2])
    assert m.image_array(message).item() == 0x0102
    message.is_bigendian = 0
    assert m.image_array(message).item() == 0x0201


@pytest.mark.parametrize("encoding", m.ENCODINGS)
def test_reading_copies_only_where_it_must(encoding):
    pixel = m.ENCODINGS[encoding]
    shape = (4, 5) if pixel.channels == 1 else (4, 5, pixel.channels)
    message = m.image_message(np.ones(shape, pixel.dtype), encoding, NOW, "")
    shared = np.shares_memory(m.image_array(message), np.frombuffer(message.data, np.uint8))
    assert shared == (encoding not in ("bgr8", "bgra8"))


def test_writing_takes_slices_of_larger_arrays():
    frame = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    part = frame[::2, 1:7, ::-1]
    np.testing.assert_array_equal(m.image_array(m.image_message(part, "rgb8", NOW, "")), part)


@pytest.mark.parametrize(
    ("shape", "dtype", "encoding"),
    [
        ((4, 4), "u1", "rgb8"),
        ((4, 4, 4), "u1", "rgb8"),
        ((4, 4, 3), "f4", "rgb8"),
        ((4, 4, 1), "u1", "mono8"),
        ((4, 4), "i2", "mono16"),
        ((4, 4), "f8", "32FC1"),
        ((0, 4, 3), "u1", "rgb8"),
        ((4,), "u1", "mono8"),
        ((), "u1", "mono8"),
        ((1, 4, 4, 3), "u1", "rgb8"),
        ((4, 4, 3), "u1", "yuv422"),
    ],
)
def test_pixels_that_are_not_the_encodings_are_refused(shape, dtype, encoding):
    assert refused(m.image_message, np.zeros(shape, dtype), encoding, NOW, "")


IMAGE_FAULTS = {
    "encoding": st.sampled_from(["", "RGB8", "rgb16", "jpeg", "8UC3", "x" * 10_000, "rgb8\n"]),
    "height": st.just(0) | st.integers(100, 2**32 - 1),
    "width": st.just(0) | st.integers(100, 2**32 - 1),
    "is_bigendian": st.integers(2, 255),
    "step": st.integers(0, 7) | st.integers(100, 2**32 - 1),
    "data": st.integers(1, 100),
}


@given(data=st.data())
@thousand
def test_malformed_images_are_refused(data):
    encoding = data.draw(st.sampled_from(sorted(m.ENCODINGS)))
    pixel = m.ENCODINGS[encoding]
    shape = (4, 8) if pixel.channels == 1 else (4, 8, pixel.channels)
    message = m.image_message(np.ones(shape, pixel.dtype), encoding, NOW, "")
    for field in data.draw(st.sets(st.sampled_from(sorted(IMAGE_FAULTS)), min_size=1)):
        fault = data.draw(IMAGE_FAULTS[field])
        if field == "data":
            del message.data[-fault:]
        else:
            setattr(message, field, fault)
    assert refused(m.image_array, message)
    assert refused(m.depth_array, message)


@given(
    uint32 | st.integers(0, 4),
    uint32 | st.integers(0, 4),
    uint32 | st.integers(0, 16),
    st.integers(0, 255) | st.integers(0, 1),
    st.sampled_from([*m.ENCODINGS, "other"]),
    st.binary(max_size=64),
)
@hundreds
def test_any_image_is_read_whole_or_refused(height, width, step, is_bigendian, encoding, data):
    message = Image(height=height, width=width, step=step, encoding=encoding)
    message.is_bigendian = is_bigendian
    message.data.frombytes(data)
    if not refused(m.image_array, message):
        assert m.image_array(message).shape[:2] == (height, width)


def test_images_and_clouds_beyond_the_limit_are_refused():
    image = m.image_message(np.zeros((10, 10), np.uint8), "mono8", NOW, "")
    assert refused(m.image_array, image, max_bytes=99)
    assert not refused(m.image_array, image, max_bytes=100)
    cloud = m.cloud_message(np.zeros((10, 3)), None, NOW, "")
    assert refused(m.cloud_array, cloud, max_bytes=119)
    assert not refused(m.cloud_array, cloud, max_bytes=120)


def test_depth_is_metres_with_nan_for_invalid():
    sent = np.array([[1.5, 0.0, -1.0], [np.nan, np.inf, -np.inf]], np.float32)
    expected = np.array([[1.5, np.nan, np.nan], [np.nan] * 3], np.float32)
    message = m.image_message(sent, "32FC1", NOW, "")
    read = m.depth_array(message)
    np.testing.assert_array_equal(read, expected)
    assert read.dtype == np.float32
    assert read.flags.writeable
    written = m.image_array(m.depth_message(sent.astype(float), NOW, ""))
    np.testing.assert_array_equal(written, expected)


def test_depth_in_millimetres_has_zero_for_invalid():
    message = m.image_message(np.array([[0, 1, 1234, 65535]], np.uint16), "16UC1", NOW, "")
    expected = np.array([[np.nan, 0.001, 1.234, 65.535]], np.float32)
    for big_endian in (False, True):
        np.testing.assert_array_equal(m.depth_array(stretched(message, 3, big_endian)), expected)


@given(hnp.arrays(np.float32, (3, 4)))
@few
def test_depth_of_any_bits_is_positive_or_nan(pixels):
    read = m.depth_array(m.image_message(pixels, "32FC1", NOW, ""))
    assert (np.isnan(read) | ((read > 0) & np.isfinite(read))).all()


@pytest.mark.parametrize("encoding", ["mono8", "mono16", "rgb8"])
def test_colours_are_not_depth(encoding):
    pixel = m.ENCODINGS[encoding]
    shape = (2, 2) if pixel.channels == 1 else (2, 2, 3)
    message = m.image_message(np.ones(shape, pixel.dtype), encoding, NOW, "")
    assert refused(m.depth_array, message)


K = np.array([[610.5, 0, 319.5], [0, 611.25, 239.5], [0, 0, 1]])


def test_intrinsics_survive_and_the_projection_agrees():
    info = m.camera_info(K, (480, 640), NOW, "camera_optical")
    assert (info.height, info.width, info.header.frame_id) == (480, 640, "camera_optical")
    np.testing.assert_array_equal(m.intrinsics(info), K)
    np.testing.assert_array_equal(info.p.reshape(3, 4)[:, :3], K)
    np.testing.assert_array_equal(info.r.reshape(3, 3), np.eye(3))


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("value", BAD)
def test_intrinsics_must_be_finite(index, value):
    info = m.camera_info(K, (480, 640), NOW, "")
    info.k[index] = value
    assert refused(m.intrinsics, info)


def test_uncalibrated_cameras_are_refused():
    assert refused(m.intrinsics, CameraInfo())
    for index, value in ((0, -600.0), (4, 0.0), (8, 0.0), (6, 1.0)):
        info = m.camera_info(K, (480, 640), NOW, "")
        info.k[index] = value
        assert refused(m.intrinsics, info)
    assert refused(m.camera_info, np.eye(4), (480, 640), NOW, "")


# Point clouds


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3))), st.booleans())
@few
def test_clouds_survive(points, colored):
    colors = np.full(points.shape, 200, np.uint8) if colored else None
    message = m.cloud_message(points, colors, NOW, "map")
    assert message.row_step == len(message.data) == len(points) * message.point_step
    assert message.is_dense == bool(np.isfinite(points).all())
    read = m.cloud_array(message)
    assert read.shape == points.shape
    np.testing.assert_array_equal(read, points)
    kept = m.cloud_array(message, finite_only=True)
    np.testing.assert_array_equal(kept, points[np.isfinite(points).all(axis=1)])


def test_colours_of_a_cloud_are_packed_as_pcl_has_them():
    message = m.cloud_message([[1, 2, 3]], np.array([[0x11, 0x22, 0x33]], np.uint8), NOW, "")
    assert [field.name for field in message.fields] == ["x", "y", "z", "rgb"]
    assert np.frombuffer(message.data, "<u4")[3] == 0x112233


@st.composite
def foreign_clouds(draw):
    """A cloud as other programs lay it out, and its points."""
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    big_endian = draw(st.booleans())
    points = draw(hnp.arrays(np.float32, (height, width, 3)))
    fields, offset = [], draw(st.integers(0, 3))
    message = PointCloud2(height=height, width=width, is_bigendian=big_endian)
    for name in draw(st.permutations(("x", "y", "z", "intensity"))):
        datatype = draw(st.sampled_from((PointField.FLOAT32, PointField.FLOAT64)))
        fields.append(PointField(name=name, offset=offset, datatype=datatype, count=1))
        offset += (4 if datatype == PointField.FLOAT32 else 8) + draw(st.integers(0, 3))
    message.point_step = offset
    message.row_step = width * offset + draw(st.integers(0, 5))
    data = np.full((height, message.row_step), 0xAB, np.uint8)
    for field in fields:
        if field.name in "xyz":
            size = 4 if field.datatype == PointField.FLOAT32 else 8
            dtype = np.dtype(f"{'>' if big_endian else '<'}f{size}")
            with np.errstate(invalid="ignore"):
                column = points[..., "xyz".index(field.name)].astype(dtype)
            for row, place in np.ndindex(height, width):
                start = place * offset + field.offset
                data[row, start : start + size] = column[row, place, None].view(np.uint8)
    message.fields = fields
    message.data.frombytes(data.tobytes())
    return message, points.reshape(-1, 3)


@given(foreign_clouds())
@few
def test_offsets_steps_rows_types_and_byte_order_of_clouds_are_respected(cloud):
    message, points = cloud
    np.testing.assert_array_equal(m.cloud_array(message), points)


def test_doubles_beyond_float32_become_infinite_without_a_warning():
    message = PointCloud2(height=1, width=1, point_step=24, row_step=24)
    message.fields = [
        PointField(name=name, offset=8 * i, datatype=PointField.FLOAT64, count=1)
        for i, name in enumerate("xyz")
    ]
    message.data.frombytes(np.array([1e300, 1, 2], "<f8").tobytes())
    assert m.cloud_array(message).tolist() == [[math.inf, 1, 2]]
    assert len(m.cloud_array(message, finite_only=True)) == 0


CLOUD_FAULTS = {
    "height": st.integers(2, 2**32 - 1),
    "width": st.integers(6, 2**32 - 1),
    "point_step": st.integers(0, 11) | st.integers(100, 2**32 - 1),
    "row_step": st.integers(0, 59) | st.integers(100, 2**32 - 1),
    "data": st.integers(1, 60),
    "fields": st.integers(0, 2),
    "offset": st.integers(13, 2**32 - 1),
    "count": st.just(0) | st.integers(2, 2**32 - 1),
    "datatype": st.sampled_from([0, 1, 2, 3, 4, 5, 6, 9, 255]),
    "name": st.sampled_from(["", "y", "X", "a" * 10_000]),
}


@given(data=st.data())
@hundreds
def test_malformed_clouds_are_refused(data):
    message = m.cloud_message(np.ones((5, 3)), None, NOW, "")
    name = data.draw(st.sampled_from(sorted(CLOUD_FAULTS)))
    fault = data.draw(CLOUD_FAULTS[name])
    if name == "data":
        del message.data[-fault:]
    elif name == "fields":
        del message.fields[fault]
    else:
        setattr(message if hasattr(message, name) else message.fields[0], name, fault)
    assert refused(m.cloud_array, message)


@given(uint32, uint32, uint32, uint32, st.binary(max_size=64))
@few
def test_any_cloud_is_read_or_refused(height, width, point_step, row_step, data):
    message = m.cloud_message(np.ones((1, 3)), None, NOW, "")
    message.height, message.width = height, width
    message.point_step, message.row_step = point_step, row_step
    message.data.frombytes(data)
    assert refused(m.cloud_array, message) or m.cloud_array(message).shape == (height * width, 3)


def test_points_and_colours_of_other_shapes_are_refused():
    assert refused(m.cloud_message, np.zeros((4, 2)), None, NOW, "")
    assert refused(m.cloud_message, np.zeros(3), None, NOW, "")
    assert refused(m.cloud_message, np.zeros((4, 3)), np.zeros((3, 3), np.uint8), NOW, "")
    assert refused(m.cloud_message, np.zeros((4, 3)), np.zeros((4, 3)), NOW, "")
    assert refused(m.cloud_array, PointCloud2())


# Poses and twists


def pose(position=(0.0, 0.0, 0.0), quaternion=(0.0, 0.0, 0.0, 1.0)):
    message = PoseStamped()
    message.pose.position = Point(**dict(zip("xyz", position, strict=True)))
    message.pose.orientation = Quaternion(**dict(zip("xyzw", quaternion, strict=True)))
    return message


@given(hnp.arrays(np.float64, 3, elements=finite), hnp.arrays(np.float64, 4, elements=finite))
@few
def test_poses_survive_bit_for_bit(position, quaternion):
    with np.errstate(all="ignore"):
        norm = np.linalg.norm(quaternion)
        unit = quaternion / norm if 1e-6 < norm < 1e150 else np.array([0.0, -0.0, 0.6, 0.8])
    unit *= 1 + 5e-4  # within the tolerance, and not to be "mended"
    message = m.pose_message(position, unit, NOW, "map")
    read = m.pose_arrays(message)
    assert read[0].tobytes() == position.tobytes()
    assert read[1].tobytes() == unit.tobytes()


@given(hnp.arrays(np.float64, 4, elements=finite))
@hundreds
def test_any_finite_quaternion_becomes_a_unit_one_or_is_refused(quaternion):
    message = pose(quaternion=quaternion.tolist())
    if refused(m.pose_arrays, message):
        assert math.hypot(*quaternion) < 1e-6 or math.hypot(*quaternion) == math.inf
    else:
        norm = np.linalg.norm(m.pose_arrays(message)[1])
        assert norm == pytest.approx(1, abs=m.UNIT_NORM_TOLERANCE * 1.001)


def test_long_quaternions_are_normalised():
    np.testing.assert_allclose(
        m.pose_arrays(pose(quaternion=(0.0, 0.0, 3.0, 4.0)))[1][2:], (0.6, 0.8)
    )
    huge = m.pose_arrays(pose(quaternion=(0.0, 0.0, 1e200, 0.0)))[1]
    assert huge.tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("value", BAD)
def test_poses_must_be_finite(index, value):
    numbers = [0.0] * 6 + [1.0]
    numbers[index] = value
    assert refused(m.pose_arrays, pose(numbers[:3], numbers[3:]))


def test_a_zero_quaternion_is_no_rotation():
    assert refused(m.pose_arrays, pose(quaternion=(0.0,) * 4))
    assert refused(m.pose_arrays, pose(quaternion=(0.0, 0.0, 0.0, 1e-9)))


@given(hnp.arrays(np.float64, 6))
@few
def test_twists_survive_also_when_not_finite(twist):
    message = m.twist_message(twist[:3], twist[3:], NOW, "base_link")
    assert message.header.frame_id == "base_link"
    np.testing.assert_array_equal(m.twist_array(message), twist)


# Joints


@given(st.permutations(range(3)), hnp.arrays(np.float64, 3, elements=finite))
@few
def test_joints_are_found_by_name_in_any_order(order, positions):
    message = m.joint_message(NAMES, positions, 2 * np.ones(3), NOW)
    wanted = [NAMES[i] for i in order]
    np.testing.assert_array_equal(m.joint_positions(message, wanted), positions[list(order)])
    np.testing.assert_array_equal(m.joint_positions(message, wanted[:1]), positions[order[:1]])
    assert message.velocity.tolist() == [2, 2, 2]
    assert not m.joint_message(NAMES, positions, None, NOW).velocity


def drop(values, index):
    del values[index]


def spoil(values, index, value):
    values[index] = value


JOINT_FAULTS = {
    "missing": lambda s, i, v: s.name.__setitem__(i, "another"),
    "unnamed": lambda s, i, v: s.name.__setitem__(i, ""),
    "twice": lambda s, i, v: s.name.__setitem__(i, NAMES[i - 1]),
    "name more": lambda s, i, v: s.name.append("another"),
    "name less": lambda s, i, v: drop(s.name, i),
    "position less": lambda s, i, v: drop(s.position, i),
    "position more": lambda s, i, v: s.position.append(v),
    "no position": lambda s, i, v: drop(s.position, slice(None)),
    "velocity less": lambda s, i, v: drop(s.velocity, i),
    "effort one": lambda s, i, v: s.effort.append(0.0),
    "not finite": lambda s, i, v: spoil(s.position, i, v),
}


@given(st.sampled_from(sorted(JOINT_FAULTS)), st.integers(0, 2), st.sampled_from(BAD))
@thousand
def test_malformed_joint_states_are_refused(fault, index, value):
    message = m.joint_message(NAMES, np.ones(3), np.ones(3), NOW)
    JOINT_FAULTS[fault](message, index, value)
    assert refused(m.joint_positions, message, NAMES)


@given(
    st.lists(st.sampled_from([*NAMES, "another", ""]), max_size=5),
    *[st.lists(st.floats(), max_size=5) for _ in range(3)],
)
@hundreds
def test_any_joint_state_is_read_finite_or_refused(names, position, velocity, effort):
    message = JointState(name=names, position=position, velocity=velocity, effort=effort)
    if not refused(m.joint_positions, message, NAMES):
        read = m.joint_positions(message, NAMES)
        assert read.shape == (3,)
        assert np.isfinite(read).all()


def test_joints_that_nobody_asks_for_may_be_anything():
    message = m.joint_message((*NAMES, "gripper"), [1, 2, 3, math.nan], None, NOW)
    assert m.joint_positions(message, NAMES).tolist() == [1, 2, 3]
    assert refused(m.joint_positions, message, ("gripper",))


def test_joint_messages_need_one_number_per_name():
    assert refused(m.joint_message, NAMES, np.ones(2), None, NOW)
    assert refused(m.joint_message, NAMES, np.ones(3), np.ones(4), NOW)
    assert refused(m.joint_message, ("a", "a"), np.ones(2), None, NOW)


@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.just(3))), st.permutations(range(3)))
@few
def test_trajectories_survive_in_any_order_also_when_not_finite(positions, order):
    times = np.arange(len(positions)) * 0.1
    message = m.trajectory_message(NAMES, positions, times, NOW)
    read = m.trajectory_arrays(message, [NAMES[i] for i in order])
    np.testing.assert_array_equal(read[0], positions[:, order])
    np.testing.assert_allclose(read[1], times, rtol=0, atol=5e-10)


def trajectory(times=(0.0, 0.5)):
    return m.trajectory_message(NAMES, np.zeros((len(times), 3)), times, NOW)


def test_malformed_trajectories_are_refused():
    assert not refused(m.trajectory_arrays, trajectory(), NAMES)
    assert refused(m.trajectory_arrays, trajectory(()), NAMES)
    assert refused(m.trajectory_arrays, trajectory((0.5, 0.5)), NAMES)
    assert refused(m.trajectory_arrays, trajectory((0.5, 0.4)), NAMES)
    assert refused(m.trajectory_arrays, trajectory(), NAMES[:2])
    assert refused(m.trajectory_arrays, trajectory(), (*NAMES, "another"))
    assert refused(m.trajectory_arrays, trajectory(), ("shoulder", "elbow", "another"))
    for field in ("positions", "velocities", "accelerations", "effort"):
        message = trajectory()
        getattr(message.points[1], field).append(0.0)
        assert refused(m.trajectory_arrays, message, NAMES)
    for sec, nanosec in ((-1, 0), (0, 2**32 - 1)):
        message = trajectory()
        message.points[0].time_from_start = Duration(sec=sec, nanosec=nanosec)
        assert refused(m.trajectory_arrays, message, NAMES)


@pytest.mark.parametrize("time", [*BAD, -0.1, 2.0**31])
def test_times_that_a_duration_cannot_hold_are_refused(time):
    assert refused(trajectory, (time,))


def test_trajectories_need_a_row_per_time_and_a_column_per_joint():
    assert refused(m.trajectory_message, NAMES, np.zeros((2, 3)), [0.0], NOW)
    assert refused(m.trajectory_message, NAMES, np.zeros((1, 2)), [0.0], NOW)
    assert refused(m.trajectory_message, NAMES, np.zeros((1, 3)), [[0.0]], NOW)


@given(hnp.arrays(np.float64, st.integers(0, 9)))
@few
def test_arrays_survive_also_when_not_finite(values):
    message = m.multi_array(values)
    np.testing.assert_array_equal(m.multi_array_values(message, len(values)), values)
    assert refused(m.multi_array_values, message, len(values) + 1)


def test_the_layout_of_an_array_must_be_flat():
    def laid_out(sizes, offset=0):
        dim = [MultiArrayDimension(label="", size=size, stride=size) for size in sizes]
        layout = MultiArrayLayout(dim=dim, data_offset=offset)
        return Float64MultiArray(layout=layout, data=[0.0] * 6)

    assert not refused(m.multi_array_values, laid_out([6]), 6)
    for message in (laid_out([2, 3]), laid_out([5]), laid_out([6], 1), laid_out([], 1)):
        assert refused(m.multi_array_values, message, 6)
    assert refused(m.multi_array, [[1.0]])


# Time


@given(st.integers(0, 2**31 * 10**9 - 1))
@few
def test_time_survives_to_the_nanosecond(ns):
    assert m.nanoseconds(m.stamp_of(ns)) == ns
    assert m.nanoseconds(m.stamp_of(np.int64(ns))) == ns


@pytest.mark.parametrize("ns", [-1, 2**31 * 10**9, 10**30])
def test_time_beyond_a_stamp_is_refused(ns):
    assert refused(m.stamp_of, ns)


def test_malformed_stamps_are_refused():
    assert refused(m.nanoseconds, Time(sec=-1, nanosec=0))
    assert refused(m.nanoseconds, Time(sec=0, nanosec=10**9))


# The wire and the checks of rclpy


def one_of_each():
    points, colors = np.ones((2, 3)), np.ones((2, 3), np.uint8)
    return [
        *(
            m.image_message(
                np.ones((2, 2, p.channels)[: 2 + (p.channels > 1)], p.dtype), e, NOW, ""
            )
            for e, p in m.ENCODINGS.items()
        ),
        m.depth_message([[1]], NOW, "a"),
        m.camera_info(K.tolist(), (np.int64(2), np.int64(3)), NOW, "a"),
        m.cloud_message(points, colors, NOW, "a"),
        m.cloud_message(points[:0], None, NOW, "a"),
        m.pose_message(np.ones(3, np.float32), [0, 0, 0, 1], NOW, "a"),
        m.twist_message([1, 2, 3], (4, 5, 6), NOW, "a"),
        m.joint_message(NAMES, [1, 2, 3], np.ones(3, np.float32), NOW),
        m.trajectory_message(NAMES, [[1, 2, 3]], [1], NOW),
        m.multi_array(range(3)),
        m.stamp_of(np.int64(1)),
    ]


# rclpy's own generator brings a parser that is behind Python 3.11.
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")
def test_every_message_survives_the_wire():
    for message in one_of_each():
        again = deserialize_message(serialize_message(message), type(message))
        # Messages with NumPy fields do not compare; serialised ones have padding of any value.
        assert repr(again) == repr(message)


@pytest.mark.parametrize("checks", ["0", "1"])
def test_every_message_is_built_with_and_without_field_checks(checks):
    # In a process of its own: another test may have imported the messages without checks.
    code = (
        "import test_ros_messages as t; from sensor_msgs.msg import _image\n"
        "t.one_of_each(); t.test_every_message_survives_the_wire()\n"
        "print(_image.ros_python_check_fields)"
    )
    if checks == "0":
        code = "import sensor_msgs.msg, geometry_msgs.msg, trajectory_msgs.msg\n" + code
    env = os.environ | {"ROS_PYTHON_CHECK_FIELDS": checks, "PYTHONPATH": str(ROOT)}
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT / "tests", env=env, text=True
    )
    assert output.split() == [checks]
