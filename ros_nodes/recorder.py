"""`recorder`: demonstrations from a running robot, teleoperated or not, into a data set.

It listens to what a policy would see and to what reached the robot, never commands anything, and
keeps every finished episode on disk at once: a kill loses only the one that is running.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from decisive.data_files import write_demonstrations
from decisive.options import parse_options
from decisive.record import destination
from learning.shards import Recording
from robots.commanded_motion import PositionTrack, VelocityTrack
from robots.episode_layout import PairingConfig
from robots.episode_recording import make_pairing
from robots.episode_session import EpisodeSession, Finished
from robots.matching import Feature
from robots.streaming import Workspace
from ros_nodes import messages
from ros_nodes.parameters import Parameter, declare
from ros_nodes.recorded_data import (
    Target,
    environment_target,
    plain_target,
    recorded_meta,
    to_episode,
)
from ros_nodes.running import COMMAND_TYPES, LATCHED, RELIABLE, run

INPUTS = {"pose": PoseStamped, "joints": JointState, "image": Image}
TWIST_AXES = ("x", "y", "z", "rx", "ry", "rz")
"""Names of the numbers of a TwistStamped."""

EVERY_SAMPLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.BEST_EFFORT
)
"""Unlike a policy, a recorder wants more than the newest, also after it had to wait for a disk."""

EVERY_STEP = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE
)
"""For commands, and in lockstep: with 10, a pause of 0.3 s has lost observations."""

PARAMETERS = (
    Parameter("out", "recorded.npz", "data set to write: a file .npz or .hdf5, or a Minari id"),
    Parameter("overwrite", False, "replace a data set of this name"),
    Parameter("env", "decisive/BlockInsertion-v0", "environment whose data set it shall be; empty: "
              "what `fields` and `action_fields` say"),
    Parameter("set", [""], "environment options, one name=value each"),
    Parameter("features", [""], "where each field of the observation comes from, one line "
              "FIELD = SOURCE:TOPIC PART each; empty: as the names of the fields suggest"),
    Parameter("fields", [""], "without env: fields of the state, NAME SIZE KIND UNIT each"),
    Parameter("action_fields", ["delta_xy 2 vector m"], "without env: fields of the action"),
    Parameter("action_low", [-0.03, -0.03], "without env: least action of every axis, m or rad"),
    Parameter("action_high", [0.03, 0.03], "without env: greatest action of every axis, m or rad"),
    Parameter("command", "twist", "kind of commands on robot/command: TwistStamped, "
              "JointTrajectory or Float64MultiArray (positions)", choices=tuple(COMMAND_TYPES)),
    Parameter("joints", ["x", "y", "z"], "names of the axes that positions are commanded of"),
    Parameter("axes", ["x", "y"], "axes of the action: of x y z rx ry rz for twist, else of "
              "`joints`"),
    Parameter("rate", 10.0, "rows per second", 0.5, 100.0),
    Parameter("hold", 0.1, "longest time in s that a velocity acts, as the robot has it",
              0.005, 10.0),
    Parameter("workspace_low", [0.15, -0.48], "least commanded position in m, for features that "
              "are the reference"),
    Parameter("workspace_high", [0.65, 0.48], "greatest commanded position in m"),
    Parameter("lead", 0.04, "greatest distance in m per axis of the commanded from the measured "
              "position", 0.001, 1.0),
    Parameter("max_age", 0.1, "greatest age in s of an observation", 0.01, 5.0),
    Parameter("max_skew", 0.05, "greatest time in s between the observations of one row",
              0.0, 1.0),
    Parameter("lockstep", False, "for a simulator that waits for every command: the stamp of a "
              "command names its observation"),
    Parameter("follow_episodes", True, "begin and end with the words of the topic `episode`"),
    Parameter("keep_failures", False, "keep episodes that did not succeed"),
    Parameter("episodes", 0, "write the data set after so many and record no more; 0 goes on",
              0, 1_000_000),
    Parameter("longest", 600.0, "seconds after which an episode is given up", 1.0, 86_400.0),
    Parameter("expert", "teleoperation", "who or what acts, for the data set"),
    Parameter("license", "", "licence of the data, for the data set"),
)  # fmt: skip


def make_target(value: dict[str, Any]) -> Target:
    """The data set that the parameters ask for.

    Raises:
        ValueError: where they contradict each other.
    """
    lines = value["features"]
    if value["env"]:
        options = parse_options(value["env"], [word for word in value["set"] if word])
        return environment_target(value["env"], options, lines)
    return plain_target(
        value["fields"],
        value["action_fields"],
        value["action_low"],
        value["action_high"],
        lines,
    )


def pairing_config(value: dict[str, Any], target: Target) -> PairingConfig:
    """How rows are made, from parameter values.

    Raises:
        ValueError: where they contradict each other or the data set.
    """
    names = TWIST_AXES if value["command"] == "twist" else tuple(value["joints"])
    unknown = [name for name in value["axes"] if name not in names]
    if unknown or len(value["axes"]) != len(target.low):
        raise ValueError(
            f"axes must be {len(target.low)} of {', '.join(names)}, got {', '.join(value['axes'])}"
        )
    return PairingConfig(
        features=target.features,
        axes=tuple(names.index(name) for name in value["axes"]),
        workspace=Workspace(
            tuple(value["workspace_low"]), tuple(value["workspace_high"]), value["lead"]
        ),
        **{
            name: value[name]
            for name in ("rate", "lockstep", "max_age", "max_skew", "hold", "longest")
        },
    )


class Recorder(Node):
    """Shell around `EpisodeSession`: messages to samples, finished episodes to shards."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and open the topics; `options` go to the base class."""
        super().__init__("recorder", **options)
        self._value = declare(self, PARAMETERS)
        self._target = make_target(self._value)
        config = pairing_config(self._value, self._target)
        positions = self._value["command"] != "twist"
        self.session = EpisodeSession(make_pairing(config, positions))
        self._name, self._staging = destination(self._value["out"], self._value["overwrite"])
        self.recording = Recording(self._staging, self._signature())
        self._unheard = {"robot/command", *(f.topic for f in config.sources.values())}
        self._counts: Counter[str] = Counter()
        self._clipped = 0
        self._saved = False
        self._said = ""
        self._last = ""
        self._subscribe(config)
        self._state = self.create_publisher(String, "~/state", LATCHED)
        for name in ("start", "stop", "discard", "save"):
            self.create_service(Trigger, f"~/{name}", getattr(self, f"_on_{name}"))
        self.create_timer(0.05, self._poll, clock=Clock(clock_type=ClockType.STEADY_TIME))
        if self.recording.kept:
            self.get_logger().info(f"going on after {self.recording.kept} episodes")

    def _signature(self) -> dict[str, Any]:
        """What recordings must share to go on with each other's episodes."""
        names = ("command", "axes", "rate", "lockstep", "keep_failures", "expert", "license")
        facts = {**self._target.meta(), **{name: self._value[name] for name in names}}
        plain: dict[str, Any] = json.loads(json.dumps(facts))  # tuples become lists
        return plain

    def _subscribe(self, config: PairingConfig) -> None:
        quality = EVERY_STEP if config.lockstep else EVERY_SAMPLE
        for key, feature in config.sources.items():
            self.create_subscription(
                INPUTS[feature.source], feature.topic, self._reader(key, feature), quality
            )
        self.create_subscription(
            COMMAND_TYPES[self._value["command"]], "robot/command", self._on_command, EVERY_STEP
        )
        if self._value["follow_episodes"]:
            # Not latched: of an episode that runs already, the beginning would be missing.
            self.create_subscription(String, "episode", self._on_episode, RELIABLE)

    # What comes in.

    def _reader(self, key: str, feature: Feature) -> Any:
        def read(message: Any) -> None:
            try:
                stamp = messages.nanoseconds(message.header.stamp)
                taken = read_feature(message, feature)
            except ValueError as error:
                self._refuse(f"malformed {feature.topic}", error)
                return
            self._unheard.discard(feature.topic)
            now = self.get_clock().now().nanoseconds
            if not self.session.pairing.observe(key, stamp, taken, now):
                self._counts[f"left out {feature.topic}"] += 1

        return read

    def _on_command(self, message: Any) -> None:
        commands = self.session.pairing.commands
        now = self.get_clock().now().nanoseconds
        self._unheard.discard("robot/command")
        try:
            if isinstance(commands, VelocityTrack):
                stamp = messages.nanoseconds(message.header.stamp)
                commands.add(stamp or now, messages.twist_array(message))
            else:
                self._take_positions(commands, message, now)
        except ValueError as error:
            self._refuse("malformed command", error)

    def _take_positions(self, commands: PositionTrack, message: Any, now: int) -> None:
        joints = self._value["joints"]
        if self._value["command"] == "trajectory":
            positions, times = messages.trajectory_arrays(message, joints)
            commands.add(messages.nanoseconds(message.header.stamp) or now, positions, times)
        else:
            values = messages.multi_array_values(message, len(joints))
            commands.add(now, values[None], np.zeros(1))

    def _on_episode(self, message: Any) -> None:
        now = self.get_clock().now().nanoseconds
        try:
            self.session.word(message.data, now, time.monotonic_ns())
        except ValueError as error:
            self._refuse("malformed episode", error)

    def _refuse(self, what: str, error: ValueError) -> None:
        self._counts[what] += 1
        self.get_logger().warning(f"{what}: {error}", throttle_duration_sec=1.0)

    # What people ask for.

    def _on_start(self, request: Any, response: Any) -> Any:
        if self.session.running:
            response.success, response.message = False, "an episode is running; stop it first"
            return response
        self.session.start(self.get_clock().now().nanoseconds, time.monotonic_ns())
        response.success, response.message = True, "recording"
        return response

    def _on_stop(self, request: Any, response: Any) -> Any:
        return self._close_episode(response, keep=True)

    def _on_discard(self, request: Any, response: Any) -> Any:
        return self._close_episode(response, keep=False)

    def _close_episode(self, response: Any, keep: bool) -> Any:
        if not self.session.running:
            response.success, response.message = False, "no episode is running"
            return response
        now = time.monotonic_ns()
        if keep:
            # Whoever stops it by hand has seen that it is good, and would discard it else.
            self.session.stop(self.get_clock().now().nanoseconds, now, {"success": True})
        else:
            self.session.discard(now)
        response.success, response.message = True, "kept" if keep else "discarded"
        return response

    def _on_save(self, request: Any, response: Any) -> Any:
        try:
            place = self._save()
        except (ValueError, OSError) as error:
            response.success, response.message = False, " ".join(str(error).split())
            return response
        response.success, response.message = True, str(place)
        return response

    # What goes to disk.

    def _poll(self) -> None:
        for finished in self.session.poll(time.monotonic_ns()):
            self._keep(finished)
        self._announce()

    def _full(self) -> bool:
        return 0 < self._value["episodes"] <= self.recording.kept

    def _keep(self, finished: Finished) -> None:
        if self._full():
            return
        why, episode = finished.why, None
        # Where nobody tells whether it succeeded, whoever records decides, by discarding.
        success = finished.success is not False
        if finished.arrays is not None and not (success or self._value["keep_failures"]):
            why = "failed"
        elif finished.arrays is not None:
            try:
                episode, clipped = to_episode(finished.arrays, self._target, success)
                self._clipped += clipped
                why = f"kept, {len(episode.actions)} actions"
            except ValueError as error:
                why = str(error)
        self.recording.append([episode], compress=False)
        self._last = f"episode {self.recording.attempts - 1}: {why}"
        self.get_logger().info(self._last)
        if self._full():
            self._save()

    def _save(self) -> Path:
        """Write all episodes so far as one data set; the shards stay until the node ends."""
        value = self._value
        names = ("expert", "command", "rate", "lockstep")
        facts = {name: value[name] for name in names} | {"clipped_values": self._clipped}
        if value["license"]:
            facts["license"] = value["license"]
        demos = self.recording.demonstrations(
            self._target.low, self._target.high, recorded_meta(self._target, **facts)
        )
        place = write_demonstrations(demos, self._name, value["overwrite"] or self._saved)
        self._saved = True
        return place

    def _announce(self) -> None:
        state = json.dumps(
            {
                "recording": self.session.running,
                "kept": self.recording.kept,
                "failed": self.recording.failed,
                "unheard": sorted(self._unheard),
                "last": self._last,
                "counts": dict(self._counts),
            }
        )
        if state != self._said:
            self._said = state
            self._state.publish(String(data=state))

    def finish(self) -> bool:
        """Write the data set; an episode that is running is left out."""
        end = time.monotonic_ns() + 10 * 10**9  # what has ended already needs no more waiting
        for finished in self.session.poll(end):
            self._keep(finished)
        if self.recording.kept:
            self.get_logger().info(f"wrote {self._save()}")
            shutil.rmtree(self._staging)
        elif not self.recording.attempts:
            shutil.rmtree(self._staging)  # nothing to go on from
        return True


def read_feature(message: Any, feature: Feature) -> Any:
    """What a message says for a feature, as `robots.episode_recording.lay_out` takes it.

    Raises:
        ValueError: if it is malformed.
    """
    if feature.source == "pose":
        return messages.pose_arrays(message)
    if feature.source == "joints":
        return messages.joint_positions(message, feature.part.split(","))
    pixels = messages.image_array(message)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pictures must be rgb8 or bgr8, got {message.encoding}")
    return pixels.copy()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(Recorder, argv)


if __name__ == "__main__":
    raise SystemExit(main())
