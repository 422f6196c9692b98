"""The safety filter: velocities that respect limits of speed, acceleration and position.

Pure NumPy, no clocks, no messages. A command that is within all limits passes bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SLACK = 1e-9
"""Relative room for rounding: a command at a limit is not an intervention."""


@dataclass(frozen=True)
class Limits:
    """Limits of every axis; units are those of the commands (metres or rad, and seconds).

    Attributes:
        low: `(n,)` least position; `-inf` where there is none.
        high: `(n,)` greatest position.
        velocity: `(n,)` greatest speed; 0 for an axis that must not move.
        acceleration: `(n,)` greatest change of velocity per second.
        hold: longest time in seconds that a velocity may act before the next command or a stop;
            the distance for braking is reckoned with it.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    hold: float = 0.1

    def __post_init__(self) -> None:
        """Refuse limits that say nothing or contradict each other."""
        sizes = {len(self.low), len(self.high), len(self.velocity), len(self.acceleration)}
        if len(sizes) != 1 or not self.low:
            raise ValueError(
                "low, high, velocity and acceleration need one number for every axis; got "
                f"{len(self.low)}, {len(self.high)}, {len(self.velocity)}, {len(self.acceleration)}"
            )
        for name, values in (("velocity", self.velocity), ("acceleration", self.acceleration)):
            if not np.isfinite(values).all() or min(values) < 0:
                raise ValueError(f"{name} limits must be finite and not negative, got {values}")
        for i, (v, a) in enumerate(zip(self.velocity, self.acceleration, strict=True)):
            if v > 0 and a == 0:
                raise ValueError(f"axis {i} may move but not accelerate; give an acceleration")
        if np.isnan(self.low).any() or np.isnan(self.high).any():
            raise ValueError("position limits must be numbers (or infinite), got nan")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low must not exceed high, got {self.low} and {self.high}")
        if not 0 < self.hold < 10:
            raise ValueError(f"hold must be in (0, 10) seconds, got {self.hold}")

    @property
    def n(self) -> int:
        """Number of axes."""
        return len(self.low)


@dataclass(frozen=True)
class Verdict:
    """What the filter makes of a command.

    Attributes:
        velocity: `(n,)` velocity to send.
        reasons: which limits changed it, of `velocity`, `acceleration` and `position`.
    """

    velocity: Array
    reasons: tuple[str, ...]


def approach_speed(distance: Array, acceleration: Array, hold: float) -> Array:
    """Greatest speed towards a limit from which one can still stop before it.

    Velocities are held for at most T = `hold` seconds and then fall by a T at a time, so speed v
    needs v T + (v - a T) T + (v - 2 a T) T + ... metres. With u = v / (a T) and m = floor(u) that
    is a T^2 ((m + 1) u - m (m + 1) / 2), which is inverted here. Holding for shorter times needs no
    more: every shorter step takes off at least what it travels.

    Args:
        distance: `(n,)` what is left before the limit, may be infinite or negative.
        acceleration: `(n,)` a.
        hold: T.

    Returns:
        `(n,)` speeds, 0 where nothing is left.
    """
    unit = acceleration * hold * hold
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        d = np.where(unit > 0, np.maximum(distance, 0.0) / unit, 0.0)
    # Beyond this, and for no limit at all, the speed is no limit either.
    far = d > 1e12
    d = np.where(far, 0.0, d)
    m = np.floor((np.sqrt(1.0 + 8.0 * d) - 1.0) / 2.0)
    speed = (d + m * (m + 1.0) / 2.0) / (m + 1.0) * acceleration * hold
    return np.where(far, np.inf, speed)


class SafetyFilter:
    """Filters a stream of velocity commands; keeps the last velocity that was let through."""

    def __init__(self, limits: Limits) -> None:
        """Start at rest."""
        self.limits = limits
        self._low = np.array(limits.low)
        self._high = np.array(limits.high)
        self._velocity_limit = np.array(limits.velocity)
        self._acceleration = np.array(limits.acceleration)
        self.velocity: Array = np.zeros(limits.n)
        """`(n,)` last velocity let through."""

    def reset(self) -> None:
        """The robot is at rest."""
        self.velocity = np.zeros(self.limits.n)

    def filter(self, velocity: Array, position: Array, dt: float) -> Verdict:
        """The nearest velocity within the limits.

        Where limits contradict each other (a robot already outside, or one pushed there), the
        acceleration limit gives way to none: the robot brakes as hard as it may.

        Args:
            velocity: `(n,)` wanted; must be finite.
            position: `(n,)` where the robot is; must be finite where a position limit is.
            dt: seconds since the last command; counted as at most `limits.hold`.

        Raises:
            ValueError: on a wrong shape or a value that is not finite.
        """
        wanted = self._checked("velocity", velocity)
        place = self._checked("position", position)
        bounded = np.clip(wanted, -self._velocity_limit, self._velocity_limit)
        reasons = ["velocity"] if self._differs(bounded, wanted) else []
        hold = self.limits.hold
        up = approach_speed(self._high - place, self._acceleration, hold)
        down = approach_speed(place - self._low, self._acceleration, hold)
        inside = np.clip(bounded, -down, up)
        if self._differs(inside, bounded):
            reasons.append("position")
        else:
            inside = bounded
        step = self._acceleration * min(max(dt, 0.0), hold)
        smooth = np.clip(inside, self.velocity - step, self.velocity + step)
        if self._differs(smooth, inside):
            reasons.append("acceleration")
        else:
            smooth = inside
        self.velocity = smooth if reasons else wanted
        return Verdict(self.velocity.copy(), tuple(reasons))

    def _differs(self, after: Array, before: Array) -> bool:
        return bool((np.abs(after - before) > SLACK * (1.0 + np.abs(after))).any())

    def _checked(self, name: str, values: Array) -> Array:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (self.limits.n,):
            raise ValueError(f"{name} must be ({self.limits.n},), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array.tolist()}")
        return array
