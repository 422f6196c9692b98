"""Adroit pen, hammer, door and relocate as D4RL defines them.

A shadow hand of 24 to 30 position-controlled joints at 100 Hz (Rajeswaran et al. 2018, "Learning
Complex Dexterous Manipulation"). gymnasium-robotics 1.4.2 simulates them with three departures from
D4RL (Farama-Foundation/D4RL@89141a68), mended here and pinned by tests:

- the dense reward of hammer, door and relocate *adds* 0.1 |palm - object| where D4RL subtracts it;
- pen goes on when the pen is dropped, where D4RL ends the episode (object below 0.075 m);
- pen runs 200 steps, D4RL's 100 (in `envs.register_envs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.d4rl.scores import REFERENCES
from envs.d4rl.simulators import build
from envs.seeding import episode_rng

DROPPED = 0.075
"""Height in metres below which the pen counts as dropped."""
_WRONG_SIGN = 0.2
"""0.1 |palm - object| with the wrong sign is taken away twice."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class _Task:
    """What tells the four tasks apart.

    Attributes:
        name: key of `REFERENCES`, and of gymnasium-robotics' module.
        hold: an episode succeeds when the goal was achieved in more steps than this.
        palm_to_object: slices of the observation whose difference leads from object to palm; one
            slice where the observation holds the difference itself; none where the reward is right.
        height: entry of the observation with the height that ends an episode, or None.
    """

    name: str
    hold: int = 25
    palm_to_object: tuple[slice, ...] = ()
    height: int | None = None


class AdroitEnv(gym.Env[FloatArray, NDArray[np.float32]]):
    """A task of D4RL's Adroit domain; see the module and the subclasses.

    Actions are positions of the joints in [-1, 1] of their ranges; observations float64. The
    reward is D4RL's dense one.

    `info` holds, after every step, `goal_achieved` (now) and `success`: whether it was achieved in
    more than 25 steps so far (pen 20), which is how the sources of the tasks judge an episode.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 100}
    task: _Task

    def __init__(self, render_mode: str | None = None) -> None:
        """Build the simulator.

        Args:
            render_mode: None, `rgb_array` or `human`.
        """
        name = self.task.name
        self._simulator = build(
            f"adroit_hand.adroit_{name}", f"AdroitHand{name.title()}Env", render_mode
        )
        self.render_mode = render_mode
        self.observation_space = self._simulator.observation_space
        self.action_space = self._simulator.action_space
        self._achieved = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of the layout; a bare seed gives what gymnasium-robotics gives for it.
            options: `stream`, a key of `envs.seeding.STREAMS`; `initial_state_dict`, a state as
                `state` returns it.
        """
        options = dict(options or {})
        stream = options.pop("stream", "evaluate")
        if seed is not None and stream != "evaluate":
            seed = int(episode_rng(seed, stream).integers(2**62))
        obs, _ = self._simulator.reset(seed=seed, options=options)
        self._np_random = self._simulator.np_random
        self._achieved = 0
        return obs, {"success": False, "goal_achieved": False}

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One step of 10 ms."""
        obs, reward, _, _, told = self._simulator.step(action)
        achieved = bool(told["success"])
        self._achieved += achieved
        info = {"success": self._achieved > self.task.hold, "goal_achieved": achieved}
        return obs, self._d4rl_reward(obs, float(reward)), self._dropped(obs), False, info

    def _d4rl_reward(self, obs: FloatArray, reward: float) -> float:
        parts = [obs[part] for part in self.task.palm_to_object]
        if not parts:
            return reward
        distance = np.linalg.norm(parts[0] if len(parts) == 1 else parts[0] - parts[1])
        return reward - _WRONG_SIGN * float(distance)

    def _dropped(self, obs: FloatArray) -> bool:
        return self.task.height is not None and bool(obs[self.task.height] < DROPPED)

    def normalized_score(self, total_reward: float) -> float:
        """D4RL's score of a return: 0 for random actions, 100 for its expert."""
        return REFERENCES[self.task.name].normalized(total_reward)

    def state(self) -> dict[str, FloatArray]:
        """The simulator's whole state, for `reset(options={"initial_state_dict": ...})`."""
        state: Mapping[str, FloatArray] = self._simulator.get_env_state()
        known = self._simulator._state_space.spaces
        return {key: value for key, value in state.items() if key in known}

    def render(self) -> Any:
        """An image `(480, 480, 3)` uint8, or the window."""
        return self._simulator.render()

    def close(self) -> None:
        """Close the simulator and its window."""
        self._simulator.close()


class AdroitPenEnv(AdroitEnv):
    """Turn a pen in the hand to the shown orientation: 45 observations, 24 actions, 100 steps."""

    task = _Task("pen", hold=20, height=26)


class AdroitHammerEnv(AdroitEnv):
    """Pick up a hammer and drive the nail in: 46 observations, 26 actions, 200 steps."""

    task = _Task("hammer", palm_to_object=(slice(33, 36), slice(36, 39)))


class AdroitDoorEnv(AdroitEnv):
    """Undo the latch and open the door: 39 observations, 28 actions, 200 steps."""

    task = _Task("door", palm_to_object=(slice(35, 38),))


class AdroitRelocateEnv(AdroitEnv):
    """Carry a ball to the shown place: 39 observations, 30 actions, 200 steps."""

    task = _Task("relocate", palm_to_object=(slice(30, 33),))
