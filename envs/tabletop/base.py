"""What every tabletop task shares: options, stepping, observations, seeds, rendering."""

import math
import os
import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from envs.fields import Field
from envs.seeding import episode_rng
from envs.tabletop import camera
from envs.tabletop.perturbation import NOMINAL, draw_disturbance, draw_variation, noisy
from envs.tabletop.push_primitive import PUSH_FIELDS, execute_push, push_space
from envs.tabletop.scene import (
    BLOCK_FRICTION,
    BLOCK_MASS,
    LIFT_HEIGHT,
    SUBSTEPS,
    WORK_HEIGHT,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    Scene,
)

MAX_DELTA = 0.03
"""Largest displacement per control step and axis, in metres (0.3 m/s)."""
MAX_LEAD = 0.04
"""The commanded position never runs further than this ahead of the measured one (metres)."""
IMAGE_SIDES = (8, 2048)
"""Least and greatest side of a picture, in pixels."""

_LOW, _HIGH = WORKSPACE_LOW.tolist(), WORKSPACE_HIGH.tolist()

DELTA_FIELDS = (Field("delta_xy", 2, "vector", "m", "displacement of the commanded effector"),)
EFFECTOR_FIELDS = (
    Field("target_xy", 2, "point", "m", "commanded effector position"),
    Field("effector_xy", 2, "point", "m", "measured effector position"),
)

Array = NDArray[np.float64]
Obs = NDArray[Any] | dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Progress:
    """Where an episode stands."""

    success: bool
    score: float
    """Part of the task that is done, in [0, 1]."""
    distance: float
    """What is left, in metres; the reward is its relative decrease."""


