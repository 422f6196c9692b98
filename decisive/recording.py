"""Demonstrations of scripted experts, the same whatever the number of workers.

Episode i of a recording is a function of (environment, options, expert, noise, seed + i) alone.
Seeds are tried in order, in blocks; the first `episodes` successes make the data set.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.episodes import ExpertActor, observation_shapes
from decisive.options import make_env
from decisive.progress import progress
from decisive.workers import process_pool
from learning.demonstrations import Demonstrations
from learning.shards import Episode, Recording

BLOCK = 10
"""Seeds of a block: what a worker takes at a time, and what a kill can lose."""
MIN_SUCCESS = 0.2
"""An expert that succeeds less often than this is refused, after `PATIENCE` attempts."""
PATIENCE = 50
NOISE_KEY = (1, 1)
"""Spawn key of the noise on actions: apart from every stream that places an episode."""

LICENSE = "CC0-1.0 (recorded from a scripted expert in simulation)"

Array = NDArray[Any]


class HopelessExpertError(ValueError):
    """The expert fails nearly always under the settings asked for."""


@dataclass(frozen=True)
class RecordConfig:
    """What to record.

    Attributes:
        env: environment id.
        options: its options by name, typed.
        expert: `consistent` or `diverse`.
        episodes: how many successful ones.
        seed: seed of the first attempt, of the stream `record`.
        noise: standard deviation of Gaussian noise on the executed action, in the unit of the
            action (metres on the tabletop). The label stays the expert's clean action, so that
            the data show the way back (Laskey et al. 2017, "DART").
        workers: parallel processes; the data do not depend on it.
    """

    env: str
    options: dict[str, Any] = field(default_factory=dict)
    expert: str = "consistent"
    episodes: int = 100
    seed: int = 0
    noise: float = 0.0
    workers: int = 1

    def __post_init__(self) -> None:
        """Reject what cannot be recorded."""
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        if self.workers < 1:
            raise ValueError(f"workers must be at least 1, got {self.workers}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0.0 <= self.noise < float("inf"):
            raise ValueError(f"noise must be a finite number, 0 or more, got {self.noise}")

    def signature(self) -> dict[str, Any]:
        """What two recordings must share for the one to go on with the other's episodes."""
        facts = {
            "env": self.env,
            "env_options": self.options,
            "expert": self.expert,
            "seed": self.seed,
            "noise": self.noise,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        plain: dict[str, Any] = json.loads(json.dumps(facts))  # tuples become lists
        return plain


def record_episode(env: gym.Env[Any, Any], expert: str, seed: int, noise: float) -> Episode | None:
    """Record one episode of the stream `record`; `None` if the expert failed."""
    actor = ExpertActor(expert)
    obs, info = env.reset(seed=seed, options={"stream": "record"})
    actor.reset(env, seed)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=NOISE_KEY))
    space: Any = env.action_space
    seen, actions, rewards = [obs], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = np.asarray(actor.act(obs, info), np.float32)
        executed = action + noise * rng.standard_normal(action.shape) if noise else action
        obs, reward, terminated, truncated, info = env.step(
            np.clip(executed, space.low, space.high).astype(np.float32)
        )
        seen.append(obs)
        actions.append(action)
        rewards.append(reward)
    if not info.get("success"):
        return None
    return Episode(
        observations=_by_key(seen, env.observation_space),
        actions=np.stack(actions),
        rewards=np.asarray(rewards, np.float32),
        terminated=bool(terminated),
    )


