"""What a frame with instance masks costs on one core: detector, masks of its boxes, pasting.

    python -m benchmarks.instance_masks [--models deep_mac_small] [--boxes 10] [--rounds 7] \
        [--backends torch onnxruntime openvino] [--json]

Untrained networks, float32, batch 1, one thread: the cost does not depend on the weights. A backend
other than torch makes the features; the rest is torch's. Masks are those of given boxes, spread
over the image, because an untrained detector finds none. Networks and backends take turns, round
after round; process CPU time, median and quartiles in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.policy_latency import commit, cpu_name
from perception.deep_mac.compiled import compile_features
from perception.deep_mac.crops import paste_masks
from perception.deep_mac.heads import MaskHeadConfig
from perception.deep_mac.network import DEEP_MACS, DeepMac
from perception.deep_mac.two_stage import DEEP_MARCS, DeepMarc
from perception.runtime import RuntimeConfig
from perception.runtime_backends import Backend

PARTS = ("features", "detect", "masks", "paste", "all")
QUARTILES = (50, 25, 75)
BACKENDS: tuple[Backend, ...] = ("torch", "onnxruntime", "openvino")


def networks() -> dict[str, Callable[[], Any]]:
    """What can be measured, untrained."""
    small = DEEP_MACS["deep_mac_small"]
    deep = replace(small, head=MaskHeadConfig("hourglass", 52, 16))
    return {
        **{name: lambda c=config: DeepMac(c) for name, config in DEEP_MACS.items()},
        "deep_mac_small, hourglass-52": lambda: DeepMac(deep),
        **{name: lambda c=config: DeepMarc(c) for name, config in DEEP_MARCS.items()},
    }


def side(model: Any, size: int) -> int:
    """The least multiple of the network's stride that is not below the size."""
    return -(-size // model.stride) * model.stride


def spread_boxes(n: int, size: int) -> Tensor:
    """`(n, 4)` boxes of a fifth to a third of the side, the same for everyone."""
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.2, 0.33, (n, 2)) * size
    corners = rng.uniform(0, 1, (n, 2)) * (size - sides)
    return torch.from_numpy(np.concatenate((corners, corners + sides), 1)).float()


def compiled(model: Any, pixels: int, backend: Backend) -> Any:
    """A network whose features are made by a backend; plain torch is the network itself."""
    if backend == "torch":
        return model
    config = RuntimeConfig(backend=backend, precision="float32")
    return compile_features(model, (pixels, pixels), config)[0]


@torch.no_grad()
def frame(model: Any, images: Tensor, boxes: Tensor) -> dict[str, float]:
    """CPU milliseconds of each of `PARTS`."""
    index = torch.zeros(len(boxes), dtype=torch.int64)
    clock = [time.process_time()]
    features = model.features(images)
    clock.append(time.process_time())
    model.detect(features)
    clock.append(time.process_time())
    logits = model.masks(features, boxes, index)
    clock.append(time.process_time())
    paste_masks(logits, boxes, *images.shape[2:], logits=True)
    clock.append(time.process_time())
    parts = [1e3 * part for part in np.diff(clock)]
    return dict(zip(PARTS, (*parts, sum(parts)), strict=True))


def main() -> None:
    """Parses, measures, prints."""
    known = networks()
    parser = argparse.ArgumentParser(description="CPU cost of a frame with instance masks")
    parser.add_argument("--models", nargs="+", choices=known, default=list(known), metavar="NAME")
    parser.add_argument("--size", type=int, default=320, help="pixels a side")
    parser.add_argument("--boxes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7, help="frames of each that count")
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        default=["torch"],
        metavar="NAME",
        help="what makes the features; default torch",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if min(args.size, args.boxes, args.rounds) < 1:
        parser.error("--size, --boxes and --rounds must be at least 1")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    models = {name: known[name]().eval() for name in args.models}
    size = {name: side(model, args.size) for name, model in models.items()}
    arms = {
        (name, backend): compiled(model, size[name], backend)
        for name, model in models.items()
        for backend in args.backends
    }
    times: dict[tuple[str, str], list[dict[str, float]]] = {arm: [] for arm in arms}
    for turn in range(args.rounds + 1):
        for arm, model in arms.items():
            pixels = size[arm[0]]
            took = frame(model, torch.rand(1, 3, pixels, pixels), spread_boxes(args.boxes, pixels))
            if turn:  # the first does not count
                times[arm].append(took)
    rows = [
        {
            "model": name,
            "backend": backend,
            "parameters": sum(p.numel() for p in models[name].parameters()),
            "size": size[name],
            **{
                part: [
                    round(float(q), 1)
                    for q in np.percentile([took[part] for took in times[name, backend]], QUARTILES)
                ]
                for part in PARTS
            },
        }
        for name, backend in arms
    ]
    load = round(os.getloadavg()[0], 1)
    if args.json:
        told = {"rows": rows, "boxes": args.boxes, "rounds": args.rounds, "machine": cpu_name()}
        print(json.dumps({**told, "load": load, "torch": torch.__version__, "commit": commit()}))
        return
    print(f"{args.boxes} boxes, one thread, CPU ms (quartiles), {cpu_name()}, load {load}")
    print(
        f"{'network':30}  {'features by':>11}  {'M':>5}  {'px':>4}  "
        + "  ".join(f"{part:>8}" for part in PARTS)
    )
    for row in rows:
        cells = "  ".join(f"{row[part][0]:8.1f}" for part in PARTS)
        low, high = row["all"][1:]
        millions = row["parameters"] / 1e6
        name = f"{row['model']:30}  {row['backend']:>11}"
        print(f"{name}  {millions:5.2f}  {row['size']:4}  {cells}  ({low}, {high})")


if __name__ == "__main__":
    main()
