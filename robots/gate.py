"""The safety gate's state machine: what may reach the robot, and when it must stop.

Knows neither messages nor clocks: every call says what time it is. All methods may be called from
several threads.
"""

from __future__ import annotations

import threading
from typing import Literal

import numpy as np

from robots.driving import Pose
from robots.fence import Fence
from robots.gate_settings import SECOND, Array, Decision, GateConfig, Health, Now
from robots.safety_filter import SLACK, SafetyFilter

__all__ = ["SECOND", "Decision", "Gate", "GateConfig", "Health", "Now"]

State = Literal["disarmed", "armed", "stopped", "estop"]
FAR = 1e9
"""Further than any robot reaches: a position command beyond it means no more than this one."""
LONGEST_CHUNK = 2.0
"""Seconds that one trajectory may cover."""


class Gate:
    """Lets commands through when it is armed, everything is fresh, and within limits."""

    def __init__(self, config: GateConfig) -> None:
        """Start disarmed."""
        self.config = config
        self.health = Health()
        self._filter = SafetyFilter(config.limits)
        self._lock = threading.RLock()
        self._state: State = "disarmed"
        self._why = "not armed yet"
        self._position: Array | None = None
        self._observed: Now | None = None
        self._observed_stamp: int | None = None
        self._n_fresh = 0
        self._sent: Array | None = None  # last position let through, where commands are positions
        self._plan: list[tuple[int, Array]] = []  # (steady, position) of the last chunk
        self._last: Array | None = None  # last command as it was sent
        self._moving_since: int | None = None  # steady
        self._command_at: int | None = None  # steady
        self._command_stamp: int | None = None  # ros
        self._inference_at: int | None = None
        self._inference_stamp: int | None = None
        self._stops_left = 0

    @property
    def state(self) -> State:
        """Where the gate stands."""
        return self._state

    @property
    def why(self) -> str:
        """The reason of the present state, for people."""
        return self._why

    @property
    def position(self) -> Array | None:
        """`(n,)` the robot's last good position."""
        return self._position

    @property
    def observed_stamp(self) -> int:
        """When that was measured, nanoseconds; -1 before the first."""
        return -1 if self._observed_stamp is None else self._observed_stamp

    # What comes in.

    def observe(self, position: Array, stamp: int, now: Now) -> bool:
        """The robot's position.

        Args:
            position: `(n,)`.
            stamp: nanoseconds, when it was measured.
            now: the time.

        Returns:
            Whether it was good: finite, of the right shape, neither old nor out of order.
        """
        with self._lock:
            values = np.asarray(position, dtype=np.float64)
            if values.shape != (self.config.limits.n,) or not np.isfinite(values).all():
                return self._bad_observation("observation not finite")
            if self._went_back(stamp, self._observed_stamp, now):
                self._observed_stamp = None
            if self._observed_stamp is not None and stamp == self._observed_stamp:
                return True  # sent twice; says nothing new
            if reason := self._timing(stamp, self._observed_stamp, now):
                return self._bad_observation(f"observation {reason}")
            self._position, self._observed, self._observed_stamp = values, now, stamp
            self._n_fresh += 1
            if (
                self._state == "stopped"
                and self.config.rearm == "automatic"
                and self._n_fresh >= self.config.fresh
            ):
                self._enter("armed", "moving again after a stop")
            return True

    def infer(self, oldest: int, newest: int, now: Now) -> bool:
        """A fresh inference.

        Args:
            oldest: stamp in nanoseconds of the oldest observation behind it.
            newest: of the newest.
            now: the time.

        Returns:
            Whether it counts as fresh.
        """
        with self._lock:
            if self._went_back(newest, self._inference_stamp, now):
                self._inference_stamp = None
            max_age = self.config.inference_max_age or self.config.max_age
            reason = self._timing(newest, self._inference_stamp, now, max_age)
            if not reason and now.ros - oldest > max_age * SECOND:
                reason = "too old"
            if not reason and newest - oldest > self.config.max_skew * SECOND:
                reason = "skewed"
            if reason:
                self._count(f"inference {reason}")
                return False
            self._inference_at, self._inference_stamp = now.steady, newest
            return True

    def command(self, values: Array, stamp: int | None, now: Now) -> Decision:
        """A command on its way to the robot.

        Args:
            values: `(n,)` velocities, or positions; see `GateConfig.positions`.
            stamp: nanoseconds, when it was made; None where messages carry none.
            now: the time.
        """
        with self._lock:
            if self._state != "armed":
                self.health.refused += 1
                return Decision(reasons=(self._state,))
            array = np.asarray(values, dtype=np.float64)
            if array.shape != (self.config.limits.n,):
                return self._refuse("command of wrong length")
            if not np.isfinite(array).all():
                self._refuse("command not finite")
                return self._stop("command not finite")
            if stamp is not None:
                if self._went_back(stamp, self._command_stamp, now):
                    self._command_stamp = None
                if stamp == self._command_stamp and self._last is not None:
                    return Decision(self._last.copy())  # sent twice: a simulator has asked again
                if reason := self._timing(stamp, self._command_stamp, now):
                    return self._refuse(f"command {reason}")
            if reason := self._not_ready(now):
                self._refuse(reason)
                return self._stop(reason)
            assert self._position is not None  # _not_ready
            dt = self._elapsed(stamp, now)
            self._command_at, self._command_stamp = now.steady, stamp
            if self._moving_since is None:
                self._moving_since = now.steady
            decision = self._filtered(array, self._position, dt, now)
            self._last = decision.values
            return decision

    def _filtered(self, wanted: Array, position: Array, dt: float, now: Now) -> Decision:
        if self.config.positions:
            if self._sent is None:
                self._sent = position.copy()
            before = self._sent
            sent, reasons = self._next(before, wanted, dt)
            if self._leaves_box(before, sent):
                return self._stop("workspace")
            self._sent = sent.copy()
        elif self.config.fence is not None:
            sent, reasons = self._fenced(self.config.fence, wanted, position, dt, now)
        else:
            verdict = self._filter.filter(wanted, position, dt)
            sent, reasons = verdict.velocity, verdict.reasons
        self._passed(reasons)
        return Decision(sent, reasons=reasons)

    def _fenced(
        self, fence: Fence, wanted: Array, position: Array, dt: float, now: Now
    ) -> tuple[Array, tuple[str, ...]]:
        """The twist of a base, slow enough to stay within a fence, and what was changed."""
        assert self._observed is not None  # _not_ready
        age = (now.steady - self._observed.steady) / SECOND
        gone = age * float(np.abs(self._filter.velocity[:2]).sum())
        pose = Pose(float(position[0]), float(position[1]), float(position[5]))
        slower = wanted.copy()
        slower[0] = fence.speed(float(wanted[0]), pose, gone)
        verdict = self._filter.filter(slower, np.zeros_like(slower), dt)
        changed = slower[0] != wanted[0]
        return verdict.velocity, (*(("position",) if changed else ()), *verdict.reasons)

    def _next(self, place: Array, wanted: Array, dt: float) -> tuple[Array, tuple[str, ...]]:
        """The position after one that was sent, within the limits, and what was changed."""
        low = np.minimum(self.config.limits.low, place)
        high = np.maximum(self.config.limits.high, place)
        within = np.clip(wanted, low, high)
        way = np.clip(within, place - FAR, place + FAR) - place
        # All axes together: one alone that lags behind leads the tip of an arm off its way.
        verdict = self._filter.filter_together(way, place, dt)
        outside = bool((np.abs(within - wanted) > SLACK * (1.0 + np.abs(within))).any())
        reasons = tuple(dict.fromkeys((*verdict.reasons, *(("position",) if outside else ()))))
        if not reasons:
            return wanted, ()
        # Where times between commands vary, braking in time may have become impossible: a
        # position beyond the limits is never sent.
        sent = np.clip(place + verdict.velocity * dt, low, high)
        self._filter.velocity = (sent - place) / dt
        return sent, reasons

    def _leaves_box(self, start: Array, end: Array) -> bool:
        box = self.config.box
        return box is not None and box.is_left(start, end)

    def _passed(self, reasons: tuple[str, ...]) -> None:
        self.health.passed += 1
        self.health.changed += bool(reasons)
        self.health.reasons.update(reasons)

    def trajectory(self, positions: Array, times: Array, stamp: int | None, now: Now) -> Decision:
        """A chunk of positions on its way to a trajectory controller.

        It replaces what is left of the last one. The watchdog counts from its end.

        Args:
            positions: `(T, n)`.
            times: `(T,)` seconds from now, increasing.
            stamp: nanoseconds, when it was made; None where it says "now".
            now: the time.

        Returns:
            A decision whose values are `(T, n)`.
        """
        with self._lock:
            array, times = np.asarray(positions, np.float64), np.asarray(times, np.float64)
            if self._state != "armed":
                self.health.refused += 1
                return Decision(reasons=(self._state,))
            steps = np.diff(times, prepend=0.0)
            if array.shape != (len(times), self.config.limits.n) or not len(times):
                return self._refuse("command of wrong length")
            if not np.isfinite(times).all() or steps.min() < 0 or (steps[1:] <= 0).any():
                return self._refuse("times not increasing")
            if steps.max() > self.config.limits.hold or times[-1] > LONGEST_CHUNK:
                return self._refuse("points too far apart")
            if not np.isfinite(array).all():
                self._refuse("command not finite")
                return self._stop("command not finite")
            if reason := self._not_ready(now):
                self._refuse(reason)
                return self._stop(reason)
            if stamp is not None:
                if stamp == self._command_stamp and self._last is not None:
                    return Decision(self._last.copy())  # sent twice: a simulator has asked again
                if reason := self._timing(stamp, self._command_stamp, now):
                    return self._refuse(f"command {reason}")
            assert self._position is not None  # _not_ready
            self._resume(now)
            sent, reasons = self._planned(array, times, now)
            if sent is None:
                return self._stop("workspace")
            self._command_at = now.steady + round(times[-1] * SECOND)
            self._command_stamp = stamp
            self._moving_since = self._moving_since or now.steady
            self._last = sent.copy()
            self._passed(reasons)
            return Decision(sent, reasons=reasons)

    def _planned(
        self, points: Array, times: Array, now: Now
    ) -> tuple[Array | None, tuple[str, ...]]:
        """A chunk within the limits, and what was changed; None if the tip would leave its box."""
        sent = np.empty_like(points)
        reasons: set[str] = set()
        for i, (wanted, dt) in enumerate(zip(points, np.diff(times, prepend=0.0), strict=True)):
            assert self._sent is not None  # _resume
            place = self._sent
            sent[i], changed = self._next(place, wanted, max(dt, 1e-3))
            if self._leaves_box(place, sent[i]):
                return None, ()
            self._sent = sent[i].copy()
            self._plan.append((now.steady + round(times[i] * SECOND), sent[i].copy()))
            reasons.update(changed)
        return sent, tuple(sorted(reasons))

    def _resume(self, now: Now) -> None:
        """Go on from where the last chunk has brought the robot by now, at its speed there."""
        before = [point for point in self._plan if point[0] < now.steady]
        after = [point for point in self._plan if point[0] >= now.steady]
        if before and after:
            (t0, p0), (t1, p1) = before[-1], after[0]
            self._filter.velocity = (p1 - p0) / ((t1 - t0) / SECOND)
            self._sent = p0 + self._filter.velocity * ((now.steady - t0) / SECOND)
        elif before:
            self._sent = before[-1][1]
            self._filter.reset()
        elif after:  # the last chunk has not reached its first point
            self._sent = self._position
        start = self._sent if self._sent is not None else self._position
        assert start is not None  # _not_ready
        self._sent = start
        self._plan = [(now.steady, start.copy())]

    def forget(self) -> None:
        """Positions begin anew where the robot is: it was moved by others, as at a reset."""
        with self._lock:
            self._sent, self._plan = None, []
            self._filter.reset()

    def tick(self, now: Now) -> Decision:
        """The watchdog: call it often, from a thread of its own."""
        with self._lock:
            if self._state == "armed" and (reason := self._overdue(now)):
                return self._stop(reason)
            if self._stops_left:
                self._stops_left -= 1
                return Decision(stop=True, reasons=(self._why,))
            return Decision()

    # What people do.

    def arm(self, now: Now) -> str:
        """Let commands through from now on.

        Returns:
            Why not; empty when it is armed.
        """
        with self._lock:
            if self._state == "armed":
                return ""
            if self._state == "estop":
                return "the emergency stop is latched; reset it first"
            if self._observed is None or self._position is None:
                return "the robot's position has not been observed"
            if now.steady - self._observed.steady > self.config.max_age * SECOND:
                return "the robot's position is too old"
            if self._n_fresh < self.config.fresh:
                return f"only {self._n_fresh} of {self.config.fresh} fresh observations in a row"
            self._enter("armed", "armed")
            return ""

    def disarm(self) -> Decision:
        """Stop, and let nothing through."""
        with self._lock:
            moving = self._state == "armed"
            if self._state != "estop":
                self._enter("disarmed", "disarmed")
            return Decision(stop=moving, reasons=("disarmed",))

    def press_estop(self) -> Decision:
        """Emergency stop: latched until `reset_estop`."""
        with self._lock:
            self._enter("estop", "emergency stop")
            self.health.stops += 1
            self._stops_left = self.config.repeats
            return Decision(stop=True, reasons=("emergency stop",))

    def reset_estop(self) -> None:
        """Release the emergency stop; the gate is disarmed then."""
        with self._lock:
            if self._state == "estop":
                self._enter("disarmed", "emergency stop was reset")

    # Inside.

    def _enter(self, state: State, why: str) -> None:
        self._state, self._why = state, why
        self._filter.reset()
        self._sent = None
        self._last = None
        self._plan = []
        self._moving_since = self._command_at = self._command_stamp = self._inference_at = None
        self._stops_left = 0

    def _stop(self, reason: str) -> Decision:
        self._enter("stopped", reason)
        self.health.stops += 1
        self.health.reasons[f"stop: {reason}"] += 1
        self._n_fresh = 0
        self._stops_left = self.config.repeats
        return Decision(stop=True, reasons=(reason,))

    def refuse(self, reason: str) -> None:
        """Count a command that could not even be read."""
        with self._lock:
            self._refuse(reason)

    def _refuse(self, reason: str) -> Decision:
        self.health.refused += 1
        self._count(reason)
        return Decision(reasons=(reason,))

    def _bad_observation(self, reason: str) -> bool:
        self._n_fresh = 0
        self._count(reason)
        return False

    def _count(self, reason: str) -> None:
        self.health.reasons[reason] += 1

    def _timing(self, stamp: int, last: int | None, now: Now, max_age: float | None = None) -> str:
        """What is wrong with a stamp, or nothing."""
        if now.ros - stamp > (self.config.max_age if max_age is None else max_age) * SECOND:
            return "too old"
        if stamp - now.ros > self.config.future * SECOND:
            return "from the future"
        if last is not None and stamp <= last:
            return "out of order"
        return ""

    def _went_back(self, stamp: int, last: int | None, now: Now) -> bool:
        """Whether the clock itself has jumped back since `last`: a simulation began anew."""
        if last is None or last - now.ros <= self.config.future * SECOND:
            return False
        return stamp <= last

    def _elapsed(self, stamp: int | None, now: Now) -> float:
        """Seconds since the last command, by the commands' own stamps where they have some."""
        hold = self.config.limits.hold
        if stamp is not None and self._command_stamp is not None:
            return min((stamp - self._command_stamp) / SECOND, hold)
        if stamp is None and self._command_at is not None:
            return min(max((now.steady - self._command_at) / SECOND, 1e-4), hold)
        return hold

    def _not_ready(self, now: Now) -> str:
        """Why no command may pass now, or nothing."""
        if self._observed is None or self._position is None:
            return "no observation"
        if now.steady - self._observed.steady > self.config.max_age * SECOND:
            return "observation too old"
        # The first setpoints may overtake the word that there was an inference.
        last = self._moving_since if self._inference_at is None else self._inference_at
        timeout = self.config.inference_timeout
        if timeout and last is not None and now.steady - last > timeout * SECOND:
            return "inference overdue"
        return ""

    def _overdue(self, now: Now) -> str:
        """What the watchdog has waited for too long, or nothing. Rests until a first command."""
        if self._command_at is None:
            return ""
        if now.steady - self._command_at > self.config.command_timeout * SECOND:
            return "command overdue"
        return self._not_ready(now)
