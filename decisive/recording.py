"""Demonstrations of scripted experts, the same whatever the number of workers.

Episode i of a recording is a function of (environment, options, expert, noise, seed + i) alone.
Seeds are tried in order, in blocks; the first `episodes` successes make the data set.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive import provenance
from decisive.episodes import ExpertActor, observation_shapes
from decisive.options import make_env
from decisive.progress import progress
from learning.atomic import write_file
from learning.demonstrations import Demonstrations, concatenate
from learning.npz_format import read_npz, write_npz

BLOCK = 10
"""Seeds of a block: what a worker takes at a time, and what a kill can lose."""
MIN_SUCCESS = 0.2
"""An expert that succeeds less often than this is refused, after `PATIENCE` attempts."""
PATIENCE = 50
NOISE_KEY = (1, 1)
"""Spawn key of the noise on actions: apart from every stream that places an episode."""

LICENSE = "CC0-1.0 (recorded from a scripted expert in simulation)"

Array = NDArray[Any]


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

    def facts(self) -> dict[str, Any]:
        """What two recordings must share for their blocks to be exchangeable."""
        return {
            "env": self.env,
            "env_options": self.options,
            "expert": self.expert,
            "seed": self.seed,
            "noise": self.noise,
            "versions": provenance.versions(),
            "commit": provenance.commit(),
        }


@dataclass(frozen=True)
class Recorded:
    """One successful episode of T actions.

    Attributes:
        seed: its seed.
        observations: `(T + 1, ...)` by key.
        actions: `(T, A)` float32, the expert's clean actions.
        rewards: `(T,)` float32.
        terminated: whether it ended by itself rather than at the limit.
    """

    seed: int
    observations: dict[str, Array]
    actions: Array
    rewards: Array
    terminated: bool


def record_episode(env: gym.Env[Any, Any], expert: str, seed: int, noise: float) -> Recorded | None:
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
    return Recorded(
        seed=seed,
        observations=_by_key(seen, env.observation_space),
        actions=np.stack(actions),
        rewards=np.asarray(rewards, np.float32),
        terminated=terminated,
    )


def to_demonstrations(
    episodes: list[Recorded], env: gym.Env[Any, Any], config: RecordConfig
) -> Demonstrations:
    """Lay successful episodes end to end."""
    base: Any = env.unwrapped
    space: Any = env.action_space
    keys = list(episodes[0].observations)
    lengths = [len(e.actions) for e in episodes]
    return Demonstrations(
        observations={k: np.concatenate([e.observations[k][:-1] for e in episodes]) for k in keys},
        actions=np.concatenate([e.actions for e in episodes]),
        rewards=np.concatenate([e.rewards for e in episodes]),
        episode_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        action_low=space.low,
        action_high=space.high,
        meta={
            "env": config.env,
            "env_options": dict(config.options),
            "observation_fields": [_field(f) for f in base.state_fields],
            "action_fields": [_field(f) for f in base.action_fields],
            "expert": config.expert,
            "noise": config.noise,
            "seed": config.seed,
            "license": LICENSE,
        },
        final_observations={k: np.stack([e.observations[k][-1] for e in episodes]) for k in keys},
        terminated=np.array([e.terminated for e in episodes]),
    )


def _field(described: Any) -> dict[str, Any]:
    """An `envs.fields.Field` as JSON."""
    return {name: getattr(described, name) for name in ("name", "size", "kind", "unit", "doc")}


def _by_key(observations: list[Any], space: gym.Space[Any]) -> dict[str, Array]:
    if isinstance(observations[0], dict):
        return {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    (key,) = observation_shapes(space)
    return {key: np.stack(observations)}


@dataclass(frozen=True)
class Block:
    """What became of the seeds of one block.

    Attributes:
        number: 0 for the first seeds.
        kept: number of successful episodes, in the order of their seeds.
        failed: seeds of the others.
    """

    number: int
    kept: int
    failed: tuple[int, ...]


class BlockStore:
    """Finished blocks in a folder, so that a recording that was killed goes on.

    A block is an `.npz` file of its successes, then a small JSON file, which makes it count.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder."""
        self.folder = folder

    def open(self, config: RecordConfig) -> None:
        """Make the folder, or empty one that holds blocks of another recording."""
        label = self.folder / "recording.json"
        facts = json.loads(json.dumps(config.facts()))
        try:
            same = json.loads(label.read_bytes()) == facts
        except (OSError, ValueError):
            same = False
        if not same:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            write_file(label, json.dumps(facts).encode())

    def has(self, number: int) -> bool:
        """Whether a block is finished."""
        return self._label(number).is_file()

    def read(self, number: int) -> Block:
        """A finished block."""
        told = json.loads(self._label(number).read_bytes())
        return Block(number, told["kept"], tuple(told["failed"]))

    def demonstrations(self, block: Block, episodes: int) -> Demonstrations:
        """The first successes of a block."""
        return read_npz(self._data(block.number)).episodes(episodes)

    def write(self, block: Block, demos: Demonstrations | None) -> None:
        """Keep a finished block; `demos` is `None` where no episode succeeded."""
        if demos is not None:
            write_npz(demos, self._data(block.number), compress=False)
        told = {"kept": block.kept, "failed": block.failed}
        write_file(self._label(block.number), json.dumps(told).encode())

    def remove(self) -> None:
        """Throw all blocks away, once the data set is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _data(self, number: int) -> Path:
        return self.folder / f"block-{number:06d}.npz"

    def _label(self, number: int) -> Path:
        return self.folder / f"block-{number:06d}.json"


