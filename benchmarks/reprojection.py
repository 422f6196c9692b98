"""Points to panorama: one packed key against the two scatters of the public release.

    OMP_NUM_THREADS=1 python -m benchmarks.reprojection [--points 1000000] [--json]

The baseline does what google-research/pathdreamer does: least depth a pixel, then, among the points
within 0.1 m of it, the greatest class and the greatest of every colour channel, points that are not
seen multiplied to pixel 0. It is written twice, with torch's `scatter_reduce` and with NumPy's
`ufunc.at`. The release itself runs on TensorFlow, which Decisive does not depend on: no number of
this benchmark is TensorFlow's. The methods take turns in one process; CPU time, one thread; a ratio
is the median of those of the single turns.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from decisive import provenance
from world_models.pathdreamer.guidance import Points
from world_models.pathdreamer.reprojection import nearest_points

SIZE = (512, 1024)
MAX_DEPTH = 10.0
MARGIN = 0.1


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


METHODS: dict[str, Callable[[Points, np.ndarray], None]] = {
    "packed key": packed,
    "two scatters, torch": two_scatters_torch,
    "two scatters, NumPy": two_scatters_numpy,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    n = arguments.points
    points = Points(
        (rng.normal(size=(3, n)) * 3).astype(np.float32),
        np.concatenate(
            [rng.integers(256, size=(n, 3)), rng.integers(1, 41, size=(n, 1))], axis=1
        ).astype(np.uint8),
    )
    camera = np.zeros(3)
    times: dict[str, list[float]] = {name: [] for name in METHODS}
    for repeat in range(arguments.repeats + 1):
        for name, method in METHODS.items():
            begin = time.process_time()
            method(points, camera)
            if repeat:  # the first warms up
                times[name].append(1e3 * (time.process_time() - begin))
    ours = times["packed key"]
    # Every position is read; of each pixel, colours and class are read and, with depth, written.
    bound = (n * 12 + SIZE[0] * SIZE[1] * (4 + 8)) / 1e6
    answer = {
        "points": n,
        "size": SIZE,
        "least_mb": round(bound, 1),
        "methods": {
            name: {
                "ms_median": round(statistics.median(values), 1),
                "ms_min": round(min(values), 1),
                "ratio": round(
                    statistics.median(a / b for a, b in zip(values, ours, strict=True)), 2
                ),
            }
            for name, values in times.items()
        },
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "machine": provenance.machine(),
    }
    if arguments.json:
        print(json.dumps(answer, indent=2))
        return
    print(f"{n} points to {SIZE[0]} x {SIZE[1]}; {bound:.1f} MB are read and written at the least")
    for name, row in answer["methods"].items():
        print(f"{name:20} median {row['ms_median']} ms, best {row['ms_min']}, {row['ratio']}x")


if __name__ == "__main__":
    main()
