"""ROS messages to NumPy arrays and back: pure functions, no node, no graph.

What every conversion keeps to:

- Writers raise `ValueError` for shapes and numbers that the message cannot hold, and look no
  further: NaN may be published on purpose.
- Readers trust nothing. A malformed message is a `ValueError` of one sentence and nothing else.
  Only commands (`twist_array`, `trajectory_arrays`, `multi_array_values`) let NaN and infinity
  through: the safety gate behind them rejects and counts those.
- Colours are RGB or RGBA in arrays, whatever the wire says. `stamp` is when something was measured
  or shall begin; in arithmetic it is whole nanoseconds, as a float of seconds since 1970 is 0.2
  microseconds coarse.
"""

from __future__ import annotations

import array
import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, PoseStamped, Quaternion, TwistStamped, Vector3
from sensor_msgs.msg import CameraInfo, Image, JointState, PointCloud2, PointField
from std_msgs.msg import Float64MultiArray, Header
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

MAX_BYTES = 64 * 2**20
"""Largest image or cloud that is read: a frame of 3840 x 2160 32FC1 has half of it."""

NANOSECONDS_PER_SECOND = 10**9
UNIT_NORM_TOLERANCE = 1e-3  # within it a quaternion is left alone, and survives bit for bit
LEAST_NORM = 1e-6  # a shorter quaternion is rounding noise


class PixelFormat(NamedTuple):
    """How one encoding stores a pixel; `reverses_rgb` if blue comes first on the wire."""

    dtype: np.dtype
    channels: int
    reverses_rgb: bool = False

    def reordered(self, pixels: np.ndarray) -> np.ndarray:
        """From RGB(A) to the wire's order or back, `(H, W, C)`; itself if they are the same."""
        if not self.reverses_rgb:
            return pixels
        return _copy_columns(np.empty(pixels.shape, self.dtype), pixels, (2, 1, 0, 3))


_U8, _U16, _F32, _F64 = map(np.dtype, (np.uint8, np.uint16, np.float32, np.float64))
ENCODINGS: dict[str, PixelFormat] = {
    "rgb8": PixelFormat(_U8, 3),
    "bgr8": PixelFormat(_U8, 3, reverses_rgb=True),
    "rgba8": PixelFormat(_U8, 4),
    "bgra8": PixelFormat(_U8, 4, reverses_rgb=True),
    "mono8": PixelFormat(_U8, 1),
    "mono16": PixelFormat(_U16, 1),
    "16UC1": PixelFormat(_U16, 1),
    "32FC1": PixelFormat(_F32, 1),
    "32FC3": PixelFormat(_F32, 3),
}
_FIELD_DTYPES: dict[int, np.dtype] = {PointField.FLOAT32: _F32, PointField.FLOAT64: _F64}


def nanoseconds(stamp: Time | Duration) -> int:
    """Nanoseconds of a stamp or a duration; `ValueError` if negative or `nanosec` >= 1e9."""
    if stamp.sec < 0 or not 0 <= stamp.nanosec < NANOSECONDS_PER_SECOND:
        raise ValueError(f"time must be >= 0 with nanosec < 1e9, got {stamp.sec}, {stamp.nanosec}")
    return stamp.sec * NANOSECONDS_PER_SECOND + stamp.nanosec


def stamp_of(ns: int) -> Time:
    """Stamp of so many nanoseconds; `ValueError` if negative or of more than 2**31 - 1 seconds."""
    sec, nanosec = _split(ns)
    return Time(sec=sec, nanosec=nanosec)


def image_message(pixels: np.ndarray, encoding: str, stamp: Time, frame_id: str) -> Image:
    """Image of an array, in one of `ENCODINGS`; the bytes are copied once and never cast.

    `pixels` are `(H, W, 3)` or `(H, W, 4)` uint8 in RGB(A) order, also for bgr8 and bgra8,
    `(H, W)` uint8, uint16 or float32, or `(H, W, 3)` float32. The frame is an optical one: z
    forward, x right, y down.
    """
    pixel = _pixel_format(encoding)
    shape = (*pixels.shape[:2], pixel.channels)[: 2 + (pixel.channels > 1)]
    if pixels.shape != shape or pixels.dtype != pixel.dtype or not pixels.size:
        channels = f", {pixel.channels}" if pixel.channels > 1 else ""
        got = f"{pixels.shape} {pixels.dtype}"
        raise ValueError(f"{encoding} must be (H, W{channels}) {pixel.dtype}, got {got}")
    height, width = pixels.shape[:2]
    message = Image(header=Header(stamp=stamp, frame_id=frame_id), encoding=encoding)
    message.height, message.width, message.step = height, width, pixels.nbytes // height
    _fill(message.data, pixel.reordered(pixels).astype(_wire(pixel.dtype), copy=False))
    return message


