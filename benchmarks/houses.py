"""What procedural houses cost: building one, and a panorama against its own ray cast.

    python -m benchmarks.houses [--houses 8] [--repeats 30] [--size 256x512] [--json FILE]

One thread throughout. "build" is `generate_house`; "simulator" adds triangles, ray-casting scene
and materials. For every house, casts alone and whole panoramas (colours, categories, depth) from
the same viewpoints take turns, so both see the same load; the ratio is that of their medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from decisive.provenance import commit, machine, versions
from envs.indoor.equirectangular import directions
from envs.indoor.house import GENERATOR, generate_house
from envs.indoor.procedural import ProceduralSimulator


def measure(seed: int, repeats: int, size: tuple[int, int]) -> dict[str, Any]:
    """Times of one house in seconds and milliseconds."""
    start = time.perf_counter()
    house = generate_house(seed)
    built = time.perf_counter()
    simulator = ProceduralSimulator(house)
    ready = time.perf_counter()
    rays = np.zeros((size[0] * size[1], 6), np.float32)
    rays[:, 3:] = directions(*size).reshape(-1, 3)
    casts, panoramas = [], []
    for k in range(repeats + 3):  # the first three warm up
        viewpoint = house.graph.viewpoints[k % len(house.graph)]
        rays[:, :3] = house.graph.positions[house.graph.index(viewpoint)]
        t0 = time.perf_counter()
        simulator.cast(rays)
        t1 = time.perf_counter()
        simulator.observe(viewpoint, size)
        t2 = time.perf_counter()
        casts.append(1e3 * (t1 - t0))
        panoramas.append(1e3 * (t2 - t1))
    cast, panorama = statistics.median(casts[3:]), statistics.median(panoramas[3:])
    return {
        "house": house.name,
        "rooms": len(house.rooms),
        "viewpoints": len(house.graph),
        "triangles": len(simulator.mesh.triangles),
        "build_s": built - start,
        "simulator_s": ready - built,
        "cast_ms": cast,
        "cast_ms_quartiles": np.percentile(casts[3:], [25, 75]).tolist(),
        "panorama_ms": panorama,
        "panorama_ms_quartiles": np.percentile(panoramas[3:], [25, 75]).tolist(),
        "ratio": panorama / cast,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--houses", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--size", default="256x512", help="rows x columns")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    height, width = (int(value) for value in options.size.split("x"))
    generate_house(0)  # patterns and tables are made once
    rows = [measure(seed, options.repeats, (height, width)) for seed in range(options.houses)]
    middle = {
        key: statistics.median(row[key] for row in rows)
        for key in ("triangles", "build_s", "simulator_s", "cast_ms", "panorama_ms", "ratio")
    }
    result = {
        "generator": GENERATOR,
        "size": [height, width],
        "threads": 1,
        "median": middle,
        "worst_ratio": max(row["ratio"] for row in rows),
        "worst_build_s": max(row["build_s"] + row["simulator_s"] for row in rows),
        "houses": rows,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: result[key] for key in ("median", "worst_ratio", "worst_build_s")}))


if __name__ == "__main__":
    main()
