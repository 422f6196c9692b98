"""What learning costs a CPU in bfloat16: our attention and convolutions beside torch's own.

    OMP_NUM_THREADS=1 python -m benchmarks.bfloat16_training [--rounds 7] [--json]

Layers alone, then whole networks, forward and backward under autocast, one thread; CPU
milliseconds, the medians, sides in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perception import create
from perception.attention import attention
from perception.layers import Conv2d

# Batch, heads, tokens, features of a head; whether there is a bias that learns.
ATTENTION = (
    ((64, 4, 8, 32), False),
    ((64, 4, 64, 32), False),
    ((16, 4, 512, 32), False),
    ((8, 6, 196, 64), False),
    ((4, 12, 196, 64), False),
    ((64, 3, 64, 32), True),
    ((64, 1, 256, 32), True),
    ((8, 12, 196, 32), True),
)
# Batch, channels and side of the map; kernel and stride of a depthwise convolution.
DEPTHWISE = (
    ((64, 320, 16), 3, 1),
    ((64, 320, 16), 3, 2),
    ((64, 128, 32), 3, 2),
    ((64, 128, 32), 5, 2),
    ((64, 128, 16), 5, 1),
    ((32, 576, 2), 3, 1),
)
NETWORKS = (("vit_micro", 64, 32), ("coatnet_mini", 32, 64), ("efficientnetv2_b0_half", 32, 64))
ROUNDS = 7


def cpu_ms(sides: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """CPU-milliseconds of each side, forward and backward."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(rounds + 1):  # the first warms up
        for name, function in sides.items():
            began = time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                found = function()
            found.backward(torch.ones_like(found))
            if k:
                taken[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(values)) for name, values in taken.items()}


def of_attention(size: tuple[int, int, int, int], biased: bool, rounds: int) -> dict[str, Any]:
    """One row."""
    batch, heads, tokens, width = size
    # As layers give them: features of all heads stand beside each other.
    given = torch.randn(3, batch, tokens, heads, width, dtype=torch.bfloat16).transpose(2, 3)
    query, key, value = given.requires_grad_()
    bias = torch.randn(heads, tokens, tokens, dtype=torch.bfloat16, requires_grad=True)
    mask = bias if biased else None
    sides: dict[str, Callable[[], Tensor]] = {
        "torch": lambda: F.scaled_dot_product_attention(query, key, value, attn_mask=mask),
        "ours": lambda: attention(query, key, value, mask),
    }
    name = f"attention {' x '.join(map(str, size))}{', bias' if biased else ''}"
    return {"what": name, **cpu_ms(sides, rounds)}


def of_depthwise(
    size: tuple[int, int, int], kernel: int, stride: int, rounds: int
) -> dict[str, Any]:
    """One row."""
    batch, channels, side = size
    images = torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)
    images = images.to(torch.bfloat16).requires_grad_()
    settings = (channels, channels, kernel, stride, kernel // 2, 1, channels)
    theirs, ours = nn.Conv2d(*settings), Conv2d(*settings)
    sides = {"torch": lambda: theirs(images), "ours": lambda: ours(images)}
    name = f"depthwise {kernel}x{kernel}, stride {stride}, {' x '.join(map(str, size))}"
    return {"what": name, **cpu_ms(sides, rounds)}


def of_network(name: str, batch: int, side: int, rounds: int) -> dict[str, Any]:
    """One row: a network as it is, and with torch's own layers."""
    model = create(name, n_classes=10).train()
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)

    def by_torch() -> Tensor:
        with ExitStack() as stack:
            for module in ("vision_transformer", "relative_attention"):
                own = f"perception.{module}.attention"
                stack.enter_context(mock.patch(own, F.scaled_dot_product_attention))
            stack.enter_context(mock.patch.object(Conv2d, "_slow", return_value=False))
            found: Tensor = model(images)
        return found

    sides = {"torch": by_torch, "ours": lambda: model(images)}
    return {"what": f"{name}, {batch} images of {side}", **cpu_ms(sides, rounds)}


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rounds = arguments.rounds
    rows = [of_attention(size, biased, rounds) for size, biased in ATTENTION]
    rows += [of_depthwise(*case, rounds) for case in DEPTHWISE]
    rows += [of_network(*case, rounds) for case in NETWORKS]
    if arguments.json:
        print(json.dumps(rows))
        return
    for row in rows:
        ratio = row["torch"] / row["ours"]
        print(f"{row['what']:44} {row['torch']:8.2f} {row['ours']:8.2f} ms  {ratio:6.2f}")


if __name__ == "__main__":
    main()
