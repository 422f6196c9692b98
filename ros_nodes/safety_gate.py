"""`safety_gate`: the only publisher to the robot.

Every command passes `robots.gate.Gate`; the watchdog runs in a thread of its own, so that no
callback can hold it up.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState, TimeReference
from std_msgs.msg import Bool, String
from std_srvs.srv import SetBool, Trigger

from robots.fence import Fence
from robots.gate import Decision, Gate, GateConfig
from robots.matching import quaternion_yaw
from robots.safety_filter import Limits
from robots.tip_box import TipBox
from ros_nodes import messages
from ros_nodes.arm import ARM_PARAMETERS, order, read_arm
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import (
    COMMAND,
    COMMAND_TYPES,
    LATCHED,
    NEWEST,
    RELIABLE,
    diagnostics,
    now_of,
    run,
    tells_start,
    wait_until_sent,
)

AT_ONCE = messages.stamp_of(0)


PARAMETERS = (
    Parameter("command", "twist", "kind of commands: TwistStamped (Servo, simulators), "
              "JointTrajectory or Float64MultiArray (positions)", choices=tuple(COMMAND_TYPES)),
    Parameter("twist_frame", "pose", "frame of twists: pose, that of `tool_pose`; base, the base's "
              "own (forward and turning): low and high of x and y are then a fence in that of the "
              "pose", choices=("pose", "base")),
    Parameter("joints", [""], "joint names in the order of the limits; empty for twist"),
    Parameter("low", [0.0], "least position of every axis, m or rad (twist: x y z rx ry rz)"),
    Parameter("high", [0.0], "greatest position of every axis, m or rad"),
    Parameter("velocity", [0.0], "greatest speed of every axis, m/s or rad/s; 0 forbids it"),
    Parameter("acceleration", [0.0], "greatest acceleration of every axis, m/s^2 or rad/s^2"),
    *ARM_PARAMETERS,
    Parameter("workspace_low", [-1.0, -1.0, 0.0], "with urdf: least x, y, z in m of the tip, in "
              "base_link; a command that leads it out of the box stops the robot"),
    Parameter("workspace_high", [1.0, 1.0, 1.0], "with urdf: greatest x, y, z in m of the tip"),
    Parameter("hold", 0.1, "longest time in s that a velocity acts; braking is reckoned with it",
              0.005, 1.0),
    Parameter("command_timeout", 0.1, "stop this long in s after the last good command", 0.02, 1.0),
    Parameter("inference_timeout", 0.25, "stop this long in s after the last fresh inference "
              "(2.5 policy periods); 0 does not watch, for teleoperation", 0.0, 10.0),
    Parameter("max_age", 0.1, "greatest age in s of the robot's position and of commands",
              0.01, 1.0),
    Parameter("inference_max_age", 0.0, "greatest age in s of what a fresh inference has seen, "
              "such as pictures; 0: max_age", 0.0, 5.0),
    Parameter("max_skew", 0.05, "greatest time in s between observations of one inference",
              0.0, 1.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
    Parameter("rearm", "explicit", "after a stop: explicit waits for the arm service, automatic "
              "for fresh observations", choices=("explicit", "automatic")),
    Parameter("fresh", 3, "fresh observations in a row before the robot may move", 1, 100),
    Parameter("watchdog_rate", 200.0, "checks of the watchdog per second", 20.0, 1000.0),
    Parameter("follow_episodes", True, "when `episode` tells of a start, commands of positions "
              "begin anew where the robot is"),
    Parameter("lockstep", False, "for a simulator that waits for every command: time is that of "
              "/clock, a command waits for its observation"),
)  # fmt: skip


def gate_config(values: dict[str, Any]) -> GateConfig:
    """The gate's settings from parameter values.

    Raises:
        ValueError: where they contradict each other.
    """
    kind = values["command"]
    joints = [name for name in values["joints"] if name]
    n = 6 if kind == "twist" else len(joints)
    if kind != "twist" and not joints:
        raise ValueError(f"commands of kind {kind} need `joints`, the names in order; got none")
    axes: dict[str, tuple[float, ...]] = {}
    for name in ("low", "high", "velocity", "acceleration"):
        axes[name] = tuple(float(v) for v in values[name])
        if len(axes[name]) != n:
            raise ValueError(f"{name} needs {n} numbers for {kind}, got {len(axes[name])}")
    names = (
        "command_timeout", "inference_timeout", "max_age", "inference_max_age", "max_skew",
        "future", "rearm", "fresh",
    )  # fmt: skip
    fence = None
    if values["twist_frame"] == "base":
        if kind != "twist":
            raise ValueError(f"twist_frame is for commands of kind twist, not {kind}")
        low, high = ((axes[end][0], axes[end][1]) for end in ("low", "high"))
        fence = Fence(low, high, axes["velocity"][5], axes["acceleration"][0], values["hold"])
        axes |= {"low": (-np.inf,) * n, "high": (np.inf,) * n}
    return GateConfig(
        Limits(**axes, hold=values["hold"]),
        positions=kind != "twist",
        box=_tip_box(values, joints),
        fence=fence,
        **{name: values[name] for name in names},
    )


def _tip_box(values: dict[str, Any], joints: list[str]) -> TipBox | None:
    """Where the tip of an arm may be, in the order in which its joints are commanded."""
    chain = read_arm(values)
    if chain is None:
        return None
    low, high = (tuple(map(float, values[f"workspace_{end}"])) for end in ("low", "high"))
    if values["command"] == "twist":
        raise ValueError("urdf is for commands of joints; for twist, low and high are the box")
    if order(chain, joints) != list(range(chain.n)):
        raise ValueError(f"`joints` must be in the order of the arm, {list(chain.names)}")
    return TipBox(chain, low, high)


class SafetyGate(Node):
    """Shell around `Gate`: messages in, messages out."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("safety_gate", **options)
        value = declare(self, PARAMETERS)
        self._kind: str = value["command"]
        self._joints = [name for name in value["joints"] if name]
        self._lockstep: bool = value["lockstep"]
        self.gate = Gate(gate_config(value))
        self._waiting: Any = None
        self._frame = ""
        self._lock = threading.Lock()
        quality = RELIABLE if self._lockstep else NEWEST
        self._output = self.create_publisher(COMMAND_TYPES[self._kind], "robot/command", COMMAND)
        self._state = self.create_publisher(String, "~/state", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_subscription(
            COMMAND_TYPES[self._kind], "policy/command", self._on_command, COMMAND
        )
        self.create_subscription(TimeReference, "policy/inference", self._on_inference, COMMAND)
        if self._kind == "twist":
            self.create_subscription(PoseStamped, "tool_pose", self._on_pose, quality)
        else:
            self.create_subscription(JointState, "joint_states", self._on_joints, quality)
            if value["follow_episodes"]:
                self.create_subscription(String, "episode", self._on_episode, RELIABLE)
        self.create_subscription(Bool, "estop", self._on_estop, RELIABLE)
        self.create_service(SetBool, "~/arm", self._on_arm)
        self.create_service(SetBool, "~/estop", self._on_estop_service)
        self.create_service(Trigger, "~/report", self._on_report)
        # On a clock of its own: a paused /clock must not silence the diagnostics.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._said = ""
        self._ended = threading.Event()
        self._period = 1.0 / value["watchdog_rate"]
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._watchdog.start()
        self._announce()

    def _now(self) -> Any:
        now = now_of(self)
        # A simulator that waits for a command stands still, and so must the timeouts.
        return type(now)(now.ros, now.ros) if self._lockstep else now

    # Messages in.

    def _on_pose(self, message: Any) -> None:
        try:
            position, quaternion = messages.pose_arrays(message)
        except ValueError:
            position, quaternion = np.full(3, np.nan), np.full(4, np.nan)
        turn = np.zeros(3)
        if self.gate.config.fence is not None:
            turn[2] = quaternion_yaw(quaternion)
        self._observe(np.concatenate([position, turn]), message.header.stamp)

    def _on_joints(self, message: Any) -> None:
        try:
            position = messages.joint_positions(message, self._joints)
        except ValueError:
            position = np.full(len(self._joints), np.nan)
        self._observe(position, message.header.stamp)

    def _on_episode(self, message: Any) -> None:
        if tells_start(message.data):
            self.gate.forget()

    def _observe(self, position: NDArray[np.float64], stamp: Any) -> None:
        self.gate.observe(position, messages.nanoseconds(stamp), self._now())
        if self._waiting is not None and self._is_observed(self._waiting):
            message, self._waiting = self._waiting, None
            self._decide(message)

    def _on_inference(self, message: Any) -> None:
        oldest = messages.nanoseconds(message.time_ref)
        self.gate.infer(oldest, messages.nanoseconds(message.header.stamp), self._now())

    def _on_command(self, message: Any) -> None:
        if self._lockstep and not self._is_observed(message):
            self._waiting = message
        else:
            self._decide(message)

    def _is_observed(self, message: Any) -> bool:
        stamp = messages.nanoseconds(message.header.stamp)
        return self.gate.observed_stamp >= stamp

    def _decide(self, message: Any) -> None:
        now = self._now()
        try:
            if self._kind == "twist":
                stamp = messages.nanoseconds(message.header.stamp)
                self._frame = message.header.frame_id
                decision = self.gate.command(messages.twist_array(message), stamp, now)
            elif self._kind == "trajectory":
                positions, times = messages.trajectory_arrays(message, self._joints)
                stamp = messages.nanoseconds(message.header.stamp)
                decision = self.gate.trajectory(positions, times, stamp or None, now)
            else:
                values = messages.multi_array_values(message, len(self._joints))
                decision = self.gate.command(values, None, now)
        except ValueError as error:
            self.gate.refuse("malformed command")
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)
            return
        self._send(decision, message)

    # Messages out.

    def _send(self, decision: Decision, source: Any = None) -> None:
        """Publish a decision; `source` is the message it is about."""
        if decision.stop:
            self._stop()
        elif decision.values is not None and source is not None:
            # Under the lock, and only while armed: nothing may follow a stop that the watchdog
            # has sent in the meantime.
            with self._lock:
                if self.gate.state == "armed":
                    self._output.publish(self._message(decision, source))
        self._announce()

    def _message(self, decision: Decision, source: Any) -> Any:
        values = decision.values
        assert values is not None
        if not decision.reasons:
            return source
        if self._kind == "twist":
            header = source.header
            return messages.twist_message(values[:3], values[3:], header.stamp, header.frame_id)
        if self._kind == "trajectory":
            _, times = messages.trajectory_arrays(source, self._joints)
            # A simulator that waits knows by the stamp which observation is answered.
            stamp = source.header.stamp if self._lockstep else AT_ONCE
            return messages.trajectory_message(self._joints, values, times, stamp)
        return messages.multi_array(values)

    def _stop(self) -> None:
        now = self.get_clock().now().to_msg()
        position = self.gate.position
        with self._lock:
            if self._kind == "twist":
                zero = np.zeros(3)
                message = messages.twist_message(zero, zero, now, self._frame)
            elif position is None:
                return
            elif self._kind == "trajectory":
                message = messages.trajectory_message(self._joints, position[None], [0.1], AT_ONCE)
            else:
                message = messages.multi_array(position)
            self._output.publish(message)

    def _watch(self) -> None:
        while not self._ended.wait(self._period):
            decision = self.gate.tick(self._now())
            if decision.stop:
                self._send(decision)

    # People.

    def _on_estop(self, message: Any) -> None:
        if message.data:
            self._send(self.gate.press_estop())

    def _on_estop_service(self, request: Any, response: Any) -> Any:
        if request.data:
            self._send(self.gate.press_estop())
        else:
            self.gate.reset_estop()
            self._announce()
        response.success, response.message = True, self.gate.why
        return response

    def _on_arm(self, request: Any, response: Any) -> Any:
        if request.data:
            refusal = self.gate.arm(self._now())
            response.success, response.message = not refusal, refusal or "armed"
        else:
            self._send(self.gate.disarm())
            response.success, response.message = True, self.gate.why
        self._announce()
        return response

    def _on_report(self, request: Any, response: Any) -> Any:
        response.success, response.message = True, json.dumps(self._facts())
        return response

    def _facts(self) -> dict[str, Any]:
        health = self.gate.health
        return {
            "state": self.gate.state,
            "passed": health.passed,
            "changed": health.changed,
            "refused": health.refused,
            "stops": health.stops,
            **{f"reason: {name}": count for name, count in health.reasons.items()},
        }

    def _announce(self) -> None:
        """Tell the state, where it has changed."""
        state = json.dumps({"state": self.gate.state, "why": self.gate.why})
        with self._lock:
            if state == self._said:
                return
            self._said = state
            self._state.publish(String(data=state))
        self.get_logger().info(f"{self.gate.state}: {self.gate.why}")

    def _report(self) -> None:
        state = self.gate.state
        calm = state in ("armed", "disarmed")
        level = DiagnosticStatus.OK if calm else DiagnosticStatus.ERROR
        said = diagnostics(self, f"{state}: {self.gate.why}", self._facts(), level)
        self._diagnostics.publish(said)

    def finish(self) -> None:
        """Stop the robot and end the watchdog."""
        self._ended.set()
        self._watchdog.join(0.5)
        moved = self.gate.health.passed > 0
        self.gate.disarm()
        if moved:
            self._stop()
            wait_until_sent(self._output)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SafetyGate, argv)


if __name__ == "__main__":
    raise SystemExit(main())
