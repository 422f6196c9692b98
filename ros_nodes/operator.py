"""The person at the desk, as a node: arms the gate, resets episodes, waits for their results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from ros_nodes import messages
from ros_nodes.running import LATCHED, RELIABLE

T = TypeVar("T")

ASK_AGAIN = 2.0
"""Seconds without an answer after which a service is called again."""


class Stalled(TimeoutError):
    """Nothing has moved for too long: in lockstep, one node waits for another for ever."""


class Operator:
    """Calls the services of a graph and waits for answers. All waits end in `TimeoutError`."""

    def __init__(self, domain_id: int | None = None, check: Callable[[], None] | None = None):
        """Join the graph in a context of its own.

        Args:
            domain_id: ROS domain; that of the environment by default.
            check: called while waiting; raises where waiting has become useless.
        """
        self._check = check
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node("operator", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self.episode: dict[str, Any] = {}
        """The last word of `episode`."""
        self.gate: dict[str, Any] = {}
        """The last state of the gate."""
        self._path: dict[int, tuple[float, float]] = {}
        self._seen: dict[int, tuple[float, ...]] = {}
        self.node.create_subscription(String, "episode", self._on_episode, LATCHED)
        self.node.create_subscription(PoseStamped, "tool_pose", self._on_tool, RELIABLE)
        self.node.create_subscription(JointState, "observation", self._on_observation, RELIABLE)
        self.node.create_subscription(String, "safety_gate/state", self._on_gate, LATCHED)

    def _on_episode(self, message: String) -> None:
        self.episode = json.loads(message.data)

    def _on_tool(self, message: PoseStamped) -> None:
        place = message.pose.position
        self._path[messages.nanoseconds(message.header.stamp)] = (place.x, place.y)

    def _on_observation(self, message: JointState) -> None:
        self._seen[messages.nanoseconds(message.header.stamp)] = tuple(message.position)

    def observations(self) -> NDArray[np.float64]:
        """`(T, D)` what any environment has shown since the episode began; complete."""
        return np.array([self._seen[stamp] for stamp in sorted(self._seen)])

    def tool_path(self) -> NDArray[np.float64]:
        """`(T, 2)` positions of the tool since the episode began, metres; in lockstep, complete."""
        return np.array([self._path[stamp] for stamp in sorted(self._path)]).reshape(-1, 2)

    def steps(self) -> int:
        """Steps that a simulator in lockstep has made since it told of the episode's start."""
        return sum(stamp > self.episode.get("stamp", 0) for stamp in self._path)

    def report(self) -> dict[str, Any]:
        """The counters of the safety gate."""
        answer = self.call(Trigger, "safety_gate/report", Trigger.Request())
        facts: dict[str, Any] = json.loads(answer.message)
        return facts

    def _on_gate(self, message: String) -> None:
        self.gate = json.loads(message.data)

    def spin_until(self, condition: Callable[[], T], seconds: float, what: str) -> T:
        """Handle messages until a condition holds.

        Raises:
            TimeoutError: if it does not within `seconds` of wall time; `what` says what it was.
        """
        end = time.monotonic() + seconds
        while True:
            if value := condition():
                return value
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds:g} s for {what}")
            if self._check is not None:
                self._check()
            self._executor.spin_once(timeout_sec=0.02)

    def rest(self, seconds: float) -> None:
        """Handle messages for a while."""
        end = time.monotonic() + seconds
        self.spin_until(lambda: time.monotonic() > end, seconds + 1.0, "a moment")

    def call(self, kind: Any, name: str, request: Any, seconds: float = 30.0) -> Any:
        """Call a service, waiting for it to appear.

        Asks again after a while: of a server that was killed, DDS goes on telling for 20 s that it
        is there.
        """
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        self.spin_until(client.service_is_ready, seconds, f"the service {name}")
        end = time.monotonic() + seconds
        while True:
            future = client.call_async(request)
            try:
                left = max(end - time.monotonic(), 0.1)
                self.spin_until(future.done, min(ASK_AGAIN, left), f"an answer of {name}")
            except TimeoutError:
                client.remove_pending_request(future)
                if time.monotonic() > end:
                    raise
                continue
            return future.result()

    def set_parameter(self, node: str, name: str, value: Any) -> None:
        """Set a parameter of a node.

        Raises:
            ValueError: if the node refuses.
        """
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        answer = self.call(SetParameters, f"{node}/set_parameters", request)
        if not answer.results[0].successful:
            raise ValueError(f"{node}.{name}: {answer.results[0].reason}")

    def arm(self, seconds: float = 30.0) -> None:
        """Arm the gate; asks again while it refuses, for that long."""
        end = time.monotonic() + seconds
        while True:
            answer = self.call(SetBool, "safety_gate/arm", SetBool.Request(data=True))
            if answer.success:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"the safety gate does not arm: {answer.message}")
            self.rest(0.1)

    def disarm(self) -> None:
        """Let nothing move the robot until it is armed again."""
        self.call(SetBool, "safety_gate/arm", SetBool.Request(data=False))

    def estop(self, pressed: bool) -> None:
        """Press or reset the emergency stop."""
        self.call(SetBool, "safety_gate/estop", SetBool.Request(data=pressed))

    def wait_active(self, seconds: float = 60.0) -> None:
        """Wait until the policy decides: its reset service answers with success."""
        end = time.monotonic() + seconds
        while not self.call(Trigger, "policy/reset", Trigger.Request(), seconds).success:
            if time.monotonic() > end:
                raise TimeoutError("the policy has not become active")
            self.rest(0.2)

    def wait_node(self, node: str, seconds: float = 90.0) -> None:
        """Wait until a lifecycle node is active."""
        end = time.monotonic() + seconds
        name = f"{node}/get_state"
        while True:
            state = self.call(GetState, name, GetState.Request(), seconds).current_state
            if state.id == State.PRIMARY_STATE_ACTIVE:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"{node} has not become active; it is {state.label}")
            self.rest(0.2)

    def begin_episode(self, seed: int, also: Sequence[str] = ()) -> None:
        """Reset policy and simulator to a seed, in that order; the gate stays as it is.

        Args:
            seed: of the episode.
            also: further nodes with a `reset` service, which go first.
        """
        for node in also:
            self.call(Trigger, f"{node}/reset", Trigger.Request())
        self.set_parameter("policy", "seed", seed)
        self.set_parameter("sim_robot", "seed", seed)
        answer = self.call(Trigger, "policy/reset", Trigger.Request())
        if not answer.success:
            raise ValueError(f"the policy was not reset: {answer.message}")
        self._path.clear()
        self._seen.clear()
        self.call(Trigger, "sim_robot/reset", Trigger.Request())

    def end_episode(
        self, seed: int, seconds: float = 120.0, patience: float = math.inf
    ) -> dict[str, Any]:
        """Wait for the result of an episode.

        Args:
            seed: of the episode.
            seconds: longest wait.
            patience: seconds without a new pose of the tool after which it is given up.

        Raises:
            Stalled: where the patience is over.
            TimeoutError: where the wait is.
        """
        moved = [len(self._path), time.monotonic()]

        def ended() -> bool:
            if len(self._path) != moved[0]:
                moved[:] = len(self._path), time.monotonic()
            if time.monotonic() - moved[1] > patience:
                raise Stalled(f"nothing has moved for {patience:g} s")
            return self.episode.get("event") == "end" and self.episode.get("seed") == seed

        self.spin_until(ended, seconds, f"the end of episode {seed}")
        # The last pose may be on its way behind the word that the episode is over.
        self.rest(0.05)
        return {key: value for key, value in self.episode.items() if key not in ("event", "stamp")}

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=0.2)
        self.node.destroy_node()
        try_shutdown(context=self._context)
