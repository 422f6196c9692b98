"""What the safety gate is told, and what it says: settings, times, decisions, counters."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from robots.fence import Fence
from robots.safety_filter import Limits
from robots.tip_box import TipBox

Array = NDArray[np.float64]
SECOND = 1_000_000_000


@dataclass(frozen=True)
class Now:
    """The time, twice.

    Attributes:
        ros: nanoseconds on the clock that stamps messages; may pause or jump.
        steady: nanoseconds on a clock that does neither; timeouts count on it.
    """

    ros: int
    steady: int


@dataclass(frozen=True)
class GateConfig:
    """Settings of a gate.

    Attributes:
        limits: of every axis.
        positions: whether commands are positions (joint controllers) rather than velocities.
        command_timeout: seconds after the last good command until the robot is stopped.
        inference_timeout: seconds after the last fresh inference until then; 0 does not watch.
        max_age: greatest age in seconds of the robot's position, and of commands.
        inference_max_age: greatest age in seconds of what a fresh inference has seen; 0 takes
            `max_age`. A camera and what looks at its pictures take longer than joints do, and must
            not make the gate put up with a position that is as old.
        max_skew: greatest difference in seconds between the observations of one inference.
        future: seconds by which a stamp may lie in the future.
        rearm: after a stop: `explicit` waits for a person, `automatic` for `fresh` observations.
        fresh: fresh observations in a row before the robot may move again.
        repeats: times a stop is repeated, in case one gets lost.
        box: where the tip of the tool may be, for commands of joints; None looks at joints only.
        fence: where a base may be, whose twists are in its own frame: forward first, the rate of
            turning last. Its position has x and y first and its yaw last, and no other limits.
    """

    limits: Limits
    positions: bool = False
    command_timeout: float = 0.1
    inference_timeout: float = 0.0
    max_age: float = 0.1
    inference_max_age: float = 0.0
    max_skew: float = 0.05
    future: float = 0.05
    rearm: Literal["explicit", "automatic"] = "explicit"
    fresh: int = 3
    repeats: int = 25
    box: TipBox | None = None
    fence: Fence | None = None

    def __post_init__(self) -> None:
        """Refuse what would never stop, or never move."""
        times = ("command_timeout", "max_age", "max_skew", "future")
        for name in (*times, "inference_timeout", "inference_max_age"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a time in seconds, got {value}")
        if not 0 < self.command_timeout <= 1.0:
            raise ValueError(f"command_timeout must be in (0, 1] s, got {self.command_timeout}")
        if self.max_age <= 0:
            raise ValueError("max_age must be positive: nothing would ever be fresh enough")
        if self.rearm not in ("explicit", "automatic"):
            raise ValueError(f"rearm must be explicit or automatic, got {self.rearm!r}")
        if self.fresh < 1 or self.repeats < 1:
            raise ValueError("fresh and repeats must be at least 1")
        if self.fence is not None:
            limits = self.limits
            if self.positions or limits.n != 6 or any(limits.velocity[1:5]):
                raise ValueError("a fence is for twists of a base that drives forward and turns")
            if np.isfinite((*limits.low, *limits.high)).any():
                raise ValueError("positions of a base are limited by its fence only")
        if self.box is not None and not (self.positions and self.box.chain.n == self.limits.n):
            raise ValueError(
                f"a box for the tip needs commands of positions of its {self.box.chain.n} joints; "
                f"there are limits of {self.limits.n} axes"
            )


@dataclass(frozen=True)
class Decision:
    """What the gate says to a command.

    Attributes:
        values: `(n,)` what to send; None sends nothing.
        stop: whether a stop must be sent instead.
        reasons: why it was changed or refused.
    """

    values: Array | None = None
    stop: bool = False
    reasons: tuple[str, ...] = ()


@dataclass
class Health:
    """Counters since the start, for diagnostics."""

    passed: int = 0
    changed: int = 0
    refused: int = 0
    stops: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
