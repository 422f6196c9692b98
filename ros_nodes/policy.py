"""`policy`: a checkpoint as a lifecycle node.

Observations are matched in time, inference runs in a worker at the policy's rate, and setpoints are
streamed in between. What it publishes goes to the `safety_gate`, never to a robot.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from sensor_msgs.msg import TimeReference
from std_msgs.msg import String
from std_srvs.srv import Trigger

from agents import load_policy
from decisive.statistics import median_and_p95
from robots.kinematics import Unreachable
from robots.matching import Feature
from robots.streaming import Outcome, Reference, Worker, Workspace
from ros_nodes import messages
from ros_nodes.arm import ARM_PARAMETERS, read_arm
from ros_nodes.parameters import Parameter, current, declare
from ros_nodes.policy_observations import INPUTS, Observations, acts_as_it_is
from ros_nodes.policy_setpoints import Setpoints, action_message, action_names, twist
from ros_nodes.running import (
    COMMAND,
    COMMAND_TYPES,
    LATCHED,
    NEWEST,
    RELIABLE,
    diagnostics,
    guard_lifecycle,
    run,
    tells,
    tells_start,
    wait_until_sent,
)

Array = NDArray[np.float64]

OK, FAILED = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
STEADY = Clock(clock_type=ClockType.STEADY_TIME)


STALE_PERIODS = 2.5
"""Periods after which the result of an inference is no longer about the present, unless
observations themselves may be older."""

PARAMETERS = (
    Parameter("checkpoint", "block-insertion-ibc", "folder of a checkpoint, or a shipped name"),
    Parameter("rate", 10.0, "decisions per second: the rate of the demonstrations", 0.5, 100.0),
    Parameter("setpoint_rate", 50.0, "setpoints per second", 5.0, 500.0),
    Parameter("command", "twist", "what is published: TwistStamped, JointTrajectory chunks or "
              "Float64MultiArray (positions)", choices=tuple(COMMAND_TYPES)),
    Parameter("joints", ["x", "y", "z"], "names of the axes that positions are commanded of"),
    *ARM_PARAMETERS,
    Parameter("orientation", [1.0, 0.0, 0.0, 0.0], "of the tool of an arm, a quaternion x y z w in "
              "base_link; this one points down"),
    Parameter("height", 0.004, "commanded z in m, where positions are commanded", -1.0, 2.0),
    Parameter("features", [""], "where each field of the observation comes from, one line "
              "FIELD = SOURCE:TOPIC PART each; empty: as the names of the fields suggest"),
    Parameter("workspace_low", [0.15, -0.48], "least commanded x, y in m"),
    Parameter("workspace_high", [0.65, 0.48], "greatest commanded x, y in m"),
    Parameter("lead", 0.04, "greatest distance in m per axis of the commanded from the measured "
              "position", 0.001, 1.0),
    Parameter("arrival", 0.001, "decide only once the robot is this close in m to where it was "
              "sent, as in the demonstrations; 0 decides by the clock alone", 0.0, 0.1),
    Parameter("patience", 0.1, "seconds to wait for that at most", 0.0, 1.0),
    Parameter("frame", "base_link", "frame of commands and poses"),
    Parameter("max_age", 0.1, "greatest age in s of an observation", 0.01, 5.0),
    Parameter("max_skew", 0.05, "greatest time in s between the observations of one decision",
              0.0, 1.0),
    Parameter("future", 0.05, "seconds by which a stamp may lie in the future", 0.0, 1.0),
    Parameter("lockstep", False, "decide on every new observation, for a simulator that waits; "
              "with command trajectory, actions are sent as they are"),
    Parameter("follow_episodes", True, "reset when the topic `episode` tells of a start"),
    Parameter("autostart", True, "configure and activate without being asked"),
    Parameter("seed", -1, "of the policy's sampling, applied at a reset; -1 goes on as it is",
              -1, 2**31 - 1, fixed=False),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One decision to be made.

    Attributes:
        observation: what the policy takes.
        measured: `(2,)` position of the tool, metres; of no meaning where actions are sent as they
            are.
        joints: `(n,)` of the arm, where they are known.
        oldest: stamp in nanoseconds of the oldest observation.
        newest: of the newest.
        reset: whether an episode begins here.
        seed: of the sampling, where it does; None goes on.
    """

    observation: Any
    measured: Array
    joints: Array | None
    oldest: int
    newest: int
    reset: bool
    seed: int | None


