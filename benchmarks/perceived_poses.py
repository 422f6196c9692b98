"""How well a policy does when it sees the objects only through a camera, without ROS.

    python -m benchmarks.perceived_poses [--env decisive/BlockInsertion-v0] \
        [--policy block-insertion-ibc] [--episodes 100] [--set slots=2] [--json]

Every episode runs twice on the same seed: with the exact state, and with a state in which every
object's pose is what `robots.pose_estimation` makes of one colour and depth picture a step
(640x480, `envs.tabletop.camera.ROBOT_CAMERA`). The effector's own position stays, as a robot knows
it. What is not seen keeps its last pose. Success with its 95% interval, errors of the poses, CPU
milliseconds of an estimate (`thread_time`, one thread; the rendering is not counted).

`--depth-noise 0.001` adds a millimetre of noise to every pixel's depth. `--free-slots` does not use
that two slots are one piece. Policies that were trained on such a pair have inputs that never
varied, and a few hundredths of a millimetre in them stop the policy, however good the estimate.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray

from agents import load_policy
from decisive.episodes import Episode, PolicyActor, check_fit, run_episode
from decisive.options import make_env, parse_options
from decisive.provenance import commit, machine, versions
from decisive.statistics import median_and_p95, paired_test, wilson_interval
from decisive.tables import percent
from envs.fields import Field, slices
from envs.tabletop.base import EFFECTOR_FIELDS, TabletopEnv
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.push import HALF
from robots.pose_estimation import MODELS, Model, Pose2D, SceneEstimator, SlotModel, wrap

CONTROL_PERIOD = 0.1
_TURNS = {"yaw4": 4, "heading": 1}


class PerceivingActor:
    """A policy that sees the objects through the camera."""

    def __init__(
        self, policy: PolicyActor, models: Sequence[Model], depth_noise: float = 0.0
    ) -> None:
        """Wrap a policy.

        Args:
            policy: takes the state.
            models: what lies on the table.
            depth_noise: standard deviation of the noise on every pixel's depth, metres.
        """
        self.policy = policy
        self.scene = SceneEstimator(models)
        self.depth_noise = depth_noise
        self.errors: dict[str, list[float]] = defaultdict(list)
        """By field: distances in metres, turns in rad."""
        self.estimate_ms: list[float] = []
        self.unseen = 0
        """How many poses were older than their picture."""

    def reset(self, env: gym.Env[Any, Any], seed: int) -> None:
        """Forget the last episode."""
        base = env.unwrapped
        assert isinstance(base, TabletopEnv)
        self.env = base
        self.policy.reset(env, seed)
        self.scene.reset()
        self._rng = np.random.default_rng(seed)
        self._poses: dict[str, Pose2D] = {}
        self._steps = 0

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[np.floating]:
        """The policy's action for the perceived state."""
        self._look()
        perceived = perceived_state(obs, self.env.state_fields, self._poses)
        for name, error in field_errors(obs, perceived, self.env.state_fields).items():
            self.errors[name].append(error)
        return self.policy.act(perceived, info)

    def _look(self) -> None:
        rgb, depth = rgbd(self.env.scene.client, ROBOT_CAMERA, self.env.variation.light)
        if self.depth_noise > 0:
            depth = depth + self._rng.normal(0.0, self.depth_noise, depth.shape).astype(np.float32)
        start = time.thread_time()
        sightings = self.scene.update(
            rgb,
            depth,
            ROBOT_CAMERA.matrix,
            ROBOT_CAMERA.T_world_camera,
            self._steps * CONTROL_PERIOD,
        )
        self.estimate_ms.append((time.thread_time() - start) * 1e3)
        self._steps += 1
        for name, sighting in sightings.items():
            if sighting is not None:
                self._poses[name] = sighting.pose
            self.unseen += sighting is None or sighting.age > 0


def models_of(env: Any, env_id: str, free_slots: bool = False) -> tuple[Model, ...]:
    """What lies on an environment's table, with slots as wide as it builds them.

    Args:
        env: the bare environment.
        env_id: its id.
        free_slots: whether to measure each of two slots by itself.
    """
    return tuple(
        replace(
            model,
            half_mouth=HALF + env.clearance,
            fixed_to="" if free_slots else model.fixed_to,
        )
        if isinstance(model, SlotModel)
        else model
        for model in MODELS[env_id]
    )


def perceived_state(
    state: NDArray[np.floating], fields: Sequence[Field], poses: Mapping[str, Pose2D]
) -> NDArray[np.float32]:
    """The state with every object's numbers replaced.

    Args:
        state: `(D,)` exact.
        fields: of the state, named `<object>_xy`, `<object>_yaw4` and `<object>_heading`.
        poses: by object.

    Raises:
        ValueError: if an object has no pose yet.
    """
    result = np.array(state, dtype=np.float32)
    known = {field.name for field in EFFECTOR_FIELDS}
    for name, part in slices(fields).items():
        if name in known:
            continue
        thing, _, kind = name.rpartition("_")
        if thing not in poses:
            raise ValueError(f"{thing} was not seen; the policy needs {name}")
        pose = poses[thing]
        if kind == "xy":
            result[part] = pose.x, pose.y
        else:
            angle = _TURNS[kind] * pose.yaw
            result[part] = math.cos(angle), math.sin(angle)
    return result