def image_array(message: Image, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Pixels of an image, read-only: copy what is changed or kept beyond the message.

    A view of the message's data, with a longer stride where rows are padded. Only bgr8, bgra8 and
    big-endian 16 and 32 bit are copies.

    Returns:
        Shape and dtype as `image_message` takes them, in RGB(A) order and native byte order.
    """
    pixel = _pixel_format(message.encoding)
    height, width, step = message.height, message.width, message.step
    pixel_bytes = pixel.channels * pixel.dtype.itemsize
    row = width * pixel_bytes
    if not height or not width:
        raise ValueError(f"image must have pixels, got width {width} and height {height}")
    if step < row:
        raise ValueError(f"step must be >= {row} bytes for {width} pixels, got {step}")
    if message.is_bigendian not in (0, 1):
        raise ValueError(f"is_bigendian must be 0 or 1, got {message.is_bigendian}")
    _check_size("image", len(message.data), step * height, max_bytes)
    shape, strides = (height, width, pixel.channels), (step, pixel_bytes, pixel.dtype.itemsize)
    wire = _wire(pixel.dtype, message.is_bigendian)
    pixels: np.ndarray = np.ndarray(shape, wire, message.data, strides=strides)
    pixels = pixel.reordered(pixels).astype(pixel.dtype, copy=False)
    pixels.flags.writeable = False
    return pixels[..., 0] if pixel.channels == 1 else pixels


def depth_message(metres: npt.ArrayLike, stamp: Time, frame_id: str) -> Image:
    """Depth along z as REP-118 has it: 32FC1 of `(H, W)` metres, NaN if not finite or not > 0."""
    return image_message(_valid_depth(np.asarray(metres, np.float32)), "32FC1", stamp, frame_id)


def depth_array(message: Image, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """Depth along z of a REP-118 image: `(H, W)` float32 metres, a copy, NaN where invalid.

    32FC1 is in metres, invalid if not finite or not > 0; 16UC1 in millimetres, invalid if 0.
    """
    if message.encoding not in ("32FC1", "16UC1"):
        raise ValueError(f"depth must be 32FC1 or 16UC1, got {message.encoding[:32]!r}")
    pixels = image_array(message, max_bytes)
    if message.encoding == "16UC1":
        pixels = np.divide(pixels, 1000, dtype=np.float32)
    return _valid_depth(pixels)


def camera_info(
    matrix: npt.ArrayLike, size: tuple[int, int], stamp: Time, frame_id: str
) -> CameraInfo:
    """Calibration of a camera without distortion; stamp and frame are those of the image.

    `matrix` is `[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]`, `size` is `(height, width)`, in pixels.
    """
    k = _floats(matrix, (3, 3), "camera matrix")
    message = CameraInfo(header=Header(stamp=stamp, frame_id=frame_id))
    message.height, message.width = map(int, size)
    message.distortion_model, message.d = "plumb_bob", array.array("d", [0.0] * 5)
    message.k, message.r = k.flatten(), np.eye(3).flatten()
    message.p = np.column_stack((k, np.zeros(3))).flatten()
    return message


def intrinsics(message: CameraInfo) -> np.ndarray:
    """Pinhole matrix K of the raw image in pixels, `(3, 3)` float64; distortion is left aside.

    Raises:
        ValueError: also for focal lengths of 0, which an uncalibrated camera sends.
    """
    matrix = np.array(message.k, np.float64).reshape(3, 3)
    if not np.isfinite(matrix).all():
        raise ValueError("camera matrix must be finite")
    if not (matrix[0, 0] > 0 and matrix[1, 1] > 0):
        raise ValueError(f"focal lengths must be > 0, got {matrix[0, 0]} and {matrix[1, 1]}")
    if matrix[2].tolist() != [0, 0, 1]:
        raise ValueError(f"last row of the camera matrix must be 0, 0, 1, got {matrix[2]}")
    return matrix


def cloud_message(
    points: npt.ArrayLike, colors: np.ndarray | None, stamp: Time, frame_id: str
) -> PointCloud2:
    """Cloud of `(N, 3)` metres in `frame_id`, as float32; N may be 0.

    `colors` are `(N, 3)` uint8 RGB or None, and become the `rgb` field of PCL and RViz.
    """
    xyz = np.asarray(points, np.float32)
    if xyz.ndim != 2 or xyz.shape[1] != 3:
        raise ValueError(f"points must be (N, 3), got {xyz.shape}")
    names = ["x", "y", "z"] if colors is None else ["x", "y", "z", "rgb"]
    wire = np.zeros((len(xyz), len(names)), _wire(_F32))
    _copy_columns(wire[:, :3], xyz, (0, 1, 2))
    if colors is not None:
        if colors.shape != xyz.shape or colors.dtype != _U8:
            raise ValueError(f"colors must be {xyz.shape} uint8, got {colors.shape} {colors.dtype}")
        # A float by declaration; in truth the little-endian bytes of 0x00RRGGBB.
        _copy_columns(wire.view(np.uint8)[:, 12:15], colors, (2, 1, 0))
    message = PointCloud2(header=Header(stamp=stamp, frame_id=frame_id), height=1, width=len(xyz))
    message.fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    message.point_step, message.row_step = 4 * len(names), wire.nbytes
    message.is_dense = bool(np.isfinite(xyz).all())
    _fill(message.data, wire)
    return message


def cloud_array(
    message: PointCloud2, *, finite_only: bool = False, max_bytes: int = MAX_BYTES
) -> np.ndarray:
    """Points of a cloud, organised or not, in either byte order, FLOAT32 or FLOAT64.

    Returns `(N, 3)` float32 metres, a copy, row after row of an organised cloud. `finite_only`
    leaves out points with a NaN or an infinity, which mean that nothing was hit.
    """
    height, width, step = message.height, message.width, message.point_step
    columns = [_xyz_field(message, name) for name in "xyz"]
    if message.row_step < width * step:
        raise ValueError(f"row_step must be >= {width * step} bytes, got {message.row_step}")
    _check_size("cloud", len(message.data), message.row_step * height, max_bytes)
    if not height * width:
        return np.empty((0, 3), np.float32)
    points = np.empty((height, width, 3), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # 1e300 becomes inf, a signalling NaN a NaN
        for i, (dtype, offset) in enumerate(columns):
            strides = (message.row_step, step)
            points[..., i] = np.ndarray((height, width), dtype, message.data, offset, strides)
    points = points.reshape(-1, 3)
    if not finite_only:
        return points
    x, y, z = np.isfinite(points).T
    return points.compress(x & y & z, axis=0)


def pose_message(
    position: npt.ArrayLike, quaternion: npt.ArrayLike, stamp: Time, frame_id: str
) -> PoseStamped:
    """Pose of a `(3,)` position in metres and a `(4,)` quaternion, xyzw."""
    x, y, z, w = _floats(quaternion, (4,), "quaternion").tolist()
    message = PoseStamped(header=Header(stamp=stamp, frame_id=frame_id))
    message.pose.position = Point(**_xyz(position, "position"))
    message.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
    return message


def pose_arrays(message: PoseStamped) -> tuple[np.ndarray, np.ndarray]:
    """Position and unit quaternion of a pose.

    Both are finite float64, `(3,)` metres and `(4,)` xyzw. A quaternion whose norm is within
    `UNIT_NORM_TOLERANCE` of 1 comes as it was sent, bit for bit; any other is normalised.
    """
    p, q = message.pose.position, message.pose.orientation
    position, quaternion = np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w])
    norm = math.hypot(*quaternion)  # Without overflow at 1e200, unlike a root of squares.
    if not (np.isfinite(position).all() and LEAST_NORM <= norm < math.inf):
        raise ValueError(f"pose must be finite with a rotation, got {position} and {quaternion}")
    return position, quaternion if abs(norm - 1) <= UNIT_NORM_TOLERANCE else quaternion / norm


def twist_message(
    linear: npt.ArrayLike, angular: npt.ArrayLike, stamp: Time, frame_id: str
) -> TwistStamped:
    """Twist of `(3,)` m/s and `(3,)` rad/s, both along the axes of `frame_id`."""
    message = TwistStamped(header=Header(stamp=stamp, frame_id=frame_id))
    message.twist.linear = Vector3(**_xyz(linear, "linear"))
    message.twist.angular = Vector3(**_xyz(angular, "angular"))
    return message


def twist_array(message: TwistStamped) -> np.ndarray:
    """`(6,)` float64: vx, vy, vz in m/s, wx, wy, wz in rad/s. Lets NaN and infinity through."""
    linear, angular = message.twist.linear, message.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def joint_message(
    names: Sequence[str], positions: npt.ArrayLike, velocities: npt.ArrayLike | None, stamp: Time
) -> JointState:
    """State of n joints: `(n,)` rad or m, and `(n,)` rad/s or m/s if known."""
    _check_unique(names)
    message = JointState(header=Header(stamp=stamp), name=list(names))
    _fill(message.position, _floats(positions, (len(names),), "positions"))
    if velocities is not None:
        _fill(message.velocity, _floats(velocities, (len(names),), "velocities"))
    return message


def joint_positions(message: JointState, names: Sequence[str]) -> np.ndarray:
    """Positions of the named joints in that order, `(n,)` float64 rad or m; others are left aside.

    Raises:
        ValueError: if a joint is missing or named twice, if positions, velocities or efforts are
            not one per joint (the last two may be absent), or a position asked for is not finite.
    """
    order = _order(message.name, names)
    _check_lengths(len(message.name), message.position, message.velocity, message.effort)
    positions = np.array(message.position, np.float64)[order]
    bad = [name for name, value in zip(names, positions, strict=True) if not np.isfinite(value)]
    if bad:
        raise ValueError(f"joint positions must be finite, those of {bad} are not")
    return positions


def trajectory_message(
    names: Sequence[str], positions: npt.ArrayLike, times: npt.ArrayLike, stamp: Time
) -> JointTrajectory:
    """Trajectory of `(T, n)` rad or m, without velocities.

    `times` are `(T,)` seconds after `stamp`, where a stamp of 0 means at once.
    """
    _check_unique(names)
    seconds = _floats(times, (np.size(times),), "times").tolist()
    rows = _floats(positions, (len(seconds), len(names)), "positions")
    points = []
    for row, second in zip(rows, seconds, strict=True):
        sec, nanosec = _split(second * NANOSECONDS_PER_SECOND)
        point = JointTrajectoryPoint(time_from_start=Duration(sec=sec, nanosec=nanosec))
        _fill(point.positions, row)
        points.append(point)
    return JointTrajectory(header=Header(stamp=stamp), joint_names=list(names), points=points)


def trajectory_arrays(
    message: JointTrajectory, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a trajectory in the order of `names`. Lets NaN and infinity through.

    Returns:
        `(T, n)` rad or m and `(T,)` seconds after the beginning, both float64, T >= 1.

    Raises:
        ValueError: if the message does not name exactly these joints, has no point or one with
            too few or too many entries, or its times are negative or do not increase.
    """
    order = _order(message.joint_names, names)
    if len(message.joint_names) != len(order):
        raise ValueError(f"message must name {len(order)} joints, got {len(message.joint_names)}")
    if not message.points:
        raise ValueError("trajectory must have a point")
    for point in message.points:
        optional = (point.velocities, point.accelerations, point.effort)
        _check_lengths(len(order), point.positions, *optional)
    times = [nanoseconds(point.time_from_start) for point in message.points]
    if any(later <= earlier for earlier, later in itertools.pairwise(times)):
        raise ValueError("times of a trajectory must increase")
    positions = np.array([point.positions for point in message.points], np.float64)
    return positions[:, order], np.array(times) / NANOSECONDS_PER_SECOND


def multi_array(values: npt.ArrayLike) -> Float64MultiArray:
    """Command of `(n,)` values; the layout stays empty, as group controllers expect."""
    message = Float64MultiArray()
    _fill(message.data, _floats(values, (np.size(values),), "values"))
    return message


def multi_array_values(message: Float64MultiArray, n: int) -> np.ndarray:
    """`(n,)` float64 of an array whose layout is empty or just n. Lets NaN and infinity through."""
    sizes = [dimension.size for dimension in message.layout.dim]
    if len(message.data) != n:
        raise ValueError(f"array must have {n} values, got {len(message.data)}")
    if message.layout.data_offset or sizes not in ([], [n]):
        raise ValueError(f"layout must be flat and without offset for {n} values")
    return np.array(message.data, np.float64)


def _split(ns: float) -> tuple[int, int]:
    if not 0 <= ns < 2**31 * NANOSECONDS_PER_SECOND:
        raise ValueError(f"time must be 0 to 2**31 - 1 seconds, got {ns} nanoseconds")
    return divmod(round(ns), NANOSECONDS_PER_SECOND)


def _fill(target: array.array, values: np.ndarray) -> None:
    # Into the message's own array: a list takes 30 to 150 ms for 640x480 rgb8, and an array that is
    # assigned is copied a second time.
    target.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)


