"""`navigator`: an instruction in, a path and commands of a base out.

At each viewpoint of the graph it looks around, ranks the paths ahead against the instruction (with
a world model, which says what unseen viewpoints would show), and drives to the first viewpoint of
the best. Its commands go to the safety gate. It stands still, by commands of zero, whenever it does
not drive, so that the gate's watchdog hears it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped, TwistStamped
from nav_msgs.msg import Path
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from sensor_msgs.msg import TimeReference
from std_msgs.msg import String
from std_srvs.srv import Trigger

from agents.vln.checkpoint import load_ranker
from agents.vln.navigator import NavigatorConfig
from envs.indoor.graph import NavigationGraph
from robots.driving import DriveConfig, Pose, Steering, steer
from robots.streaming import Outcome, Worker
from ros_nodes import messages
from ros_nodes.guide import Choice, Guide, floor_points, read_graph
from ros_nodes.navigation_messages import base_pose, path_message
from ros_nodes.panorama_input import PANORAMA_PARAMETERS, PanoramaInput
from ros_nodes.parameters import Parameter, declare
from ros_nodes.running import (
    COMMAND,
    LATCHED,
    NEWEST,
    RELIABLE,
    diagnostics,
    now_of,
    run,
)
from world_models.pathdreamer.model import load_world_model
from world_models.pathdreamer.panoramas import Seen

SECOND = 1_000_000_000

PARAMETERS = (
    Parameter("ranker", "houses", "ranks paths against words: shipped name, or checkpoint folder"),
    Parameter("model", "pathdreamer-houses", "world model that imagines unseen viewpoints: shipped "
              "name or folder; empty for none"),
    Parameter("samples", 3, "ideas of each unseen viewpoint", 1, 64),
    Parameter("horizon", 3, "hops looked ahead", 1, 6),
    Parameter("max_hops", 15, "a walk ends after so many", 1, 1000),
    Parameter("graph", "", "file <scan>_connectivity.json; empty waits for the topic `graph`"),
    Parameter("frame", "base_link", "frame of the commands"),
    Parameter("rate", 20.0, "commands per second", 5.0, 100.0),
    Parameter("max_age", 0.2, "greatest age in s of the base's pose", 0.02, 2.0),
    Parameter("reach", 0.5, "greatest distance in m from a viewpoint at which an errand begins",
              0.01, 10.0),
    Parameter("near", 0.3, "greatest distance in m from a viewpoint of what counts as seen there",
              0.01, 10.0),
    Parameter("speed", 0.4, "greatest speed, m/s", 0.01, 3.0),
    Parameter("turn", 0.8, "greatest rate of turning, rad/s", 0.05, 4.0),
    Parameter("braking", 0.3, "deceleration at the end of a way, m/s^2", 0.01, 5.0),
    Parameter("arrival", 0.05, "distance in m at which a viewpoint is reached", 0.005, 1.0),
    Parameter("astray", 0.4, "distance in m from the way at which the errand is given up",
              0.02, 10.0),
    Parameter("patience", 30.0, "seconds without getting nearer after which it is given up",
              1.0, 3600.0),
    *PANORAMA_PARAMETERS,
)  # fmt: skip


class Navigator(Node):
    """Shell around `Guide` and `steer`.

    `~/state` tells `idle`, `looking`, `thinking`, `driving`, `arrived` or `failed`.
    """

    def __init__(self, **options: Any) -> None:
        """Declare the parameters, load ranker and world model, open the topics."""
        super().__init__("navigator", **options)
        self.value = value = declare(self, PARAMETERS)
        torch.set_num_threads(1)
        self._ranker = load_ranker(value["ranker"])
        self._model = load_world_model(value["model"]).eval() if value["model"] else None
        self._drive = DriveConfig(
            **{name: value[name] for name in ("speed", "turn", "braking", "arrival")}
        )
        self._guide: Guide | None = None
        self._pose: tuple[Pose, int] | None = None
        self._map = ""  # frame of the poses
        self._said_of = -1  # stamp of the pose behind the last command
        self._state, self._why, self._instruction = "idle", "waiting for an instruction", ""
        self._since = 0  # ros nanoseconds of the present state
        self._way: tuple[Any, Any] | None = None
        self._nearest: tuple[float, int] = (math.inf, 0)  # to the end of the way; steady ns
        self._outcome: Outcome[Guide] | None = None
        self._seconds = 0.0
        self._counts = {"errands": 0, "refused": 0, "hops": 0, "arrived": 0, "failed": 0}
        self._command = self.create_publisher(TwistStamped, "policy/command", COMMAND)
        self._inference = self.create_publisher(TimeReference, "policy/inference", COMMAND)
        self._plan = self.create_publisher(Path, "plan", LATCHED)
        self._states = self.create_publisher(String, "~/state", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", RELIABLE)
        self._worker: Worker[Guide] = Worker(Guide.choose, self._chosen)
        self.create_subscription(PoseStamped, "base_pose", self._on_pose, NEWEST)
        self.create_subscription(String, "instruction", self._on_instruction, RELIABLE)
        PanoramaInput(self, value, self._on_panorama)
        if value["graph"]:
            self._use(read_graph(File(value["graph"])))
        else:
            self.create_subscription(String, "graph", self._on_graph, LATCHED)
        self.create_service(Trigger, "~/cancel", self._on_cancel)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(1.0 / value["rate"], self._control, clock=steady)
        self.create_timer(1.0, self._report, clock=steady)
        self._tell()

    # Messages in.

    def _on_pose(self, message: Any) -> None:
        try:
            self._pose = base_pose(message), messages.nanoseconds(message.header.stamp)
            self._map = message.header.frame_id
        except ValueError as error:
            self.get_logger().warning(f"base_pose: {error}", throttle_duration_sec=1.0)

    def _on_graph(self, message: Any) -> None:
        try:
            told = json.loads(message.data)
            if not isinstance(told, dict):
                raise ValueError(f"a graph is an object, got {type(told).__name__}")
            entries = told.get("connectivity")
            graph = NavigationGraph.from_connectivity(str(told.get("scan")), entries)
        except ValueError as error:
            self.get_logger().error(f"graph: {error}")
            return
        if self._guide is None or not same(graph, self._guide.graph):
            self._worker.advance()
            self._use(graph)

    def _use(self, graph: NavigationGraph) -> None:
        config = NavigatorConfig(self.value["horizon"], None, self.value["max_hops"])
        self._stand("idle", f"in {graph.scan}")
        self._guide = Guide(graph, self._ranker, self._model, self.value["samples"], config)

    def _on_instruction(self, message: Any) -> None:
        try:
            self._begin(message.data)
        except ValueError as error:
            self._counts["refused"] += 1
            self._stand("idle", f"refused: {error}")
            self.get_logger().warning(f"instruction refused: {error}")

    def _begin(self, instruction: str) -> None:
        if self._guide is None:
            raise ValueError("no graph is known yet")
        pose = self._fresh_pose()
        if pose is None:
            raise ValueError("where the base stands is not known, or too old")
        viewpoint, away = self._guide.nearest(pose)
        if away > self.value["reach"]:
            raise ValueError(f"the nearest viewpoint is {away:.1f} m away, more than `reach`")
        self._worker.advance()  # what an older errand is still thinking counts no more
        # A guide of its own: the worker may still be busy with the old one.
        old = self._guide
        self._use(old.graph)
        self._guide.begin(instruction, viewpoint, pose.yaw)
        self._counts["errands"] += 1
        self._instruction = instruction[:200]
        self._stand("looking", f"at viewpoint {viewpoint}")

    def _on_panorama(self, seen: Seen, stamp: int) -> None:
        guide = self._guide
        if self._state != "looking" or guide is None or stamp < self._since:
            return
        here = guide.graph.positions[guide.history[-1]]
        away = float(np.linalg.norm(seen.position[:2] - here[:2]))
        if away > self.value["near"]:
            self.get_logger().warning(
                f"the panorama was taken {away:.2f} m from the viewpoint, more than `near`",
                throttle_duration_sec=1.0,
            )
            return
        guide.see(seen)
        self._stand("thinking", f"at viewpoint {guide.history[-1]}")
        self._worker.submit(guide)

    def _chosen(self, outcome: Outcome[Guide]) -> None:
        self._outcome = outcome  # taken up by the next tick, in the executor's thread

    def _on_cancel(self, request: Any, response: Any) -> Any:
        self._worker.advance()
        self._stand("idle", "cancelled")
        response.success, response.message = True, "standing still"
        return response

    # Driving.

    def _control(self) -> None:
        pose = self._fresh_pose()
        if pose is None or self._pose is None:
            return  # nothing is said, and the gate stops the base
        if self._pose[1] == self._said_of:
            return
        self._said_of = self._pose[1]
        if self._state == "thinking":
            self._take_up()
        steering = Steering(0.0, 0.0, False, 0.0)
        if self._state == "driving":
            steering = self._follow(pose)
        self._send(steering, self._pose[1])

    def _take_up(self) -> None:
        """What the worker has chosen, if it has."""
        outcome, self._outcome = self._outcome, None
        if outcome is None or outcome.epoch != self._worker.epoch or self._guide is None:
            return
        self._seconds = outcome.seconds
        if outcome.error is not None:
            self._fail(f"{type(outcome.error).__name__}: {outcome.error}")
            return
        choice: Choice = outcome.result
        points = floor_points(self._guide.graph, choice.path)
        stamp = self.get_clock().now().to_msg()
        self._plan.publish(path_message(points, stamp, self._map))
        if choice.stop:
            self._counts["arrived"] += 1
            self._stand("arrived", f"at viewpoint {choice.path[0]}")
            return
        self._way = points[0], points[1]
        self._nearest = math.inf, now_of(self).steady
        self._guide.go(choice.path[1])
        self._stand("driving", f"to viewpoint {choice.path[1]}")

    def _follow(self, pose: Pose) -> Steering:
        assert self._way is not None
        assert self._guide is not None
        found = steer(pose, *self._way, self._drive)
        now = now_of(self).steady
        left = math.dist(pose[:2], self._way[1][:2])
        if left < self._nearest[0] - 0.02:
            self._nearest = left, now
        if found.arrived:
            self._counts["hops"] += 1
            if len(self._guide.history) > self._guide.max_hops:
                self._fail(f"no end after {self._guide.max_hops} hops")
            else:
                self._stand("looking", f"at viewpoint {self._guide.history[-1]}")
        elif found.off > self.value["astray"]:
            self._fail(f"{found.off:.2f} m off the way, more than `astray`")
        elif now - self._nearest[1] > self.value["patience"] * SECOND:
            self._fail("it gets no nearer: is the gate armed, or the way blocked?")
        return found if self._state == "driving" else Steering(0.0, 0.0, False, found.off)

    def _fail(self, why: str) -> None:
        self._counts["failed"] += 1
        self._stand("failed", why)

    def _fresh_pose(self) -> Pose | None:
        if self._pose is None:
            return None
        age = self.get_clock().now().nanoseconds - self._pose[1]
        return self._pose[0] if abs(age) <= self.value["max_age"] * SECOND else None

    # Messages out.

    def _send(self, steering: Steering, seen: int) -> None:
        stamp = messages.stamp_of(seen)
        heard = TimeReference(time_ref=stamp, source="navigator")
        heard.header.stamp = stamp
        self._inference.publish(heard)
        now = self.get_clock().now().to_msg()
        self._command.publish(
            messages.twist_message(
                [steering.speed, 0.0, 0.0], [0.0, 0.0, steering.turn], now, self.value["frame"]
            )
        )

    def _stand(self, state: str, why: str) -> None:
        self._state, self._why = state, why
        self._since = self.get_clock().now().nanoseconds
        self._tell()

    def _tell(self) -> None:
        history = [] if self._guide is None else list(self._guide.history)
        told = {
            "state": self._state,
            "why": self._why,
            "instruction": self._instruction,
            "viewpoints": history,
        }
        self._states.publish(String(data=json.dumps(told)))

    def _report(self) -> None:
        facts = {**self._counts, "ms_per_decision": round(1e3 * self._seconds)}
        level = DiagnosticStatus.WARN if self._state == "failed" else DiagnosticStatus.OK
        said = diagnostics(self, f"{self._state}: {self._why}", facts, level)
        self._diagnostics.publish(said)

    def finish(self) -> None:
        """Stand still, and end the thread."""
        self._worker.close()
        if self._pose is not None:
            self._send(Steering(0.0, 0.0, False, 0.0), self._pose[1])


def same(one: NavigationGraph, other: NavigationGraph) -> bool:
    """Whether two graphs are of one building and say the same: told again, it ends no errand."""
    return (
        one.viewpoints == other.viewpoints
        and np.array_equal(one.positions, other.positions)
        and np.array_equal(one.adjacent, other.adjacent)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(Navigator, argv)


if __name__ == "__main__":
    raise SystemExit(main())