class TabletopEnv(gymnasium.Env[Any, NDArray[np.float32]]):
    """A driven cylinder (alone or on an xArm6) pushes blocks on a table.

    Physics at 240 Hz, control at 10 Hz. World frame: x away from the robot's base, y left, z up,
    metres and radians; the table's surface is z = 0.

    Action, `control="delta"`: `(2,)` displacement of the commanded effector position in metres, at
    most `MAX_DELTA` per axis and step. `control="push"`: `(4,)` one whole push, see
    `envs.tabletop.push_primitive`. Actions outside the space are clipped.

    Reward: relative decrease of the task's remaining distance, plus 1 on success.
    `info`: `success` (bool) and `score` (float in [0, 1]) at reset and at every step.
    The episode terminates on success and is truncated after `max_episode_steps`.

    Version history: v0, first.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"], "render_fps": 10}
    default_limits: ClassVar[dict[str, int]] = {"delta": 100, "push": 12}
    start_xy: ClassVar[tuple[float, float]] = (0.25, 0.0)
    """Where the effector starts (fixed: a reset then needs no inverse kinematics)."""

    def __init__(
        self,
        observation: Literal["state", "pixels", "both"] = "state",
        arm: Literal["cylinder", "xarm6"] = "cylinder",
        control: Literal["delta", "push"] = "delta",
        render_mode: Literal["rgb_array", "human"] | None = None,
        max_episode_steps: int | None = None,
        image_size: tuple[int, int] = (96, 96),
        render_size: tuple[int, int] = (480, 640),
        disturb: float = 0.0,
        randomize: float = 0.0,
    ) -> None:
        """Build the scene.

        Args:
            observation: what `reset` and `step` return: the state vector, a camera image, or both.
            arm: the fast cylinder, or the full xArm6 (never drawn in policy images).
            control: 10 Hz displacements, or whole pushes.
            render_mode: `rgb_array` for films, `human` for Bullet's window.
            max_episode_steps: truncation; by default the task's own.
            image_size: `(height, width)` of policy images.
            render_size: `(height, width)` of `render()`.
            disturb: chance per step of a shove or a hold, in [0, 1].
            randomize: width of the physics and sensor variation, in [0, 1].

        Raises:
            ValueError: on an unknown or impossible option.
        """
        _require("observation", observation, ("state", "pixels", "both"))
        _require("control", control, ("delta", "push"))
        _require("render_mode", render_mode, (None, "rgb_array", "human"))
        if render_mode == "human":
            _require_display()
        image_size = _image_size("image_size", image_size)
        render_size = _image_size("render_size", render_size)
        for name, value in (("disturb", disturb), ("randomize", randomize)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, got {max_episode_steps}")
        self.observation_kind, self.arm, self.control = observation, arm, control
        self.render_mode = render_mode
        self.disturb, self.randomize = float(disturb), float(randomize)
        self.image_size, self.render_size = image_size, render_size
        self._limit = max_episode_steps

        self.scene = Scene(arm, gui=render_mode == "human")
        self._build(self.scene)
        # The arm's meshes cost 10 to 20 ms a frame and would hide the blocks: policy images come
        # from a twin scene with the bare cylinder.
        self._twin: Scene | None = None
        if arm != "cylinder" and observation != "state":
            self._twin = Scene("cylinder")
            self._build(self._twin)
        self._height = LIFT_HEIGHT if control == "push" else WORK_HEIGHT
        self.scene.effector.home(np.array([*self.start_xy, self._height]))
        self.scene.freeze()

        self.state_fields: tuple[Field, ...] = (*EFFECTOR_FIELDS, *self._task_fields())
        self.action_fields: tuple[Field, ...] = PUSH_FIELDS if control == "push" else DELTA_FIELDS
        # Gymnasium types the space by its samples, Box by all numbers.
        self._action_box = (
            push_space()
            if control == "push"
            else spaces.Box(-MAX_DELTA, MAX_DELTA, (2,), np.float32)
        )
        self.action_space = cast(spaces.Space[NDArray[np.float32]], self._action_box)
        self.observation_space = self._observation_space()

        self.target: Array = np.array(self.start_xy)
        self.variation = NOMINAL
        self.on_control_step: Callable[[], None] | None = None
        """Called after every 0.1 s of simulated time; films use it to see inside a push."""
        self._perturbation_rng = np.random.default_rng(0)
        self._pending: deque[Array] = deque()
        self._hold = 0
        self._steps = 0
        self._driven = 0
        self._progress = Progress(False, 0.0, 1.0)
        self._start_distance = 1.0

    # What a task supplies.

    @abstractmethod
    def _build(self, scene: Scene) -> None:
        """Add blocks, fixtures and markings to a scene, in a fixed order."""

    @abstractmethod
    def _place(self, rng: np.random.Generator) -> None:
        """Draw the episode's start and put everything there."""

    @abstractmethod
    def _task_fields(self) -> tuple[Field, ...]:
        """Fields of the state after the effector's."""

    @abstractmethod
    def _task_state(self) -> list[float]:
        """Their values, world frame."""

    @abstractmethod
    def _measure(self) -> Progress:
        """Where the episode stands now; called once after reset and after each step."""

    @abstractmethod
    def expert(
        self, mode: Literal["consistent", "diverse"] = "consistent", seed: int | None = None
    ) -> Any:
        """Scripted expert for the episode that was just reset, with `act(obs, info)`."""

    def _places(self) -> Sequence[int]:
        """Bodies of the slots or zones that the state speaks of, after the blocks."""
        return ()

    # As a robot: what a node that simulates one needs.

    def object_poses(self) -> dict[str, tuple[Sequence[float], Sequence[float]]]:
        """Exact pose of everything the state speaks of.

        Returns:
            Name (`block`, `slot1`, ...) to position `(3,)` in metres and xyzw quaternion, world.
        """
        names = dict.fromkeys(field.name.rpartition("_")[0] for field in self._task_fields())
        bodies = (*self.scene.blocks, *self._places())
        pose = self.scene.client.getBasePositionAndOrientation
        return {name: pose(body) for name, body in zip(names, bodies, strict=True)}

    def drive(self, target: Array, substeps: int) -> dict[str, Any]:
        """Drive the effector for a part of a control step; for robots in real time.

        Unlike `step` it counts no steps and ends no episode.

        Args:
            target: `(2,)` commanded position at the end of the part, metres; clipped to the
                workspace and to `MAX_LEAD` from the measured position.
            substeps: physics steps of 1/240 s.

        Returns:
            The `info` of `step`.
        """
        tip = self.scene.tip()
        for i in (0, 1):
            goal = min(max(float(target[i]), _LOW[i]), _HIGH[i])
            self.target[i] = tip[i] + min(max(goal - tip[i], -MAX_LEAD), MAX_LEAD)
        self.scene.effector.command(np.array([*self.target, self._height]), substeps)
        self.scene.step(substeps)
        self._driven += substeps
        if self._driven >= SUBSTEPS:
            self._driven -= SUBSTEPS
            self._tick()
            self._progress = self._measure()
        return self._info()

    # Gymnasium.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """Start an episode; `options={"stream": ...}` picks another stream of seeds.

        See `envs.seeding`.
        """
        options = options or {}
        if seed is not None:
            self._np_random = episode_rng(seed, options.get("stream", "evaluate"))
            self._np_random_seed = seed
        self._perturbation_rng = self.np_random.spawn(1)[0]
        self.scene.restore()
        self.target = np.array(self.start_xy)
        self.scene.effector.command(np.array([*self.target, self._height]), SUBSTEPS)
        self._place(self.np_random)
        self._vary()
        self._pending.clear()
        self._hold = self._steps = self._driven = 0
        self._progress = self._measure()
        self._start_distance = max(self._progress.distance, 1e-3)
        return self._observe(), self._info()

    def step(self, action: NDArray[np.float32]) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """Execute one action; see the class for its meaning."""
        action64 = self._check(action)
        self._interfere()
        self._pending.append(action64)
        if len(self._pending) > self.variation.action_delay:
            action64 = self._pending.popleft()
        else:
            action64 = np.zeros_like(action64)
        if self.control == "push":
            self._push(action64)
        else:
            self._move(action64)
        self._steps += 1
        before, self._progress = self._progress, self._measure()
        gained = (before.distance - self._progress.distance) / self._start_distance
        reward = float(gained + self._progress.success)
        truncated = self._steps >= self._episode_limit() and not self._progress.success
        return self._observe(), reward, self._progress.success, truncated, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """Film frame `(H, W, 3)` in `rgb_array` mode; Bullet's window draws itself."""
        if self.render_mode != "rgb_array":
            return None
        return camera.render(
            self.scene.client,
            self.render_size,
            camera.FILM_EYE,
            camera.FILM_TARGET,
            self.variation.light,
            field_of_view=42.0,
        )

    def close(self) -> None:
        """Disconnect from Bullet; a second call is harmless."""
        self.scene.close()
        if self._twin is not None:
            self._twin.close()

    # Steps.

    def _check(self, action: NDArray[np.float32]) -> Array:
        array = np.asarray(action, dtype=np.float64)
        shape = self.action_space.shape
        if array.shape != shape:
            raise ValueError(f"action must have shape {shape}, got {array.shape}")
        if not math.isfinite(float(array.sum())):
            raise ValueError(f"action must be finite, got {array.tolist()}")
        return np.minimum(np.maximum(array, self._action_box.low), self._action_box.high)

    def _move(self, delta: Array) -> None:
        if self._hold:
            self._hold -= 1
        else:
            tip = self.scene.tip()
            for i in (0, 1):  # plain floats: np.clip of two numbers costs more than a substep
                goal = min(max(self.target[i] + delta[i], _LOW[i]), _HIGH[i])
                self.target[i] = tip[i] + min(max(goal - tip[i], -MAX_LEAD), MAX_LEAD)
        self.scene.effector.command(np.array([*self.target, self._height]), SUBSTEPS)
        self.scene.step()
        self._tick()

    def _push(self, action: Array) -> None:
        if action[2:].any():  # an empty push (or one delayed by randomize) moves nothing
            self.target = execute_push(self.scene, action, self._tick)

    def _tick(self) -> None:
        if self.on_control_step is not None:
            self.on_control_step()

    def _interfere(self) -> None:
        event = draw_disturbance(self.disturb, len(self.scene.blocks), self._perturbation_rng)
        if event.shove_block >= 0:
            body = self.scene.blocks[event.shove_block]
            self.scene.client.resetBaseVelocity(body, [*event.shove_velocity, 0.0])
        self._hold = max(self._hold, event.hold_steps)

    def _vary(self) -> None:
        if self.randomize == 0.0:
            return
        self.variation = draw_variation(self.randomize, self._perturbation_rng)
        for body in self.scene.blocks:
            self.scene.client.changeDynamics(
                body,
                -1,
                mass=BLOCK_MASS * self.variation.mass,
                lateralFriction=BLOCK_FRICTION * self.variation.friction,
            )

    def _episode_limit(self) -> int:
        # `gymnasium.make(..., max_episode_steps=n)` never reaches the constructor, only the spec.
        if self.spec is not None and self.spec.max_episode_steps is not None:
            return self.spec.max_episode_steps
        return self._limit or self._default_limit()

    def _default_limit(self) -> int:
        return self.default_limits[self.control]

    # Observations.

    def _observation_space(self) -> spaces.Space[Any]:
        size = sum(field.size for field in self.state_fields)
        # Metres and cosines: nothing comes near.
        state = spaces.Box(-10.0, 10.0, (size,), np.float32)
        pixels = spaces.Box(0, 255, (*self.image_size, 3), np.uint8)
        if self.observation_kind == "state":
            return state
        if self.observation_kind == "pixels":
            return pixels
        return spaces.Dict({"state": state, "pixels": pixels})

    def _observe(self) -> Obs:
        if self.observation_kind == "state":
            return self._state()
        if self.observation_kind == "pixels":
            return self.policy_image()
        return {"state": self._state(), "pixels": self.policy_image()}

    def _state(self) -> NDArray[np.float32]:
        tip = self.scene.tip()
        values = [*self.target, tip[0], tip[1], *self._task_state()]
        state = np.array(values, dtype=np.float32)
        return noisy(state, self.variation.observation_noise, self._perturbation_rng)

    def policy_image(self) -> NDArray[np.uint8]:
        """`(H, W, 3)` picture from the policy's camera, without the arm."""
        scene = self.scene
        if self._twin is not None:
            scene = self._twin
            source = self.scene.client
            scene.effector.home(self.scene.tip())
            for body in range(2, source.getNumBodies()):
                scene.client.resetBasePositionAndOrientation(
                    body, *source.getBasePositionAndOrientation(body)
                )
        eye = np.add(camera.POLICY_EYE, self.variation.camera_offset).tolist()
        return camera.render(
            scene.client, self.image_size, eye, camera.POLICY_TARGET, self.variation.light
        )

    def _info(self) -> dict[str, Any]:
        return {"success": self._progress.success, "score": self._progress.score}


def yaw4(yaw: float) -> tuple[float, float]:
    """`(cos 4 yaw, sin 4 yaw)`: equal for the four yaws at which a square block looks the same."""
    return math.cos(4 * yaw), math.sin(4 * yaw)


def _image_size(name: str, size: tuple[int, int]) -> tuple[int, int]:
    low, high = IMAGE_SIDES
    if len(size) != 2 or not all(int(side) == side and low <= side <= high for side in size):
        raise ValueError(f"{name} must be two whole numbers in [{low}, {high}], got {size!r}")
    return int(size[0]), int(size[1])


def _require_display() -> None:
    # Bullet ends the whole process where it cannot open its window.
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        raise ValueError(
            "render_mode 'human' needs a screen, and DISPLAY is not set; use rgb_array"
        )


def _require(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {list(known)}, got {value!r}")
