"""What one image costs on one core: torch as it is, ONNX Runtime, OpenVINO.

    python -m benchmarks.runtime [--models coatnet_0 vit_b16_tl8] [--rounds 7] [--json]

Untrained networks at 224 pixels, batch 1, one thread: the cost does not depend on the weights. The
runs take turns, round after round, so that a busy machine slows all of them; process CPU time
(`process_time`), median and interquartile range in milliseconds, and how many times faster than
torch in float32. Bfloat16 is measured only where the CPU multiplies it in hardware; it is forced
here, and its cosine with float32 is printed: on a robot, `compile_model` refuses a bad one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import torch

from benchmarks.policy_latency import commit, cpu_name
from learning.precision import has_bfloat16
from perception import create
from perception.runtime import Compiled, RuntimeConfig, compile_model, installed

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit_b16": ("vit_b16", {}),
    "vit_b16_tl8": ("vit_b16_tokenlearner", {"tokens": 8, "at": 0.25}),
    "coatnet_0": ("coatnet_0", {}),
    "efficientnetv2_b0": ("efficientnetv2_b0", {}),
    "efficientnetv2_s": ("efficientnetv2_s", {}),
}
"""Name here, name in the catalogue, overrides."""

SIZE = 224
BASELINE = "torch float32"


@dataclass(frozen=True)
class Side:
    """One way to run a network."""

    name: str
    config: RuntimeConfig


def sides() -> list[Side]:
    """What this machine can measure, the baseline first."""
    half = has_bfloat16(torch.device("cpu"))
    ways = [Side(BASELINE, RuntimeConfig(backend="torch", precision="float32"))]
    if half:
        ways.append(Side("torch bfloat16", forced("torch")))
    if installed("onnxruntime"):
        onnx = RuntimeConfig(backend="onnxruntime", precision="float32")
        ways.append(Side("onnxruntime float32", onnx))
    if installed("openvino"):
        ways.append(
            Side("openvino float32", RuntimeConfig(backend="openvino", precision="float32"))
        )
        if half:
            ways.append(Side("openvino bfloat16", forced("openvino")))
    return ways


def forced(backend: Any) -> RuntimeConfig:
    """Bfloat16 whatever it costs in accuracy."""
    return RuntimeConfig(backend=backend, precision="bfloat16", force=True)


def measure(compiled: list[Compiled], image: np.ndarray, rounds: int) -> list[list[float]]:
    """CPU milliseconds of each, in turns, after one call that does not count."""
    for run in compiled:
        run(image)
    times: list[list[float]] = [[] for _ in compiled]
    for _ in range(rounds):
        for run, taken in zip(compiled, times, strict=True):
            start = time.process_time()
            run(image)
            taken.append((time.process_time() - start) * 1e3)
    return times


def compare(name: str, rounds: int) -> list[dict[str, Any]]:
    """The rows of one network."""
    torch.manual_seed(0)
    backbone, overrides = MODELS[name]
    model = create(backbone, **overrides).eval()
    image = np.random.default_rng(0).normal(size=(1, 3, SIZE, SIZE)).astype(np.float32)
    ways = sides()
    compiled = [compile_model(model, image, way.config, image) for way in ways]
    times = measure(compiled, image, rounds)
    base = float(np.median(times[0]))
    rows = []
    for way, run, taken in zip(ways, compiled, times, strict=True):
        low, median, high = np.percentile(taken, (25, 50, 75))
        rows.append(
            {
                "model": name,
                "side": way.name,
                "ms": round(float(median), 1),
                "iqr_ms": [round(float(low), 1), round(float(high), 1)],
                "ratio": round(base / float(median), 2),
                "cosine": run.report.cosine,
                "compile_s": round(run.report.seconds, 1),
            }
        )
    return rows


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="CPU cost of one image by backend")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=7, help="calls of each side that count")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {args.rounds}")
    torch.set_num_threads(1)
    if not args.json:
        print(
            f"{SIZE} px, batch 1, one thread, CPU ms, {cpu_name()}, load {os.getloadavg()[0]:.1f}"
        )
        print("model              side                  median     (quartiles)  faster  compile s")
    rows = []
    for name in args.models:
        for row in compare(name, args.rounds):
            rows.append(row)
            if not args.json:
                low, high = row["iqr_ms"]
                print(
                    f"{row['model']:17}  {row['side']:19}  {row['ms']:8.1f}  "
                    f"({low:6.1f} {high:6.1f})  {row['ratio']:6.2f}  {row['compile_s']:9.1f}",
                    flush=True,
                )
    if args.json:
        packages = [name for name in ("onnxruntime", "openvino") if installed(name)]
        versions = {name: metadata.version(name) for name in ("torch", *packages)}
        print(
            json.dumps(
                {
                    "rows": rows,
                    "rounds": args.rounds,
                    "machine": cpu_name(),
                    "load": round(os.getloadavg()[0], 1),
                    "bfloat16_in_hardware": has_bfloat16(torch.device("cpu")),
                    "versions": {"python": platform.python_version(), **versions},
                    "commit": commit(),
                    "seed": 0,
                }
            )
        )


if __name__ == "__main__":
    main()