def record(config: RecordConfig, staging: Path) -> Demonstrations:
    """Record demonstrations.

    Args:
        config: what to record.
        staging: folder for finished blocks; an equal recording that was stopped goes on from it.
            The caller removes it once the data set is safe.

    Returns:
        `config.episodes` successful episodes; `meta` tells `attempts` and `failed_seeds`.

    Raises:
        ValueError: for unknown environments, options or experts, or one that fails nearly always.
        OSError: if a worker process died or the folder cannot be written.
    """
    store = BlockStore(staging)
    store.open(config)
    blocks: list[Block] = []
    kept = 0
    with progress(f"{config.expert} expert in {config.env}", config.episodes) as meter:
        for block in _blocks(config, store):
            blocks.append(block)
            kept += block.kept
            failed = sum(len(b.failed) for b in blocks)
            meter.advance(block.kept, f"{failed} failed" if failed else "")
            if kept >= config.episodes:
                break
            attempts = len(blocks) * BLOCK
            if attempts >= PATIENCE and kept < MIN_SUCCESS * attempts:
                raise ValueError(
                    f"the {config.expert} expert succeeded in {kept} of {attempts} episodes of "
                    f"{config.env} with these options; demonstrations need one that succeeds"
                )
    parts, missing = [], config.episodes
    for block in blocks:
        take = min(block.kept, missing)
        if take:
            parts.append(store.demonstrations(block, take))
        missing -= take
    joined = concatenate(parts)
    meta = {key: value for key, value in joined.meta.items() if key != "parts"}
    failures = [seed for block in blocks for seed in block.failed]
    # Attempts after the last episode that was needed are not told: they depend on the block size.
    last = _last_seed(config, blocks)
    meta["failed_seeds"] = [seed for seed in failures if seed < last]
    meta["attempts"] = last - config.seed + 1
    return replace(joined, meta=meta)


def _last_seed(config: RecordConfig, blocks: list[Block]) -> int:
    """Seed of the last episode that the data set holds."""
    failed = {seed for block in blocks for seed in block.failed}
    left = config.episodes
    seed = config.seed - 1
    while left:
        seed += 1
        left -= seed not in failed
    return seed


def _blocks(config: RecordConfig, store: BlockStore) -> Iterator[Block]:
    """Blocks in the order of their numbers, without end; those not yet finished are run."""
    if config.workers == 1:
        number = 0
        while True:
            if not store.has(number):
                _record_block(config, store, number)
            yield store.read(number)
            number += 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.workers, context, _start_worker) as pool:
        waiting: dict[int, Future[None]] = {}
        number = 0
        try:
            while True:
                # A few blocks ahead keep all workers busy; more would be recorded in vain.
                for ahead in range(number, number + config.workers + 1):
                    if ahead not in waiting and not store.has(ahead):
                        waiting[ahead] = pool.submit(_record_block, config, store, ahead)
                if number in waiting:
                    waiting.pop(number).result()
                yield store.read(number)
                number += 1
        except BrokenProcessPool as error:
            raise OSError(
                "a worker process died (out of memory?); the same command continues from the "
                "finished episodes"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.setdefault("OMP_NUM_THREADS", "1")


_envs: dict[str, gym.Env[Any, Any]] = {}
"""Environments of this process by what they are: built once, not once a block."""


def _record_block(config: RecordConfig, store: BlockStore, number: int) -> None:
    """Run the seeds of one block and keep what succeeded."""
    key = json.dumps([config.env, config.options], default=str)
    if key not in _envs:
        _envs[key] = make_env(config.env, config.options)
    env = _envs[key]
    first = config.seed + number * BLOCK
    episodes, failed = [], []
    for seed in range(first, first + BLOCK):
        episode = record_episode(env, config.expert, seed, config.noise)
        if episode is None:
            failed.append(seed)
        else:
            episodes.append(episode)
    demos = to_demonstrations(episodes, env, config) if episodes else None
    store.write(Block(number, len(episodes), tuple(failed)), demos)
