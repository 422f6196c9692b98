"""What a training step of attention costs in bfloat16: plain products beside torch's own function.

    OMP_NUM_THREADS=1 python -m benchmarks.attention [--rounds 7] [--json]

Forward and backward of attention alone, one thread; CPU milliseconds, the medians, sides in turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from perception.attention import attention

# Batch, heads, tokens, features of a head; whether there is a bias that learns.
CASES = (
    ((64, 4, 8, 32), False),
    ((64, 4, 64, 32), False),
    ((16, 4, 512, 32), False),
    ((8, 6, 196, 64), False),
    ((4, 12, 196, 64), False),
    ((64, 3, 64, 32), True),
    ((64, 1, 256, 32), True),
    ((8, 12, 196, 32), True),
)


def learn(function: Callable[[], Tensor]) -> None:
    """Forward and backward."""
    found = function()
    found.backward(torch.ones_like(found))


def measure(size: tuple[int, int, int, int], biased: bool, rounds: int) -> dict[str, float]:
    """CPU-milliseconds of both sides."""
    torch.manual_seed(0)
    batch, heads, tokens, width = size
    # As layers give them: features of all heads stand beside each other.
    given = torch.randn(3, batch, tokens, heads, width, dtype=torch.bfloat16).transpose(2, 3)
    query, key, value = given.requires_grad_()
    bias = torch.randn(heads, tokens, tokens, dtype=torch.bfloat16, requires_grad=True)
    mask = bias if biased else None
    sides = {
        "torch": partial(F.scaled_dot_product_attention, query, key, value, attn_mask=mask),
        "ours": partial(attention, query, key, value, mask),
    }
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for k in range(rounds + 1):  # the first warms up
        for name, function in sides.items():
            began = time.process_time()
            learn(function)
            if k:
                taken[name].append(1e3 * (time.process_time() - began))
    return {name: float(np.median(values)) for name, values in taken.items()}


def main() -> None:
    """Print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for size, biased in CASES:
        cost = measure(size, biased, arguments.rounds)
        rows.append({"size": size, "biased": biased, **cost})
        if not arguments.json:
            name = f"{' x '.join(map(str, size))}{', bias' if biased else ''}"
            ratio = cost["torch"] / cost["ours"]
            print(f"{name:24} {cost['torch']:7.2f} {cost['ours']:7.2f} ms  {ratio:.2f}")
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
