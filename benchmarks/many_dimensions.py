"""What a decision costs in the 24 to 30 dimensions of Adroit's hand, by search and by gradient.

    OMP_NUM_THREADS=1 python -m benchmarks.many_dimensions [--decisions 100] [--json]

Untrained policies with the settings of `decisive benchmark d4rl` (the cost does not depend on the
weights), one observation at a time, one thread; CPU milliseconds a decision, median and 95th
percentile. `implicit-bc` is Langevin inference with the gradient taken by hand; beside it the same
chain with autograd, which is how it is usually written, and the article's own size: 512 samples and
two chains of 100 steps through an MLP of 8 layers of 512. The sides alternate.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch

from agents import PolicySpec
from agents.config import config_from_dict
from agents.implicit_bc import ImplicitConfig, ImplicitPolicy
from agents.implicit_bc.energy import EnergyModel
from decisive.benchmarks.d4rl import RECIPES

SIZES = {"pen": (45, 24), "hammer": (46, 26), "door": (39, 28), "relocate": (39, 30)}
ARTICLE = {
    "width": 512,
    "head_width": 512,
    "head_depth": 8,
    "negatives": (("langevin", 1.0),),
    "inference": "langevin",
    "langevin": {"n_samples": 512, "n_steps": 100, "step_size": 0.5, "noise": 0.5},
}


def build(task: str, settings: Any) -> ImplicitPolicy:
    """An untrained policy with the sizes of a task."""
    torch.manual_seed(0)
    n_obs, n_actions = SIZES[task]
    spec = PolicySpec({"state": (n_obs,)}, n_actions, (-1.0,) * n_actions, (1.0,) * n_actions)
    return ImplicitPolicy(spec, config_from_dict(ImplicitConfig, dict(settings))).eval()


def by_autograd(model: EnergyModel, code: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The energy as autograd sees it: what `bind` saves."""
    return lambda actions: model(code, actions)


def cpu_ms(actor: ImplicitPolicy, obs: np.ndarray) -> float:
    """CPU milliseconds of one decision."""
    start = time.process_time()
    actor.act(obs)
    return 1e3 * (time.process_time() - start)


def measure(task: str, decisions: int) -> dict[str, dict[str, float]]:
    """Median and 95th percentile by name of the side."""
    chain = build(task, RECIPES[f"{task}-expert-implicit-bc"].policy)
    sides = {
        "implicit-bc-rnce (proposal and search)": build(
            task, RECIPES[f"{task}-expert-implicit-bc-rnce"].policy
        ),
        "implicit-bc (Langevin, gradient by hand)": chain,
        "the same by autograd": chain,
        "the article's size": build(task, ARTICLE),
    }
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(decisions + 3):
        obs = rng.normal(size=SIZES[task][0]).astype(np.float32)
        for name, actor in sides.items():
            # The article's size takes seconds: a few decisions tell.
            if name.startswith("the article") and number not in (3, 4, 5):
                continue
            actor.reset(number)
            if "autograd" in name:
                with mock.patch.object(EnergyModel, "bind", by_autograd):
                    took = cpu_ms(actor, obs)
            else:
                took = cpu_ms(actor, obs)
            if number >= 3:
                times[name].append(took)
    return {
        name: {"median": float(np.median(t)), "p95": float(np.quantile(t, 0.95))}
        for name, t in times.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=100)
    parser.add_argument("--task", choices=SIZES, default="relocate")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    told = measure(arguments.task, arguments.decisions)
    if arguments.json:
        versions = {"torch": torch.__version__, "python": platform.python_version()}
        print(json.dumps({"task": arguments.task, "cpu_ms": told, **versions}, indent=2))
        return
    print(f"{arguments.task}: CPU ms a decision, median (p95)")
    for name, value in told.items():
        print(f"  {name:42} {value['median']:9.2f} ({value['p95']:.2f})")


if __name__ == "__main__":
    main()
