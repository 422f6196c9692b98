"""How many Room-to-Room steps a CPU-second buys, without images.

    python -m benchmarks.r2r_steps [--split val_unseen] [--episodes 300] [--json]

Whole episodes, resets and the measures at their ends included: a random walk along ways that are
there, 15 steps each. Graphs and views are read and cached first; what that costs is told apart.
All times are CPU time (`process_time`) of this one process; the figure is the median over chunks
of 20 episodes. What one case has read, the next finds in memory. The world `sketch` is always
measured, `r2r` where its data are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from decisive import provenance
from envs.indoor.matterport import data_folder
from envs.indoor.r2r_nav import R2RNavEnv

CHUNK = 20
TARGET = 2000.0
"""Steps a CPU-second, in every case."""


def episodes(env: R2RNavEnv, names: Sequence[str], rng: np.random.Generator) -> int:
    """Walk at random through episodes; the number of steps."""
    steps = 0
    low_level = env.actions == "low-level"
    for name in names:
        _, info = env.reset(options={"instr_id": name})
        done = False
        while not done:
            ways = len(info["candidates"])
            action = int(rng.integers(1, 6 if low_level else 1 + max(1, ways)))
            _, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            steps += 1
    return steps


def measure(world: str, split: str, n: int, actions: Any, views: Any) -> dict[str, Any]:
    """Steps a CPU-second of one case."""
    start = time.process_time()
    env = R2RNavEnv(world=world, split=split, actions=actions, views=views, max_episode_steps=15)
    rng = np.random.default_rng(0)
    chosen = rng.choice(list(env.instructions), n).tolist()
    for one in {env.instructions[name].scan: name for name in chosen}.values():
        env.reset(options={"instr_id": one})
    setup = time.process_time() - start
    rates = []
    for k in range(0, n, CHUNK):
        start = time.process_time()
        steps = episodes(env, chosen[k : k + CHUNK], rng)
        rates.append(steps / (time.process_time() - start))
    return {
        "world": world,
        "split": split,
        "actions": actions,
        "views": views,
        "episodes": n,
        "setup_s": round(setup, 3),
        "steps_per_cpu_s": round(statistics.median(rates)),
        "p10": round(float(np.quantile(rates, 0.1))),
        "p90": round(float(np.quantile(rates, 0.9))),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all cases; status 1 where one misses the target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--split", default="val_unseen")
    parser.add_argument("--episodes", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    worlds = ["sketch"]
    if (data_folder() / "r2r").is_dir():
        worlds.append("r2r")
    rows = [
        measure(world, arguments.split, arguments.episodes, actions, views)
        for world in worlds
        for actions in ("panoramic", "low-level")
        for views in ("symbolic", "none")
    ]
    good = all(row["steps_per_cpu_s"] >= TARGET for row in rows)
    results = {
        "target": TARGET,
        "met": good,
        "cases": rows,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    if arguments.json:
        print(json.dumps(results, indent=2))
    else:
        for row in rows:
            case = f"{row['world']:7}{row['actions']:10}{row['views']:9}"
            print(
                f"{case}{row['steps_per_cpu_s']:7d} steps/CPU-s "
                f"(p10 {row['p10']}, p90 {row['p90']}), setup {row['setup_s']} s"
            )
        print("met" if good else "MISSED", f"{TARGET:.0f} steps/CPU-s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