def field_errors(
    exact: NDArray[np.floating], perceived: NDArray[np.floating], fields: Sequence[Field]
) -> dict[str, float]:
    """By field: distance in metres, or turn in rad, between two states."""
    errors = {}
    for name, part in slices(fields).items():
        first, second = exact[part].astype(float), perceived[part].astype(float)
        turns = _TURNS.get(name.rpartition("_")[2])
        if turns is None:
            errors[name] = float(np.hypot(*(first - second)))
        else:
            angle = math.atan2(second[1], second[0]) - math.atan2(first[1], first[0])
            errors[name] = abs(wrap(angle, 2 * math.pi)) / turns
    return errors


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Success rate of some episodes."""
    successes = sum(bool(episode.success) for episode in episodes)
    return {
        "success_rate": successes / len(episodes),
        "success_ci95": list(wilson_interval(successes, len(episodes))),
        "length_mean": float(np.mean([episode.length for episode in episodes])),
        "failed_seeds": [episode.seed for episode in episodes if not episode.success],
    }


def error_summary(errors: Mapping[str, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """Median and 95th percentile by field, in millimetres or degrees; not of the effector."""
    rows: dict[str, dict[str, Any]] = {}
    for name in errors.keys() - {field.name for field in EFFECTOR_FIELDS}:
        is_turn = name.rpartition("_")[2] in _TURNS
        values = np.degrees(errors[name]) if is_turn else 1e3 * np.array(errors[name])
        median, p95 = median_and_p95(values.tolist())
        rows[name] = {"unit": "deg" if is_turn else "mm", "median": median, "p95": p95}
    return dict(sorted(rows.items()))


def run(
    env_id: str,
    options: Mapping[str, Any],
    name: str,
    episodes: int,
    seed: int = 0,
    depth_noise: float = 0.0,
    free_slots: bool = False,
) -> dict[str, Any]:
    """Run every episode with the exact and with the perceived state, and compare."""
    env = make_env(env_id, options)
    policy = load_policy(name)
    check_fit(policy, env, env_id)
    plain = PolicyActor(policy)
    perceiving = PerceivingActor(plain, models_of(env.unwrapped, env_id, free_slots), depth_noise)
    exact, perceived = [], []
    for i in range(seed, seed + episodes):
        exact.append(run_episode(env, plain, i))
        perceived.append(run_episode(env, perceiving, i))
    env.close()
    test = paired_test(*([bool(e.success) for e in rows] for rows in (exact, perceived)))
    median, p95 = median_and_p95(perceiving.estimate_ms)
    return {
        "env": env_id,
        "env_options": dict(options),
        "policy": name,
        "episodes": episodes,
        "seed": seed,
        "depth_noise_m": depth_noise,
        "free_slots": free_slots,
        "exact": summary(exact),
        "perceived": summary(perceived),
        "only_exact_succeeded": test.only_first,
        "only_perceived_succeeded": test.only_second,
        "mcnemar_p": test.p,
        "errors": error_summary(perceiving.errors),
        "poses_older_than_the_picture": perceiving.unseen,
        "pictures": len(perceiving.estimate_ms),
        "estimate_ms": {"median": round(median, 2), "p95": round(p95, 2)},
        "versions": versions(),
        "commit": commit(),
        "machine": machine(),
    }


def report(result: Mapping[str, Any]) -> None:
    """Print a result for people."""
    print(f"{result['policy']} in {result['env']} {result['env_options'] or ''}")
    for state in ("exact", "perceived"):
        row = result[state]
        rate = percent(row["success_rate"], row["success_ci95"])
        print(f"  {state:9s} {rate} % of {result['episodes']}, {row['length_mean']:.1f} steps")
    for name, row in result["errors"].items():
        print(f"  {name:14s} median {row['median']:.3f} {row['unit']}, 95% {row['p95']:.3f}")
    speed = result["estimate_ms"]
    print(
        f"  {speed['median']} ms CPU per picture (95% {speed['p95']}), {result['pictures']} of them"
    )
    print(f"  {result['poses_older_than_the_picture']} poses older than their picture")


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
        result = run(
            args.env,
            options,
            args.policy,
            args.episodes,
            args.seed,
            args.depth_noise,
            args.free_slots,
        )
    except ValueError as error:
        parser.error(str(error))
    if args.json:
        print(json.dumps(result))
    else:
        report(result)


if __name__ == "__main__":
    main()
