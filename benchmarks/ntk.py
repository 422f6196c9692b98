"""What a kernel of infinitely wide networks costs, beside neural-tangents on the same CPU.

    python -m benchmarks.ntk --peer-python PATH [--rounds 9] [--only fc] [--json]
    python -m benchmarks.ntk --peer-python PATH --fixture tests/data/ntk_values.json

PATH is the Python of an environment with neural-tangents: 0.6.5 needs `pip install --no-deps
neural-tangents==0.6.5 jax==0.4.30 jaxlib==0.4.30 tf2jax==0.3.6 dm-tree frozendict attrs wrapt` and
`pip install tensorflow-cpu==2.17.1 "numpy<2" scipy opt_einsum ml_dtypes absl-py`; with the newest
jax it does not import. Both sides compute the same kernels on the same points, one thread, the
peer's compiled by `jax.jit` beforehand, and take turns, round after round. CPU time of the process,
median and quartiles in milliseconds; the ratio is of the medians. The sums of the kernels must
agree. Of fully connected kernels the product of the points alone is timed as well, in turns of its
own: no kernel that starts from it can be faster. `--fixture` writes the peer's values for the
points that tests compare with instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.policy_latency import commit, cpu_name
from learning.atomic import write_file
from learning.distillation import KERNELS, KernelConfig, kernel
from learning.distillation.products import times

DTYPES = ("float32", "float64")
PEER = Path(__file__).with_name("ntk_peer.py")
SMALL = KernelConfig(convs=(1, 1), prepend=True)
CASES: dict[str, tuple[KernelConfig, tuple[int, ...]]] = {
    "fc, depth 1, 200 x 200": (KernelConfig(1), (200, 784)),
    "fc, depth 3, 200 x 200": (KernelConfig(3), (200, 784)),
    "fc, depth 1, 1000 x 1000": (KernelConfig(1), (1000, 784)),
    "fc, depth 3, 1000 x 1000": (KernelConfig(3), (1000, 784)),
    "convnet, 2 poolings, 8 x 8 pixels, 20 x 20": (SMALL, (20, 1, 8, 8)),
    "myrtle5, 8 x 8 pixels, 20 x 20": (KERNELS["myrtle5"], (20, 1, 8, 8)),
    "convnet, 28 x 28 pixels, 2 x 2": (KERNELS["convnet"], (2, 1, 28, 28)),
}
"""Network and shape of the points of each side."""
FIXTURES: dict[str, KernelConfig] = {
    "linear": KernelConfig(0),
    "fc1": KernelConfig(1),
    "fc3": KernelConfig(3),
    "fc2 without biases": KernelConfig(2, w_std=1.5, b_std=0.0),
    "convnet": SMALL,
    "convnet3": KernelConfig(convs=(1, 1)),
    "myrtle7": KERNELS["myrtle7"],
    "convnet without biases": replace(SMALL, b_std=0.0),
}


class Peer:
    """The other side, in a process of its own."""

    def __init__(self, python: str, dtype: str) -> None:
        """Start it with one thread.

        A peer that may compute in float64 does so with float32 points as well: each precision gets
        a process of its own.
        """
        flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        env = {**os.environ, "XLA_FLAGS": flags, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        env["JAX_ENABLE_X64"] = str(int(dtype == "float64"))
        self._process = subprocess.Popen(
            [python, str(PEER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        """One question, one answer."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps({"ask": what, **request}) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words say why
        answer = process.stdout.readline()
        if not answer:
            assert process.stderr is not None
            said = process.stderr.read().strip().splitlines()
            raise SystemExit(f"the peer ended: {said[-1] if said else 'no reason given'}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def fixture_points(config: KernelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Points that meet the hard cases: equal, zero and opposite ones."""
    rng = np.random.default_rng(0)
    shape = (2, 5, 4) if config.convs else (6,)
    x, y = rng.normal(size=(3, *shape)), rng.normal(size=(4, *shape))
    y[0], y[1], y[2] = x[1], 0, -x[2]
    return x, y


def write_fixture(peer: Peer, path: Path) -> None:
    """The peer's values, float64, with its versions."""
    cases = []
    for name, network in FIXTURES.items():
        for kind in ("ntk", "nngp"):
            config = asdict(replace(network, kind=kind))
            x, y = fixture_points(network)
            points = {"x": x.tolist(), "y": y.tolist()}
            found = peer.ask("values", network=config, dtype="float64", **points)
            cases.append({"name": name, "network": config, **points, "values": found["values"]})
    told = {"made by": "benchmarks/ntk.py", **peer.ask("version"), "cases": cases}
    write_file(path, (json.dumps(told, separators=(",", ":")) + "\n").encode())


def measure(peer: Peer, name: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Both sides in turns."""
    config, shape = CASES[name]
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(size=shape).astype(dtype)) for _ in range(2))
    request: Mapping[str, Any] = {
        "network": asdict(config),
        "seed": 0,
        "shape": shape,
        "dtype": dtype,
    }
    sides = {"ours": lambda: kernel(config, x, y)}
    if not config.convs:
        sides["product"] = lambda: times(x, y)
    took: dict[str, list[float]] = {side: [] for side in (*sides, "peer")}
    for turn in range(rounds + 1):
        for side, compute in sides.items():
            began = time.process_time()
            found = compute()
            seconds = time.process_time() - began
            answer = peer.ask("time", **request)
            if side == "ours" and not np.isclose(
                float(found.double().sum()), answer["sum"], rtol=1e-4
            ):
                raise SystemExit(f"{name}: sums differ, {float(found.sum())} and {answer['sum']}")
            if turn:  # the first does not count
                took[side].append(1e3 * seconds)
                took["peer"].append(1e3 * answer["seconds"])
    row: dict[str, Any] = {"case": name, "dtype": dtype}
    for side, values in took.items():
        row[f"{side}_ms"] = [round(float(q), 3) for q in np.percentile(values, (50, 25, 75))]
    return row | {"ratio": round(float(np.median(took["peer"]) / np.median(took["ours"])), 2)}


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="kernels beside neural-tangents")
    parser.add_argument("--peer-python", required=True, metavar="PATH")
    parser.add_argument("--rounds", type=int, default=9, help="of each side that count")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--fixture", type=Path, help="write the values for tests, time nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    torch.set_num_threads(1)
    if args.fixture is not None:
        peer = Peer(args.peer_python, "float64")
        write_fixture(peer, args.fixture)
        peer.close()
        return
    peers = {dtype: Peer(args.peer_python, dtype) for dtype in args.dtypes}
    rows = []
    for name in CASES:
        for dtype in args.dtypes if args.only in name else ():
            rows.append(measure(peers[dtype], name, dtype, args.rounds))
            if not args.json:
                row = rows[-1]
                product = f"{row['product_ms'][0]:9.2f}" if "product_ms" in row else 9 * " "
                print(
                    f"{name:44} {dtype}  ours {row['ours_ms'][0]:9.2f}  product {product}  "
                    f"peer {row['peer_ms'][0]:9.2f} ms  {row['ratio']:6.2f} x",
                    flush=True,
                )
    told = {
        "rows": rows,
        "rounds": args.rounds,
        "machine": cpu_name(),
        **peers[args.dtypes[0]].ask("version"),
    }
    for peer in peers.values():
        peer.close()
    told |= {"load": round(os.getloadavg()[0], 1), "torch": torch.__version__, "commit": commit()}
    if args.json:
        json.dump(told, sys.stdout)
        print()
    else:
        print(", ".join(f"{key} {value}" for key, value in told.items() if key != "rows"))


if __name__ == "__main__":
    main()
