"""Any environment with a vector for an observation and a box for its actions, in lockstep.

Observation and action travel as named numbers (`robots.components`), the action as a trajectory of
one point. What the safety gate calls positions are then the entries of the action. Knows no ROS.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from decisive.episodes import Episode
from decisive.options import env_class, make_env
from envs.tabletop.base import TabletopEnv
from robots.components import component_names

Array = NDArray[np.float64]

PERIOD = 0.1
"""Seconds by which simulated time moves on with each action, whatever the environment's own step:
nothing but ages and rates is reckoned with it."""
UNBOUNDED = 1e6
"""Limit of the gate where an action has none."""


class SimulatedEnvironment:
    """An environment that is stepped by whole actions."""

    def __init__(self, env_id: str, options: Mapping[str, Any], stream: str = "evaluate") -> None:
        """Build the environment.

        Raises:
            ValueError: for one whose observation is no vector, or whose actions are no box.
        """
        self.env = _make(env_id, options)
        base: Any = self.env.unwrapped
        self.table: TabletopEnv | None = base if isinstance(base, TabletopEnv) else None
        """The tabletop, if it is one: it has poses and pictures besides."""
        try:
            space, size = _action_box(self.env), _state_size(self.env)
            self.action_names = component_names(_fields(base, "action_fields"), space.low.size,
                                                "action")  # fmt: skip
            self.observation_names = component_names(_fields(base, "state_fields"), size, "obs")
        except ValueError as error:
            self.env.close()
            raise ValueError(f"{env_id} with {dict(options)}: {error}") from None
        self.low: Array = space.low.astype(np.float64)
        """`(A,)` least action."""
        self.high: Array = space.high.astype(np.float64)
        """`(A,)` greatest action."""
        self._type = space.dtype
        self._stream = stream
        self.seed, self._steps, self._rewards = -1, 0, 0.0
        self._info: dict[str, Any] = {}
        self.observation: Array = np.zeros(size)
        """`(D,)` the present one."""
        self.action: Array = np.clip(0.0, self.low, self.high)
        """`(A,)` the last one; what is nearest to zero before the first."""
        self.done = True
        """Whether the episode is over, or none has begun."""

    def reset(self, seed: int) -> None:
        """Start the episode of a seed."""
        options = None if self._stream == "evaluate" else {"stream": self._stream}
        observation, self._info = self.env.reset(seed=seed, options=options)
        self._see(observation)
        self.seed, self._steps, self._rewards = seed, 0, 0.0
        self.done = False

    def step(self, action: Array) -> bool:
        """Take one action `(A,)`. Returns whether the episode is over."""
        self.action = np.asarray(action, dtype=np.float64)
        observation, reward, terminated, truncated, self._info = self.env.step(
            self.action.astype(self._type)
        )
        self._see(observation)
        self._rewards += float(reward)
        self._steps += 1
        self.done = terminated or truncated
        return self.done

    def _see(self, observation: Any) -> None:
        state = observation["state"] if isinstance(observation, Mapping) else observation
        self.observation = np.asarray(state, dtype=np.float64)

    def result(self) -> dict[str, Any]:
        """What the episode has come to, as `decisive evaluate` has it."""
        success, score = self._info.get("success"), self._info.get("score")
        return Episode(
            self.seed,
            None if success is None else bool(success),
            None if score is None or math.isnan(score) else float(score),
            self._rewards,
            self._steps,
            (),
        ).row()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def acts_by_displacements(env_id: str, options: Mapping[str, Any]) -> bool:
    """Whether it is a tabletop whose tool is moved in small steps, as a real one is by velocities.

    Raises:
        ValueError: for an unknown environment.
    """
    maker = env_class(env_id)
    table = isinstance(maker, type) and issubclass(maker, TabletopEnv)
    return table and options.get("control", "delta") == "delta"


def parameters_for(env_id: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with which the graph `sim_any` runs an environment.

    Every change of an action that its box allows is within the limits of the gate.

    Returns:
        Values by `NODE.name`.
    """
    made = SimulatedEnvironment(env_id, options)
    try:
        names = list(made.action_names)
        low, high = (np.clip(end, -UNBOUNDED, UNBOUNDED) for end in (made.low, made.high))
    finally:
        made.close()
    speed = (high - low) / PERIOD
    return {
        "sim_robot.env": env_id,
        "sim_robot.set": [f"{name}={value}" for name, value in options.items()] or [""],
        "safety_gate.joints": names,
        "safety_gate.low": low.tolist(),
        "safety_gate.high": high.tolist(),
        "safety_gate.velocity": speed.tolist(),
        # From the greatest speed to its opposite within a step.
        "safety_gate.acceleration": (2 * speed / PERIOD).tolist(),
    }


def _make(env_id: str, options: Mapping[str, Any]) -> gym.Env[Any, Any]:
    maker = env_class(env_id)
    if isinstance(maker, type) and issubclass(maker, TabletopEnv):
        # Pictures have a topic of their own.
        return make_env(env_id, {**options, "observation": "state"})
    return make_env(env_id, options)


def _action_box(env: gym.Env[Any, Any]) -> gym.spaces.Box:
    space = env.action_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"actions must be a box of one dimension, got {space}")
    return space


def _state_size(env: gym.Env[Any, Any]) -> int:
    space = env.observation_space
    if isinstance(space, gym.spaces.Dict) and "state" in space.spaces:
        space = space.spaces["state"]
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"the observation must be, or hold as `state`, a vector; got {space}")
    return int(space.shape[0])


def _fields(base: Any, name: str) -> list[tuple[str, int]]:
    return [(field.name, field.size) for field in getattr(base, name, ())]
