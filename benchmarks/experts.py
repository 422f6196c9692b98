"""How often the scripted experts of the tabletop tasks succeed, in every form of the task.

    python -m benchmarks.experts [--episodes 200] [--only insertion,cylinder] [--json FILE]

Evaluation stream, seeds 0 to `episodes` - 1, on which no expert was tuned; a Wilson 95% interval
each. CPU seconds are `process_time` of reset, expert and simulator together.
`--only` keeps the cases whose names hold every given word (`insertion,push,slots=2`); the whole
table takes about 20 CPU-minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console

from decisive.provenance import commit, machine, versions
from decisive.statistics import wilson_interval
from decisive.tables import percent, plain_table
from envs import register_envs

ARMS = ("cylinder", "xarm6")
CONTROLS = ("delta", "push")
MODES = ("consistent", "diverse")
TASKS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "push": ("decisive/BlockPush-v0", ({},)),
    "multimodal": ("decisive/BlockPushMultimodal-v0", ({},)),
    "insertion": (
        "decisive/BlockInsertion-v0",
        tuple(
            {"slots": slots, "clearance": clearance}
            for slots in (1, 2)
            for clearance in (1.0, 0.5, 2.5)
        ),
    ),
    "sorting": ("decisive/BlockSorting-v0", ({"n_blocks": 4}, {"n_blocks": 8})),
}
"""Task to its id and the options that make it harder or easier."""
_CHUNK = 25


@dataclass(frozen=True)
class Case:
    """One row: an environment, its options, and the expert's mode."""

    task: str
    env_id: str
    mode: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The task, the arm, the control, the mode and the options, for `--only` and the table."""
        words = [self.task, self.options["arm"], self.options["control"], self.mode]
        words += [f"{k}={v}" for k, v in self.options.items() if k not in ("arm", "control")]
        return " ".join(words)


def cases(words: Sequence[str] = ()) -> list[Case]:
    """Every case whose name holds each of `words`."""
    every = [
        Case(task, env_id, mode, {"arm": arm, "control": control, **options})
        for task, (env_id, variants) in TASKS.items()
        for arm, control, options, mode in itertools.product(ARMS, CONTROLS, variants, MODES)
    ]
    return [case for case in every if all(word in case.name.split() for word in words)]


def run_chunk(job: tuple[Case, int, int]) -> list[tuple[bool, float, int, float]]:
    """Success, score, steps and CPU seconds of the episodes with seeds `first` to `last` - 1."""
    case, first, last = job
    register_envs()  # also where the project is not installed
    env = gymnasium.make(case.env_id, disable_env_checker=True, **case.options)
    base: Any = env.unwrapped
    rows = []
    for seed in range(first, last):
        start = time.process_time()
        obs, info = env.reset(seed=seed)
        expert = base.expert(mode=case.mode, seed=seed)
        steps, over = 0, False
        while not over:
            obs, _, terminated, truncated, info = env.step(expert.act(obs, info))
            steps, over = steps + 1, terminated or truncated
        rows.append((info["success"], info["score"], steps, time.process_time() - start))
    env.close()
    return rows


def measure(chosen: Sequence[Case], episodes: int, workers: int) -> Iterator[dict[str, Any]]:
    """Results of each case, in order."""
    jobs = [
        (case, first, min(first + _CHUNK, episodes))
        for case in chosen
        for first in range(0, episodes, _CHUNK)
    ]
    per_case = -(-episodes // _CHUNK)
    # Spawned, because Bullet servers do not survive a fork.
    with get_context("spawn").Pool(workers) as pool:
        chunks = pool.imap(run_chunk, jobs)
        for case in chosen:
            rows = [row for _ in range(per_case) for row in next(chunks)]
            success, score, steps, seconds = (
                np.array(column) for column in zip(*rows, strict=True)
            )
            yield {
                **asdict(case),
                "name": case.name,
                "episodes": len(rows),
                "success_rate": float(success.mean()),
                "success_ci95": list(wilson_interval(int(success.sum()), len(rows))),
                "score_mean": float(score.mean()),
                "steps_median": float(np.median(steps)),
                "steps_p95": float(np.percentile(steps, 95)),
                "cpu_s_per_episode": float(seconds.mean()),
                "failed_seeds": np.flatnonzero(~success.astype(bool)).tolist(),
            }


def main() -> None:
    """Parse the command line, run, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--only", default="", help="words, comma-separated, all in the case's name")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    chosen = cases([word for word in arguments.only.split(",") if word])
    if not chosen or arguments.episodes < 1:
        names = "\n  ".join(case.name for case in cases())
        parser.error(
            f"nothing to run; --episodes must be positive and --only match one of\n  {names}"
        )
    console = Console(width=120)
    results = []
    for row in measure(chosen, arguments.episodes, arguments.workers):
        results.append(row)
        rate = percent(row["success_rate"], row["success_ci95"])
        console.print(f"{row['name']}: {rate}, {row['steps_median']:.0f} steps", highlight=False)
    header = ("case", "success % [95% CI]", "score %", "steps median", "p95", "CPU s/episode")
    table = [
        (
            row["name"],
            percent(row["success_rate"], row["success_ci95"]),
            percent(row["score_mean"]),
            f"{row['steps_median']:.0f}",
            f"{row['steps_p95']:.0f}",
            f"{row['cpu_s_per_episode']:.3f}",
        )
        for row in results
    ]
    console.print(plain_table(header, table, f"{arguments.episodes} episodes each"))
    if arguments.json is not None:
        document = {
            "commit": commit(),
            "versions": versions(),
            "machine": machine(),
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
