"""What the world does to a policy: shoves, holds, and physics that differ from the training set's.

`disturb` is the chance per control step that somebody interferes; `randomize` in [0, 1] scales
the ranges of `draw_variation`. Both draw from a generator of their own, so the same seed starts
from the same block poses with and without them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHOVE_SPEED = 0.4
"""Largest speed (m/s) a shove gives a block; half of it is the smallest. A 40 mm block then slides
15 mm, or 4 mm, before friction stops it."""
HOLD_STEPS = (3, 8)
"""A hold keeps the effector where it is for this many control steps (inclusive range)."""


@dataclass(frozen=True)
class Variation:
    """One episode's departure from the nominal world."""

    friction: float = 1.0
    """Factor on the blocks' friction."""
    mass: float = 1.0
    """Factor on the blocks' mass."""
    camera_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shift of the policy camera in metres."""
    light: tuple[float, float, float] = (0.6, 0.4, 1.6)
    """Direction towards the light."""
    action_delay: int = 0
    """Control steps between a command and its execution."""
    observation_noise: float = 0.0
    """Standard deviation of the noise on every state entry (metres, or radians / 10 mm)."""


NOMINAL = Variation()


def draw_variation(level: float, rng: np.random.Generator) -> Variation:
    """Draw one episode's variation.

    Args:
        level: 0 is nominal; 1 is friction x0.5 to x1.5, mass x0.5 to x2, camera +-15 mm, any light
            from above, a delay of 0 or 1 steps, and up to 1.5 mm of observation noise.
        rng: source of the draw.
    """
    if level == 0.0:
        return NOMINAL
    u = rng.uniform(-1.0, 1.0, size=7)
    return Variation(
        friction=1.0 + 0.5 * level * u[0],
        mass=2.0 ** (level * u[1]),
        camera_offset=tuple(0.015 * level * u[2:5]),
        light=(0.6 + level * u[5], 0.4 + level * u[6], 1.6),
        action_delay=int(rng.random() < 0.5 * level),
        observation_noise=0.0015 * level * rng.random(),
    )


@dataclass(frozen=True)
class Disturbance:
    """One step's interference: a push on a block, a hold of the effector, or neither."""

    shove_block: int = -1
    shove_velocity: tuple[float, float] = (0.0, 0.0)
    hold_steps: int = 0


QUIET = Disturbance()


def draw_disturbance(rate: float, n_blocks: int, rng: np.random.Generator) -> Disturbance:
    """Draw what happens before one control step.

    Args:
        rate: chance of interference.
        n_blocks: blocks that can be shoved.
        rng: source of the draw.
    """
    if rate == 0.0 or rng.random() >= rate:
        return QUIET
    if rng.random() < 0.5:
        return Disturbance(hold_steps=int(rng.integers(HOLD_STEPS[0], HOLD_STEPS[1] + 1)))
    angle, speed = rng.uniform(0, 2 * np.pi), SHOVE_SPEED * rng.uniform(0.5, 1.0)
    velocity = (speed * float(np.cos(angle)), speed * float(np.sin(angle)))
    return Disturbance(shove_block=int(rng.integers(n_blocks)), shove_velocity=velocity)


def noisy(state: NDArray[np.float32], std: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """State with Gaussian noise of `std` on every entry."""
    if std == 0.0:
        return state
    return (state + rng.normal(0.0, std, state.shape)).astype(np.float32)
