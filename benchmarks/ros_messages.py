"""What a ROS message costs to fill and to read, beside the ways that suggest themselves.

    python -m benchmarks.ros_messages [--seconds 0.5] [--json]

Images of 640x480 and the cloud of 307,200 points that belongs to one. The naive way to fill is
`message.data = values.tolist()` (`list(values)` takes three times as long, and field checks refuse
it), to read `np.array(list(message.data), np.uint8)`; for a cloud, `struct` point by point. CPU
milliseconds (`process_time`) of this one process: median, 10th and 90th percentile over batches of
about 2 ms. Ours and the naive way alternate, so that a busy machine slows both. Field checks of
rclpy are as ROS_PYTHON_CHECK_FIELDS says (off by default).
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from decisive import provenance
from ros_nodes import messages

HEIGHT, WIDTH = 480, 640
BATCH_S = 0.002
TARGETS_MS = {"write rgb8": 0.2, "read rgb8": 0.05}
STAMP = messages.stamp_of(0)
JOINTS = [f"joint_{i}" for i in range(7)]

Case = tuple[Callable[[], object], Callable[[], object] | None]


def naive_fill(pixels: np.ndarray) -> Image:
    """The image message of tutorials: a list of numbers."""
    message = Image(height=HEIGHT, width=WIDTH, step=pixels.nbytes // HEIGHT)
    message.data = pixels.reshape(-1).view(np.uint8).tolist()
    return message


def naive_read(message: Image, pixels: np.ndarray) -> np.ndarray:
    """The same backwards."""
    data = np.array(list(message.data), np.uint8)
    return data.view(pixels.dtype).reshape(pixels.shape)


def naive_cloud(points: np.ndarray) -> PointCloud2:
    """A cloud packed point by point."""
    message = PointCloud2(height=1, width=len(points), point_step=12)
    message.data = b"".join(struct.pack("<fff", *point) for point in points)
    return message


def naive_points(message: PointCloud2) -> np.ndarray:
    """A cloud unpacked point by point."""
    return np.array(list(struct.iter_unpack("<fff", message.data)), np.float32)


def image_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Filling and reading of each encoding."""
    cases: dict[str, Case] = {}
    for encoding, pixel in messages.ENCODINGS.items():
        shape = (HEIGHT, WIDTH, pixel.channels) if pixel.channels > 1 else (HEIGHT, WIDTH)
        pixels = rng.integers(1, 256, shape).astype(pixel.dtype)
        message = messages.image_message(pixels, encoding, STAMP, "")

        def write(pixels: np.ndarray = pixels, encoding: str = encoding) -> object:
            return messages.image_message(pixels, encoding, STAMP, "")

        def read(message: Image = message) -> object:
            return messages.image_array(message)

        def slow_write(pixels: np.ndarray = pixels) -> object:
            return naive_fill(pixels)

        def slow_read(message: Image = message, pixels: np.ndarray = pixels) -> object:
            return naive_read(message, pixels)

        cases[f"write {encoding}"] = (write, slow_write)
        cases[f"read {encoding}"] = (read, slow_read)
    return cases


