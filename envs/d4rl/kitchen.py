"""FrankaKitchen as D4RL defines it: four things to be done in a kitchen, in any order.

A 9-joint Franka arm under velocity control at 12.5 Hz (Gupta et al. 2019, "Relay Policy Learning").
gymnasium-robotics 1.4.2 simulates it; observations, noise, rewards and the end of an episode are
those of Farama-Foundation/D4RL@89141a68, which differ from the simulator's own.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from envs.d4rl.scores import REFERENCES
from envs.d4rl.simulators import build
from envs.seeding import episode_rng

Tasks = Literal["complete", "partial", "mixed"]
Layout = Literal["d4rl", "minari"]
FloatArray = NDArray[np.float64]

_SLIDER = ("microwave", "kettle", "light switch", "slide cabinet")
TASKS: dict[str, tuple[str, ...]] = {
    "complete": _SLIDER,
    "partial": _SLIDER,
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
"""What is to be done, by data set; `complete` and `partial` differ in their data alone."""

GOALS: dict[str, tuple[tuple[int, ...], tuple[float, ...]]] = {
    "bottom burner": ((11, 12), (-0.88, -0.01)),
    "light switch": ((17, 18), (-0.69, -0.05)),
    "slide cabinet": ((19,), (0.37,)),
    "microwave": ((22,), (-0.75,)),
    "kettle": ((23, 24, 25, 26, 27, 28, 29), (-0.23, 0.75, 1.62, 0.99, 0.0, 0.0, -0.06)),
}
"""Entries of the 30 positions that a thing is made of, and where they should be."""
CLOSE = 0.3
"""Euclidean distance from its goal within which a thing is done."""

_NOISE = 0.1
"""D4RL's noise ratio of all observations; the simulator's own are 0.01 and 0.0005."""
_OBJECT_AMPLITUDES = np.array(
    [0.005] * 2 + [0.0005] * 6 + [0.005] * 3 + [0.1] * 3 + [0.005] * 3 + [0.1] * 3 + [0.005]
)
"""Amplitude of the noise of the 21 positions of things, at ratio 1."""


class FrankaKitchenEnv(gym.Env[FloatArray, NDArray[np.float64]]):
    """Open the microwave, move the kettle, and two things more; 280 steps.

    Actions: 9 joint velocities in [-1, 1] (times 2 rad/s). Reward: the number of things done in
    this step for the first time. The episode ends when all four are done.

    `info` holds `success` (all done), `score` (share done) and `tasks_to_complete`.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 12}

    def __init__(
        self, tasks: Tasks = "complete", layout: Layout = "d4rl", render_mode: str | None = None
    ) -> None:
        """Build the simulator.

        Args:
            tasks: whose four things are to be done: a key of `TASKS`.
            layout: `d4rl` observes 60 numbers: 9 joint positions, 21 positions of things, and the
                goal for all 30 (0 where there is none). `minari` observes 59, as the Minari data
                sets hold: 9 joint positions and velocities, 21 positions and 20 velocities of
                things, with the noise of gymnasium-robotics.
            render_mode: None, `rgb_array` or `human`.
        """
        if tasks not in TASKS:
            raise ValueError(f"tasks must be one of {', '.join(TASKS)}, got {tasks!r}")
        if layout not in ("d4rl", "minari"):
            raise ValueError(f"layout must be d4rl or minari, got {layout!r}")
        noise = {"robot_noise_ratio": _NOISE} if layout == "d4rl" else {}
        self._simulator = build(
            "franka_kitchen",
            "KitchenEnv",
            render_mode,
            tasks_to_complete=list(TASKS[tasks]),
            **noise,
        )
        self.layout = layout
        self.things = TASKS[tasks]
        self.render_mode = render_mode
        self.action_space = gym.spaces.Box(-1.0, 1.0, (9,), np.float64)
        size = 60 if layout == "d4rl" else 59
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float64)
        self.goal = np.zeros(30)
        for thing in self.things:
            entries, values = GOALS[thing]
            self.goal[list(entries)] = values
        self._left: list[str] = list(self.things)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Start an episode; only the noise of the observations differs between seeds.

        Args:
            seed: of the noise.
            options: `stream`, a key of `envs.seeding.STREAMS`.
        """
        stream = (options or {}).get("stream", "evaluate")
        if seed is not None and stream != "evaluate":
            seed = int(episode_rng(seed, stream).integers(2**62))
        super().reset(seed=seed)
        # The simulator's arm draws from a generator of its own.
        told, _ = self._simulator.reset(seed=int(self.np_random.integers(2**62)))
        self._left = list(self.things)
        robot = told["observation"][:18]
        return self._observe(robot, self._noisy_things()), self._info()

    def step(
        self, action: NDArray[np.floating[Any]]
    ) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """One step of 80 ms."""
        robot, *_ = self._simulator.robot_env.step(action)
        things = self._noisy_things()
        done = [thing for thing in self._left if self._is_done(thing, things)]
        self._left = [thing for thing in self._left if thing not in done]
        return self._observe(robot, things), float(len(done)), not self._left, False, self._info()

    def _noisy_things(self) -> FloatArray:
        """`(21,)` positions of things; D4RL judges them as they are observed."""
        positions: FloatArray = self._simulator.data.qpos[9:].copy()
        if self.layout == "minari":
            return positions
        return positions + _NOISE * _OBJECT_AMPLITUDES * self.np_random.uniform(-1, 1, 21)

    def _observe(self, robot: FloatArray, things: FloatArray) -> FloatArray:
        if self.layout == "minari":
            observation: FloatArray = self._simulator._get_obs(robot)["observation"]
            return observation
        return np.concatenate([robot[:9], things, self.goal])

    def _is_done(self, thing: str, things: FloatArray) -> bool:
        entries, values = GOALS[thing]
        reached = things[np.array(entries) - 9]
        return bool(np.linalg.norm(reached - np.array(values)) < CLOSE)

    def _info(self) -> dict[str, Any]:
        return {
            "success": not self._left,
            "score": 1.0 - len(self._left) / len(self.things),
            "tasks_to_complete": tuple(self._left),
        }

    def normalized_score(self, total_reward: float) -> float:
        """D4RL's score of a return: 100 when all four things are done."""
        return REFERENCES["kitchen"].normalized(total_reward)

    def render(self) -> Any:
        """An image `(480, 480, 3)` uint8, or the window."""
        return self._simulator.render()

    def close(self) -> None:
        """Close the simulator and its window."""
        self._simulator.close()
