"""`teleop_keyboard`: velocities from the keys of a terminal, on their way to the safety gate."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from robots.teleoperation import HELP, Keyboard, KeyboardConfig, KeyReader
from ros_nodes import messages
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import COMMAND, run, wait_until_sent

PARAMETERS = (
    Parameter("speed", 0.1, "speed in m/s of a key at the beginning", 0.001, 2.0),
    Parameter("max_speed", 0.3, "greatest speed in m/s", 0.001, 2.0),
    Parameter("factor", 1.25, "by which + and - change the speed", 1.01, 4.0),
    Parameter("timeout", 0.2, "seconds after the last key until the robot stops", 0.05, 1.0),
    Parameter("rate", 50.0, "commands per second", 5.0, 200.0),
    Parameter("frame", "base_link", "frame of the commands"),
)  # fmt: skip


class RawTerminal:
    """A terminal that gives every key at once and shows none, until `restore`."""

    def __init__(self, descriptor: int) -> None:
        """Change the terminal.

        Raises:
            ValueError: if it is none.
        """
        if not os.isatty(descriptor):
            raise ValueError("teleop_keyboard reads keys, and its input is no terminal")
        self.descriptor = descriptor
        self._before: list[Any] | None = termios.tcgetattr(descriptor)
        # However the process ends, short of a kill: who types next must see what is typed.
        atexit.register(self.restore)
        raw = termios.tcgetattr(descriptor)
        # Keys that send signals come as keys too: a Ctrl-Z would leave the terminal like this.
        raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        raw[0] &= ~(termios.IXON | termios.ICRNL)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 0, 0
        termios.tcsetattr(descriptor, termios.TCSANOW, raw)

    def read(self) -> bytes | None:
        """The bytes that are there, without waiting; None if the terminal has gone."""
        try:
            if not select.select([self.descriptor], [], [], 0.0)[0]:
                return b""
            return os.read(self.descriptor, 256) or None
        except OSError:
            return None

    def restore(self) -> None:
        """Make it as it was; a second call is harmless."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(termios.error):  # it has gone
                termios.tcsetattr(self.descriptor, termios.TCSADRAIN, before)
            atexit.unregister(self.restore)


class TeleopKeyboard(Node):
    """Shell around `Keyboard`: keys in, messages out."""

    def __init__(self, descriptor: int | None = None, **options: Any) -> None:
        """Declare the parameters and take over the terminal.

        Args:
            descriptor: of the terminal; standard input by default.
            **options: of the base class.

        Raises:
            ValueError: if there is no terminal.
        """
        super().__init__("teleop_keyboard", **options)
        value = declare(self, PARAMETERS)
        names = ("speed", "max_speed", "factor", "timeout")
        self.keyboard = Keyboard(KeyboardConfig(**{name: value[name] for name in names}))
        self._keys = KeyReader()
        self._frame: str = value["frame"]
        self._output = self.create_publisher(TwistStamped, "policy/command", COMMAND)
        self._terminal = RawTerminal(sys.stdin.fileno() if descriptor is None else descriptor)
        self._shown = ""
        self._show()
        self.create_timer(
            1.0 / value["rate"], self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def _tick(self) -> None:
        now = time.monotonic()
        data = self._terminal.read()
        for key in self._keys.feed(data or b""):
            self.keyboard.press(key, now)
        if data is None:
            self.keyboard.quit = True
        if self.keyboard.quit:
            os.kill(os.getpid(), signal.SIGINT)  # `run` ends every node in this one way
            return
        self._publish(self.keyboard.velocity(now))
        self._show()

    def _publish(self, velocity: np.ndarray) -> None:
        stamp = self.get_clock().now().to_msg()
        self._output.publish(messages.twist_message(velocity, np.zeros(3), stamp, self._frame))

    def _show(self) -> None:
        line = f"{HELP}   [{self.keyboard.speed:.3f} m/s]"
        if line != self._shown:
            self._shown = line
            print(f"\r{line} ", end="", flush=True)

    def finish(self) -> bool:
        """Restore the terminal and send a last command of zero."""
        self._terminal.restore()
        with contextlib.suppress(OSError):  # the terminal may have gone
            print(flush=True)
        self._publish(np.zeros(3))
        wait_until_sent(self._output)
        return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(TeleopKeyboard, argv)


if __name__ == "__main__":
    raise SystemExit(main())
