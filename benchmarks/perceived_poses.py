"""How poses from colours and depth, and a policy that lives on them, bear noise and loose slots.

    python -m benchmarks.perceived_poses [--env decisive/BlockInsertion-v0] \
        [--policy block-insertion-ibc] [--episodes 100] [--set slots=2] [--json]

`--depth-noise 0.001` adds a millimetre of noise to every pixel's depth. `--free-slots` does not use
that two slots are one piece. Policies that were trained on such a pair have inputs that never
varied, and a few hundredths of a millimetre in them stop the policy, however good the estimate.

Without either it is `decisive evaluate --perceived --segmenter colors`, which also runs the same
episodes with the exact state. Success with its 95% interval, errors of the poses, CPU milliseconds
of finding and measuring (`thread_time`, one thread).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from agents import load_policy
from decisive.episodes import PolicyActor, check_fit, run_episode
from decisive.options import make_env, parse_options
from decisive.perceived import PerceivingActor, Pictured, models_of
from decisive.perceived_summary import COLORS, perception_lines, summarize_perception
from decisive.provenance import commit, machine, versions
from decisive.statistics import wilson_interval
from decisive.tables import percent
from robots.pose_estimation import MODELS, SlotModel


def run(
    env_id: str,
    options: Mapping[str, Any],
    name: str,
    seeds: range,
    depth_noise: float = 0.0,
    free_slots: bool = False,
) -> dict[str, Any]:
    """Run the episodes, and sum them up."""
    env = make_env(env_id, options)
    policy = load_policy(name)
    check_fit(policy, env, env_id)
    models = [
        replace(model, fixed_to="") if free_slots and isinstance(model, SlotModel) else model
        for model in models_of(env.unwrapped, env_id)
    ]
    actor, shown = PerceivingActor(PolicyActor(policy), models), Pictured(env, depth_noise)
    episodes = []
    for seed in seeds:
        episode = run_episode(shown, actor, seed)
        episodes.append(replace(episode, perception=actor.perception()))
    env.close()
    successes = sum(bool(episode.success) for episode in episodes)
    return {
        "env": env_id,
        "env_options": dict(options),
        "policy": name,
        "episodes": len(seeds),
        "seed": seeds.start,
        "depth_noise_m": depth_noise,
        "free_slots": free_slots,
        "success_rate": successes / len(seeds),
        "success_ci95": list(wilson_interval(successes, len(seeds))),
        "perceived": summarize_perception(COLORS, episodes),
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
    }


def report(result: Mapping[str, Any]) -> None:
    """Print a result for people."""
    rate = percent(result["success_rate"], result["success_ci95"])
    print(f"{result['policy']} in {result['env']} {result['env_options'] or ''}")
    print(f"  {rate} % of {result['episodes']}")
    for name, row in result["perceived"]["errors"].items():
        print(f"  {name:14s} median {row['median']:.3f} {row['unit']}, 95% {row['p95']:.3f}")
    print("\n".join(f"  {line}" for line in perception_lines(result["perceived"])))


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="decisive/BlockInsertion-v0", choices=sorted(MODELS))
    parser.add_argument("--policy", default="block-insertion-ibc", help="shipped name or folder")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first episode")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="words")
    parser.add_argument("--depth-noise", type=float, default=0.0, help="per pixel, metres")
    parser.add_argument("--free-slots", action="store_true", help="measure each by itself")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.episodes < 1:
        parser.error(f"--episodes must be at least 1, got {args.episodes}")
    torch.set_num_threads(1)
    try:
        options = parse_options(args.env, args.words)
        seeds = range(args.seed, args.seed + args.episodes)
        result = run(args.env, options, args.policy, seeds, args.depth_noise, args.free_slots)
    except ValueError as error:
        parser.error(str(error))
    if args.json:
        print(json.dumps(result))
    else:
        report(result)


if __name__ == "__main__":
    main()