class PolicyNode(LifecycleNode):
    """Shell around a `Policy`: messages to observations, actions to setpoints."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("policy", **options)
        guard_lifecycle(self)
        self.value = declare(self, PARAMETERS)
        self._lock = threading.RLock()
        self._active = False
        self._worker: Worker[Job] | None = None
        self._reset_wanted = True
        self._times: deque[float] = deque(maxlen=200)
        self._counts = {"decisions": 0, "errors": 0}
        self._doubt: dict[str, float] = {}
        self._last: tuple[int, Any] | None = None
        self._next = 0  # steady time of the next decision, where the clock alone decides
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self.create_service(Trigger, "~/reset", self._on_reset)
        if self.value["autostart"]:
            self.create_timer(0.0, self._autostart, clock=STEADY)
        self._entities: list[Any] = []

    def _autostart(self) -> None:
        for timer in list(self.timers):
            if timer.callback == self._autostart:
                self.destroy_timer(timer)
        if self.trigger_configure() == OK:
            self.trigger_activate()

    # Lifecycle.

    def on_configure(self, state: Any) -> Any:
        """Load the checkpoint and open the topics."""
        try:
            self._configure()
        except (ValueError, OSError) as error:
            self.get_logger().error(" ".join(str(error).split()))
            self._close()
            return FAILED
        return OK

    def _configure(self) -> None:
        torch.set_num_threads(1)
        value = self.value
        self.policy = load_policy(value["checkpoint"])
        self._check_actions()
        chain = None if acts_as_it_is(value) else read_arm(value)
        self._reference = Reference(
            Workspace(tuple(value["workspace_low"]), tuple(value["workspace_high"]), value["lead"])
        )
        self._observations = Observations(self.policy.spec, value, chain)
        driven = None if value["command"] == "twist" else chain
        self._setpoints = Setpoints(value, self._reference, driven)
        self._matcher = self._observations.matcher
        period = 1.0 / value["rate"]
        self._stale = max(STALE_PERIODS * period, value["max_age"] + period)
        self._output = self.create_lifecycle_publisher(
            COMMAND_TYPES[value["command"]], "policy/command", COMMAND
        )
        self._beats = self.create_lifecycle_publisher(TimeReference, "policy/inference", COMMAND)
        quality = RELIABLE if value["lockstep"] else NEWEST
        for key, feature in self._observations.topics.items():
            self._entities.append(
                self.create_subscription(
                    INPUTS[feature.source], feature.topic, self._reader(key, feature), quality
                )
            )
        if value["follow_episodes"]:
            self._entities.append(
                self.create_subscription(String, "episode", self._on_episode, RELIABLE)
            )
        if not value["lockstep"]:
            self._entities.append(
                self.create_subscription(String, "safety_gate/state", self._on_gate, LATCHED)
            )

    def _check_actions(self) -> None:
        """Refuse actions that nobody would understand."""
        value, spec = self.value, self.policy.spec
        if acts_as_it_is(value):
            action_names(spec)
            return
        if value["lockstep"] and value["command"] != "twist":
            raise ValueError("lockstep takes the commands twist or trajectory, got positions")
        if spec.action_dim != 2 or [f.name for f in spec.action_fields] != ["delta_xy"]:
            raise ValueError(
                f"{value['checkpoint']} does not act by displacements delta_xy; got "
                f"{[f.name for f in spec.action_fields]} ({spec.action_dim} numbers). In lockstep, "
                "with command trajectory, any actions are sent as they are"
            )

    def on_activate(self, state: Any) -> Any:
        """Start deciding."""
        super().on_activate(state)
        with self._lock:
            self._start_anew()
            self._worker = Worker(self._infer, self._deliver)
            self._active = True
        self._timers_of_activity = [self.create_timer(1.0, self._report, clock=STEADY)]
        if not self.value["lockstep"]:
            period = 1.0 / self.value["setpoint_rate"]
            self._stream_timer = self.create_timer(period, self._stream, clock=STEADY)
            self._timers_of_activity.append(self._stream_timer)
        return OK

    def on_deactivate(self, state: Any) -> Any:
        """Stop deciding, and say so with a last setpoint."""
        self._halt()
        return super().on_deactivate(state)

    def on_cleanup(self, state: Any) -> Any:
        """Close the topics."""
        self._close()
        return OK

    def on_shutdown(self, state: Any) -> Any:
        """End."""
        self._halt()
        self._close()
        return OK

    def _halt(self) -> None:
        """Stop streaming and end the worker."""
        with self._lock:
            was_active, self._active = self._active, False
            worker, self._worker = self._worker, None
            if was_active:
                self._setpoints.clear()
        if not was_active:
            return
        for timer in self._timers_of_activity:
            self.destroy_timer(timer)
        if self.value["command"] == "twist":
            now = self.get_clock().now().to_msg()
            self._output.publish(twist(np.zeros(2), now, self.value["frame"]))
            wait_until_sent(self._output)
        if worker is not None:
            worker.close()

    def _close(self) -> None:
        for entity in self._entities:
            self.destroy_subscription(entity)
        self._entities.clear()
        for name in ("_output", "_beats"):
            publisher = self.__dict__.pop(name, None)
            if publisher is not None:
                self.destroy_lifecycle_publisher(publisher)

    def finish(self) -> None:
        """Send a last setpoint, and end the worker."""
        self._halt()

    # Observations.

    def _reader(self, key: str, feature: Feature) -> Any:
        def read(message: Any) -> None:
            if not self._active:
                return
            now = self.get_clock().now().nanoseconds
            try:
                taken = self._observations.read(key, message)
            except ValueError as error:
                self._count("malformed")
                self.get_logger().warning(f"{feature.topic}: {error}", throttle_duration_sec=1.0)
                return
            stamp = messages.nanoseconds(message.header.stamp)
            with self._lock:
                before = self._matcher.reference
                if feature == self._observations.tool:
                    self._setpoints.observe(stamp, taken[0][:2].copy())
                fresh = self._matcher.add(key, stamp, taken, now)
                complete = self._matcher.reference > before
            if complete:
                self._decide()  # at once: waiting for a timer would only make it older
            elif fresh:
                return  # the rest of its set is still to come
            elif self._last is not None and self._last[0] == stamp:
                self._output.publish(self._last[1])  # in lockstep, asked again: answer again

        return read

    def _decide(self) -> None:
        """Hand a new decision to the worker, if there are new observations."""
        with self._lock:
            if not self._active or self._worker is None or not self._due():
                return
            matched = self._matcher.match(self.get_clock().now().nanoseconds)
            if matched is None:
                return
            measured, joints = self._observations.tool_of(matched)
            if not self._arrived(measured, matched.oldest):
                return
            if not self._reference.started:
                self._reference.start(measured)
            seed = current(self, "seed")
            job = Job(
                self._observations.layout(matched, self._reference.position),
                measured,
                joints,
                matched.oldest,
                matched.newest,
                self._reset_wanted,
                seed if seed >= 0 else None,
            )
            self._reset_wanted = False
            self._worker.submit(job)
            # The rate is kept on average; what was missed is not made up for.
            now, period = time.monotonic_ns(), round(1e9 / self.value["rate"])
            self._next = self._next + period if now < self._next + period else now + period

    def _due(self) -> bool:
        """Whether it is time for a decision."""
        if self.value["lockstep"]:
            return True
        now = time.monotonic_ns()
        if self.value["arrival"]:  # once the last one has been carried out
            assert self._worker is not None
            if self._worker.busy:
                return False
            return self._setpoints.over(now)
        return now >= self._next

    def _arrived(self, measured: Array, stamp: int) -> bool:
        """Whether the robot is where it was sent, or has been waited for long enough."""
        clock = self.get_clock().now().nanoseconds
        return self.value["lockstep"] or self._setpoints.arrived(
            measured, stamp, time.monotonic_ns(), clock
        )

    # Inference, in the worker's thread.

    def _infer(self, job: Job) -> NDArray[np.float32]:
        if job.reset:
            self.policy.reset(job.seed)
        action = self.policy.act(job.observation)
        self._doubt = self.policy.doubt
        return action

    def _deliver(self, outcome: Outcome[Job]) -> None:
        job = outcome.job
        with self._lock:
            if not self._active or self._worker is None or outcome.epoch != self._worker.epoch:
                return
            if outcome.error is not None:
                self._count("errors")
                self.get_logger().error(str(outcome.error), throttle_duration_sec=1.0)
                return
            age = self.get_clock().now().nanoseconds - job.oldest
            if not self.value["lockstep"] and age > self._stale * 1e9:
                self._count("too slow")
                self.get_logger().warning(
                    f"a decision came {age / 1e6:.0f} ms after its observations and is dropped",
                    throttle_duration_sec=1.0,
                )
                return
            self._count("decisions")
            if self._doubt.get("beyond"):
                self._count("beyond what was shown")
            self._times.append(outcome.seconds * 1e3)
            self._beats.publish(self._beat(job))
            if self.value["lockstep"]:
                self._answer(job, outcome.result)
            else:
                self._go(job, outcome.result)

    def _answer(self, job: Job, action: NDArray[np.float32]) -> None:
        """In lockstep: the whole action, under the stamp of its observation."""
        values, rate = action.astype(np.float64), self.value["rate"]
        if acts_as_it_is(self.value):
            message = action_message(self.policy.spec, values, 1.0 / rate, job.newest)
        else:
            self._reference.move(values, job.measured)
            message = twist(values * rate, messages.stamp_of(job.newest), self.value["frame"])
        self._last = (job.newest, message)
        self._output.publish(message)

    def _go(self, job: Job, action: NDArray[np.float32]) -> None:
        """In real time: the way to the new commanded position."""
        now, values = time.monotonic_ns(), action.astype(np.float64)
        if not self._reference.started:  # the gate was armed while this was thought about
            self._reference.start(job.measured)
        try:
            message = self._setpoints.go(values, job.measured, job.joints, now)
        except Unreachable as error:
            self._stand(error)
            return
        if message is not None:
            self._output.publish(message)
        else:
            self._stream()
            self._stream_timer.reset()  # the next setpoint is due a whole period later

    def _stream(self) -> None:
        """The setpoint of this moment."""
        with self._lock:
            if not self._active:
                return
            try:
                message = self._setpoints.setpoint(time.monotonic_ns(), self.get_clock().now())
            except Unreachable as error:
                self._stand(error)
                return
            if message is not None:
                self._output.publish(message)

    def _stand(self, error: Unreachable) -> None:
        """Send nothing more until the next decision: the gate stops a robot without commands."""
        self._setpoints.clear()
        self._count("unreachable")
        self.get_logger().error(str(error), throttle_duration_sec=1.0)

    def _beat(self, job: Job) -> Any:
        message = TimeReference(time_ref=messages.stamp_of(job.oldest), source="policy")
        message.header.stamp = messages.stamp_of(job.newest)
        return message

    # Resets and reports.

    def _start_anew(self) -> None:
        self._reset_wanted = True
        self._doubt = {}
        self._last = None
        self._setpoints.clear()
        self._reference.clear()
        self._matcher.clear(keep_last=True)
        if self._worker is not None:
            self._worker.advance()

    def _on_reset(self, request: Any, response: Any) -> Any:
        with self._lock:
            if not self._active:
                response.success, response.message = False, "the policy is not active"
                return response
            self._start_anew()
        response.success, response.message = True, "the next observation starts an episode"
        return response

    def _on_episode(self, message: Any) -> None:
        start = tells_start(message.data)
        with self._lock:
            if start and self._active:
                self._start_anew()

    def _on_gate(self, message: Any) -> None:
        """Begin where the robot is when it may move: nothing was carried out until now."""
        with self._lock:
            if self._active and tells(message.data, "state") == "armed":
                self._reference.clear()
                self._setpoints.clear()

    def _count(self, name: str) -> None:
        self._counts[name] = self._counts.get(name, 0) + 1

    def _report(self) -> None:
        with self._lock:
            counts = {**self._counts, **self._matcher.rejected}
            times = list(self._times)
            if self._worker is not None:
                counts["replaced"] = self._worker.replaced
                counts["stale"] = self._worker.stale
        pairs: dict[str, Any] = dict(counts)
        if times:
            pairs["inference ms p50"], pairs["inference ms p95"] = (
                f"{ms:.2f}" for ms in median_and_p95(times)
            )
        doubt = self._doubt
        pairs.update({name: f"{value:.4g}" for name, value in doubt.items()})
        is_sure = times and not doubt.get("beyond")
        level = DiagnosticStatus.OK if is_sure else DiagnosticStatus.WARN
        said = diagnostics(self, f"{counts['decisions']} decisions", pairs, level)
        self._diagnostics.publish(said)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(PolicyNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
