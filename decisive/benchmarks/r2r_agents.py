"""Who can be benchmarked on Room-to-Room, by name.

An agent is an `Actor`: `reset(env, seed)` at the start of an episode, then `act(obs, info)` for one
action after another. It may look at `env.unwrapped` (an `R2RNavEnv`) for the graph; the goal is
none of its business, except for the shortest path. A new one is a row of `AGENTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.episodes import Actor, ExpertActor
from envs.indoor.r2r_nav import LOW_LEVEL
from envs.indoor.viewing import HEADINGS

_STOP, _FORWARD, _RIGHT = (LOW_LEVEL.index(name) for name in ("stop", "forward", "right"))


@dataclass(frozen=True)
class Agent:
    """A row of `AGENTS`.

    Attributes:
        make: builds the actor; whatever is slow to import is imported here.
        options: options of `R2RNavEnv` that it needs, such as its kind of actions.
    """

    make: Callable[[], Actor]
    options: Mapping[str, Any] = field(default_factory=dict)


class RandomWalker:
    """The random agent of Anderson et al. 2018: a random heading, then five moves straight on.

    Where no way is in view it turns right until there is one. The paper's code ends a walk after
    30 actions.
    """

    MOVES = 5

    def __init__(self) -> None:
        """Nothing to choose; `reset` seeds."""
        self._turns = self._moves = 0

    def reset(self, env: gym.Env[Any, Any], seed: int) -> None:
        """Draw the heading."""
        self._turns = int(np.random.default_rng(seed).integers(HEADINGS))
        self._moves = 0

    def act(self, obs: Any, info: Mapping[str, Any]) -> NDArray[Any]:
        """Turn to the heading, then walk, then stop."""
        if self._turns > 0:
            self._turns -= 1
            return np.array(_RIGHT)
        if self._moves == self.MOVES:
            return np.array(_STOP)
        if not obs["candidate_mask"].any():
            return np.array(_RIGHT)
        self._moves += 1
        return np.array(_FORWARD)


AGENTS: dict[str, Agent] = {
    "shortest-path": Agent(ExpertActor, {"views": "none"}),
    "random": Agent(
        RandomWalker, {"views": "none", "actions": "low-level", "max_episode_steps": 30}
    ),
}
"""Agents by name."""


def find_agent(name: str) -> Agent:
    """The agent of a name.

    Raises:
        ValueError: for an unknown one, naming the known ones.
    """
    if name not in AGENTS:
        raise ValueError(f"unknown agent {name!r}; known: {', '.join(AGENTS)}")
    return AGENTS[name]