def _copy_columns(target: np.ndarray, source: np.ndarray, order: Sequence[int]) -> np.ndarray:
    # Ten times faster than target[:] = source[..., order], whose inner loops are 3 long.
    for i in range(target.shape[-1]):
        target[..., i] = source[..., order[i]]
    return target


def _wire(dtype: np.dtype, big_endian: int = 0) -> np.dtype:
    return dtype.newbyteorder(">" if big_endian else "<")


def _floats(values: npt.ArrayLike, shape: tuple[int, ...], what: str) -> np.ndarray:
    floats = np.asarray(values, np.float64)
    if floats.shape != shape:
        raise ValueError(f"{what} must be {shape}, got {floats.shape}")
    return floats


def _xyz(values: npt.ArrayLike, what: str) -> dict[str, float]:
    return dict(zip("xyz", _floats(values, (3,), what).tolist(), strict=True))


def _pixel_format(encoding: str) -> PixelFormat:
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding must be one of {', '.join(ENCODINGS)}, got {encoding[:32]!r}")
    return ENCODINGS[encoding]


def _valid_depth(metres: np.ndarray) -> np.ndarray:
    return np.where((metres > 0) & (metres < np.inf), metres, np.float32(np.nan))


def _check_size(what: str, n_bytes: int, needed: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        raise ValueError(f"{what} has {n_bytes} bytes, more than the {max_bytes} allowed")
    if n_bytes < needed:
        raise ValueError(f"{what} has {n_bytes} bytes of data, rows of this step need {needed}")


def _xyz_field(message: PointCloud2, name: str) -> tuple[np.dtype, int]:
    found = [field for field in message.fields if field.name == name]
    if len(found) != 1:
        raise ValueError(f"cloud must have one field {name}, got {len(found)}")
    datatype, count, offset = found[0].datatype, found[0].count, found[0].offset
    if datatype not in _FIELD_DTYPES or count != 1:
        raise ValueError(f"{name} must be one FLOAT32 or FLOAT64, got {count} of type {datatype}")
    dtype = _wire(_FIELD_DTYPES[datatype], message.is_bigendian)
    if offset + dtype.itemsize > message.point_step:
        raise ValueError(f"field {name} at {offset} passes point_step {message.point_step}")
    return dtype, offset


def _check_lengths(n_joints: int, positions: Sequence, *optional: Sequence) -> None:
    lengths = [len(positions), *(len(values) for values in optional if len(values))]
    if any(length != n_joints for length in lengths):
        raise ValueError(f"every field must have {n_joints} entries, got {lengths}")


def _check_unique(names: Collection[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError("joint names must differ")


def _order(found: Collection[str], wanted: Sequence[str]) -> list[int]:
    _check_unique(found)
    _check_unique(wanted)
    where = {name: index for index, name in enumerate(found)}
    missing = [name for name in wanted if name not in where]
    if missing:
        raise ValueError(f"message lacks the joints {missing}")
    return [where[name] for name in wanted]
