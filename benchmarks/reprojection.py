"""Points to panorama: one packed key against the two scatters of the public release.

    OMP_NUM_THREADS=1 python -m benchmarks.reprojection [--points 1000000] [--tensorflow] [--json]

Three clouds: random points; the memory of a procedural house, whose points are in the order of its
voxels; and panoramas of that house point by point, in the order of pixels, as the release keeps
them. The house is seen from a viewpoint that none of its points were taken from.

The baseline does what google-research/pathdreamer does: least depth a pixel, then, among the points
within 0.1 m of it, the greatest class and the greatest of every colour channel, points that are not
seen multiplied to pixel 0. It is written with torch's `scatter_reduce`, with NumPy's `ufunc.at`
and, behind `--tensorflow`, with TensorFlow, which the release runs on and Decisive does not depend
on: as one graph (`tf.function`), and operation by operation, as the release calls it.

The methods take turns in one process; CPU time, one thread; a ratio is the median of those of the
single turns.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from decisive import provenance
from envs.indoor.house import generate_house
from envs.indoor.procedural import ProceduralSimulator
from world_models.pathdreamer.guidance import Points, unproject
from world_models.pathdreamer.memory import MemoryConfig, PointMemory
from world_models.pathdreamer.reprojection import nearest_points

SIZE = (512, 1024)
MAX_DEPTH = 10.0
MARGIN = 0.1
HOUSE = 0
"""Seed of the house, of the split "test"."""

Method = Callable[[Points, np.ndarray], None]


def packed(points: Points, camera: np.ndarray) -> None:
    """Ours: indices, and all channels gathered."""
    number, _ = nearest_points(points.positions, camera, SIZE, MAX_DEPTH)
    points.seen(number)


def two_scatters_torch(points: Points, camera: np.ndarray) -> None:
    """The release's way, with torch."""
    height, width = SIZE
    offset = torch.from_numpy(points.positions) - torch.from_numpy(camera.astype("f4"))[:, None]
    depth = offset.norm(dim=0)
    column = (math.pi - torch.atan2(offset[1], offset[0])) * (width / (2 * math.pi))
    row = torch.acos((offset[2] / depth).clamp(-1, 1)) * (height / math.pi)
    pixel = row.long().clamp(max=height - 1) * width + column.long() % width
    seen = (depth > 0) & (depth < MAX_DEPTH)
    pixel = pixel * seen
    least = torch.full((height * width,), MAX_DEPTH)
    least.scatter_reduce_(0, pixel, depth, "amin")
    front = (depth < least[pixel] + MARGIN) & seen
    pixel = pixel * front
    for channel in (points.semantic, *points.rgb.T):
        values = torch.from_numpy(np.ascontiguousarray(channel)).float() * front
        torch.zeros(height * width).scatter_reduce_(0, pixel, values, "amax")


def two_scatters_numpy(points: Points, camera: np.ndarray) -> None:
    """The release's way, with NumPy."""
    height, width = SIZE
    offset = points.positions - camera.astype("f4")[:, None]
    depth = np.linalg.norm(offset, axis=0)
    column = (math.pi - np.arctan2(offset[1], offset[0])) * np.float32(width / (2 * math.pi))
    row = np.arccos(np.clip(offset[2] / depth, -1, 1)) * np.float32(height / math.pi)
    pixel = np.minimum(row.astype(np.intp), height - 1) * width + column.astype(np.intp) % width
    seen = (depth > 0) & (depth < MAX_DEPTH)
    pixel = pixel * seen
    least = np.full(height * width, MAX_DEPTH, np.float32)
    np.minimum.at(least, pixel, depth)
    front = (depth < least[pixel] + MARGIN) & seen
    pixel = pixel * front
    for channel in (points.semantic, *points.rgb.T):
        np.maximum.at(np.zeros(height * width, np.float32), pixel, channel.astype("f4") * front)


def two_scatters_tensorflow(tf: Any, offset: Any, channels: Any) -> Any:
    """The release's way, with TensorFlow, whose scatters take all channels at once.

    Args:
        tf: TensorFlow.
        offset: `(3, N)` float32 from the camera.
        channels: `(N, 4)` float32.
    """
    height, width = SIZE
    x, y, z = tf.unstack(offset)
    depth = tf.sqrt(x * x + y * y + z * z)
    column = tf.cast((math.pi - tf.atan2(y, x)) * (width / (2 * math.pi)), tf.int32)
    row = tf.cast(tf.acos(tf.math.divide_no_nan(z, depth)) * (height / math.pi), tf.int32)
    seen = tf.cast((depth > 0) & (row < height) & (column < width), tf.int32)
    pixel = (row * width + column) * seen
    nothing = tf.fill((height * width,), MAX_DEPTH)
    least = tf.tensor_scatter_nd_min(nothing, pixel[:, None], depth)
    pixel *= tf.cast(depth < tf.gather(least, pixel) + MARGIN, tf.int32)
    blank = tf.zeros((height * width, 4))
    return least, tf.tensor_scatter_nd_max(blank, pixel[:, None], channels)


