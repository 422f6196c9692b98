"""`teleop_gamepad`: velocities from a gamepad's sticks, on their way to the safety gate.

It takes `sensor_msgs/Joy`, which the node `joy` of ROS 2 publishes. Without the deadman button it
says nothing at all, and the gate then stops the robot.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import Bool

from robots.teleoperation import GamepadConfig, Sticks, read_gamepad
from ros_nodes import messages
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import COMMAND, NEWEST, RELIABLE, run, wait_until_sent

PARAMETERS = (
    Parameter("axis_x", 1, "index of the stick for x, forward; -1 for none", -1, 63),
    Parameter("axis_y", 0, "index of the stick for y, left; -1 for none", -1, 63),
    Parameter("axis_z", -1, "index of the stick for z, up; -1 for none", -1, 63),
    Parameter("invert", [""], "which of x, y, z have a stick that counts the other way"),
    Parameter("deadman", 4, "index of the button that must be held to move", 0, 63),
    Parameter("estop", 1, "index of the button that is the emergency stop", 0, 63),
    Parameter("dead_zone", 0.1, "deflection up to which a stick counts as centred", 0.0, 0.9),
    Parameter("scale", 0.2, "speed in m/s at full deflection", 0.001, 2.0),
    Parameter("timeout", 0.2, "greatest age in s of what the gamepad said", 0.05, 1.0),
    Parameter("rate", 50.0, "commands per second", 5.0, 200.0),
    Parameter("frame", "base_link", "frame of the commands"),
)  # fmt: skip


class TeleopGamepad(Node):
    """Shell around `read_gamepad`."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("teleop_gamepad", **options)
        value = declare(self, PARAMETERS)
        inverted = [name for name in value["invert"] if name]
        if not set(inverted) <= set("xyz"):
            raise ValueError(f"invert names some of x, y and z; got {', '.join(inverted)}")
        x, y, z = (-1.0 if name in inverted else 1.0 for name in "xyz")
        names = ("deadman", "estop", "dead_zone", "scale", "timeout")
        self._config = GamepadConfig(
            axes=(value["axis_x"], value["axis_y"], value["axis_z"]),
            signs=(x, y, z),
            **{name: value[name] for name in names},
        )
        self._frame: str = value["frame"]
        self._joy: Any = None
        self._heard = 0.0
        self._moving = False
        self._output = self.create_publisher(TwistStamped, "policy/command", COMMAND)
        self._estop = self.create_publisher(Bool, "estop", RELIABLE)
        self.create_subscription(Joy, "joy", self._on_joy, NEWEST)
        self.create_timer(
            1.0 / value["rate"], self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _on_joy(self, message: Any) -> None:
        self._joy, self._heard = message, time.monotonic()
        if self._sticks().estop:  # at once, not at the next tick
            self._estop.publish(Bool(data=True))

    def _tick(self) -> None:
        velocity = self._sticks().velocity
        if velocity is not None:
            self._publish(velocity)
        elif self._moving:
            # Once: the robot need not wait for the gate to miss us.
            self._publish(np.zeros(3))
        self._moving = velocity is not None

    def _sticks(self) -> Sticks:
        if self._joy is None:
            return Sticks()
        try:
            return read_gamepad(self._joy.axes, self._joy.buttons, self._age(), self._config)
        except ValueError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return Sticks()

    def _age(self) -> float:
        """Seconds since the sticks were read: by their stamp, where they have one, and by ours."""
        age = time.monotonic() - self._heard
        stamp = messages.nanoseconds(self._joy.header.stamp)
        if not stamp:
            return age
        told = (self.get_clock().now().nanoseconds - stamp) / 1e9
        return told if abs(told) > age else age

    def _publish(self, velocity: np.ndarray) -> None:
        stamp = self.get_clock().now().to_msg()
        self._output.publish(messages.twist_message(velocity, np.zeros(3), stamp, self._frame))

    def finish(self) -> bool:
        """Send a last command of zero, if the robot may be moving."""
        if self._moving:
            self._publish(np.zeros(3))
            wait_until_sent(self._output)
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(TeleopGamepad, argv)


if __name__ == "__main__":
    raise SystemExit(main())
