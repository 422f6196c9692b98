"""A rectangle of the floor that a base must not leave, whatever it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from robots.driving import Pose
from robots.safety_filter import approach_speed


@dataclass(frozen=True)
class Fence:
    """Where the middle of a base may be, metres in the frame of its pose.

    Attributes:
        low: least x and y.
        high: greatest x and y.
        turn: rad/s, the fastest that the base may turn.
        braking: m/s^2, how it brakes.
        hold: longest time in seconds that a velocity may act before the next one.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    turn: float
    braking: float
    hold: float

    def __post_init__(self) -> None:
        """Refuse a fence around nothing."""
        ends = (*self.low, *self.high)
        if not all(map(math.isfinite, ends)):
            raise ValueError(f"a fence has finite sides, got {ends}")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low of a fence must be less than high, got {self.low}, {self.high}")
        if not (self.braking > 0 and self.hold > 0 and self.turn >= 0):
            raise ValueError("a fence needs a base that can brake")

    def speed(self, wanted: float, pose: Pose, gone: float = 0.0) -> float:
        """The nearest speed from which the base can come to rest inside, however it turns then.

        A base that is outside may only come nearer.

        Args:
            wanted: forward, m/s; negative is backward.
            pose: where it was seen.
            gone: metres by which it may have moved since.
        """
        if wanted == 0.0:
            return 0.0
        ahead = pose.yaw if wanted > 0 else pose.yaw + math.pi
        # While it brakes it may turn so far to either side.
        swing = self.turn * (abs(wanted) / self.braking + self.hold)
        fastest = abs(wanted)
        for outward, left in (
            (0.0, self.high[0] - pose.x),
            (math.pi, pose.x - self.low[0]),
            (math.pi / 2, self.high[1] - pose.y),
            (-math.pi / 2, pose.y - self.low[1]),
        ):
            off = abs(math.remainder(ahead - outward, math.tau))
            share = math.cos(max(off - swing, 0.0)) if off - swing < math.pi / 2 else 0.0
            if share > 1e-9:
                room = np.array([max(left - gone, 0.0) / share])
                limit = float(approach_speed(room, np.array([self.braking]), self.hold)[0])
                fastest = min(fastest, limit)
        return math.copysign(fastest, wanted)
