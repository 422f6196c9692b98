"""The motion side of the `policy` node: decisions in, messages for the gate out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robots.components import component_names
from robots.kinematics import Chain, quaternion_rotation
from robots.streaming import Reference, Segment
from ros_nodes import messages
from ros_nodes.arm import order

Array = NDArray[np.float64]

SETTLING = 0.03
"""Seconds after the end of a way before it is looked whether the robot has arrived."""
CORRECTION = 8.0
"""Velocity of a correction by the distance it is about, 1/s."""


class Table:
    """Axes x, y, z: of a gantry, or of a controller that takes Cartesian positions."""

    def __init__(self, height: float) -> None:
        """Keep the tool at a height, metres."""
        self._height = height

    def clear(self) -> None:
        """Nothing is remembered."""

    def begin(self, joints: Array | None) -> None:
        """Nothing depends on where it starts."""

    def at(self, place: Array, seconds: float) -> list[float]:
        """Axes that bring the tool to `(2,)` metres."""
        return [*place.tolist(), self._height]


class Arm:
    """Joints of an arm, by inverse kinematics from the last ones."""

    def __init__(self, chain: Chain, value: Mapping[str, Any]) -> None:
        """Take the tool's orientation and height.

        Args:
            chain: the arm.
            value: the node's parameters.

        Raises:
            ValueError: if `joints` are not those of the arm, or `orientation` is none.
        """
        self._chain = chain
        self._order = order(chain, list(value["joints"]))
        self._pose = np.eye(4)
        self._pose[:3, :3] = quaternion_rotation(value["orientation"])
        self._pose[2, 3] = value["height"]
        self._joints: Array | None = None

    def clear(self) -> None:
        """Forget where it was sent: the next way begins where it is."""
        self._joints = None

    def begin(self, joints: Array | None) -> None:
        """Where it is, `(n,)`; counts until it has been sent somewhere."""
        if self._joints is None and joints is not None:
            self._joints = joints.copy()

    def at(self, place: Array, seconds: float) -> list[float]:
        """Joints that bring the tool to a place.

        Args:
            place: `(2,)` metres.
            seconds: since it was sent to the last.

        Returns:
            In the order of the parameter `joints`.

        Raises:
            robots.kinematics.Unreachable: if there are none, or they are too far from the last.
        """
        if self._joints is None:
            raise ValueError("the joints of the arm have not been observed")
        self._pose[:2, 3] = place
        self._joints = self._chain.inverse(self._pose, self._joints, seconds)
        return self._joints[self._order].tolist()


class Setpoints:
    """The way to the last commanded position, in real time."""

    def __init__(
        self, value: Mapping[str, Any], reference: Reference, chain: Chain | None = None
    ) -> None:
        """Stand still.

        Args:
            value: the node's parameters.
            reference: the commanded position.
            chain: the arm, where joints are commanded.
        """
        self._value = value
        self._reference = reference
        self._axes: Table | Arm = Table(value["height"]) if chain is None else Arm(chain, value)
        self._period = 1.0 / value["setpoint_rate"]
        self._segment: Segment | None = None
        self._stamp = 0
        self._measured: tuple[int, Array] = (0, np.zeros(2))

    def clear(self) -> None:
        """Forget the way."""
        self._segment = None
        self._axes.clear()

    def observe(self, stamp: int, measured: Array) -> None:
        """Where the tool was, `(2,)` metres, at a stamp in nanoseconds."""
        self._measured = (stamp, measured)

    def over(self, now: int, grace: float = 0.0) -> bool:
        """Whether there is no way, or it ended more than `grace` seconds before `now` (steady)."""
        return self._segment is None or self._segment.over(now, grace)

    def arrived(self, measured: Array, stamp: int, now: int, clock: int) -> bool:
        """Whether the robot is where it was sent, or has been waited for long enough.

        Args:
            measured: `(2,)` where it was.
            stamp: when, nanoseconds.
            now: steady time.
            clock: the time on the clock of the stamps.
        """
        arrival, segment = self._value["arrival"], self._segment
        if not arrival or segment is None:
            return True
        seen = now - (clock - stamp)  # what was measured before the end says nothing of it
        distance = float(np.abs(segment.end - measured).max())
        patience = 0.0 if distance <= arrival else self._value["patience"]
        return segment.over(seen, grace=patience)

    def go(self, action: Array, measured: Array, joints: Array | None, now: int) -> Any:
        """Set out to a new commanded position.

        Args:
            action: `(2,)` displacement of it, metres.
            measured: `(2,)` where the tool was when it was decided on.
            joints: `(n,)` of the arm then, if there is one.
            now: steady time.

        Returns:
            The whole way for a trajectory controller; None where setpoints are to be asked for.

        Raises:
            robots.kinematics.Unreachable: if joints of the arm do not lead along it.
        """
        start = self._reference.position.copy()
        if self._segment is not None:
            start = self._segment.position(now)
        end = self._reference.move(action, measured)
        self._segment = Segment(start, end, now, 1.0 / self._value["rate"])
        self._axes.begin(joints)
        return self._chunk(self._segment) if self._value["command"] == "trajectory" else None

    def _chunk(self, segment: Segment) -> Any:
        """The whole way as positions with increasing times, for a trajectory controller."""
        n = max(round(segment.duration / self._period), 1)
        times = segment.duration * np.arange(1, n + 1) / n
        # The last chunk, of which this is the rest, went to its end; this one begins before it.
        self._axes.at(segment.start, segment.duration)
        places = [segment.position(segment.begin + round(t * 1e9)) for t in times]
        positions = np.array([self._axes.at(place, segment.duration / n) for place in places])
        return messages.trajectory_message(
            self._value["joints"], positions, times, messages.stamp_of(0)
        )

    def setpoint(self, now: int, clock: Any) -> Any:
        """The message of this moment, or None.

        Args:
            now: steady time.
            clock: the time of the clock that stamps messages.

        Raises:
            robots.kinematics.Unreachable: if the arm cannot go there evenly.
        """
        segment, kind = self._segment, self._value["command"]
        if segment is None:
            return None
        if segment.over(now, grace=1.5 / self._value["rate"] + self._value["max_age"]):
            # Nothing new for long: what follows is no decision, and the gate shall know.
            self._segment = None
            return None
        if kind == "trajectory":
            return None
        if kind == "positions":
            return messages.multi_array(self._axes.at(segment.position(now), self._period))
        if clock.nanoseconds <= self._stamp:
            return None
        self._stamp = clock.nanoseconds
        velocity = segment.velocity(now, self._period)
        velocity = velocity + self._correction(segment, now, clock.nanoseconds)
        return twist(velocity, clock.to_msg(), self._value["frame"])

    def _correction(self, segment: Segment, now: int, clock: int) -> Array:
        """Velocity towards the end of a way that is over, where the robot has not quite arrived.

        Only by measurements from after the end: while the robot moves it lags behind, and making
        up for that would push a block too far.
        """
        stamp, measured = self._measured
        seen = now - (clock - stamp)
        arrival = self._value["arrival"]
        if not arrival or not segment.over(seen, grace=SETTLING):
            return np.zeros_like(segment.end)
        off = segment.end - measured
        return CORRECTION * off if np.abs(off).max() > arrival / 2 else 0.0 * off


def twist(velocity: Array, stamp: Any, frame: str) -> Any:
    """Message of `(2,)` m/s."""
    linear = np.array([velocity[0], velocity[1], 0.0])
    return messages.twist_message(linear, np.zeros(3), stamp, frame)


def action_names(spec: Any) -> tuple[str, ...]:
    """Names under which the entries of a policy's actions are sent as they are."""
    fields = [(field.name, field.size) for field in spec.action_fields]
    return component_names(fields, spec.action_dim, "action")


def action_message(spec: Any, action: Array, seconds: float, stamp: int) -> Any:
    """An action as it is, as a trajectory of one point.

    Args:
        spec: the policy's spec.
        action: `(A,)`.
        seconds: until it shall be reached.
        stamp: of its observation, nanoseconds.
    """
    return messages.trajectory_message(
        action_names(spec), action[None], [seconds], messages.stamp_of(stamp)
    )
