"""How every node of this package runs and ends.

rclpy's own signal handlers invalidate the context before a last command can be sent, and the robot
would go on with the one before. Here the node gets to stop the robot first; then it ends, with
status 0. An exception in a callback, or a wrong lifecycle request, ends no node.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import TwistStamped
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import try_shutdown
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from robots.gate import Now
from ros_nodes.start import end_within

ACKNOWLEDGE = 0.2
"""Longest wait in seconds for the last command to be acknowledged."""

FAREWELL = 1.0
"""Longest time in seconds that a node which has stopped its robot takes to leave the graph."""

COMMAND_TYPES: dict[str, Any] = {
    "twist": TwistStamped,
    "trajectory": JointTrajectory,
    "positions": Float64MultiArray,
}
"""Kinds of commands: for MoveIt Servo, for trajectory controllers, for forward controllers."""

OK: bytes = DiagnosticStatus.OK

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NEWEST = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
)
"""For subscriptions to sensors: only the newest counts, and a lost one is not sent again."""

RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE
)
"""For publishers of sensors (it serves both kinds of subscription), and in lockstep."""

COMMAND = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE
)
"""For commands."""

LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For states that a late joiner must know."""


EPISODES = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
"""For words about episodes: the end of one and the start of the next come together."""


def tells_start(text: str) -> bool:
    """Whether a word of the topic `episode` tells of a start; what is no such word does not."""
    return bool(tells(text, "event") == "start")


def tells(text: str, key: str) -> Any:
    """What a JSON object says under a key; None if it is none, or says nothing."""
    try:
        return json.loads(text).get(key)
    except (ValueError, AttributeError):
        return None


def now_of(node: Node) -> Now:
    """The time on both clocks."""
    return Now(node.get_clock().now().nanoseconds, time.monotonic_ns())


def diagnostics(node: Node, message: str, facts: Mapping[str, Any], level: bytes = OK) -> Any:
    """What a node says of itself on `/diagnostics`.

    Args:
        node: that says it.
        message: one line for people.
        facts: by name.
        level: `DiagnosticStatus.OK`, `WARN` or `ERROR`.
    """
    status = DiagnosticStatus(
        level=level,
        name=node.get_name(),
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in facts.items()],
    )
    report = DiagnosticArray(status=[status])
    report.header.stamp = node.get_clock().now().to_msg()
    return report


def wait_until_sent(publisher: Publisher) -> None:
    """Wait until subscribers have acknowledged what was published, or for `ACKNOWLEDGE`."""
    publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE))


def run(make: Callable[[], Any], argv: Sequence[str] | None = None) -> int:
    """Run a node until SIGINT, SIGTERM or SIGHUP.

    Args:
        make: builds the node. It may have a method `finish()`, called once while messages still
            get out: it stops the robot and ends threads.
        argv: command line with `--ros-args`; that of the process by default.

    Returns:
        Exit status 2, after one line about bad parameters; after a signal the process ends here,
        with status 0.
    """
    ended = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: ended.set())
    words = list(sys.argv if argv is None else argv)
    rclpy.init(args=words, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
    except (ValueError, OSError, ParameterException) as error:
        print(f"decisive: {' '.join(str(error).split())}", file=sys.stderr)
        try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    _spin(executor, node, ended)
    # From here on a second Ctrl-C (a terminal and a launcher both send one) changes nothing.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _finish(node)
    end_within(FAREWELL)
    executor.shutdown(timeout_sec=0.2)
    node.destroy_node()
    try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python would take a second to tear torch down, and would wait for, or crash over, a thread
    # that hangs in an inference. Everything that matters has been done.
    os._exit(0)


def _spin(executor: SingleThreadedExecutor, node: Node, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            executor.spin_once(timeout_sec=0.05)
        except ExternalShutdownException:
            return
        except Exception as error:
            # rclpy lets exceptions of callbacks through, and of wrong lifecycle requests too
            # (rclpy #1209): none of them may end a node that commands a robot.
            trace = traceback.format_exc(limit=-2)
            node.get_logger().error(f"{type(error).__name__}: {error}\n{trace}")


def _finish(node: Any) -> None:
    finish = getattr(node, "finish", None)
    try:
        if finish is not None:
            finish()
    except Exception as error:
        print(f"decisive: while ending: {error}", file=sys.stderr)


def guard_lifecycle(node: Any) -> None:
    """Let a lifecycle node refuse wrong requests instead of dying of them.

    `change_state` with a transition that the present state does not offer raises in the executor
    (rclpy #1209), and the caller never gets an answer. Checked before, as rclpy does since #1319,
    it is answered with `success=False`.
    """
    service = node._service_change_state
    answer = service.callback

    def guarded(request: Any, response: Any) -> Any:
        offered = node._state_machine.available_transitions
        wanted = request.transition
        if wanted.label:
            fits = any(label == wanted.label for _, label, *_ in offered)
        else:
            fits = any(number == wanted.id for number, *_ in offered)
        if not fits:
            response.success = False
            return response
        return answer(request, response)

    service.callback = guarded
