"""A tabletop environment as a robot: positions in, joints and poses out. Knows no ROS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decisive.options import make_env
from envs.tabletop.base import TabletopEnv
from envs.tabletop.effectors import XArm6
from envs.tabletop.scene import CONTROL_HZ, PHYSICS_HZ

Array = NDArray[np.float64]
PERIOD = 1.0 / CONTROL_HZ
"""Seconds of a control step."""
POINTING_DOWN = (1.0, 0.0, 0.0, 0.0)
"""Orientation (xyzw) of the tool, whose z axis points at the table."""


class SimulatedRobot:
    """An environment that is stepped by displacements, or driven in parts of a step."""

    def __init__(
        self,
        env_id: str,
        options: Mapping[str, Any],
        stream: str = "evaluate",
        joints: bool = False,
    ) -> None:
        """Build the environment.

        Args:
            env_id: its id.
            options: its options.
            stream: of seeds.
            joints: whether an xArm6 is driven by its own joints; else the tool is driven.

        Raises:
            ValueError: for one that is not a tabletop, or takes whole pushes.
        """
        env = make_env(env_id, {**options, "observation": "state"})
        if not isinstance(env.unwrapped, TabletopEnv) or env.unwrapped.control != "delta":
            env.close()
            raise ValueError(
                f"by twist or in real time, sim_robot simulates the tabletop environments with "
                f"control=delta, not {env_id} with {dict(options)}; in lockstep, with command "
                "trajectory, it simulates any"
            )
        self.env = env
        self.table = env.unwrapped
        effector = self.table.scene.effector
        self._arm = effector if joints and isinstance(effector, XArm6) else None
        self._stream = stream
        self.seed = -1
        self._rewards = 0.0
        self._steps = 0
        self._driven = 0
        self._info: dict[str, Any] = {}
        self.done = True
        """Whether the episode is over, or none has begun."""

    def reset(self, seed: int) -> None:
        """Start the episode of a seed."""
        if self._arm is not None:
            self._arm.joint_goal = None
        options = None if self._stream == "evaluate" else {"stream": self._stream}
        _, self._info = self.env.reset(seed=seed, options=options)
        self.seed, self._rewards, self._steps, self._driven = seed, 0.0, 0, 0
        self.done = False
        if self._arm is not None:
            self._arm.joint_goal = self._joint_positions()

    def _joint_positions(self) -> Array:
        states = self.table.scene.effector.joints().values()
        return np.array([position for position, _ in states])

    @property
    def target(self) -> Array:
        """What `drive` was told last: `(2,)` metres of the tool, or `(6,)` rad of the joints."""
        if self._arm is None:
            return self.table.target.copy()
        goal = self._arm.joint_goal
        return self._joint_positions() if goal is None else goal.copy()

    def step(self, velocity: Array) -> bool:
        """One control step of 0.1 s.

        Args:
            velocity: `(2,)` metres per second. Times 0.1 s and rounded to float32 it is, to the
                last bit, the displacement that a policy decided on.

        Returns:
            Whether the episode is over.
        """
        action = (np.asarray(velocity) * PERIOD).astype(np.float32)
        _, reward, terminated, truncated, self._info = self.env.step(action)
        self._rewards += float(reward)
        self._steps += 1
        self.done = terminated or truncated
        return self.done

    def drive(self, target: Array, substeps: int) -> bool:
        """A part of a control step; see `TabletopEnv.drive`. Ends the episode as `step` would.

        Args:
            target: as `target`, at the end of the part.
            substeps: physics steps of 1/240 s.
        """
        if self._arm is not None:
            self._arm.joint_goal = target
            target = self.table.scene.tip()[:2]  # of no meaning to an arm that has a joint goal
        self._info = self.table.drive(target, substeps)
        self._driven += substeps
        self._steps = int(self._driven * CONTROL_HZ / PHYSICS_HZ)
        late = self._steps >= self.table._episode_limit()
        self.done = bool(self._info["success"]) or late
        return self.done

    def result(self) -> dict[str, Any]:
        """What the episode has come to."""
        return {
            "seed": self.seed,
            "success": bool(self._info.get("success", False)),
            "score": float(self._info.get("score", 0.0)),
            "return": self._rewards,
            "length": self._steps,
        }

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class Setpoint:
    """What a robot in real time was last told, and what that means now."""

    def __init__(self, timeout: float, n: int = 2) -> None:
        """Nothing yet.

        Args:
            timeout: seconds after which a velocity counts no more.
            n: axes.
        """
        self._timeout, self._n = timeout, n
        self._velocity: Array = np.zeros(n)
        self._at = -math.inf
        self._due: Array = np.zeros(n)  # way that velocities have asked for and nobody has gone yet
        self._points: tuple[Array, Array] | None = None  # times, positions

    def clear(self) -> None:
        """Forget it."""
        self._velocity, self._due, self._points = np.zeros(self._n), np.zeros(self._n), None

    def velocity(self, velocity: Array, now: float) -> None:
        """Move at `(n,)` m/s from now on. What was asked for until now is still to be gone."""
        self._accrue(now)
        self._velocity, self._points = np.asarray(velocity, np.float64), None
        if not np.isfinite(self._velocity).all():
            self._velocity = np.zeros(self._n)

    def trajectory(self, positions: Array, times: Array, now: float) -> None:
        """Go through `(T, n)` positions in metres or rad, `(T,)` seconds from now."""
        self.clear()
        self._points, self._at = (times, positions), now

    def target(self, present: Array, now: float, dt: float) -> Array:
        """`(n,)` commanded position at `now + dt`.

        Args:
            present: `(n,)` commanded position now.
            now: seconds.
            dt: seconds.
        """
        if self._points is None:
            self._accrue(now)
            way, self._due = self._due, np.zeros(self._n)
            return present + way
        times, positions = self._points
        at = now + dt - self._at
        if at >= times[-1]:
            return positions[-1]
        if at < times[0]:  # on the way from here to the first point
            share = dt / max(times[0] - (now - self._at), dt)
            return present + share * (positions[0] - present)
        return np.array([np.interp(at, times, positions[:, i]) for i in range(self._n)])

    def _accrue(self, now: float) -> None:
        """Add the way since the last look, of at most `timeout` for one velocity."""
        # Sampling the velocity instead would drop or double a setpoint every now and then.
        if math.isfinite(self._at):
            self._due = self._due + self._velocity * min(now - self._at, self._timeout)
            if now - self._at > self._timeout:
                self._velocity = np.zeros(self._n)
        self._at = now
