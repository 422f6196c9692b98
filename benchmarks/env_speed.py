"""How much of a tabletop step is physics; how many steps, frames and resets a CPU-second buys.

    python -m benchmarks.env_speed [--env decisive/BlockPush-v0] [--arm cylinder] [--json]

The baseline of a step is the bare 24 `stepSimulation` calls of the same scene at rest: both sides
alternate in chunks of 20 within one run, so that a busy machine slows both, and the ratio is the
median over chunks of bare time / step time. All times are CPU time (`process_time`) of this one
process. Free motion: the finger goes to and fro beside the blocks. Contact: steps of the scripted
expert at whose end the finger touches a block or a fixture.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np

import envs
from decisive import provenance
from envs.tabletop.base import TabletopEnv
from envs.tabletop.scene import ARMS, SUBSTEPS

TABLETOP_IDS = tuple(i for i in envs.ENV_IDS if i.startswith("decisive/Block"))
CHUNK = 20
TARGETS = {
    "ratio": {"cylinder": 0.7, "xarm6": 0.7},
    "free_steps_per_s": {"cylinder": 1000.0, "xarm6": 400.0},
    "pixels_96x96_steps_per_s": {"cylinder": 250.0},
    "reset_ms": {"cylinder": 2.0, "xarm6": 5.0},
}
"""Least value, but most for `reset_ms`. Physics alone is slower than that with eight blocks."""


def make(env_id: str, **options: Any) -> TabletopEnv:
    """The bare environment, without Gymnasium's wrappers."""
    env = gymnasium.make(env_id, disable_env_checker=True, **options).unwrapped
    assert isinstance(env, TabletopEnv)
    return env


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of `repeats` calls."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return time.process_time() - start


def to_and_fro(env: TabletopEnv) -> Callable[[], object]:
    """Steps that move the finger 15 mm sideways and back, touching nothing."""
    actions = [np.array([0.0, y], np.float32) for y in (0.015, -0.015)]
    turn = 0

    def step() -> None:
        nonlocal turn
        turn = 1 - turn
        env.step(actions[turn])

    return step


def bare(env: TabletopEnv) -> Callable[[], object]:
    """The physics of one control step and nothing else."""
    physics = env.scene.client.stepSimulation

    def step() -> None:
        for _ in range(SUBSTEPS):
            physics()

    return step


def free_motion(env: TabletopEnv, chunks: int) -> dict[str, float]:
    """Steps per CPU-second beside bare physics, alternating."""
    env.reset(seed=0)
    move, physics = to_and_fro(env), bare(env)
    cpu_seconds(move, CHUNK)
    moving, resting = [], []
    for _ in range(chunks):
        moving.append(cpu_seconds(move, CHUNK) / CHUNK)
        env.step(np.zeros(2, np.float32))  # the motors stand still while physics runs alone
        resting.append(cpu_seconds(physics, CHUNK) / CHUNK)
    ratios = np.array(resting) / np.array(moving)
    return {
        "free_steps_per_s": 1 / float(np.median(moving)),
        "bare_steps_per_s": 1 / float(np.median(resting)),
        "ratio": float(np.median(ratios)),
        "ratio_p25": float(np.percentile(ratios, 25)),
        "ratio_p75": float(np.percentile(ratios, 75)),
    }


def in_contact(env: TabletopEnv, episodes: int) -> float:
    """Steps per CPU-second of the expert's steps that end in contact."""
    body, link = env.scene.effector.tip_link
    times = []
    for seed in range(episodes):
        obs, info = env.reset(seed=seed, options={"stream": "train"})
        expert = env.expert()
        for _ in range(60):
            action = expert.act(obs, info)
            start = time.process_time()
            obs, _, terminated, _, info = env.step(action)
            taken = time.process_time() - start
            if env.scene.client.getContactPoints(bodyA=body, linkIndexA=link):
                times.append(taken)
            if terminated:
                break
    return 1 / float(np.median(times))


