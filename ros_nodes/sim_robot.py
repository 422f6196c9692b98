"""`sim_robot`: a Decisive environment as a robot, with the topics of a real one.

In `lockstep` it waits for a command, takes one control step and moves `/clock` on: a run is then a
function of its seed alone; with `command: trajectory` that is any environment, whose actions are
the positions. In `realtime` physics of a tabletop runs by itself, with or without commands.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.parameter import Parameter as Setting
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.options import parse_options
from envs.tabletop.base import TabletopEnv
from envs.tabletop.camera import ROBOT_CAMERA, rgbd
from envs.tabletop.scene import Configuration
from robots.streaming import Outcome, Worker
from ros_nodes import messages
from ros_nodes.any_environment import SimulatedEnvironment
from ros_nodes.parameters import Parameter, current, declare
from ros_nodes.running import COMMAND, COMMAND_TYPES, EPISODES, RELIABLE, run
from ros_nodes.simulated_camera import Pictures, SimulatedCamera
from ros_nodes.simulation import PERIOD, POINTING_DOWN, Setpoint, SimulatedRobot

STEP_NS = round(PERIOD * 1e9)


SUBSTEPS = 5
"""Physics steps between two looks at the commands in real time (48 times a second)."""
FRAME = "base_link"
CAMERA_FRAME = "camera_color_optical_frame"

PARAMETERS = (
    Parameter("env", "decisive/BlockInsertion-v0", "environment id"),
    Parameter("set", [""], "environment options, one name=value each"),
    Parameter("seed", 0, "seed of the next episode; counts up by itself", 0, 2**31 - 1,
              fixed=False),
    Parameter("stream", "evaluate", "stream of seeds", choices=("evaluate", "record", "select")),
    Parameter("stepping", "realtime", "lockstep waits for every command and publishes /clock; "
              "with command trajectory, of any environment", choices=("lockstep", "realtime")),
    Parameter("command", "twist", "kind of commands: TwistStamped, JointTrajectory or "
              "Float64MultiArray (positions)", choices=tuple(COMMAND_TYPES)),
    Parameter("command_timeout", 0.1, "seconds that a velocity acts in real time", 0.01, 1.0),
    Parameter("objects", True, "publish the exact poses of blocks, slots and zones (privileged)"),
    Parameter("camera_rate", 0.0, "pictures per second in real time, any number for one a step in "
              "lockstep; 0 for none", 0.0, 60.0),
    Parameter("policy_image", False, "publish the picture that pixel policies were trained on"),
    Parameter("auto_reset", True, "start the first episode, and the next when one ends; else wait "
        "for the reset service"),
)  # fmt: skip


class SimRobot(Node):
    """Shell around `SimulatedRobot`."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("sim_robot", **options)
        value = declare(self, PARAMETERS)
        self._lockstep = value["stepping"] == "lockstep"
        self._kind: str = value["command"]
        if self._lockstep and self._kind == "positions":
            raise ValueError("lockstep needs commands whose stamp names their observation: twist, "
                             "or trajectory for any environment")  # fmt: skip
        words = [word for word in value["set"] if word]
        settings = parse_options(value["env"], words)
        self.robot: SimulatedRobot | SimulatedEnvironment
        if self._lockstep and self._kind == "trajectory":
            self.robot = SimulatedEnvironment(value["env"], settings, value["stream"])
            self._joints = list(self.robot.action_names)
        else:
            joints = self._kind != "twist"
            self.robot = SimulatedRobot(value["env"], settings, value["stream"], joints)
            self._joints = list(self.robot.table.scene.effector.joints())
        self._table = self.robot.table
        self._auto_reset: bool = value["auto_reset"]
        self._with_view: bool = value["policy_image"]
        self._with_objects: bool = value["objects"]
        self._camera_rate: float = value["camera_rate"]
        if self._table is None and (self._with_view or self._camera_rate):
            self.robot.close()
            raise ValueError(f"{value['env']} has no camera: leave policy_image and camera_rate")
        # Of axes x, y, z the last is not driven.
        self._n = 2 if isinstance(self.robot, SimulatedEnvironment) else len(self.robot.target)
        self._setpoint = Setpoint(value["command_timeout"], self._n)
        self._lock = threading.Lock()
        self._time = STEP_NS  # simulated nanoseconds; 0 means "unset" to ROS
        self._pictured = 0.0
        self._pictures: tuple[Any, Pictures] | None = None  # of which stamp
        self._camera: SimulatedCamera | None = None
        self._drawing: Worker[tuple[Any, Configuration]] | None = None
        if self._camera_rate and not self._lockstep:
            self._camera = camera = SimulatedCamera(value["env"], settings)
            self._drawing = Worker(lambda job: camera.draw(job[1]), self._send_drawn)
        self._make_publishers()
        self.create_subscription(
            COMMAND_TYPES[self._kind], "robot/command", self._on_command, COMMAND
        )
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._waited_for = -1
        if self._auto_reset:
            self._begin()
        if self._lockstep:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self.create_timer(0.25, self._ask_again, clock=steady)
        else:
            self._thread = threading.Thread(target=self._run, name="physics", daemon=True)
            self._thread.start()

    def _make_publishers(self) -> None:
        self._clock_output = self.create_publisher(ClockMessage, "/clock", RELIABLE)
        if isinstance(self.robot, SimulatedEnvironment):
            self._observation = self.create_publisher(JointState, "observation", RELIABLE)
        self._joint_states = self.create_publisher(JointState, "joint_states", RELIABLE)
        self._episode = self.create_publisher(String, "episode", EPISODES)
        self._objects: dict[str, Any] = {}
        if self._table is not None:
            self._tool = self.create_publisher(PoseStamped, "tool_pose", RELIABLE)
            names = self._table.object_poses() if self._with_objects else ()
            self._objects = {
                name: self.create_publisher(PoseStamped, f"objects/{name}", RELIABLE)
                for name in names
            }
        if self._with_view:
            self._view = self.create_publisher(Image, "camera/policy/image_raw", RELIABLE)
        if self._camera_rate:
            self._color = self.create_publisher(Image, "camera/color/image_raw", COMMAND)
            self._depth = self.create_publisher(Image, "camera/depth/image_raw", COMMAND)
            self._color_info = self.create_publisher(
                CameraInfo, "camera/color/camera_info", COMMAND
            )

    # Episodes.

    def _begin(self) -> None:
        """Start the next episode."""
        seed = current(self, "seed")
        self.robot.reset(seed)
        self._setpoint.clear()
        self.set_parameters([Setting("seed", value=seed + 1)])
        self._time += STEP_NS
        self._tell({"event": "start", "seed": seed})
        if self._lockstep:
            self._publish_state()

    def _end(self) -> None:
        self._tell({"event": "end", **self.robot.result()})
        if self._auto_reset:
            self._begin()

    def _tell(self, event: dict[str, Any]) -> None:
        now = self._time if self._lockstep else self.get_clock().now().nanoseconds
        self._episode.publish(String(data=json.dumps({**event, "stamp": now})))

    def _on_reset(self, request: Any, response: Any) -> Any:
        with self._lock:
            self._begin()
        response.success = True
        response.message = json.dumps({"seed": self.robot.seed})
        return response

    # Commands.

    def _on_command(self, message: Any) -> None:
        try:
            if self._lockstep:
                self._step(message)
            else:
                self._take(message, time.monotonic())
        except ValueError as error:
            self.get_logger().warning(str(error), throttle_duration_sec=1.0)

    def _step(self, message: Any) -> None:
        """In lockstep: the step that a command asks for."""
        if messages.nanoseconds(message.header.stamp) != self._time or self.robot.done:
            return  # sent twice, or about an episode that is over
        if self._kind == "twist":
            over = self.robot.step(messages.twist_array(message)[:2])
        else:
            positions, _ = messages.trajectory_arrays(message, self._joints)
            over = self.robot.step(positions[-1])
        self._time += STEP_NS
        self._publish_state()
        if over:
            self._end()

    def _take(self, message: Any, now: float) -> None:
        if self._kind == "twist":
            velocity = messages.twist_array(message)[:2]
            with self._lock:
                self._setpoint.velocity(velocity, now)
            return
        if self._kind == "trajectory":
            positions, times = messages.trajectory_arrays(message, self._joints)
        else:
            positions = messages.multi_array_values(message, len(self._joints))[None]
            times = np.array([PERIOD * SUBSTEPS / 24])
        if not np.isfinite(positions).all():
            raise ValueError("a position command must be finite")
        with self._lock:
            self._setpoint.trajectory(positions[:, : self._n], times, now)

    # Time.

    def _ask_again(self) -> None:
        """In lockstep: publish once more what nobody has answered for a while."""
        if self._waited_for == self._time and not self.robot.done:
            self._publish_state()
        self._waited_for = self._time

    def _run(self) -> None:
        """Physics in real time; sleeps off what it is ahead, forgets what it is behind."""
        assert isinstance(self.robot, SimulatedRobot)  # __init__
        dt = SUBSTEPS / 240
        due = time.monotonic()
        while not self._ended.is_set():
            now = time.monotonic()
            with self._lock:
                if not self.robot.done:
                    target = self._setpoint.target(self.robot.target, now, dt)
                    if self.robot.drive(target, SUBSTEPS):
                        self._end()
                self._publish_state()
            due = max(due + dt, time.monotonic() - dt)
            self._ended.wait(max(due - time.monotonic(), 0.0))

    # Messages out.

    def _publish_state(self) -> None:
        if self._lockstep:
            stamp = messages.stamp_of(self._time)
            self._clock_output.publish(ClockMessage(clock=stamp))
        else:
            stamp = self.get_clock().now().to_msg()
        if isinstance(self.robot, SimulatedEnvironment):
            robot = self.robot
            last = messages.joint_message(robot.action_names, robot.action, None, stamp)
            self._joint_states.publish(last)
            seen = messages.joint_message(robot.observation_names, robot.observation, None, stamp)
            self._observation.publish(seen)
        else:
            names, states = zip(*self.robot.table.scene.effector.joints().items(), strict=True)
            positions, velocities = np.array([state[:2] for state in states]).T
            self._joint_states.publish(messages.joint_message(names, positions, velocities, stamp))
        if self._table is not None:
            self._publish_table(self._table, stamp)

    def _publish_table(self, table: TabletopEnv, stamp: Any) -> None:
        tip = messages.pose_message(table.scene.tip(), np.array(POINTING_DOWN), stamp, FRAME)
        self._tool.publish(tip)
        if self._objects:
            for name, (place, turn) in table.object_poses().items():
                self._objects[name].publish(
                    messages.pose_message(np.array(place), np.array(turn), stamp, FRAME)
                )
        if self._with_view:
            view = table.policy_image()
            self._view.publish(messages.image_message(view, "rgb8", stamp, CAMERA_FRAME))
        if self._camera_rate:
            self._publish_pictures(table, stamp)

    def _publish_pictures(self, table: TabletopEnv, stamp: Any) -> None:
        """In lockstep at once, in real time as soon as they are drawn."""
        if self._lockstep:
            if self._pictures is None or self._pictures[0] != stamp:
                self._pictures = (stamp, rgbd(table.scene.client, ROBOT_CAMERA))
            self._send_pictures(*self._pictures)  # asked again: nothing has moved
            return
        now = time.monotonic()
        assert self._drawing is not None  # __init__
        if now - self._pictured >= 0.98 / self._camera_rate and not self._drawing.busy:
            self._pictured = now
            self._drawing.submit((stamp, table.scene.configuration()))

    def _send_drawn(self, outcome: Outcome[tuple[Any, Configuration]]) -> None:
        """In the thread that waits for the camera's process."""
        if outcome.error is not None:
            self.get_logger().error(f"no pictures: {outcome.error}", throttle_duration_sec=1.0)
            return
        self._send_pictures(outcome.job[0], outcome.result)

    def _send_pictures(self, stamp: Any, pictures: Pictures) -> None:
        rgb, depth = pictures
        info = messages.camera_info(ROBOT_CAMERA.matrix, rgb.shape[:2], stamp, CAMERA_FRAME)
        self._color.publish(messages.image_message(rgb, "rgb8", stamp, CAMERA_FRAME))
        self._depth.publish(messages.depth_message(depth, stamp, CAMERA_FRAME))
        self._color_info.publish(info)

    def finish(self) -> None:
        """End the physics."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1.0)
        if self._camera is not None and self._drawing is not None:
            self._drawing.close()
            self._camera.close()
        self.robot.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SimRobot, argv)


if __name__ == "__main__":
    raise SystemExit(main())