def other_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Depth, clouds, and the small messages of a control loop."""
    metres = rng.uniform(0.3, 3, (HEIGHT, WIDTH)).astype(np.float32)
    depth = messages.depth_message(metres, STAMP, "")
    millimetres = messages.image_message((metres * 1000).astype(np.uint16), "16UC1", STAMP, "")
    points = rng.normal(size=(HEIGHT * WIDTH, 3)).astype(np.float32)
    colors = rng.integers(0, 256, points.shape).astype(np.uint8)
    cloud = messages.cloud_message(points, None, STAMP, "")
    numbers, times = rng.normal(size=(16, len(JOINTS))), np.arange(1, 17) / 10
    joints = messages.joint_message(JOINTS, numbers[0], numbers[1], STAMP)
    chunk = messages.trajectory_message(JOINTS, numbers, times, STAMP)
    pose = messages.pose_message(numbers[0, :3], (0, 0, 0, 1), STAMP, "")
    twist = messages.twist_message(numbers[0, :3], numbers[1, :3], STAMP, "")
    return {
        "write depth": (lambda: messages.depth_message(metres, STAMP, ""), None),
        "read depth 32FC1": (lambda: messages.depth_array(depth), None),
        "read depth 16UC1": (lambda: messages.depth_array(millimetres), None),
        "write cloud": (
            lambda: messages.cloud_message(points, None, STAMP, ""),
            lambda: naive_cloud(points),
        ),
        "write cloud with colours": (
            lambda: messages.cloud_message(points, colors, STAMP, ""),
            None,
        ),
        "read cloud": (lambda: messages.cloud_array(cloud), lambda: naive_points(cloud)),
        "read cloud, finite only": (lambda: messages.cloud_array(cloud, finite_only=True), None),
        "write 7 joints": (
            lambda: messages.joint_message(JOINTS, numbers[0], numbers[1], STAMP),
            None,
        ),
        "read 7 joints": (lambda: messages.joint_positions(joints, JOINTS), None),
        "write 16 x 7 trajectory": (
            lambda: messages.trajectory_message(JOINTS, numbers, times, STAMP),
            None,
        ),
        "read 16 x 7 trajectory": (lambda: messages.trajectory_arrays(chunk, JOINTS), None),
        "read pose": (lambda: messages.pose_arrays(pose), None),
        "read twist": (lambda: messages.twist_array(twist), None),
    }


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """CPU milliseconds per call."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) * 1e3 / repeats


def measure(case: Case, seconds: float) -> dict[str, Any]:
    """Batches of ours and of the naive way in turn, for about so many CPU seconds."""
    ways = [way for way in case if way is not None]
    once = [max(milliseconds(way, 2), 1e-4) for way in ways]
    repeats = [max(1, int(BATCH_S * 1e3 / ms)) for ms in once]
    times: list[list[float]] = [[] for _ in ways]
    end = time.process_time() + seconds
    while len(times[0]) < 5 or time.process_time() < end:
        for way, n, taken in zip(ways, repeats, times, strict=True):
            taken.append(milliseconds(way, n))
    row: dict[str, Any] = {"batches": len(times[0])}
    for name, taken in zip(("ms", "naive_ms"), times, strict=False):
        p10, median, p90 = np.percentile(taken, (10, 50, 90)).tolist()
        row |= {name: round(median, 4), f"{name}_p10_p90": [round(p10, 4), round(p90, 4)]}
    if len(ways) > 1:
        row["ratio"] = round(row["naive_ms"] / row["ms"])
    return row


def run(seconds: float) -> dict[str, Any]:
    """Measures every conversion."""
    rng = np.random.default_rng(0)
    rows = []
    for name, case in {**image_cases(rng), **other_cases(rng)}.items():
        row = {"conversion": name, **measure(case, seconds)}
        if name in TARGETS_MS:
            row |= {"target_ms": TARGETS_MS[name], "met": row["ms"] <= TARGETS_MS[name]}
        rows.append(row)
    return {
        "benchmark": "ros_messages",
        "rows": rows,
        "field_checks": os.environ.get("ROS_PYTHON_CHECK_FIELDS") == "1",
        "seed": 0,
        "load": round(os.getloadavg()[0], 1),
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="CPU cost of ROS messages to and from arrays")
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU seconds per conversion")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    result = run(args.seconds)
    if args.json:
        print(json.dumps(result))
        return
    print(f"CPU ms, median (p10 to p90), {result['machine']['cpu']}, load {result['load']}")
    print(f"{'conversion':26s} {'ours':>26s} {'naive':>30s}  ratio")
    for row in result["rows"]:
        line = f"{row['conversion']:26s}"
        for name, width in (("ms", 10), ("naive_ms", 14)):
            if name in row:
                low, high = row[f"{name}_p10_p90"]
                line += f" {row[name]:{width}.4f} ({low:.4f} to {high:.4f})"
        print(line + (f"  {row['ratio']}" if "ratio" in row else ""))


if __name__ == "__main__":
    main()