def pixels(env_id: str, arm: str, size: tuple[int, int], repeats: int) -> float:
    """Steps per CPU-second with a picture of `size` as the observation."""
    env = make(env_id, arm=arm, observation="pixels", image_size=size)
    env.reset(seed=0)
    step = to_and_fro(env)
    cpu_seconds(step, 3)
    seconds = [cpu_seconds(step, 1) for _ in range(repeats)]
    env.close()
    return 1 / float(np.median(seconds))


def resets(env: TabletopEnv, repeats: int) -> float:
    """Milliseconds of a reset, each after a few steps."""
    seconds = []
    for seed in range(repeats):
        cpu_seconds(to_and_fro(env), 2)
        start = time.process_time()
        env.reset(seed=seed)
        seconds.append(time.process_time() - start)
    return 1e3 * float(np.median(seconds))


def missed(row: dict[str, Any], arm: str) -> list[str]:
    """Targets of `TARGETS` that a row does not meet, in words."""
    found = []
    for name, limits in TARGETS.items():
        if arm not in limits:
            continue
        most = name == "reset_ms"
        if row[name] > limits[arm] if most else row[name] < limits[arm]:
            found.append(
                f"{name} {row[name]:.3g} (at {'most' if most else 'least'} {limits[arm]:g})"
            )
    return found


def measure(env_id: str, arm: str, effort: int) -> dict[str, Any]:
    """Every number of one environment with one arm."""
    env = make(env_id, arm=arm)
    row: dict[str, Any] = {"env": env_id, "arm": arm, **free_motion(env, 2 * effort)}
    row["contact_steps_per_s"] = in_contact(env, max(1, effort // 4))
    row["reset_ms"] = resets(env, 4 * effort)
    env.close()
    row["pixels_96x96_steps_per_s"] = pixels(env_id, arm, (96, 96), 4 * effort)
    row["pixels_240x320_steps_per_s"] = pixels(env_id, arm, (240, 320), effort)
    row["missed"] = missed(row, arm)
    return row


def profile(env_id: str, arm: str) -> None:
    """Print where the time of free motion goes."""
    env = make(env_id, arm=arm)
    env.reset(seed=0)
    step = to_and_fro(env)
    profiler = cProfile.Profile()
    profiler.runcall(cpu_seconds, step, 300)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(16)
    env.close()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a table or JSON."""
    parser = argparse.ArgumentParser(description="Speed of the tabletop environments.")
    parser.add_argument("--env", action="append", choices=TABLETOP_IDS, help="default: all")
    parser.add_argument("--arm", action="append", choices=sorted(ARMS), help="default: both")
    parser.add_argument("--effort", type=int, default=12, help="repetitions; scales the time")
    parser.add_argument("--json", action="store_true", help="one machine-readable object")
    parser.add_argument("--profile", action="store_true", help="cProfile of free motion instead")
    arguments = parser.parse_args(argv)
    if arguments.effort < 1:
        parser.error(f"--effort must be at least 1, got {arguments.effort}")
    cases = [
        (env_id, arm)
        for env_id in arguments.env or TABLETOP_IDS
        for arm in arguments.arm or ("cylinder", "xarm6")
    ]
    if arguments.profile:
        for case in cases:
            profile(*case)
        return
    rows = [measure(*case, arguments.effort) for case in cases]
    result = {
        "rows": rows,
        "targets": TARGETS,
        "threads": 1,
        "machine": provenance.machine(),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
        "command": " ".join(["python -m benchmarks.env_speed", *(argv or sys.argv[1:])]),
    }
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    names = [name for name in rows[0] if name not in ("env", "arm", "missed")]
    for row in rows:
        print(f"{row['env']} {row['arm']}")
        for name in names:
            print(f"  {name:28s}{row[name]:10.2f}")
        print(f"  missed: {', '.join(row['missed']) or 'none'}")


if __name__ == "__main__":
    main()
