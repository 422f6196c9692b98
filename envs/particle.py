"""A particle in N dimensions that must visit two goals; the Implicit BC paper's simplest task.

Source: Florence et al. 2021, "Implicit Behavioral Cloning", section 5 and appendix.
"""

from typing import Any, Literal, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from envs.fields import Field
from envs.seeding import episode_rng

Vector = NDArray[np.float64]

STIFFNESS = 10.0
"""Gain on the position error, 1/s^2."""
DAMPING = 5.0
"""Gain on the velocity, 1/s."""
DT = 0.005
"""Integration step in seconds."""
REPEATS = 10
"""Integration steps for each control step: 20 Hz control."""
TOLERANCE = 0.05
"""A goal counts as reached nearer than this."""
EPISODE_STEPS = 50

# The driven spring overshoots its set point a little: what it can reach from rest lies well inside.
_POSITION_BOUNDS = (-0.5, 1.5)
_VELOCITY_BOUND = 5.0


class ParticleEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """A unit-mass particle follows position set points through a spring and a damper.

    Observation, float32 `(4 N,)`, or `(3 N,)` with `hide_velocity`:

    | field | size | unit | range |
    |---|---|---|---|
    | agent_position | N | 1 | [-0.5, 1.5] |
    | agent_velocity | N | 1/s | [-5, 5] |
    | first_goal | N | 1 | [0, 1] |
    | second_goal | N | 1 | [0, 1] |

    Action, float32 `(N,)` in [0, 1]: the set point `a` of the control step. The acceleration is
    `10 (a - x) - 5 v`, integrated by explicit Euler (the position moves with the old velocity) in
    10 steps of 5 ms.

    Success, judged as if the episode ended now: both goals have been nearer than 0.05 (looked at
    once a control step), and the second still is. It may be lost again, so an episode never
    terminates: it is truncated after 50 steps, and the last `info["success"]` counts. With
    `goal_order="any"` the goals may be visited in either order, and the particle must end at
    either one. The score is 1 with success, else 0.5 once the first goal (any goal) was reached.
    Reward: 1 in steps with success, else 0.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        n_dims: int = 2,
        hide_velocity: bool = False,
        goal_order: Literal["fixed", "any"] = "fixed",
        render_mode: str | None = None,
        render_size: tuple[int, int] = (240, 240),
        max_episode_steps: int | None = None,
    ) -> None:
        """Set up the spaces.

        Args:
            n_dims: N; the paper uses 1 to 32.
            hide_velocity: leave the velocity out of the observation, so that a policy needs memory.
            goal_order: `fixed`, first goal then second, or `any`.
            render_mode: None or `rgb_array`, a picture of the first two dimensions.
            render_size: height and width of that picture in pixels.
            max_episode_steps: 50 if None.

        Raises:
            ValueError: for an option out of range.
        """
        if n_dims < 1:
            raise ValueError(f"n_dims must be at least 1, got {n_dims}")
        if goal_order not in ("fixed", "any"):
            raise ValueError(f'goal_order must be "fixed" or "any", got {goal_order!r}')
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.n_dims = n_dims
        self.hide_velocity = hide_velocity
        self.goal_order = goal_order
        self.render_mode = render_mode
        self.render_size = render_size
        self._limit = max_episode_steps or EPISODE_STEPS
        fields = (
            Field("agent_position", n_dims, "position", "1", "where the particle is"),
            Field("agent_velocity", n_dims, "scalar", "1/s", "how fast it moves"),
            Field("first_goal", n_dims, "position", "1", "to be visited first"),
            Field("second_goal", n_dims, "position", "1", "to be visited second, and to stay at"),
        )
        self.state_fields = tuple(
            field for field in fields if not (hide_velocity and field.name == "agent_velocity")
        )
        self.action_fields = (
            Field("set_point", n_dims, "scalar", "1", "position that the spring pulls towards"),
        )
        bounds = {
            "agent_position": _POSITION_BOUNDS,
            "agent_velocity": (-_VELOCITY_BOUND, _VELOCITY_BOUND),
            "first_goal": (0.0, 1.0),
            "second_goal": (0.0, 1.0),
        }
        low, high = np.array([bounds[field.name] for field in self.state_fields], np.float32).T
        self.observation_space = spaces.Box(low.repeat(n_dims), high.repeat(n_dims))
        self.action_space = spaces.Box(0.0, 1.0, (n_dims,))
        self._position = self._velocity = np.zeros(n_dims)
        self._goals = np.zeros((2, n_dims))
        self._nearest = np.full(2, np.inf)
        self._steps: int | None = None  # None until the first reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw the start and both goals uniformly from the unit cube.

        Args:
            seed: names the episode; None goes on with the present generator.
            options: `{"stream": name}` takes another random stream of `envs.seeding`.

        Returns:
            Observation and info.

        Raises:
            ValueError: for unknown options, or a stream without a seed.
        """
        options = options or {}
        if unknown := set(options) - {"stream"}:
            raise ValueError(f'reset options may hold "stream" only, got {sorted(unknown)}')
        super().reset(seed=seed)
        if "stream" in options:
            if seed is None:
                raise ValueError(f"stream {options['stream']!r} needs a seed: reset(seed=...)")
            self.np_random = episode_rng(seed, options["stream"])
        self._position, *goals = self.np_random.uniform(size=(3, self.n_dims))
        self._goals = np.array(goals)
        self._velocity = np.zeros(self.n_dims)
        self._nearest = self._distances()
        self._steps = 0
        return self._observation(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Follow one set point for 50 ms.

        Args:
            action: `(N,)`; clipped to [0, 1].

        Returns:
            Observation, reward, terminated (always False), truncated, info.

        Raises:
            ValueError: if the action has another shape or is not finite.
            RuntimeError: before the first reset.
        """
        if self._steps is None:
            raise RuntimeError("call reset() before the first step()")
        target = np.asarray(action, np.float64)
        if target.shape != (self.n_dims,) or not np.isfinite(target).all():
            raise ValueError(f"action must be ({self.n_dims},) finite numbers, got {action!r}")
        target = target.clip(0.0, 1.0)
        for _ in range(REPEATS):
            acceleration = STIFFNESS * (target - self._position) - DAMPING * self._velocity
            self._position = self._position + DT * self._velocity
            self._velocity = self._velocity + DT * acceleration
        self._steps += 1
        self._nearest = np.minimum(self._nearest, self._distances())
        info = self._info()
        spec_limit = self.spec.max_episode_steps if self.spec is not None else None
        truncated = self._steps >= (spec_limit or self._limit)
        return self._observation(), float(info["success"]), False, truncated, info

    def expert(
        self,
        mode: Literal["consistent", "diverse"] = "consistent",
        seed: int | None = None,
        wait: int | None = None,
    ) -> "ParticleExpert":
        """Scripted expert for the present episode.

        Args:
            mode: `consistent` visits the first goal first and never waits. `diverse` waits there
                for 0 to 2 steps, and with `goal_order="any"` takes the goals in a random order.
            seed: of the diverse choices; None takes an unpredictable one.
            wait: steps to stay at the goal visited first, instead of the mode's own.

        Raises:
            ValueError: for an unknown mode or a negative wait.
        """
        if mode not in ("consistent", "diverse"):
            raise ValueError(f'mode must be "consistent" or "diverse", got {mode!r}')
        if wait is not None and wait < 0:
            raise ValueError(f"wait must be at least 0 steps, got {wait}")
        goals, pause = self._goals, 0
        if mode == "diverse":
            rng = np.random.default_rng(seed)
            swap, pause = rng.random() < 0.5, int(rng.integers(3))
            if swap and self.goal_order == "any":
                goals = goals[::-1]
        return ParticleExpert(goals, pause if wait is None else wait)

    def render(self) -> NDArray[np.uint8] | None:
        """Picture of the first two dimensions, `(H, W, 3)`: y up, goals green then blue.

        Returns:
            None unless the environment was made with `render_mode="rgb_array"`.
        """
        if self.render_mode is None:
            return None
        height, width = self.render_size
        image = Image.new("RGB", (width, height), "white")
        draw = ImageDraw.Draw(image)
        scale, margin = 0.9 * min(width, height), 0.05 * min(width, height)

        def disc(point: Vector, radius: float, color: str) -> None:
            x, y = (*point, 0.5)[:2] if self.n_dims == 1 else point[:2]
            column, row, r = margin + scale * x, height - margin - scale * y, scale * radius
            draw.ellipse((column - r, row - r, column + r, row + r), fill=color)

        disc(self._goals[0], TOLERANCE, "#4caf50")
        disc(self._goals[1], TOLERANCE, "#2196f3")
        disc(self._position, TOLERANCE / 2, "#212121")
        return np.asarray(image, np.uint8)

    def _distances(self) -> Vector:
        """Distance to each goal, `(2,)`."""
        return cast(Vector, np.linalg.norm(self._goals - self._position, axis=1))

    def _observation(self) -> NDArray[np.float32]:
        parts = [self._position, self._velocity, *self._goals]
        if self.hide_velocity:
            del parts[1]
        return np.concatenate(parts).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        reached = self._nearest < TOLERANCE
        present = self._distances() < TOLERANCE
        if self.goal_order == "fixed":
            success, halfway = bool(reached.all() and present[1]), bool(reached[0])
        else:
            success, halfway = bool(reached.all() and present.any()), bool(reached.any())
        return {"success": success, "score": 1.0 if success else 0.5 * halfway}


class ParticleExpert:
    """Sets the set point to one goal until the particle is there, then to the other."""

    THRESHOLD = 0.01
    """Nearer than this, the first goal is done with."""

    def __init__(self, goals: Vector, wait: int) -> None:
        """Plan an episode.

        Args:
            goals: `(2, N)` in the order of the visit.
            wait: control steps to stay at the first of them.
        """
        self._goals = goals.astype(np.float32)
        self._wait = wait
        self._arrived = False

    def act(self, obs: NDArray[np.float32], info: dict[str, Any]) -> NDArray[np.float32]:
        """Next set point.

        Args:
            obs: state of the environment, which begins with the particle's position.
            info: unused.

        Returns:
            `(N,)` in [0, 1].
        """
        n_dims = self._goals.shape[1]
        distance = np.linalg.norm(obs[:n_dims] - self._goals[0])
        self._arrived = self._arrived or bool(distance < self.THRESHOLD)
        if self._arrived and self._wait > 0:
            self._wait -= 1
            return self._goals[0].copy()
        return self._goals[1 if self._arrived else 0].copy()