def record(config: RecordConfig, staging: Path) -> Demonstrations:
    """Record demonstrations.

    Args:
        config: what to record.
        staging: folder for finished episodes; an equal recording that was stopped goes on from it.
            The caller removes it once the data set is safe.

    Returns:
        `config.episodes` successful episodes; `meta` tells `attempts` and `failed_episodes`.

    Raises:
        ValueError: for unknown environments, options or experts, or one that fails nearly always.
        OSError: if a worker process died or the folder cannot be written.
    """
    env = make_env(config.env, config.options)
    try:
        base: Any = env.unwrapped
        space: Any = env.action_space
        # An environment without an expert is refused before anything is made.
        env.reset(seed=config.seed)
        ExpertActor(config.expert).reset(env, config.seed)
        if not isinstance(env.action_space, gym.spaces.Box):
            raise ValueError(
                f"{config.env} acts by choices, not by vectors: it has instructions and paths "
                "(envs.indoor.r2r_data), and nothing to record"
            )
        recording = Recording(staging, config.signature())
        meta = {
            "env": config.env,
            "env_options": dict(config.options),
            "observation_fields": [_field(f) for f in base.state_fields],
            "action_fields": [_field(f) for f in base.action_fields],
            "expert": config.expert,
            "noise": config.noise,
            "seed": config.seed,
            "license": LICENSE,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }
        try:
            _fill(recording, config)
        except HopelessExpertError:
            shutil.rmtree(staging)  # going on from there would end the same way
            raise
        return recording.demonstrations(space.low, space.high, meta, config.episodes)
    finally:
        env.close()


def _fill(recording: Recording, config: RecordConfig) -> None:
    """Record until there are enough successes."""
    with progress(f"{config.expert} expert in {config.env}", config.episodes) as meter:
        meter.advance(min(recording.kept, config.episodes))
        if recording.kept >= config.episodes:
            return
        for block in _blocks(config, config.seed + recording.attempts):
            needed = _until(block, config.episodes - recording.kept)
            before = recording.kept
            # Without what lies beyond the last episode needed: that depends on the block size.
            recording.append(needed, compress=False)
            failed = recording.failed
            meter.advance(recording.kept - before, f"{failed} failed" if failed else "")
            if recording.kept >= config.episodes:
                return
            attempts = recording.attempts
            if attempts >= PATIENCE and recording.kept < MIN_SUCCESS * attempts:
                raise HopelessExpertError(
                    f"the {config.expert} expert succeeded in {recording.kept} of {attempts} "
                    f"episodes of {config.env} with these options; demonstrations need one that "
                    "succeeds"
                )


def _until(block: list[Episode | None], successes: int) -> list[Episode | None]:
    """The head of a block that holds so many successes, or all of it."""
    for index, episode in enumerate(block):
        successes -= episode is not None
        if successes == 0:
            return block[: index + 1]
    return block


def _blocks(config: RecordConfig, first: int) -> Iterator[list[Episode | None]]:
    """Episodes of consecutive seeds from `first` on, in blocks, in order and without end."""
    if config.workers == 1:
        while True:
            yield _record_block(config, first)
            first += BLOCK
    with process_pool(config.workers) as pool:
        waiting: dict[int, Future[list[Episode | None]]] = {}
        try:
            while True:
                # A block ahead keeps every worker busy; more would be recorded in vain.
                for ahead in range(config.workers + 1):
                    start = first + ahead * BLOCK
                    if start not in waiting:
                        waiting[start] = pool.submit(_record_block, config, start)
                yield waiting.pop(first).result()
                first += BLOCK
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died (out of memory?); the same command continues from the "
                "finished episodes"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_envs: dict[str, gym.Env[Any, Any]] = {}
"""The environment of this process by what it is: built once, not once a block."""


def _record_block(config: RecordConfig, first: int) -> list[Episode | None]:
    """Run the seeds of one block; `None` for an episode that failed."""
    key = json.dumps([config.env, config.options], default=str)
    if key not in _envs:
        for old in _envs.values():
            old.close()
        _envs.clear()
        _envs[key] = make_env(config.env, config.options)
    return [
        record_episode(_envs[key], config.expert, seed, config.noise)
        for seed in range(first, first + BLOCK)
    ]


def _field(described: Any) -> dict[str, Any]:
    """An `envs.fields.Field` as JSON."""
    return {name: getattr(described, name) for name in ("name", "size", "kind", "unit", "doc")}


def _by_key(observations: list[Any], space: gym.Space[Any]) -> dict[str, Array]:
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    (key,) = observation_shapes(space)
    return {key: np.stack(observations)}
