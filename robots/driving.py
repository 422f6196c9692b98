"""How a base that drives forward and turns follows straight ways: pure functions of its pose.

World frame, z up, metres and radians; a yaw counts counter-clockwise from +x (REP-103).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Pose(NamedTuple):
    """Where a base stands on the floor."""

    x: float
    y: float
    yaw: float


@dataclass(frozen=True)
class DriveConfig:
    """How fast, and how exactly.

    Attributes:
        speed: greatest, m/s.
        turn: greatest rate of turning, rad/s.
        braking: deceleration, m/s^2, with which it comes to rest at the end of a way.
        gain: rate of turning by the error of the bearing, 1/s.
        lookahead: distance in metres on the way ahead at which it aims.
        sharp: error of the bearing in rad from which on it turns on the spot; with less it drives,
            the slower the more it is.
        arrival: distance in metres from the end at which it has arrived.
    """

    speed: float = 0.4
    turn: float = 0.8
    braking: float = 0.3
    gain: float = 2.0
    lookahead: float = 0.4
    sharp: float = 0.2
    arrival: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what never moves or never arrives."""
        for name, value in vars(self).items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be positive and finite, got {value}")


class Steering(NamedTuple):
    """What the base shall do.

    Attributes:
        speed: forward, m/s.
        turn: rad/s, to the left.
        arrived: whether the end of the way is reached; both are 0 then.
        off: distance in metres from the way.
    """

    speed: float
    turn: float
    arrived: bool
    off: float


def steer(
    pose: Pose, start: Iterable[float], end: Iterable[float], config: DriveConfig
) -> Steering:
    """Follow the straight way from one point to another: turn towards it, then drive.

    Aims at a point of the way a little ahead (pure pursuit, Coulter 1992), so that it comes back
    to the way and not only to its end. With a bearing that is far off it turns on the spot.

    Args:
        pose: where the base is.
        start: x and y in metres; what follows is ignored.
        end: likewise.
        config: how.

    Raises:
        ValueError: for what is not finite.
    """
    (x0, y0), (x1, y1) = (map(float, tuple(point)[:2]) for point in (start, end))
    if not all(map(math.isfinite, (*pose, x0, y0, x1, y1))):
        raise ValueError(f"pose and way must be finite, got {pose}, {x0, y0} and {x1, y1}")
    length = math.hypot(x1 - x0, y1 - y0)
    along = ((x1 - x0) / length, (y1 - y0) / length) if length else (0.0, 0.0)
    done = (pose.x - x0) * along[0] + (pose.y - y0) * along[1]
    done = max(0.0, min(done, length))
    off = math.hypot(pose.x - x0 - done * along[0], pose.y - y0 - done * along[1])
    left = math.hypot(x1 - pose.x, y1 - pose.y)
    if left <= config.arrival:
        return Steering(0.0, 0.0, True, off)
    ahead = min(done + config.lookahead, length)
    bearing = math.atan2(y0 + ahead * along[1] - pose.y, x0 + ahead * along[0] - pose.x)
    error = math.remainder(bearing - pose.yaw, math.tau)
    turn = max(-config.turn, min(config.turn, config.gain * error))
    straight = max(0.0, 1.0 - abs(error) / config.sharp)
    speed = min(config.speed, math.sqrt(2.0 * config.braking * left)) * straight
    return Steering(speed, turn, False, off)


def move(pose: Pose, speed: float, turn: float, seconds: float) -> Pose:
    """Where a base is after driving an arc.

    Args:
        pose: where it starts.
        speed: forward, m/s.
        turn: rad/s, to the left.
        seconds: how long.
    """
    angle = turn * seconds
    # The chord of the arc: its direction is the mean yaw.
    half = angle / 2.0  # 0 for the least of floats, too
    chord = speed * seconds * (math.sin(half) / half if half else 1.0)
    middle = pose.yaw + half
    return Pose(
        pose.x + chord * math.cos(middle),
        pose.y + chord * math.sin(middle),
        math.remainder(pose.yaw + angle, math.tau),
    )
