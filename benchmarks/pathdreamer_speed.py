"""What a prediction and a training step of Pathdreamer cost.

    python -m benchmarks.pathdreamer_speed [--size small] [--batch 4] [--seconds 4] [--json]

Milliseconds a panorama, one thread (`process_time`; wall time and synchronised on a GPU): forward
passes of both generators, and their training steps (forward with the posterior, backward; no
optimiser). Float32 and bfloat16 autocast take turns, so that a busy machine slows both; where the
processor does not multiply bfloat16 a pass takes many seconds, and it is left out unless
`--bfloat16` asks for it. The floating-point operations are those of convolutions and matrix
products, counted by torch, a multiplication and an addition each being one; "reached" is their
number over the time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from learning.precision import has_bfloat16
from world_models.pathdreamer.config import SIZES, PathdreamerConfig, size
from world_models.pathdreamer.inputs import GuidanceBatch
from world_models.pathdreamer.losses import LossConfig, structure_loss
from world_models.pathdreamer.model import Pathdreamer

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def some_guidance(
    config: PathdreamerConfig, batch: int, height: int, share: float
) -> GuidanceBatch:
    """Random guidance of which a share is valid: the cost does not depend on what it shows."""
    shape = (batch, height, 2 * height)
    valid = torch.rand(shape) < share
    rgb = torch.rand(batch, 3, *shape[1:])
    semantic = torch.randint(1, config.n_classes, shape)
    depth = 0.5 + 6 * torch.rand(shape)
    return GuidanceBatch(
        rgb * valid[:, None], semantic * valid, depth * valid, valid, rgb, semantic, depth
    )


def works(model: Pathdreamer, batch: int, height: int) -> dict[str, Callable[[], None]]:
    """What is timed, by name; each is given a batch of panoramas of a height."""
    device = model.device
    guidance = some_guidance(model.config, batch, height, 0.3).to(device)
    truth = some_guidance(model.config, batch, height, 1.0).to(device)
    noise = torch.randn(model.structure.latent_shape(batch, *guidance.size), device=device)
    weights = torch.ones(model.config.n_classes, device=device)

    def structure_forward() -> None:
        with torch.no_grad():
            model.structure(guidance, noise)

    def image_forward() -> None:
        with torch.no_grad():
            model.image(guidance, truth.semantic, truth.depth)

    def structure_training() -> None:
        seen = model.structure(guidance, noise, truth=truth)
        loss, _ = structure_loss(
            seen, truth.semantic, truth.depth, weights, model.config.max_depth, LossConfig()
        )
        loss.backward()

    def image_training() -> None:
        painted = model.image(guidance, truth.semantic, truth.depth)
        (painted - truth.rgb).abs().mean().backward()

    return {
        "structure forward": structure_forward,
        "image forward": image_forward,
        "structure training": structure_training,
        "image training": image_training,
    }


def operations(work: Callable[[], None]) -> int:
    """Floating-point operations of one call."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure(
    model: Pathdreamer, batch: int, height: int, seconds: float, precisions: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Rows for one size of panoramas."""
    device = model.device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    rows = []
    for name, work in works(model, batch, height).items():
        taken: dict[str, list[float]] = {precision: [] for precision in precisions}
        total = operations(work) / batch
        end = time.perf_counter() + seconds
        repeats = 0
        while repeats < 4 or time.perf_counter() < end:
            for precision in precisions:
                kind = PRECISIONS[precision]
                model.zero_grad()
                start = clock()
                with torch.autocast(device.type, kind, enabled=kind != torch.float32):
                    work()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if repeats:  # the first pass prepares kernels
                    taken[precision].append((clock() - start) * 1e3 / batch)
            repeats += 1
        for precision, times in taken.items():
            median = float(np.median(times))
            rows.append(
                {
                    "work": name,
                    "panorama": [height, 2 * height],
                    "precision": precision,
                    "ms": round(median, 2),
                    "ms_p10": round(float(np.percentile(times, 10)), 2),
                    "ms_p90": round(float(np.percentile(times, 90)), 2),
                    "gflop": round(total / 1e9, 3),
                    "gflop_s_reached": round(total / 1e6 / median, 1),
                    "repeats": len(times),
                }
            )
    return rows


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="small", choices=sorted(SIZES))
    parser.add_argument("--heights", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="per row, about")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true", help="also where it is emulated")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Pathdreamer(size(args.size)).to(args.device)
    precisions: tuple[str, ...] = ("float32",)
    if args.bfloat16 or has_bfloat16(model.device):
        precisions = tuple(PRECISIONS)
    rows = [
        row
        for height in args.heights
        for row in measure(model, args.batch, height, args.seconds, precisions)
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    result = {
        "size": args.size,
        "batch": args.batch,
        "parameters": {
            name: sum(p.numel() for p in getattr(model, name).parameters())
            for name in ("structure", "image")
        },
        "rows": rows,
        "device": args.device,
        "bfloat16_in_hardware": has_bfloat16(model.device),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": 1,
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit,
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"{args.size}, batch {args.batch}, one thread, load {result['load']:.1f}")
    for row in rows:
        print(
            f"{row['work']:<20} {row['panorama'][0]:>4} x {row['panorama'][1]:<4} "
            f"{row['precision']:<9} {row['ms']:8.1f} ms ({row['ms_p10']:.1f}-{row['ms_p90']:.1f})  "
            f"{row['gflop']:7.2f} GFLOP  {row['gflop_s_reached']:6.1f} GFLOP/s"
        )


if __name__ == "__main__":
    main()
