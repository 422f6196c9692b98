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


def _differs(after: Array, before: Array) -> bool:
    return bool((np.abs(after - before) > SLACK * (1.0 + np.abs(after))).any())


def _share(values: Array, low: Array, high: Array) -> float:
    """The greatest part, up to 1, of values that stays within bounds around 0."""
    bound = np.where(values > 0, high, low)
    beyond = np.abs(values) - np.abs(bound) > SLACK * (1.0 + np.abs(bound))
    return float((bound[beyond] / values[beyond]).min(initial=1.0))


def _on_line(direction: Array, low: Array, high: Array, wish: float) -> Array | None:
    """The multiple of a direction within a box whose factor is nearest to a wish, if there is one.

    The factor may be negative, or exceed the wish: a robot brakes on its way, past its goal.
    """
    still = np.abs(direction) <= SLACK
    missed = still & ((low > SLACK) | (high < -SLACK))
    if missed.any() or (low > high + SLACK * (1.0 + np.abs(high))).any():
        return None
    ends = np.stack([low[~still], high[~still]]) / direction[~still]
    first = float(ends.min(axis=0).max(initial=-np.inf))
    last = float(ends.max(axis=0).min(initial=np.inf))
    if first > last + SLACK * (1.0 + abs(last)):
        return None
    return np.minimum(np.maximum(min(max(wish, first), last) * direction, low), high)


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
        reasons = ["velocity"] if _differs(bounded, wanted) else []
        hold = self.limits.hold
        up, down = self._approach(place, self._acceleration)
        inside = np.clip(bounded, -down, up)
        if _differs(inside, bounded):
            reasons.append("position")
        else:
            inside = bounded
        step = self._acceleration * min(max(dt, 0.0), hold)
        smooth = np.clip(inside, self.velocity - step, self.velocity + step)
        if _differs(smooth, inside):
            reasons.append("acceleration")
        else:
            smooth = inside
        self.velocity = smooth if reasons else wanted
        return Verdict(self.velocity.copy(), tuple(reasons))

    def filter_together(self, way: Array, position: Array, dt: float) -> Verdict:
        """The velocity towards a position, of all axes in one proportion, within the limits.

        So an arm stays on the straight way between two positions of its joints, and its tip near
        its own. What takes longer than one step brakes in time for its end. Where no velocity on
        that way can be reached, because the robot moves too fast in another direction, it brakes
        on the way it is on until one can. Limits go before ways: where only the axes by themselves
        can keep them they do, as in `filter`.

        Args:
            way: `(n,)` what is left to the wanted position; must be finite.
            position: `(n,)` where the robot was sent last; must be finite.
            dt: seconds since the last command, in which the way should be gone; at most
                `limits.hold`.

        Raises:
            ValueError: on a wrong shape or a value that is not finite.
        """
        place = self._checked("position", position)
        wanted = self._checked("way", way) / dt
        step = self._acceleration * dt
        allowed, reasons = self._slower_together(wanted, place)
        if not reasons and not _differs(self._clip_change(allowed, step), allowed):
            self.velocity = wanted
            return Verdict(wanted.copy(), ())
        ends = approach_speed(np.abs(way), self._pace(allowed), dt)
        braking = allowed * _share(allowed, -ends, ends)
        smooth = self._reached(braking, place, step)
        if _differs(smooth, allowed):
            reasons.append("acceleration")
        self.velocity = smooth
        return Verdict(smooth.copy(), tuple(reasons))

    def _slower_together(self, wanted: Array, place: Array) -> tuple[Array, list[str]]:
        """A velocity in its own direction within the limits of speed and position."""
        fastest = self._velocity_limit
        bounded = np.where(fastest > 0, wanted, 0.0)
        bounded = bounded * _share(bounded, -fastest, fastest)
        reasons = ["velocity"] if _differs(bounded, wanted) else []
        up, down = self._approach(place, self._acceleration)
        if not _differs(np.clip(bounded, -down, up), bounded):
            return bounded, reasons
        up, down = self._approach(place, self._pace(bounded))
        return bounded * _share(bounded, -down, up), [*reasons, "position"]

    def _reached(self, velocity: Array, place: Array, step: Array) -> Array:
        """What can be reached, by changes up to `step`, that is nearest to a velocity."""
        up, down = self._approach(place, self._acceleration)
        low = np.maximum(self.velocity - step, -np.minimum(down, self._velocity_limit))
        high = np.minimum(self.velocity + step, np.minimum(up, self._velocity_limit))
        for direction, wish in ((velocity, 1.0), (self.velocity, 0.0)):
            found = _on_line(direction, low, high, wish)
            if found is not None:
                return found
        return self._clip_change(np.clip(velocity, -down, up), step)

    def _clip_change(self, velocity: Array, step: Array) -> Array:
        return np.clip(velocity, self.velocity - step, self.velocity + step)

    def _approach(self, place: Array, acceleration: Array) -> tuple[Array, Array]:
        """Greatest speeds up and down from which every axis can brake before its limit."""
        hold = self.limits.hold
        return (
            approach_speed(self._high - place, acceleration, hold),
            approach_speed(place - self._low, acceleration, hold),
        )

    def _pace(self, velocity: Array) -> Array:
        """Accelerations of axes that brake in one proportion: the slowest sets the pace."""
        speed = np.abs(velocity)
        moving = speed > SLACK
        if not moving.any():
            return self._acceleration
        pace = float((self._acceleration[moving] / speed[moving]).min())
        return np.where(moving, pace * speed, self._acceleration)

    def _checked(self, name: str, values: Array) -> Array:
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (self.limits.n,):
            raise ValueError(f"{name} must be ({self.limits.n},), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array.tolist()}")
        return array