def tensorflow_methods() -> dict[str, Method]:
    """TensorFlow on one thread, as a graph and operation by operation.

    Points become tensors once, outside of what is measured: the release keeps them as such.
    """
    tf: Any = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    kept: dict[int, tuple[Any, Any]] = {}

    def call(scatters: Callable[[Any, Any], Any], points: Points, camera: np.ndarray) -> None:
        if id(points) not in kept:
            channels = points.channels.astype("f4")
            kept[id(points)] = tf.constant(points.positions), tf.constant(channels)
        positions, channels = kept[id(points)]
        scatters(positions - camera.astype("f4")[:, None], channels)

    plain = partial(two_scatters_tensorflow, tf)
    return {
        "two scatters, TensorFlow, graph": partial(call, tf.function(plain)),
        "two scatters, TensorFlow": partial(call, plain),
    }


METHODS: dict[str, Method] = {
    "packed key": packed,
    "two scatters, torch": two_scatters_torch,
    "two scatters, NumPy": two_scatters_numpy,
}


def random_points(n: int) -> tuple[Points, np.ndarray]:
    """Normally distributed around the camera."""
    rng = np.random.default_rng(0)
    channels = [rng.integers(256, size=(n, 3)), rng.integers(1, 41, size=(n, 1))]
    positions = (rng.normal(size=(3, n)) * 3).astype(np.float32)
    return Points(positions, np.concatenate(channels, axis=1).astype(np.uint8)), np.zeros(3)


def house_points(n: int) -> tuple[Points, Points, np.ndarray]:
    """Of a memory, and of panoramas as they are; the viewpoints nearest to the camera come first.

    Raises:
        ValueError: if the house has fewer points.
    """
    house = generate_house(HOUSE, "test")
    simulator, graph = ProceduralSimulator(house), house.graph
    memory = PointMemory(MemoryConfig(max_points=n))
    parts: list[Points] = []
    for k in np.argsort(graph.distances[0], kind="stable")[1:]:
        seen = simulator.observe(graph.viewpoints[k], SIZE)
        memory.add(seen)
        if sum(len(part) for part in parts) < n:
            parts.append(unproject(seen))
        if len(memory) == n:
            panoramas = Points.joined(parts).take(np.arange(n))
            return memory.points, panoramas, graph.positions[0]
    raise ValueError(f"{house.name} has only {len(memory)} points; choose fewer than {n}")


def measure(
    methods: dict[str, Method], points: Points, camera: np.ndarray, repeats: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of each method, and how many times as long as ours it takes."""
    times: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(repeats + 1):
        for name, method in methods.items():
            begin = time.process_time()
            method(points, camera)
            if repeat:  # the first warms up
                times[name].append(1e3 * (time.process_time() - begin))
    ours = times["packed key"]
    return {
        name: {
            "ms_median": round(statistics.median(values), 1),
            "ms_min": round(min(values), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(values, ours, strict=True)), 2),
        }
        for name, values in times.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tensorflow", action="store_true", help="needs TensorFlow installed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    torch.set_num_threads(1)
    n, methods, versions = arguments.points, dict(METHODS), provenance.versions()
    try:
        memory, panoramas, viewpoint = house_points(n)
        if arguments.tensorflow:
            methods |= tensorflow_methods()
            versions["tensorflow"] = importlib.import_module("tensorflow").__version__
    except (ImportError, ValueError) as error:
        parser.error(str(error))
    clouds = {
        "random": random_points(n),
        "memory of a house": (memory, viewpoint),
        "panoramas of a house": (panoramas, viewpoint),
    }
    # Every position is read; of each pixel, colours and class are read and, with depth, written.
    bound = (n * 12 + SIZE[0] * SIZE[1] * (4 + 8)) / 1e6
    answer = {
        "points": n,
        "size": SIZE,
        "least_mb": round(bound, 1),
        "clouds": {
            name: measure(methods, points, camera, arguments.repeats)
            for name, (points, camera) in clouds.items()
        },
        "versions": versions,
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return
    print(f"{n} points to {SIZE[0]} x {SIZE[1]}; {bound:.1f} MB are read and written at the least")
    for cloud, rows in answer["clouds"].items():
        for name, row in rows.items():
            print(
                f"{cloud:21} {name:32} median {row['ms_median']:6.1f} ms, "
                f"best {row['ms_min']:6.1f}, {row['ratio']:5.2f}x"
            )


if __name__ == "__main__":
    main()
