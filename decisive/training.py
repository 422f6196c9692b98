"""Training a policy on demonstrations, its checkpoint chosen by episodes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from agents import Policy, make_policy, save_policy
from agents.kernel_ridge import KernelPolicy
from decisive import provenance
from decisive.distill_policy import fit_and_save
from decisive.episodes import Episode, PolicyActor, observation_shapes, run_episodes
from decisive.model_card import CardFacts, card
from decisive.options import make_env
from learning.demonstrations import Demonstrations, concatenate, load_demonstrations
from learning.loop import TrainConfig, TrainResult, train

SELECTION = (
    "mean of success rate and score (D4RL tasks: normalised score) over {} episodes of the stream "
    "`select`"
)


@dataclass(frozen=True)
class TrainingRun:
    """One training.

    Attributes:
        data: data sets, names or paths, joined in this order.
        method: a key of `agents.POLICIES`.
        out: folder of the run.
        train: how to train; its seed also decides the initial weights.
        policy: settings of the policy that differ from its defaults, nested as its config is.
        episodes: demonstrations kept, the first of each data set; all if `None`.
        selection_episodes: episodes by which a checkpoint is chosen; 0 runs none.
        command: the command line, for the record.
    """

    data: tuple[str, ...]
    method: str
    out: Path
    train: TrainConfig
    policy: Mapping[str, Any] = field(default_factory=dict)
    episodes: int | None = None
    selection_episodes: int = 20
    command: str = ""

    def __post_init__(self) -> None:
        """Reject what cannot be run."""
        if not self.data:
            raise ValueError("at least one data set is needed: --data NAME")
        if self.selection_episodes < 0:
            raise ValueError(
                f"selection episodes must not be negative, got {self.selection_episodes}"
            )


def run_training(
    run: TrainingRun, resume: bool = True, progress: bool | None = None
) -> TrainResult:
    """Train, or go on with a training that was stopped.

    Args:
        run: what to train.
        resume: whether to go on with what is in the folder; otherwise it starts afresh.
        progress: whether to draw a progress bar; `None` where standard output is a terminal.

    Returns:
        The result of the loop; `folder` is the checkpoint to use.

    Raises:
        ValueError: for unknown data, methods or settings, or where they do not fit.
        OSError: if a file cannot be read or written.
    """
    demos = load_data(run.data, run.episodes)
    torch.manual_seed(run.train.seed)  # the initial weights come from the global generator
    began = time.process_time()
    settings = {"seed": run.train.seed, **run.policy} if run.method == "kernel" else run.policy
    policy = make_policy(run.method, demos, settings)
    fitting = time.process_time() - began
    selection = Selection.of(demos, run.selection_episodes)
    facts = CardFacts(
        method=run.method,
        parameters=_n_weights(policy),
        data=run.data,
        meta=demos.meta,
        command=run.command,
        versions=provenance.versions(),
        commit=provenance.commit(),
        selection=SELECTION.format(run.selection_episodes),
    )
    try:
        if selection is not None:
            selection.check(demos)
        if isinstance(policy, KernelPolicy):  # fitted already: there are no steps
            return fit_and_save(policy, demos, run.out, partial(_save, facts=facts), fitting)
        return train(
            policy,
            demos,
            run.train,
            run.out,
            evaluate=selection,
            resume=resume,
            save=partial(_save, facts=facts),
            progress=progress,
        )
    finally:
        if selection is not None:
            selection.close()


def _n_weights(policy: Policy) -> int:
    """Numbers that training finds; of a kernel policy its points and their actions."""
    if isinstance(policy, KernelPolicy):
        return policy.points.numel() + policy.labels.numel()
    return sum(p.numel() for p in policy.parameters() if p.requires_grad)


def load_data(names: Sequence[str], episodes: int | None) -> Demonstrations:
    """Read and join data sets, keeping the first episodes of each."""
    parts = [load_demonstrations(name) for name in names]
    if episodes is not None:
        parts = [part.episodes(episodes) for part in parts]
    return concatenate(parts)


class Selection:
    """Scores a policy in episodes that are used for choosing checkpoints and for nothing else.

    The score is the mean of success rate and partial score: success alone tells checkpoints of a
    hard task apart too rarely. Where an environment has a normalised score it is that, over 100;
    where it reports nothing, the mean return.
    """

    def __init__(self, worlds: Sequence[tuple[str, dict[str, Any]]], episodes: int) -> None:
        """Name the environments, with their options, that share the episodes."""
        self.worlds = list(worlds)
        self.episodes = episodes
        self._envs: list[gym.Env[Any, Any]] = []

    @classmethod
    def of(cls, demos: Demonstrations, episodes: int) -> Selection | None:
        """The episodes that fit some demonstrations; `None` where they name no environment."""
        told = [
            (part["env"], dict(part.get("env_options") or {}))
            for part in demos.meta.get("parts") or [demos.meta]
            if part.get("env")
        ]
        worlds = [w for i, w in enumerate(told) if w not in told[:i]]
        return cls(worlds, episodes) if worlds and episodes else None

    def check(self, demos: Demonstrations) -> None:
        """Raise `ValueError` where the data are not of an environment that they name."""
        seen = {key: tuple(rows.shape[1:]) for key, rows in demos.observations.items()}
        for (env_id, _), env in zip(self.worlds, self._environments(), strict=True):
            offered = observation_shapes(env.observation_space)
            fits = all(offered.get(key) == shape for key, shape in seen.items())
            if not fits or env.action_space.shape != demos.actions.shape[1:]:
                raise ValueError(
                    f"the data name {env_id} as their environment, which gives observations "
                    f"{offered} and takes actions {env.action_space.shape}, but hold {seen} and "
                    f"{demos.actions.shape[1:]}; name another with `decisive data import --env`, "
                    "or train with --selection-episodes 0"
                )

    def __call__(self, module: nn.Module) -> float:
        """Mean score of the episodes; higher is better."""
        assert isinstance(module, Policy)
        actor = PolicyActor(module)
        scores: list[float] = []
        envs = self._environments()
        for number, env in enumerate(envs):
            seeds = range(number, self.episodes, len(envs))  # the worlds take turns
            for episode in run_episodes(env, actor, seeds, "select"):
                scores.append(_mark(env, episode))
        return sum(scores) / len(scores)

    def close(self) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()
        self._envs = []

    def _environments(self) -> list[gym.Env[Any, Any]]:
        if not self._envs:
            self._envs = [make_env(env_id, options) for env_id, options in self.worlds]
        return self._envs


def _mark(env: gym.Env[Any, Any], episode: Episode) -> float:
    """What an episode is worth when a checkpoint is chosen."""
    base: Any = env.unwrapped
    if hasattr(base, "normalized_score"):
        return float(base.normalized_score(episode.total_reward)) / 100.0
    marks = [float(mark) for mark in (episode.success, episode.score) if mark is not None]
    return sum(marks) / len(marks) if marks else episode.total_reward


def _save(module: nn.Module, folder: Path, training: dict[str, Any], facts: CardFacts) -> None:
    """Write a checkpoint with its card; the loop calls it."""
    assert isinstance(module, Policy)
    told = {
        **training,
        "command": facts.command,
        "versions": dict(facts.versions),
        "commit": facts.commit,
    }
    save_policy(module, folder, told, card(facts, training))
