"""neural-tangents' side of `benchmarks.ntk`: run by the peer's own interpreter, which has no torch.

Reads one JSON request a line and answers with one line. Only numpy, jax and neural-tangents are
imported.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from neural_tangents import stax

Kernel = Callable[[Any, Any], Any]


def kernel(network: Mapping[str, Any]) -> Kernel:
    """The compiled kernel of a network as `learning.distillation.KernelConfig` describes it."""
    w_std, b_std = network["w_std"], network["b_std"]
    layers: list[Any] = []

    def hidden(*more: Any) -> None:
        layers.extend([*more, stax.Relu()])

    if not network["convs"]:
        layers.append(stax.Flatten())
        for _ in range(network["depth"]):
            hidden(stax.Dense(1, w_std, b_std))
    counts = list(network["convs"])
    for number, count in enumerate(counts):
        for _ in range(count + (network["prepend"] and number == 0)):
            hidden(stax.Conv(1, (3, 3), W_std=w_std, b_std=b_std, padding="SAME"))
        if network["head"] == "flatten" or number + 1 < len(counts):
            layers.append(stax.AvgPool((2, 2), strides=(2, 2)))
    if counts:
        layers.append(stax.Flatten() if network["head"] == "flatten" else stax.GlobalAvgPool())
    layers.append(stax.Dense(1, w_std, b_std))
    function = stax.serial(*layers)[2]
    compiled: Kernel = jax.jit(lambda x, y: function(x, y, network["kind"]))
    return compiled


def arrays(request: Mapping[str, Any]) -> tuple[Any, Any]:
    """Points of both sides: given, or drawn from a seed."""
    if "x" in request:
        x, y = (np.asarray(request[side], np.float64) for side in ("x", "y"))
    else:
        rng = np.random.default_rng(request["seed"])
        x, y = (rng.normal(size=request["shape"]) for _ in range(2))
    x, y = (side.astype(request["dtype"]) for side in (x, y))
    if x.ndim == 4:
        x, y = (side.transpose(0, 2, 3, 1) for side in (x, y))
    return jax.numpy.asarray(x), jax.numpy.asarray(y)


def main() -> None:
    """Answers until the other side closes."""
    known: dict[str, tuple[Kernel, Any, Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["ask"] == "version":
            import neural_tangents

            answer: Any = {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__}
        else:
            key = json.dumps(request)
            if key not in known:
                known[key] = (kernel(request["network"]), *arrays(request))
                known[key][0](*known[key][1:]).block_until_ready()
            function, x, y = known[key]
            began = time.process_time()
            found = function(x, y).block_until_ready()
            assert found.dtype == request["dtype"], found.dtype
            answer = {"seconds": time.process_time() - began}
            if request["ask"] == "values":
                answer["values"] = np.asarray(found).tolist()
            else:
                answer["sum"] = float(found.sum())
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
