"""What one decision of an implicit policy costs, beside the usual early-fusion form.

    python -m benchmarks.policy_latency [--policy block-insertion-ibc] [--json]

Both sides run the same algorithm (3 DFO iterations: each evaluates every candidate) on one thread.
The baseline is what public implementations do: observation and action are concatenated, tiled over
the candidates and sent through one MLP whose layers have the widths of ours (the encoder's layers,
then the head's), in a plain loop with multinomial resampling. CPU milliseconds per decision
(`process_time`), median and 95th percentile; a decision on 16 environments is also given per
environment. The two sides alternate, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents import PolicySpec, load_policy
from agents.implicit_bc import DfoConfig, ImplicitConfig, ImplicitPolicy

CASES = ((1, 256), (1, 1024), (1, 16384), (16, 256), (16, 1024))
"""Batch size and candidates. 16 x 16,384 takes early fusion ten seconds a decision: left out."""


class EarlyFusion(nn.Module):
    """The usual form: one MLP over observation and action together, all of it per candidate."""

    def __init__(self, n_obs: int, action_dim: int, config: ImplicitConfig) -> None:
        """Widths are those of the late-fusion policy, layer by layer."""
        super().__init__()
        widths = [config.width] * config.depth + [config.head_width] * (config.head_depth + 1)
        layers: list[nn.Module] = []
        n_in = n_obs + action_dim
        for width in widths:
            layers += [nn.Linear(n_in, width), nn.ReLU()]
            n_in = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_in, 1))

    @torch.inference_mode()
    def decide(self, obs: Tensor, action_dim: int, dfo: DfoConfig) -> Tensor:
        """DFO as commonly written: `(B, D)` observations to `(B, A)` actions."""
        actions = torch.rand(len(obs), dfo.n_samples, action_dim) * 2 - 1
        tiled = obs[:, None].expand(-1, dfo.n_samples, -1)
        rows = torch.arange(len(obs))
        std = dfo.noise_std
        energies = self.layers(torch.cat((tiled, actions), dim=-1)).squeeze(-1)
        for _ in range(dfo.n_iterations - 1):
            index = torch.multinomial(torch.softmax(-energies, dim=-1), dfo.n_samples, True)
            actions = actions[rows[:, None], index]
            actions = (actions + torch.randn_like(actions) * std).clamp(-1, 1)
            std *= dfo.decay
            energies = self.layers(torch.cat((tiled, actions), dim=-1)).squeeze(-1)
        return actions[rows, energies.argmin(dim=1)]


def fresh_policy(n_obs: int, action_dim: int) -> ImplicitPolicy:
    """An untrained policy with the default settings: the cost does not depend on the weights."""
    torch.manual_seed(0)
    spec = PolicySpec({"state": (n_obs,)}, action_dim, (-1.0,) * action_dim, (1.0,) * action_dim)
    policy = ImplicitPolicy(spec, ImplicitConfig())
    policy.eval()
    return policy


def with_samples(policy: ImplicitPolicy, dfo: DfoConfig) -> None:
    """Changes how a policy searches, weights untouched."""
    policy.config = dataclasses.replace(policy.config, dfo=dfo)


def measure(ours: Callable[[], Any], usual: Callable[[], Any], seconds: float) -> dict[str, Any]:
    """CPU milliseconds of two functions, called in turn for about so many seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (ours, usual, ours):
        function()
    end = time.process_time() + seconds
    while len(times[0]) < 5 or time.process_time() < end:
        for function, taken in zip((ours, usual), times, strict=True):
            start = time.process_time()
            function()
            taken.append((time.process_time() - start) * 1e3)
    median = [float(np.median(taken)) for taken in times]
    return {
        "late_ms": round(median[0], 3),
        "late_p95_ms": round(float(np.percentile(times[0], 95)), 3),
        "early_ms": round(median[1], 3),
        "early_p95_ms": round(float(np.percentile(times[1], 95)), 3),
        "ratio": round(median[1] / median[0], 1),
        "repeats": len(times[0]),
    }


def run(policy: ImplicitPolicy, name: str, iterations: int, seconds: float) -> dict[str, Any]:
    """Measures every number of candidates and every batch size."""
    (n_obs,) = policy.spec.observation["state"]
    n_obs *= policy.config.n_obs_steps
    torch.manual_seed(0)
    usual = EarlyFusion(n_obs, policy.flat_action_dim, policy.config).eval()
    rng = np.random.default_rng(0)
    rows = []
    for batch, n_samples in CASES:
        obs = rng.normal(size=(batch, *policy.spec.observation["state"])).astype(np.float32)
        flat = torch.as_tensor(np.tile(obs, (1, policy.config.n_obs_steps)))
        dfo = dataclasses.replace(policy.config.dfo, n_samples=n_samples, n_iterations=iterations)
        with_samples(policy, dfo)

        def decide(obs: np.ndarray = obs) -> None:
            policy.reset()  # A chunk must not be replayed: each call is a decision.
            policy.act(obs if len(obs) > 1 else obs[0])

        def decide_usual(flat: Tensor = flat, dfo: DfoConfig = dfo) -> None:
            usual.decide(flat, policy.flat_action_dim, dfo)

        row: dict[str, Any] = {"batch": batch, "samples": n_samples}
        row |= measure(decide, decide_usual, seconds)
        row["late_ms_per_env"] = round(row["late_ms"] / batch, 3)
        rows.append(row)
    return {
        "policy": name,
        "iterations": iterations,
        "observation": n_obs,
        "action": policy.flat_action_dim,
        "encoder": f"{policy.config.width}x{policy.config.depth}",
        "head": f"{policy.config.head_width}x{policy.config.head_depth + 1}",
        "rows": rows,
        "threads": torch.get_num_threads(),
        "machine": cpu_name(),
        "load": round(os.getloadavg()[0], 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "commit": commit(),
    }


def cpu_name() -> str:
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def commit() -> str | None:
    """The commit of the working tree, where there is one."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description="CPU cost of one implicit decision")
    parser.add_argument("--policy", help="shipped name or folder; default: an untrained policy")
    parser.add_argument("--obs", type=int, default=20, help="entries of the state, if untrained")
    parser.add_argument("--action", type=int, default=2, help="entries of the action, if untrained")
    parser.add_argument("--iterations", type=int, default=3, help="DFO iterations")
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds per row")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.policy:
        loaded = load_policy(args.policy)
        if not isinstance(loaded, ImplicitPolicy) or set(loaded.spec.observation) != {"state"}:
            parser.error(f"{args.policy} is not an implicit policy on states")
        policy = loaded
    else:
        policy = fresh_policy(args.obs, args.action)
    result = run(policy, args.policy or "untrained", args.iterations, args.seconds)
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"{result['policy']}: encoder {result['encoder']}, head {result['head']}, "
        f"{result['iterations']} iterations, CPU ms per decision, one thread, "
        f"{result['machine']}, load {result['load']}"
    )
    print("batch  samples  late fusion (p95)  per env  early fusion (p95)  ratio")
    for row in result["rows"]:
        print(
            f"{row['batch']:5d}  {row['samples']:7d}  "
            f"{row['late_ms']:8.2f} ({row['late_p95_ms']:.2f})"
            f"  {row['late_ms_per_env']:8.2f}  {row['early_ms']:9.1f} ({row['early_p95_ms']:.1f})"
            f"  {row['ratio']:5.1f}"
        )


if __name__ == "__main__":
    main()
